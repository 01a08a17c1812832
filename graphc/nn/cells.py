"""Recurrent cells: one step of an RNN, an LSTM or a GRU, from a state to the next.

A cell is its parameters and its step. `rnn_cell`, `lstm_cell` and `gru_cell` make one step; the layers of `recurrent`
repeat the same cell along a sequence, so a model that generates, compiled beside the one that was trained, shares its
parameters by their names.

Two layouts of the parameters are known, for n gates, C features, a hidden size H and a state of size S:

    "graphc"   W (C, n·H), U (S, n·H), b (n·H); gates f, i, g, o of the LSTM, r, z, h of the GRU
    "torch"    weight_ih_l0 (n·H, C), weight_hh_l0 (n·H, S), bias_ih_l0, bias_hh_l0 (n·H), weight_hr_l0 (S, H);
               gates i, f, g, o and r, z, n, as in PyTorch's state dicts
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import TraceError
from ..frontend.elementwise import relu, sigmoid, tanh
from ..frontend.model import param
from ..frontend.shape import broadcast_to, split
from ..frontend.tensor import Tensor, fail, same_size, term
from ..frontend.trace import scope

State = tuple[Tensor, ...]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"tanh": tanh, "sigmoid": sigmoid, "relu": relu}


@dataclass(frozen=True)
class Cell:
    """A cell with its parameters made: the (name, size) of each array of its state, of which the first is its output."""

    carries: tuple[tuple[str, int], ...]
    step: Callable[[Tensor, State], State]


@dataclass(frozen=True)
class Kind:
    """What a layer is made of: a cell for so many features; `suffix` ends the names of PyTorch's layout."""

    name: str
    carries: tuple[tuple[str, int], ...]
    make: Callable[[int, str], Cell]


def chosen(what: str, value: Any, known: tuple[Any, ...]) -> Any:
    """The value, if it is one that is known; TraceError otherwise."""
    if value not in known:
        raise TraceError(f"{what}: {value!r}", how=f"one of {', '.join(repr(k) for k in known)}")
    return value


def natural(what: str, value: Any) -> int:
    """The value, if it is a number of at least 1; TraceError otherwise."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise TraceError(f"{what} is {value!r}, not a whole number of at least 1")
    return value


# -- parameters ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Weights:
    """How a cell's parameters are made: their layout, whether there are biases, and how W and U begin."""

    layout: str = "graphc"
    bias: bool = True
    init: Any = None
    recurrent_init: Any = None

    def __post_init__(self) -> None:
        chosen("there is no layout", self.layout, ("graphc", "torch"))

    @property
    def torch(self) -> bool:
        return self.layout == "torch"

    def make(self, features: int, state: int, width: int, suffix: str) -> Affine:
        """The parameters of all gates, `width` numbers in all, of an input and a state."""
        if self.torch:
            weight = param(f"weight_ih_{suffix}", (width, features), init=self.init).T
            recurrent = param(f"weight_hh_{suffix}", (width, state), init=self.recurrent_init).T
            biases = [param(f"bias_{k}_{suffix}", (width,)) for k in ("ih", "hh")] if self.bias else [None, None]
            return Affine(weight, recurrent, *biases)
        weight = param("W", (features, width), init=self.init)
        recurrent = param("U", (state, width), init=self.recurrent_init)
        return Affine(weight, recurrent, param("b", (width,)) if self.bias else None)

    def projection(self, hidden: int, size: int, suffix: str) -> Tensor:
        """What takes a hidden state to a smaller one, (hidden, size)."""
        return param(f"weight_hr_{suffix}", (size, hidden)).T if self.torch else param("R", (hidden, size))


@dataclass(frozen=True)
class Affine:
    """x W + b and h U + b′ of all gates side by side; PyTorch alone has b′."""

    W: Tensor
    U: Tensor
    b: Tensor | None = None
    recurrent_b: Tensor | None = None

    def input(self, x: Tensor) -> Tensor:
        """x W + b: of no state, so that a loop computes it for all its steps at once."""
        y = x @ self.W
        return y if self.b is None else y + self.b

    def recurrent(self, h: Tensor) -> Tensor:
        """h U + b′."""
        y = h @ self.U
        return y if self.recurrent_b is None else y + self.recurrent_b

    def both(self, x: Tensor, h: Tensor) -> Tensor:
        """Their sum: one product of the state for all gates."""
        return self.input(x) + self.recurrent(h)


