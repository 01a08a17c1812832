"""Random steps, as gc.scan and as a loop of PyTorch: values and gradients alike, whatever is taken out of the loop."""
import numpy as np
import pytest
import torch

import graphc as gc

B, H, T = 3, 4, 5


class Library:
    """The same functions in both languages."""

    def __init__(self, module, where, softmax):
        self.unary = [module.tanh, module.sigmoid, module.sin, lambda a: -a, lambda a: a * a, lambda a: softmax(a)]
        self.binary = [lambda a, b: a + b, lambda a, b: a - b, lambda a, b: a * b, lambda a, b: where(a > 0, a, b)]
        self.products = [lambda a, w: a @ w, lambda a, w: a @ w.T, lambda a, w: a[:, :2] @ w[:2], lambda a, w: a * w[0]]
        self.join = lambda a, b: module.concat([a[:, :2], b[:, 2:]], 1)


OURS = Library(gc, gc.where, lambda a: gc.softmax(a, axis=1))
THEIRS = Library(torch, torch.where, lambda a: torch.softmax(a, 1))


def plan_of(rng):
    """A random step: how many carries, and what it computes from what, as choices that both sides follow."""
    carries, elements = rng.integers(1, 4), rng.integers(1, 3)
    known, ops = carries + elements + 1, []  # the last is what all steps share
    for _ in range(rng.integers(4, 12)):
        kind = rng.choice(["unary", "binary", "products", "join"], p=[0.3, 0.4, 0.2, 0.1])
        ops.append((kind, int(rng.integers(6)), *rng.integers(0, known, 2)))
        known += 1
    sums = rng.random(carries) < 0.4
    new = [int(rng.integers(known)) for _ in range(carries)]
    gives = [int(rng.integers(known)) for _ in range(rng.integers(1, 4))]
    return int(carries), int(elements), ops, sums, new, gives


def step(library, plan, carry, xs, weights, shared):
    _, _, ops, sums, new, gives = plan
    values = [*carry, *xs, shared]
    for kind, which, a, b in ops:
        table = getattr(library, kind)
        if kind == "join":
            value = table(values[a], values[b])
        elif kind == "unary":
            value = table[which % len(table)](values[a])
        elif kind == "binary":
            value = table[which % len(table)](values[a], values[b])
        else:
            value = table[which % len(table)](values[a], weights[which % 2])
        values.append(value)
    results = [carry[k] + values[n] if s else library.unary[0](values[n]) * 0.9 for k, (n, s) in enumerate(zip(new, sums, strict=True))]
    return tuple(results), [values[g] for g in gives]


@pytest.mark.parametrize("seed", range(80))
def test_a_random_step(seed):
    rng = np.random.default_rng(seed)
    plan = plan_of(rng)
    carries, elements, *_ = plan
    reverse, segment = bool(rng.random() < 0.5), [None, None, 2, "sqrt"][rng.integers(4)]

    @gc.model
    def model(x: gc.f64["T", "B", elements, H]):
        weights = [gc.param(f"w{i}", (H, H)) for i in range(2)]
        begin, shared = gc.param("begin", (carries, H)), gc.param("shared", (1, H))
        # the batch is a number in what stands for the carry, so that every value of a step has it
        init = tuple(gc.broadcast_to(begin[k], (gc.dim("B"), H)) for k in range(carries))
        wide = gc.broadcast_to(gc.sin(shared), (gc.dim("B"), H))
        last, ys = gc.scan(
            lambda c, e: step(OURS, plan, c, [e[:, i] for i in range(elements)], weights, wide),
            init=init, xs=x, reverse=reverse, checkpoint=segment,
        )  # fmt: skip
        total = gc.sum(gc.sin(last[0]))
        for k, value in enumerate([*last[1:], *ys]):
            total = total + gc.sum(gc.sin(value)) * (k + 2)
        return gc.outputs(loss=total)

    m = gc.compile(model, dtype="float64", check=True)
    p = {}
    for name in m.params:
        m.params[name][...] = rng.standard_normal(m.params[name].shape) / 2
        p[name] = torch.tensor(np.array(m.params[name]), requires_grad=True)
    x = rng.standard_normal((T, B, elements, H))
    carry = tuple(p["begin"][k].expand(B, H) for k in range(carries))
    shared = torch.sin(p["shared"]).expand(B, H)
    total = 0
    for t in range(T)[:: -1 if reverse else 1]:
        e = [torch.tensor(x[t, :, i]) for i in range(elements)]
        carry, ys = step(THEIRS, plan, carry, e, [p["w0"], p["w1"]], shared)
        total = total + sum(torch.sin(y).sum() * (carries + 1 + k) for k, y in enumerate(ys))
    total = total + sum(torch.sin(c).sum() * (k + 1) for k, c in enumerate(carry))
    if total.requires_grad:
        total.backward()
    out, gradients = m.value_and_grad(x=x)
    np.testing.assert_allclose(out["loss"], total.detach().numpy(), rtol=1e-10)
    for name, tensor in p.items():
        want = np.zeros(tensor.shape) if tensor.grad is None else tensor.grad.numpy()
        np.testing.assert_allclose(gradients[name], want, rtol=1e-9, atol=1e-10, err_msg=name)
