"""Recurrent layers: cells repeated along sequences, stacked, in one direction or both.

All take x of shape (B, T, C), or (T, B, C) with time_major=True, and return (hs, last): the outputs of all steps, and
the state after the last one, an array (B, H), or (h, c) of an LSTM. Of a bidirectional layer the state is a pair
(forward, backward), of several layers a list by layer. The options that all share:

    layers=1              so many on top of each other; their parameters are under layer0/, layer1/, …
    dropout=0.0           the rate at which outputs are dropped between layers, in training
    bidirectional=False   a second cell runs from the end to the beginning; parameters under forward/ and backward/
    merge="concat"        how the two outputs meet: "concat", "sum", "product" or "average"
    reverse=False         from the last step to the first; the outputs keep the places of the inputs
    initial=None          the first state, of the form of `last`; None begins at zero, "learned" with parameters h0, c0
    lengths=None          (B,) integers: the steps of each sequence; beyond them outputs are 0 and states stay
    time_major=False      the steps are the first axis, the batch is the second
    checkpoint=None       see gc.scan
    layout="graphc"       of the parameters; "torch" has PyTorch's names, shapes and order of the gates: see `cells`
    bias=True             b, a number for each unit of each gate
    init, recurrent_init  how W and U begin: Glorot uniform unless given
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from typing import Any, TypedDict, Unpack

from ..errors import TraceError
from ..frontend.create import zeros
from ..frontend.model import param
from ..frontend.random import dropout
from ..frontend.scan import scan
from ..frontend.shape import broadcast_to, concat
from ..frontend.tensor import Tensor, Value, fail
from ..frontend.trace import scope
from .cells import Cell, Kind, State, Weights, chosen, fitting, gru_kind, lstm_kind, natural, public, rnn_kind

MERGES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "concat": lambda a, b: concat([a, b], axis=-1),
    "sum": lambda a, b: a + b,
    "product": lambda a, b: a * b,
    "average": lambda a, b: (a + b) * 0.5,
}


class Options(TypedDict, total=False):
    """The options that all layers share."""

    layers: int
    dropout: float
    bidirectional: bool
    merge: str
    reverse: bool
    initial: Any
    lengths: Value | None
    time_major: bool
    checkpoint: int | str | None
    layout: str
    bias: bool
    init: Any
    recurrent_init: Any


def rnn(
    x: Tensor,
    hidden: int,
    *,
    name: str = "rnn",
    activation: str = "tanh",
    leak: float | str | None = None,
    skip: int | None = None,
    **options: Unpack[Options],
) -> tuple[Tensor, Any]:
    """The simple recurrent network (Elman 1990): h_t = g(U h_{t−1} + W x_t + b).

    activation: g, "tanh", "sigmoid" or "relu".
    leak: leaky units, h_t = α h_{t−1} + (1 − α) g(…), α a number, or "learned": a sigmoid of the parameter `leak` (H,)
    (Jaeger et al. 2007). skip: connections from d steps before, g(U h_{t−1} + V h_{t−d} + W x_t + b) with V (H, H)
    (Lin et al. 1996); the state is then the last d outputs, the newest first.
    Other options: see the module.
    """
    return _run(name, x, options, lambda w: rnn_kind(hidden, w, activation, leak, skip))


def lstm(
    x: Tensor,
    hidden: int,
    *,
    name: str = "lstm",
    peepholes: bool = False,
    projection: int | None = None,
    **options: Unpack[Options],
) -> tuple[Tensor, Any]:
    """The long short-term memory (Hochreiter and Schmidhuber 1997; its forget gate: Gers et al. 2000).

        f = σ(W_f x_t + U_f h_{t−1} + b_f)       what is kept of the memory
        i = σ(W_i x_t + U_i h_{t−1} + b_i)       what is added to it
        g = tanh(W_g x_t + U_g h_{t−1} + b_g)    the candidate
        o = σ(W_o x_t + U_o h_{t−1} + b_o)       what is shown of it
        c_t = f ⊙ c_{t−1} + i ⊙ g,    h_t = o ⊙ tanh(c_t)

    peepholes: f and i see c_{t−1} too, o sees c_t, times P (3·H) in blocks f, i, o (Gers and Schmidhuber 2000).
    projection: h_t = R (o ⊙ tanh c_t) has this size, with R (H, size) (Sak et al. 2014).
    Other options: see the module.
    """
    return _run(name, x, options, lambda w: lstm_kind(hidden, w, peepholes, projection))


def gru(
    x: Tensor,
    hidden: int,
    *,
    name: str = "gru",
    reset: str | None = None,
    update: str | None = None,
    **options: Unpack[Options],
) -> tuple[Tensor, Any]:
    """The gated recurrent unit (Cho et al. 2014).

        r = σ(W_r x_t + U_r h_{t−1} + b_r)              what the candidate sees of the state
        z = σ(W_z x_t + U_z h_{t−1} + b_z)              what is new
        h̃ = tanh(W_h x_t + U_h (r ⊙ h_{t−1}) + b_h)     the candidate
        h_t = (1 − z) ⊙ h_{t−1} + z ⊙ h̃

    reset: "before" the product, as above, or "after" it, h̃ = tanh(W_h x_t + r ⊙ (U_h h_{t−1}) + b_h).
    update: z weighs the "new" value, as above, or the "old" one, h_t = z ⊙ h_{t−1} + (1 − z) ⊙ h̃.
    PyTorch's layout has "after" and "old" unless told otherwise. Other options: see the module.
    """
    return _run(name, x, options, lambda w: gru_kind(hidden, w, reset, update))


# -- stacks ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Stack:
    """The options of one call; see the module."""

    layers: int = 1
    dropout: float = 0.0
    bidirectional: bool = False
    merge: str = "concat"
    reverse: bool = False
    initial: Any = None
    lengths: Value | None = None
    time_major: bool = False
    checkpoint: int | str | None = None


def _run(name: str, x: Tensor, options: Options, kind_of: Callable[[Weights], Kind]) -> tuple[Tensor, Any]:
    if x.broken:
        return x, Tensor(None)
    try:
        weights, stack = _sorted(name, dict(options))
        kind = kind_of(weights)
        _check(name, x, stack)
        with scope(name):
            return _stacked(name, x, kind, weights, stack)
    except TraceError as error:
        return fail(error), Tensor(None)


def _sorted(name: str, options: dict[str, Any]) -> tuple[Weights, Stack]:
    """The options of the parameters, and those of the stack."""
    own = [f.name for f in fields(Weights)]
    known = [*own, *(f.name for f in fields(Stack))]
    for key in options:
        if key not in known:
            raise TraceError(f"{name} has no option {key!r}", how=f"there are: {', '.join(known)}")
    parts = ({k: v for k, v in options.items() if (k in own) is of_weights} for of_weights in (True, False))
    return Weights(**next(parts)), Stack(**next(parts))


def _check(name: str, x: Tensor, stack: Stack) -> None:
    natural(f"{name}: the number of layers", stack.layers)
    chosen(f"{name}: there is no merge", stack.merge, tuple(MERGES))
    if x.ndim != 3 or not x.dtype.is_float:
        order = "time, batch" if stack.time_major else "batch, time"
        raise TraceError(f"{name}: the input is {x.node.type}, not a floating-point array ({order}, features)")
    if stack.reverse and stack.bidirectional:
        raise TraceError(f"{name}: a bidirectional layer runs both ways already", how="leave reverse= out")


def _stacked(name: str, x: Tensor, kind: Kind, weights: Weights, stack: Stack) -> tuple[Tensor, Any]:
    lasts = []
    for k in range(stack.layers):
        begin = stack.initial
        if stack.layers > 1 and begin is not None and not isinstance(begin, str):
            begin = _part(name, begin, stack.layers, "layers")[k]
        if k:
            x = dropout(x, stack.dropout)
        with _inside(f"layer{k}", stack.layers > 1 and not weights.torch):
            x, last = _layer(name, x, kind, weights, stack, begin, f"l{k}")
        lasts.append(last)
    return x, lasts if stack.layers > 1 else lasts[0]


def _layer(
    name: str, x: Tensor, kind: Kind, weights: Weights, stack: Stack, begin: Any, suffix: str
) -> tuple[Tensor, Any]:
    """One layer, in one direction or both."""

    def one(reverse: bool, initial: Any, suffix: str) -> tuple[Tensor, Any]:
        cell = kind.make(x.shape[-1], suffix)
        return _repeated(x, cell, reverse, _beginning(name, kind, initial, x, stack, suffix if weights.torch else ""), stack)

    if not stack.bidirectional:
        return one(stack.reverse, begin, suffix)
    ways = (begin, begin)
    if begin is not None and not isinstance(begin, str):
        ways = _part(name, begin, 2, "directions")
    with _inside("forward", not weights.torch):
        ahead, last = one(False, ways[0], suffix)
    with _inside("backward", not weights.torch):
        back, first = one(True, ways[1], f"{suffix}_reverse")
    return MERGES[stack.merge](ahead, back), (last, first)


def _repeated(x: Tensor, cell: Cell, reverse: bool, begin: State, stack: Stack) -> tuple[Tensor, Any]:
    def step(state: State, x_t: Tensor) -> tuple[State, Tensor]:
        state = cell.step(x_t, state)
        return state, state[0]

    axis = 0 if stack.time_major else 1
    last, hs = scan(step, begin, x, axis, reverse, lengths=stack.lengths, checkpoint=stack.checkpoint)
    return hs, public(last)


def _beginning(name: str, kind: Kind, initial: Any, x: Tensor, stack: Stack, suffix: str) -> State:
    """The state before the first step, an array (batch, size) for each of the cell's."""
    batch = x.node.shape[1 if stack.time_major else 0]
    if initial is None:
        return tuple(zeros((batch, size), x.dtype) for _, size in kind.carries)
    if isinstance(initial, str):
        chosen(f"{name}: there is no initial state", initial, ("learned",))
        ending = f"_{suffix}" if suffix else ""
        begin = {own: param(f"{own}0{ending}", (size,)) for own, size in dict(kind.carries).items()}
        return tuple(broadcast_to(begin[own], (batch, size)) for own, size in kind.carries)
    return fitting(name, kind, initial, batch, x)


def _part(name: str, state: Any, count: int, what: str) -> Any:
    """The states of several layers, or of two directions."""
    if not isinstance(state, (tuple, list)) or len(state) != count:
        given = f"{len(state)} values" if isinstance(state, (tuple, list)) else "one"
        raise TraceError(
            f"{name}: the initial state is {given}, not one for each of {count} {what}",
            how="it has the form of the last state that the layer returns",
        )
    return state


@contextmanager
def _inside(name: str, nested: bool) -> Iterator[None]:
    """A scope, where the parameters of the layout are nested."""
    if not nested:
        yield
        return
    with scope(name):
        yield