# -- kinds of cells --------------------------------------------------------------------------------------------------
def rnn_kind(
    hidden: int,
    weights: Weights,
    activation: str = "tanh",
    leak: float | str | None = None,
    skip: int | None = None,
) -> Kind:
    """See `graphc.nn.rnn`."""
    g = ACTIVATIONS[chosen("rnn: there is no activation", activation, tuple(ACTIVATIONS))]
    natural("rnn: the hidden size", hidden)
    delay = 1 if skip is None else natural("rnn: the delay of skip=", skip)
    if isinstance(leak, str):
        chosen("rnn: there is no leak", leak, ("learned",))
    elif leak is not None and not 0 <= leak < 1:
        raise TraceError(f"rnn: leak={leak!r}", how='a number from 0 to below 1, or "learned"')
    if weights.torch and (leak is not None or skip is not None):
        raise TraceError("rnn: PyTorch's layout has neither leak= nor skip=", how='layout="graphc"')
    carries = (("h", hidden),) * delay

    def make(features: int, suffix: str) -> Cell:
        p = weights.make(features, hidden, hidden, suffix)
        earlier = param("V", (hidden, hidden), init=weights.recurrent_init) if skip is not None else None
        kept: Any = sigmoid(param("leak", (hidden,))) if leak == "learned" else leak

        def step(x: Tensor, state: State) -> State:
            h = state[0]
            a = p.both(x, h)
            new = g(a if earlier is None else a + state[-1] @ earlier)
            if kept is not None:
                new = kept * h + (1 - kept) * new
            return (term("h", new), *state[:-1])

        return Cell(carries, step)

    return Kind("rnn", carries, make)


def lstm_kind(hidden: int, weights: Weights, peepholes: bool = False, projection: int | None = None) -> Kind:
    """See `graphc.nn.lstm`."""
    natural("lstm: the hidden size", hidden)
    size = hidden if projection is None else natural("lstm: the size of the projection", projection)
    if weights.torch and peepholes:
        raise TraceError("lstm: PyTorch's layout has no peepholes", how='layout="graphc"')
    carries = (("h", size), ("c", hidden))

    def make(features: int, suffix: str) -> Cell:
        p = weights.make(features, size, 4 * hidden, suffix)
        smaller = None if projection is None else weights.projection(hidden, size, suffix)
        holes = split(param("P", (3 * hidden,)), 3) if peepholes else None

        def step(x: Tensor, state: State) -> State:
            h, c = state
            blocks = split(term("a", p.both(x, h)), 4, axis=-1)
            f, i, g, o = (blocks[k] for k in ((1, 0, 2, 3) if weights.torch else (0, 1, 2, 3)))
            if holes is not None:
                f, i = f + holes[0] * c, i + holes[1] * c
            f, i, g = term("f", sigmoid(f)), term("i", sigmoid(i)), term("g", tanh(g))
            c = term("c", f * c + i * g)
            if holes is not None:
                o = o + holes[2] * c
            h = term("o", sigmoid(o)) * tanh(c)
            return term("h", h if smaller is None else h @ smaller), c

        return Cell(carries, step)

    return Kind("lstm", carries, make)


