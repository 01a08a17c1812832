"""The recurrent layers by their formulas: plain loops in NumPy for values to 1e-12, in PyTorch for gradients to 1e-10."""

import numpy as np
import pytest

import graphc as gc
from graphc.errors import GraphcError, SourceLine
from graphc.frontend.model import Model

torch = pytest.importorskip("torch", reason="compares with PyTorch: pip install torch")


class Numpy:
    tanh, zeros, exp = np.tanh, np.zeros, np.exp
    concat = staticmethod(lambda parts: np.concatenate(parts, -1))
    stack = staticmethod(lambda rows: np.stack(rows, 1))
    relu = staticmethod(lambda a: np.maximum(a, 0))


class Torch:
    tanh, exp, relu = torch.tanh, torch.exp, torch.relu
    zeros = staticmethod(lambda shape: torch.zeros(shape, dtype=torch.float64))
    concat = staticmethod(lambda parts: torch.cat(parts, -1))
    stack = staticmethod(lambda rows: torch.stack(rows, 1))


def sigma(lib, a):
    return 1 / (1 + lib.exp(-a))


def block(a, k, n):
    """The k-th of n equal parts of the last axis."""
    size = a.shape[-1] // n
    return a[..., k * size : (k + 1) * size]


# -- one step of each cell, as the lectures write it -------------------------------------------------------------------
def rnn_step(lib, x, state, p, activation="tanh", leak=None, skip=None, **_):
    g = {"tanh": lib.tanh, "relu": lib.relu, "sigmoid": lambda a: sigma(lib, a)}[activation]
    a = state[0] @ p["U"] + x @ p["W"] + p.get("b", 0)
    h = g(a + state[-1] @ p["V"]) if skip else g(a)
    if leak is not None:
        alpha = sigma(lib, p["leak"]) if leak == "learned" else leak
        h = alpha * state[0] + (1 - alpha) * h
    return [h, *state[:-1]]


def lstm_step(lib, x, state, p, peepholes=False, projection=None, **_):
    h, c = state

    def gate(k):
        return x @ block(p["W"], k, 4) + h @ block(p["U"], k, 4) + (block(p["b"], k, 4) if "b" in p else 0)

    def hole(k, c):
        return block(p["P"], k, 3) * c if peepholes else 0

    f = sigma(lib, gate(0) + hole(0, c))
    i = sigma(lib, gate(1) + hole(1, c))
    c = f * c + i * lib.tanh(gate(2))
    o = sigma(lib, gate(3) + hole(2, c))
    h = o * lib.tanh(c)
    return [h @ p["R"] if projection else h, c]


def gru_step(lib, x, state, p, reset="before", update="new", **_):
    (h,) = state

    def of(k):
        return x @ block(p["W"], k, 3) + (block(p["b"], k, 3) if "b" in p else 0)

    r = sigma(lib, of(0) + h @ block(p["U"], 0, 3))
    z = sigma(lib, of(1) + h @ block(p["U"], 1, 3))
    seen = (r * h) @ block(p["U"], 2, 3) if reset == "before" else r * (h @ block(p["U"], 2, 3))
    new = lib.tanh(of(2) + seen)
    return [(1 - z) * h + z * new if update == "new" else z * h + (1 - z) * new]


STEPS = {"rnn": rnn_step, "lstm": lstm_step, "gru": gru_step}
MERGE = {
    "concat": lambda lib, a, b: lib.concat([a, b]),
    "sum": lambda lib, a, b: a + b,
    "product": lambda lib, a, b: a * b,
    "average": lambda lib, a, b: (a + b) / 2,
}


def run(lib, kind, x, params, place, H, options, reverse):
    """(outputs, last state) of one direction over x (B, T, C), sequence by sequence."""
    p = {k.removeprefix(place): v for k, v in params.items() if k.startswith(place) and "/" not in k.removeprefix(place)}
    B, T = x.shape[:2]
    size = options.get("projection") or H
    sizes = [size, H] if kind == "lstm" else [H] * (options.get("skip") or 1)
    names = ["h0", "c0"] if kind == "lstm" else ["h0"] * len(sizes)
    lengths = options.get("lengths", [T] * B)
    rows, ends = [], []
    for b in range(B):
        learned = options.get("initial") == "learned"
        state = [p[n] if learned else lib.zeros((s,)) for n, s in zip(names, sizes)]
        ys = [lib.zeros((size,))] * T
        steps = range(lengths[b])
        for t in reversed(steps) if reverse else steps:
            state = STEPS[kind](lib, x[b, t], state, p, **options)
            ys[t] = state[0]
        rows.append(lib.stack([y[None] for y in ys])[0])
        ends.append(state)
    return lib.stack([r[None] for r in rows])[0], [lib.stack([e[k][None] for e in ends])[0] for k in range(len(sizes))]


