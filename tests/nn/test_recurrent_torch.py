"""The recurrent layers in PyTorch's layout against torch.nn: outputs, states and all gradients, in float64."""

import itertools

import numpy as np
import pytest

import graphc as gc
from graphc.interop import load_torch_state_dict

torch = pytest.importorskip("torch", reason="compares with PyTorch: pip install torch")

KINDS = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}


def leaves(state):
    """The arrays of a state, whatever its nest."""
    return [leaf for part in state for leaf in leaves(part)] if isinstance(state, (tuple, list)) else [state]


def stacked(state, kind):
    """A state in PyTorch's order: for h (and c) one array of all layers and directions."""
    flat = leaves(state)
    if kind != "lstm":
        return [np.stack(flat)]
    return [np.stack(flat[0::2]), np.stack(flat[1::2])]


def compare(kind, T, B, C, H, seed, ours=None, theirs=None, lengths=None, initial=False):
    """A model over one layer and PyTorch's module, of the same weights: everything is equal to 1e-10."""
    ours, theirs = dict(ours or {}), dict(theirs or {})
    torch.manual_seed(seed)
    module = KINDS[kind](C, H, batch_first=True, **theirs).double()
    rng = np.random.default_rng(seed)
    layers, ways = theirs.get("num_layers", 1), 2 if theirs.get("bidirectional") else 1
    sizes = {"h": theirs.get("proj_size", 0) or H} | ({"c": H} if kind == "lstm" else {})
    states = {k: rng.standard_normal((layers * ways, B, n)) for k, n in sizes.items()}
    weight = rng.standard_normal((B, T, ways * sizes["h"]))

    @gc.model
    def model(x: gc.f64["B", "T", C], n: gc.i64["B"], weight: gc.f64["B", "T", "D"]):
        begin = None
        if initial:
            names = iter(range(layers * ways))

            def one():
                k = next(names)
                parts = [gc.param(f"begin_{s}{k}", (B, size)) for s, size in sizes.items()]
                return tuple(parts) if kind == "lstm" else parts[0]

            def way():
                return (one(), one()) if ways == 2 else one()

            begin = [way() for _ in range(layers)] if layers > 1 else way()
        more = {"lengths": n} if lengths is not None else {}
        hs, last = getattr(gc.nn, kind)(x, H, name="r", layout="torch", initial=begin, **more, **ours)
        ends = {f"last{k}": s for k, s in enumerate(leaves(last))}
        loss = gc.sum(hs * weight)
        for k, s in enumerate(ends.values()):
            loss = loss + gc.sum(s * s) * (k + 1)
        return gc.outputs(hs=hs, loss=loss, dx=gc.grad(loss, x), **ends)

    m = gc.compile(model, dtype="float64", check=True)
    load_torch_state_dict(m, module.state_dict(), scope="r")
    if initial:
        for s in sizes:
            for k in range(layers * ways):
                m.params[f"begin_{s}{k}"] = states[s][k]

    x = torch.tensor(rng.standard_normal((B, T, C)), requires_grad=True)
    begin = {k: torch.tensor(v, requires_grad=True) for k, v in states.items()} if initial else {}
    hx = None if not initial else (begin["h"], begin["c"]) if kind == "lstm" else begin["h"]
    if lengths is not None:
        packed = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths), batch_first=True, enforce_sorted=False)
        packed, last = module(packed, hx)
        hs, _ = torch.nn.utils.rnn.pad_packed_sequence(packed, batch_first=True, total_length=T)
    else:
        hs, last = module(x, hx)
    last = last if isinstance(last, tuple) else (last,)
    loss = (hs * torch.tensor(weight)).sum()
    flat = [s for pair in zip(*last, strict=True) for s in pair]  # h, c of each layer and direction, in our order
    for k, s in enumerate(flat):
        loss = loss + (s * s).sum() * (k + 1)
    loss.backward()

    n = np.full(B, T) if lengths is None else np.array(lengths)
    inputs = dict(x=x.detach().numpy(), n=n, weight=weight)
    out, gradients = m.value_and_grad(**inputs)
    same = dict(rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(out["hs"], hs.detach(), **same)
    for k, s in enumerate(flat):
        np.testing.assert_allclose(out[f"last{k}"], s.detach(), **same)
    np.testing.assert_allclose(out["dx"], x.grad, **same)
    for name, parameter in module.named_parameters():
        np.testing.assert_allclose(gradients[f"r/{name}"], parameter.grad, err_msg=name, **same)
    for s, tensor in begin.items():
        for k in range(layers * ways):
            np.testing.assert_allclose(gradients[f"begin_{s}{k}"], tensor.grad[k], **same)


SHAPES = [(1, 1, 1, 1), (1, 3, 2, 4), (2, 1, 3, 1), (7, 4, 5, 3)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("T, B, C, H", SHAPES)
def test_plain(kind, T, B, C, H):
    compare(kind, T, B, C, H, seed=T + B)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layers, bidirectional, bias", list(itertools.product((1, 3), (False, True), (False, True))))
def test_stacked_in_both_directions_without_biases(kind, layers, bidirectional, bias):
    rng = np.random.default_rng(layers + 2 * bidirectional + 4 * bias)
    T, B, C, H = rng.integers(1, 6, 4).tolist()
    ours = dict(layers=layers, bidirectional=bidirectional, bias=bias)
    theirs = dict(num_layers=layers, bidirectional=bidirectional, bias=bias)
    compare(kind, T, B, C, H, 11, ours, theirs, initial=layers == 3)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_activations(activation):
    compare("rnn", 5, 3, 4, 2, 3, dict(activation=activation), dict(nonlinearity=activation), initial=True)


@pytest.mark.parametrize("layers, bidirectional, bias", [(1, False, True), (2, True, False), (3, False, True)])
def test_projection(layers, bidirectional, bias):
    ours = dict(layers=layers, bidirectional=bidirectional, bias=bias, projection=2)
    theirs = dict(num_layers=layers, bidirectional=bidirectional, bias=bias, proj_size=2)
    compare("lstm", 4, 3, 3, 5, 5, ours, theirs, initial=True)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("T, lengths", [(1, [1]), (5, [5, 1, 3]), (6, [2, 2])])
def test_lengths_are_packed_sequences(kind, bidirectional, T, lengths):
    ours, theirs = dict(layers=2, bidirectional=bidirectional), dict(num_layers=2, bidirectional=bidirectional)
    compare(kind, T, len(lengths), 2, 3, T, ours, theirs, lengths, initial=True)
