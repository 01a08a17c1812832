"""gc.layer_norm against PyTorch: values and all gradients, over any axes, with and without weight and bias."""
import numpy as np
import pytest
import torch

import graphc as gc
from graphc.errors import GraphcError

F = np.float64


def by_torch(x, weight, bias, axes, eps):
    """PyTorch normalises the last axes: the others are moved before them."""
    rest = [d for d in range(x.ndim) if d not in axes]
    moved = x.permute(*rest, *axes)
    shape = [x.shape[d] for d in axes]
    y = torch.nn.functional.layer_norm(moved, shape, weight, bias, eps)
    back = [0] * x.ndim
    for place, d in enumerate([*rest, *axes]):
        back[d] = place
    return y.permute(*back)


@pytest.mark.parametrize("with_bias", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("with_weight", [False, True], ids=["no weight", "weight"])
@pytest.mark.parametrize("shape, axis, axes", [
    ((5, 7), -1, (1,)), ((5, 7), 0, (0,)), ((7,), -1, (0,)), ((3, 4, 5), 1, (1,)), ((3, 4, 5), (-1, 1), (1, 2)),
    ((3, 4, 5), None, (0, 1, 2)), ((3, 1), -1, (1,)),
], ids=str)
def test_values_and_gradients_are_those_of_torch(shape, axis, axes, with_weight, with_bias):
    rng = np.random.default_rng(7)
    of = tuple(shape[a] for a in axes)
    given = {"x": rng.standard_normal(shape) * 3 + 5}
    given |= {"w": rng.uniform(0.5, 2, of)} if with_weight else {}
    given |= {"b": rng.standard_normal(of)} if with_bias else {}
    cotangent = rng.standard_normal(shape)

    @gc.model
    def net(d: gc.f64[shape]):
        p = {name: gc.param(name, value.shape) for name, value in given.items()}
        y = gc.layer_norm(p["x"], p.get("w"), p.get("b"), axis=axis, eps=1e-3)
        return gc.outputs(y=y, loss=gc.sum(y * d))

    tensors = {name: torch.tensor(value, requires_grad=True) for name, value in given.items()}
    want = by_torch(tensors["x"], tensors.get("w"), tensors.get("b"), axes, 1e-3)
    want.backward(torch.tensor(cotangent))
    for target in ("cpu", "numpy"):
        m = gc.compile(net, dtype="float64", target=target)
        for name, value in given.items():
            m.params[name] = value
        outputs, gradients = m.value_and_grad(d=cotangent)
        np.testing.assert_allclose(outputs["y"], want.detach().numpy(), rtol=1e-11, atol=1e-11)
        for name, tensor in tensors.items():
            np.testing.assert_allclose(gradients[name], tensor.grad.numpy(), rtol=1e-9, atol=1e-11, err_msg=name)


def test_symbolic_sizes_and_float32():
    @gc.model
    def net(x: gc.f32["B", "C"], w: gc.f32["C"]):
        y = gc.layer_norm(x, w)
        return gc.outputs(y=y, dx=gc.grad(gc.sum(y * y * y), x))

    m, rng = gc.compile(net), np.random.default_rng(3)
    for rows, width in ((1, 1), (3, 17), (64, 384), (0, 5)):
        x, w = rng.standard_normal((rows, width)).astype("f"), rng.standard_normal(width).astype("f")
        X = torch.tensor(x.astype(F), requires_grad=True)
        y = torch.nn.functional.layer_norm(X, (width,), torch.tensor(w.astype(F)))
        (y**3).sum().backward()
        out = m.forward(x=x, w=w)
        np.testing.assert_allclose(out["y"], y.detach().numpy(), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(out["dx"], X.grad.numpy(), rtol=1e-3, atol=1e-4)


def test_conventions():
    """The variance divides by the count, and eps is under the root; a constant row gives the bias, not NaN."""
    @gc.model
    def net(x: gc.f64["B", 3], b: gc.f64[3], n: gc.i64["B", 3]):
        return gc.outputs(y=gc.layer_norm(x, bias=b, eps=0.25), integers=gc.layer_norm(n, eps=0.25))

    x = np.array([[1.0, 2.0, 6.0], [4.0, 4.0, 4.0]])
    out = gc.compile(net, dtype="float64").forward(x=x, b=np.array([1.0, 2.0, 3.0]), n=x.astype(int))
    plain = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 0.25)
    np.testing.assert_allclose(out["y"], plain + [1, 2, 3], rtol=1e-12)
    np.testing.assert_allclose(out["integers"], plain, rtol=1e-12)
    assert (out["y"][1] == [1, 2, 3]).all()


@pytest.mark.parametrize("arguments, message", [
    (dict(weight=(4,)), r"weight is f\d+\[4\], but f\d+\[B, 3\] is normalised over 3"),
    (dict(bias=(2, 3)), r"bias is f\d+\[2, 3\], but f\d+\[B, 3\] is normalised over 3"),
    (dict(axis=2), r"layer_norm: axis 2 is out of range"),
    (dict(axis=(1, -1)), r"name one axis twice"),
], ids=["weight", "bias", "axis", "axes"])
def test_what_does_not_fit_is_said(arguments, message):
    @gc.model
    def net(x: gc.f32["B", 3]):
        made = {k: gc.zeros(v) if k != "axis" else v for k, v in arguments.items()}
        return gc.outputs(y=gc.layer_norm(x, **made))

    with pytest.raises(GraphcError, match=message):
        gc.compile(net).forward(x=np.zeros((2, 3), "f"))