def layers(lib, kind, x, params, H, options):
    """(outputs, the arrays of the last states in order)"""
    count, flat = options.get("layers", 1), []
    for k in range(count):
        place = f"r/layer{k}/" if count > 1 else "r/"
        if options.get("bidirectional"):
            ahead, end = run(lib, kind, x, params, f"{place}forward/", H, options, False)
            back, begin = run(lib, kind, x, params, f"{place}backward/", H, options, True)
            x = MERGE[options.get("merge", "concat")](lib, ahead, back)
            flat += [*end, *begin]
        else:
            x, end = run(lib, kind, x, params, place, H, options, options.get("reverse", False))
            flat += end
    return x, flat


def flattened(state):
    return [leaf for part in state for leaf in flattened(part)] if isinstance(state, (tuple, list)) else [state]


CASES = [
    ("rnn", {}),
    ("rnn", dict(activation="sigmoid", bias=False)),
    ("rnn", dict(activation="relu", reverse=True)),
    ("rnn", dict(leak=0.3, initial="learned")),
    ("rnn", dict(leak="learned", bidirectional=True, merge="average", lengths=True)),
    ("rnn", dict(skip=3, initial="learned")),
    ("rnn", dict(skip=1, lengths=True)),
    ("rnn", dict(skip=2, leak=0.5, layers=2, bidirectional=True)),
    ("lstm", {}),
    ("lstm", dict(bias=False, reverse=True, lengths=True)),
    ("lstm", dict(peepholes=True, initial="learned")),
    ("lstm", dict(peepholes=True, projection=2, bidirectional=True, lengths=True)),
    ("lstm", dict(projection=4, layers=3, initial="learned")),
    ("lstm", dict(bidirectional=True, merge="product", layers=2)),
    ("gru", {}),
    ("gru", dict(reset="after", bias=False)),
    ("gru", dict(update="old", reverse=True)),
    ("gru", dict(reset="after", update="old", lengths=True, initial="learned")),
    ("gru", dict(bidirectional=True, merge="sum", layers=2)),
]
SHAPES = [(1, 1, 1, 1), (1, 4, 2, 3), (5, 1, 3, 2), (6, 3, 4, 5)]


@pytest.mark.parametrize("T, B, C, H", SHAPES)
@pytest.mark.parametrize("kind, options", CASES, ids=[f"{k}-{'-'.join(o) or 'plain'}" for k, o in CASES])
def test_the_formulas(kind, options, T, B, C, H):
    time_major = (T + B) % 2 == 0
    rng = np.random.default_rng([T, B, C, H])
    lengths = rng.integers(1, T + 1, B).tolist()
    plain = {k: lengths if k == "lengths" else v for k, v in options.items()}

    @gc.model
    def model(x: gc.f64["B", "T", C], n: gc.i64["B"]):
        given = {k: n if k == "lengths" else v for k, v in options.items()}
        if time_major:
            x = gc.transpose(x, (1, 0, 2))
        hs, last = getattr(gc.nn, kind)(x, H, name="r", time_major=time_major, **given)
        if time_major:
            hs = gc.transpose(hs, (1, 0, 2))
        ends = {f"last{k}": s for k, s in enumerate(flattened(last))}
        loss = gc.sum(hs**3 + hs)
        for s in ends.values():
            loss = loss + gc.sum(s * s)
        return gc.outputs(hs=hs, loss=loss, **ends)

    m = gc.compile(model, dtype="float64")
    for array in m.params.values():
        array[...] = rng.standard_normal(array.shape)
    x = rng.standard_normal((B, T, C))
    out, gradients = m.value_and_grad(x=x, n=lengths)

    hs, ends = layers(Numpy, kind, x, dict(m.params), H, plain)
    np.testing.assert_allclose(out["hs"], hs, rtol=1e-12, atol=1e-12)
    for k, end in enumerate(ends):
        np.testing.assert_allclose(out[f"last{k}"], end, rtol=1e-12, atol=1e-12)

    params = {k: torch.tensor(np.array(v), requires_grad=True) for k, v in m.params.items()}
    hs, ends = layers(Torch, kind, torch.tensor(x), params, H, plain)
    (sum((e * e).sum() for e in ends) + (hs**3 + hs).sum()).backward()
    for name, tensor in params.items():
        np.testing.assert_allclose(gradients[name], tensor.grad, rtol=1e-10, atol=1e-10, err_msg=name)