def gru_kind(hidden: int, weights: Weights, reset: str | None = None, update: str | None = None) -> Kind:
    """See `graphc.nn.gru`."""
    natural("gru: the hidden size", hidden)
    usual = ("after", "old") if weights.torch else ("before", "new")
    after = chosen("gru: there is no reset", reset or usual[0], ("before", "after")) == "after"
    old = chosen("gru: there is no update", update or usual[1], ("new", "old")) == "old"
    carries = (("h", hidden),)

    def make(features: int, suffix: str) -> Cell:
        p = weights.make(features, hidden, 3 * hidden, suffix)

        def before(x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
            """z and the candidate; the state is reset before its product."""
            a, gates, last = term("a", p.input(x)), slice(0, 2 * hidden), slice(2 * hidden, None)
            rz, n = a[:, gates] + h @ p.U[:, gates], a[:, last]
            if p.recurrent_b is not None:
                rz, n = rz + p.recurrent_b[gates], n + p.recurrent_b[last]
            r, z = split(rz, 2, axis=-1)
            return sigmoid(z), tanh(n + (term("r", sigmoid(r)) * h) @ p.U[:, last])

        def behind(x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
            """The same, reset after the product, which then is one for all gates."""
            xr, xz, xn = split(p.input(x), 3, axis=-1)
            hr, hz, hn = split(p.recurrent(h), 3, axis=-1)
            return sigmoid(xz + hz), tanh(xn + term("r", sigmoid(xr + hr)) * hn)

        def step(x: Tensor, state: State) -> State:
            (h,) = state
            z, candidate = (behind if after else before)(x, h)
            z, candidate = term("z", z), term("h̃", candidate)
            return (term("h", z * h + (1 - z) * candidate if old else (1 - z) * h + z * candidate),)

        return Cell(carries, step)

    return Kind("gru", carries, make)


# -- one step --------------------------------------------------------------------------------------------------------
def rnn_cell(
    x: Tensor,
    state: Any,
    *,
    name: str = "rnn",
    activation: str = "tanh",
    leak: float | str | None = None,
    skip: int | None = None,
    bias: bool = True,
    layout: str = "graphc",
    init: Any = None,
    recurrent_init: Any = None,
) -> Any:
    """One step of `graphc.nn.rnn`: x (B, C) and a state (B, H) to the next state, over the layer's parameters."""

    def kind(sizes: list[int]) -> Kind:
        return rnn_kind(sizes[0], Weights(layout, bias, init, recurrent_init), activation, leak, skip)

    return _one_step(name, x, state, kind)


def lstm_cell(
    x: Tensor,
    state: Any,
    *,
    name: str = "lstm",
    peepholes: bool = False,
    bias: bool = True,
    layout: str = "graphc",
    init: Any = None,
    recurrent_init: Any = None,
) -> Any:
    """One step of `graphc.nn.lstm`: x (B, C) and a state (h, c) to the next state, over the layer's parameters.

    h is smaller than c where the layer projects.
    """

    def kind(sizes: list[int]) -> Kind:
        size, hidden = sizes if len(sizes) == 2 else (sizes[0],) * 2
        projection = None if size == hidden else size
        return lstm_kind(hidden, Weights(layout, bias, init, recurrent_init), peepholes, projection)

    return _one_step(name, x, state, kind)


def gru_cell(
    x: Tensor,
    state: Any,
    *,
    name: str = "gru",
    reset: str | None = None,
    update: str | None = None,
    bias: bool = True,
    layout: str = "graphc",
    init: Any = None,
    recurrent_init: Any = None,
) -> Any:
    """One step of `graphc.nn.gru`: x (B, C) and a state (B, H) to the next state, over the layer's parameters."""

    def kind(sizes: list[int]) -> Kind:
        return gru_kind(sizes[0], Weights(layout, bias, init, recurrent_init), reset, update)

    return _one_step(name, x, state, kind)


def _one_step(name: str, x: Tensor, state: Any, kind_of: Callable[[list[int]], Kind]) -> Any:
    given = tuple(state) if isinstance(state, (tuple, list)) else (state,)
    if x.broken or any(s.broken for s in given):
        return Tensor(None)
    try:
        if x.ndim != 2:
            raise TraceError(f"{name}: a cell takes (batch, features), not {x.node.type}")
        for s in given:
            if s.ndim != 2 or not isinstance(s.shape[-1], int):
                raise TraceError(f"{name}: a state is an array (batch, size) of known size, not {s.node.type}")
        kind = kind_of([s.shape[-1] for s in given])
        given = fitting(name, kind, state, x.node.shape[0], x)
        with scope(name):
            return public(kind.make(x.shape[-1], "l0").step(x, given))
    except TraceError as error:
        return fail(error)


def public(state: State) -> Any:
    """A state as people have it: one array, or a tuple of several."""
    return state[0] if len(state) == 1 else state


def fitting(name: str, kind: Kind, state: Any, batch: Any, x: Tensor) -> State:
    """A state as a tuple; TraceError, or a check of the call, unless its arrays are (batch, size) of the type of x."""
    given = tuple(state) if isinstance(state, (tuple, list)) else (state,)
    names = ", ".join(n for n, _ in kind.carries)
    if len(given) != len(kind.carries) or not all(isinstance(s, Tensor) for s in given):
        what = f"{len(given)} values" if isinstance(state, (tuple, list)) else type(state).__name__
        raise TraceError(
            f"{name}: the initial state is {what}, not {len(kind.carries)} array{'s' * (len(kind.carries) > 1)} ({names})"
        )
    for (own, size), s in zip(kind.carries, given, strict=True):
        message = f"{name}: the initial state {own} is {s.node.type}, not {x.dtype}[{batch}, {size}]"
        how = "a state has a row for each sequence of the batch"
        if s.dtype is not x.dtype or s.ndim != 2 or s.shape[1] != size:
            raise TraceError(message, how=how)
        same_size(s.node.shape[0], batch, message, how)
    return tuple(broadcast_to(s, (batch, s.shape[1])) for s in given)