# -- parameters --------------------------------------------------------------------------------------------------------
def parameters(layer):
    @gc.model
    def model(x: gc.f32["B", "T", 3]):
        hs, _ = layer(x)
        return gc.outputs(hs=hs)

    return {n: a.shape for n, a in gc.compile(model).params.items()}


def test_the_parameters_of_the_layouts():
    assert parameters(lambda x: gc.nn.lstm(x, 5)) == {"lstm/W": (3, 20), "lstm/U": (5, 20), "lstm/b": (20,)}
    assert parameters(lambda x: gc.nn.gru(x, 5, bias=False)) == {"gru/W": (3, 15), "gru/U": (5, 15)}
    assert parameters(lambda x: gc.nn.rnn(x, 5, skip=2, leak="learned")) == {
        "rnn/W": (3, 5), "rnn/U": (5, 5), "rnn/b": (5,), "rnn/V": (5, 5), "rnn/leak": (5,),
    }  # fmt: skip
    assert parameters(lambda x: gc.nn.lstm(x, 5, projection=2, peepholes=True, layers=2, bidirectional=True)) == {
        f"lstm/layer{k}/{way}/{n}": s
        for k, features in enumerate((3, 4))
        for way in ("forward", "backward")
        for n, s in {"W": (features, 20), "U": (2, 20), "b": (20,), "R": (5, 2), "P": (15,)}.items()
    }
    own = parameters(lambda x: gc.nn.gru(x, 5, layout="torch", layers=2, bidirectional=True, initial="learned"))
    module = torch.nn.GRU(3, 5, num_layers=2, bidirectional=True)
    theirs = {f"gru/{n}": tuple(p.shape) for n, p in module.named_parameters()}
    begin = {f"gru/h0_l{k}{way}": (5,) for k in (0, 1) for way in ("", "_reverse")}
    assert own == theirs | begin


def test_initial_weights():
    @gc.model
    def model(x: gc.f32["B", "T", 3]):
        hs, _ = gc.nn.lstm(x, 4, init="zeros", recurrent_init="orthogonal")
        return gc.outputs(hs=hs)

    m = gc.compile(model, dtype="float64")
    assert not m.params["lstm/W"].any()
    np.testing.assert_allclose(m.params["lstm/U"] @ m.params["lstm/U"].T, np.eye(4), atol=1e-12)


# -- cells -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("layout", ["graphc", "torch"])
@pytest.mark.parametrize(
    "kind, options",
    [("rnn", {}), ("lstm", {}), ("lstm", dict(projection=2)), ("gru", {}), ("gru", dict(reset="after")), ("gru", dict(reset="before"))],
)
def test_a_cell_steps_over_the_layers_parameters(kind, options, layout):
    size = options.get("projection", 4)
    begin = (lambda b: (gc.zeros((b, size)), gc.zeros((b, 4)))) if kind == "lstm" else (lambda b: gc.zeros((b, 4)))

    @gc.model
    def whole(x: gc.f64["B", "T", 3]):
        hs, _ = getattr(gc.nn, kind)(x, 4, name="r", layout=layout, **options)
        return gc.outputs(hs=hs)

    @gc.model
    def one(x: gc.f64["B", 3]):
        own = {k: v for k, v in options.items() if k != "projection"}
        state = getattr(gc.nn, f"{kind}_cell")(x, begin(gc.dim("B")), name="r", layout=layout, **own)
        return gc.outputs(h=flattened(state)[0])

    m = gc.compile(whole, one, dtype="float64")
    for array in m.params.values():
        array[...] = np.random.default_rng(1).standard_normal(array.shape)
    x = np.random.default_rng(2).standard_normal((2, 3, 3))
    np.testing.assert_allclose(m.one.forward(x[:, 0].copy())["h"], m.whole.forward(x)["hs"][:, 0], rtol=1e-13)


def test_a_cell_generates_with_a_state_of_the_model():
    """Steps of one token each, the state carried from call to call, give what the layer gives over the sequence."""

    @gc.model
    def whole(x: gc.f64["B", "T", 3]):
        hs, _ = gc.nn.lstm(x, 4)
        return gc.outputs(hs=hs)

    @gc.model
    def one(x: gc.f64["B", 3]):
        h, c = gc.state("h", ("B", 4)), gc.state("c", ("B", 4))
        new = gc.nn.lstm_cell(x, (h, c))
        gc.update(h, new[0])
        gc.update(c, new[1])
        return gc.outputs(h=new[0])

    m = gc.compile(whole, one, dtype="float64")
    x = np.random.default_rng(0).standard_normal((2, 6, 3))
    want = m.whole.forward(x)["hs"]
    for t in range(6):
        np.testing.assert_allclose(m.one.forward(np.ascontiguousarray(x[:, t]))["h"], want[:, t], rtol=1e-12)


def test_truncated_backpropagation_carries_the_state():
    @gc.model
    def model(x: gc.f64["B", "T", 3]):
        h, c = gc.state("h", ("B", 4)), gc.state("c", ("B", 4))
        hs, (h_t, c_t) = gc.nn.lstm(x, 4, initial=(h, c))
        gc.update(h, h_t)
        gc.update(c, c_t)
        return gc.outputs(hs=hs)

    m = gc.compile(model, dtype="float64")
    x = np.random.default_rng(0).standard_normal((2, 6, 3))
    whole = m.forward(x)["hs"]
    m.reset()
    parts = [m.forward(np.ascontiguousarray(x[:, a : a + 2]))["hs"] for a in (0, 2, 4)]
    np.testing.assert_allclose(np.concatenate(parts, 1), whole, rtol=1e-12)


def test_dropout_between_layers_and_not_after_the_last():
    @gc.model
    def model(x: gc.f64["B", "T", 3]):
        with gc.scope("a"):
            one, _ = gc.nn.lstm(x, 4, layers=1, dropout=0.9)
        with gc.scope("b"):
            two, _ = gc.nn.lstm(x, 4, layers=2, dropout=0.5)
        return gc.outputs(one=one, two=two, loss=gc.sum(two))

    m = gc.compile(model, dtype="float64")
    x = np.random.default_rng(0).standard_normal((2, 6, 3))
    still, moved = m.forward(x), m.forward(x, train=True)
    np.testing.assert_array_equal(still["one"], moved["one"])
    assert np.abs(still["two"] - moved["two"]).max() > 1e-3


@pytest.mark.parametrize("kind", ["rnn", "lstm"])
def test_the_loop_is_one_product_and_one_kernel_a_step(kind):
    """Forward: the state's product and the gates; backward: the gates and the state's product. All else is outside."""

    @gc.model
    def model(x: gc.f32["T", "B", 64]):
        hs, _ = getattr(gc.nn, kind)(x, 32, time_major=True)
        return gc.outputs(loss=gc.sum(hs * hs))

    loops = [i for i in gc.compile(model).entries["model"].program("gradient").instructions if hasattr(i, "body")]
    assert len(loops) == 2
    for loop in loops:
        products = [i for i in loop.body if i.kernel.startswith("gemm")]
        assert len(products) == 1 and len(loop.body) == 2, [i.kernel for i in loop.body]


# -- errors ------------------------------------------------------------------------------------------------------------
def error_of(layer, inputs=None, **declared):
    """The text of the error of a model, or of its call."""
    function_inputs = declared or {"x": gc.f32["B", "T", 3]}

    def function(*tensors):
        hs, _ = layer(*tensors)
        return gc.outputs(hs=hs)

    model = Model(function, "model", function_inputs, {}, SourceLine(__file__, 1))
    if inputs is None:
        with pytest.raises(GraphcError) as caught:
            gc.compile(model)
    else:
        m = gc.compile(model)
        with pytest.raises(GraphcError) as caught:
            m.forward(*inputs)
    return str(caught.value)


@pytest.mark.parametrize(
    "layer, text",
    [
        (lambda x: gc.nn.rnn(x, 0), "rnn: the hidden size is 0, not a whole number of at least 1"),
        (lambda x: gc.nn.lstm(x, -2), "lstm: the hidden size is -2, not a whole number of at least 1"),
        (lambda x: gc.nn.gru(x, 2.5), "gru: the hidden size is 2.5, not a whole number of at least 1"),
        (lambda x: gc.nn.lstm(x, 4, projection=0), "lstm: the size of the projection is 0"),
        (lambda x: gc.nn.lstm(x, 4, layers=0), "lstm: the number of layers is 0"),
        (lambda x: gc.nn.rnn(x, 4, activation="swish"), "rnn: there is no activation: 'swish'"),
        (lambda x: gc.nn.rnn(x, 4, leak=1.0), "rnn: leak=1.0"),
        (lambda x: gc.nn.rnn(x, 4, leak="x"), "rnn: there is no leak: 'x'"),
        (lambda x: gc.nn.rnn(x, 4, skip=0), "rnn: the delay of skip= is 0"),
        (lambda x: gc.nn.rnn(x, 4, bidirectional=True, merge="max"), "rnn: there is no merge: 'max'"),
        (lambda x: gc.nn.gru(x, 4, reset="never"), "gru: there is no reset: 'never'"),
        (lambda x: gc.nn.gru(x, 4, update="both"), "gru: there is no update: 'both'"),
        (lambda x: gc.nn.gru(x, 4, layout="onnx"), "there is no layout: 'onnx'"),
        (lambda x: gc.nn.gru(x, 4, initial="random"), "gru: there is no initial state: 'random'"),
        (lambda x: gc.nn.gru(x, 4, hidden=3), "hidden"),
        (lambda x: gc.nn.gru(x, 4, color=3), "gru has no option 'color'"),
        (lambda x: gc.nn.lstm(x, 4, layout="torch", peepholes=True), "lstm: PyTorch's layout has no peepholes"),
        (lambda x: gc.nn.rnn(x, 4, layout="torch", skip=2), "rnn: PyTorch's layout has neither leak= nor skip="),
        (lambda x: gc.nn.rnn(x, 4, bidirectional=True, reverse=True), "rnn: a bidirectional layer runs both ways already"),
        (lambda x: gc.nn.rnn(x, 4, layers=2, dropout=1.0), "dropout: the rate is 1.0"),
        (lambda x: gc.nn.rnn(x[0], 4), "rnn: the input is f32[T, 3], not a floating-point array (batch, time, features)"),
        (lambda x: gc.nn.rnn(x > 0, 4, time_major=True), "rnn: the input is bool_[B, T, 3], not a floating-point array (time, batch, features)"),
        (lambda x: gc.nn.lstm(x, 4, initial=gc.zeros(("B", 4))), "lstm: the initial state is Tensor, not 2 arrays (h, c)"),
        (lambda x: gc.nn.gru(x, 4, initial=(gc.zeros(("B", 4)),) * 2), "gru: the initial state is 2 values, not 1 array (h)"),
        (lambda x: gc.nn.gru(x, 4, initial=gc.zeros(("B", 3))), "gru: the initial state h is f32[B, 3], not f32[B, 4]"),
        (lambda x: gc.nn.gru(x, 4, initial=gc.zeros((4,))), "gru: the initial state h is f32[4], not f32[B, 4]"),
        (lambda x: gc.nn.gru(x, 4, layers=2, initial=gc.zeros(("B", 4))), "gru: the initial state is one, not one for each of 2 layers"),
        (lambda x: gc.nn.gru(x, 4, bidirectional=True, initial=[gc.zeros(("B", 4))] * 3), "gru: the initial state is 3 values, not one for each of 2 directions"),
        (lambda x: (gc.nn.gru_cell(x, x[0], name="g"), 0), "g: a cell takes (batch, features), not f32[B, T, 3]"),
        (lambda x: (gc.nn.gru_cell(x[0], x, name="g"), 0), "g: a state is an array (batch, size) of known size, not f32[B, T, 3]"),
    ],
)  # fmt: skip
def test_errors_of_the_model(layer, text):
    assert text in error_of(layer)


def test_errors_of_the_call():
    F = np.float32
    x = np.ones((2, 5, 3), F)
    given = dict(x=gc.f32["B", "T", 3], h=gc.f32["K", 4])
    text = error_of(lambda x, h: gc.nn.gru(x, 4, initial=h), (x, np.ones((3, 4), F)), **given)
    assert "gru: the initial state h is f32[K, 4], not f32[B, 4]" in text and "K is 3 and B is 2" in text
    given = dict(x=gc.f32[2, "T", 3], h=gc.f32[3, 4])
    assert "gru: the initial state h is f32[3, 4], not f32[2, 4]" in error_of(lambda x, h: gc.nn.gru(x, 4, initial=h), **given)
    given = dict(x=gc.f32["B", "T", 3], n=gc.i32["B"])
    for lengths, which in (([2, 6], "6 of sequence 1"), ([0, 1], "0 of sequence 0"), ([-1, 5], "-1 of sequence 0")):
        text = error_of(lambda x, n: gc.nn.gru(x, 4, lengths=n), (x, np.int32(lengths)), **given)
        assert f"the length {which} is not between 1 and 5" in text
    assert "the sequence is empty" in error_of(lambda x: gc.nn.gru(x, 4), (np.ones((2, 0, 3), F),))

