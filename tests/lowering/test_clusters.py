"""What becomes one kernel and one loop, and what is left to matrix products. Structure, not text."""
from __future__ import annotations

import numpy as np
import pytest

import graphc as gc
from graphc.graph.dtype import f32
from graphc.lowering.ir import leaves, walk
from graphc.train.optimisers import SGD, Adam
from tests.lowering.structure import loops, lowered, outer_loops, statements


@gc.model
def chain(a: gc.f64["B", "T"], b: gc.f64["T"]):
    h = gc.tanh(a * 2 + b)
    return gc.outputs(y=gc.exp(-h * h) / (1 + gc.abs(h)))


def test_an_elementwise_chain_is_one_loop_nest_without_temporaries():
    low = lowered(chain)
    (kernel,) = low.kernels
    assert len(loops(kernel.body)) == 2, "b is read along the inner axis alone, so the loops cannot become one"
    assert len(statements(kernel.body)) == 1 and not low.kinds("temp")
    assert len(low.program.instructions) == 1


@gc.model
def flat(a: gc.f64["B", "T", 3]):
    return gc.outputs(y=gc.tanh(a) * 2 + gc.abs(a))


def test_loops_over_contiguous_memory_become_one():
    (kernel,) = lowered(flat).kernels
    (loop,) = loops(kernel.body)
    assert str(loop.extent) == "3*B*T"


@gc.model
def entropy(x: gc.f32["B", 10], label: gc.i64["B"]):
    loss = gc.nn.cross_entropy(x, label)
    return gc.outputs(loss=loss, d=gc.grad(loss, x))


def test_softmax_cross_entropy_with_its_gradient_reads_and_writes_each_big_array_once():
    low = lowered(entropy, dtype=f32)
    rows, mean = low.kernels
    assert len(low.checks) == 1 and not low.products and not low.copies
    (main,) = outer_loops(rows)
    assert str(main.extent) == "B" and not loops(mean.body), "the mean waits for the total, in a kernel of its own"
    assert sum(x.extent == 10 for x in loops([main])) == 3, "maximum, exponentials with their sum, gradient: short loops"
    assert all(b.numel.constant is not None for b in low.program.buffers if b.kind == "temp"), "no array of B rows"


def test_negations_that_come_together_in_a_kernel_are_none():
    """The loss negates what is looked up, and the derivative of a softmax what comes back."""
    low = lowered(entropy, dtype=f32)
    negated = [e for k in low.kernels for item in walk(k.body) for e in leaves(item) if e.op == "neg"]
    assert negated and all(e.args[0].op != "neg" for e in negated)


def test_softmax_is_one_kernel_and_one_loop_over_rows():
    @gc.model
    def net(x: gc.f32["B", 10]):
        return gc.outputs(y=gc.softmax(x))

    low = lowered(net, dtype=f32)
    (kernel,) = low.kernels
    assert len(outer_loops(kernel)) == 1 and sum(x.extent == 10 for x in loops(kernel.body)) == 3
    assert all(b.numel.constant is not None for b in low.program.buffers if b.kind == "temp"), "no array of B rows"


def test_equal_layers_share_their_kernels():
    @gc.model
    def net(x: gc.f32["B", 8], y: gc.f32["B", 8], *, depth: int = 3):
        h = x
        for i in range(depth):
            h = gc.tanh(gc.nn.linear(h, 8, name=f"layer{i}"))
        return gc.outputs(loss=gc.nn.mse(h, y))

    few, many = (lowered(net, "gradient", depth=d, dtype=f32) for d in (4, 12))
    assert len(many.program.instructions) > 2 * len(few.program.instructions)
    assert len(many.book.texts) == len(few.book.texts), "deeper, but with no more kernels to compile"


@pytest.mark.parametrize("optimiser, most", [(Adam(1e-3), 4), (SGD(1e-2), 2), (SGD(1e-2, momentum=0.9), 2)], ids=["adam", "sgd", "momentum"])
def test_an_optimisers_update_is_done_in_place(optimiser, most):
    """No copies, no temporary for a new parameter, and one update kernel for each shape."""
    @gc.model
    def net(x: gc.f32["B", 6], y: gc.f32["B", 6]):
        h = x
        for i in range(5):
            h = gc.tanh(gc.nn.linear(h, 6, name=f"layer{i}"))
        return gc.outputs(loss=gc.nn.mse(h, y))

    low = lowered(net, "step", optimiser, dtype=f32)
    assert not [c for c in low.copies if low.program.buffers[c.target].kind == "param"], "no parameter is copied"
    writers = {}
    for step in low.schedule.steps:
        kernel = getattr(step, "kernel", None)
        if kernel is None:
            continue
        written = [low.program.buffers[b] for b, a in zip(step.buffers, kernel.arrays, strict=True) if a.written]
        for buffer in written:
            if buffer.kind == "param":
                writers.setdefault(tuple(map(str, buffer.shape)), set()).add(low.book.by_structure[_structure(low, kernel)])
    assert set(writers) == {("6", "6"), ("6",)}, "every parameter is written by a kernel"
    assert all(len(names) <= most for names in writers.values()), writers


def _structure(low, kernel):
    from graphc.codegen.source import print_kernel
    from graphc.runtime.kernels import outline
    source = print_kernel(kernel)
    return outline(source.text, source.signature), source.signature


PRODUCTS = {
    "plain": (lambda a, b: a @ b, (False, False)),
    "left transposed": (lambda a, b: a.T @ b, (True, False)),
    "right transposed": (lambda a, b: a @ b.T, (False, True)),
    "both transposed": (lambda a, b: a.T @ b.T, (True, True)),
    "by einsum": (lambda a, b: gc.einsum("ki,kj->ij", a, b), (True, False)),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_a_product_reads_transposed_operands_where_they_lie(name):
    function, flags = PRODUCTS[name]

    @gc.model
    def net(a: gc.f64[4, 4], b: gc.f64[4, 4]):
        return gc.outputs(y=function(a, b))

    low = lowered(net)
    (product,) = low.products
    p = product.product
    swapped = low.program.buffers[product.a].name == "b"
    assert (p.a.transposed, p.b.transposed) == (flags if not swapped else tuple(not f for f in flags[::-1]))
    assert not low.kernels and not low.copies and not low.kinds("temp"), "nothing is moved"


def test_the_gradient_of_a_layer_is_two_products_and_no_transposition():
    @gc.model
    def net(x: gc.f64["B", 5]):
        w = gc.param("w", (5, 3))
        y = gc.sum(gc.tanh(x @ w))
        return gc.outputs(y=y, dw=gc.grad(y, w), dx=gc.grad(y, x))

    low = lowered(net)
    assert len(low.products) == 3
    assert sorted((p.product.a.transposed, p.product.b.transposed) for p in low.products) == [(False, False), (False, True), (True, False)]
    assert not any(n.op == "transpose" for k in low.kernels for n in k.nodes)


def test_a_batch_of_products_is_one_step():
    @gc.model
    def net(q: gc.f64["B", "H", "T", 4], k: gc.f64["B", "H", "T", 4]):
        return gc.outputs(y=gc.einsum("bhid,bhjd->bhij", q, k))

    low = lowered(net)
    (product,) = low.products
    assert str(product.product.batch) in ("B*H", "H*B") and product.product.b.transposed and not low.kernels


def test_products_are_only_of_matrices():
    """Steps that are not positive, or shorter than a row, are laid out first: BLAS takes neither."""
    @gc.model
    def net(a: gc.f64["B", 4], w: gc.f64[4, 3], s: gc.f64[4], q: gc.f64["B", 3, 3]):
        return gc.outputs(y0=a[::-1] @ w, y1=a @ w[::-1], y2=a[::-1].T @ a, y3=s[::-1] @ w, y4=a @ s[::-1], y5=a[:, ::-1] @ w, y6=q[::-1] @ q,
                          y7=a[::2] @ w, y8=gc.einsum("bi,bi->b", a[::-1], a), y9=gc.einsum("i,i->i", s[::-1], s), z0=a[1:] @ w, z1=a[:, 1:3] @ w[1:3])

    low = lowered(net)
    for step in low.products:
        for matrix in (step.product.a, step.product.b, step.product.c):
            for values in ({"B": 1}, {"B": 2}, {"B": 7}):
                assert matrix.leading.evaluate(values) >= 1
                assert matrix.offset.evaluate(values) >= 0
    rng = np.random.default_rng(0)
    a, w, s, q = rng.standard_normal((5, 4)), rng.standard_normal((4, 3)), rng.standard_normal(4), rng.standard_normal((5, 3, 3))
    want = dict(y0=a[::-1] @ w, y1=a @ w[::-1], y2=a[::-1].T @ a, y3=s[::-1] @ w, y4=a @ s[::-1], y5=a[:, ::-1] @ w, y6=q[::-1] @ q, y7=a[::2] @ w,
                y8=np.einsum("bi,bi->b", a[::-1], a), y9=s[::-1] * s, z0=a[1:] @ w, z1=a[:, 1:3] @ w[1:3])
    for target in ("cpu", "numpy"):
        got = gc.compile(net, target=target, dtype="float64").forward(a, w, s, q)
        for name, value in want.items():
            np.testing.assert_allclose(got[name], value, rtol=1e-12, atol=1e-12, err_msg=f"{name} on {target}")


def test_an_empty_product_is_zero():
    @gc.model
    def net(a: gc.f64["B", "T"], b: gc.f64["T", 3]):
        return gc.outputs(y=a @ b, z=a.T @ a, s=gc.sum(a, axis=1))

    for target in ("cpu", "numpy"):
        m = gc.compile(net, target=target, dtype="float64")
        got = m.forward(np.ones((2, 0)), np.ones((0, 3)))
        np.testing.assert_array_equal(got["y"], np.zeros((2, 3)))
        assert got["z"].shape == (0, 0) and got["s"].tolist() == [0, 0]
        got = m.forward(np.ones((0, 2)), np.ones((2, 3)))
        assert got["y"].shape == (0, 3) and got["z"].tolist() == [[0, 0], [0, 0]]


def test_what_many_elements_read_is_computed_once():
    """exp(r) has T elements and a·exp(r) B·T: the exponential stands in a loop over T alone, for a product too."""
    @gc.model
    def net(a: gc.f64["B", "T"], r: gc.f64["T"]):
        return gc.outputs(y=a * gc.exp(r), z=gc.einsum("bt,t->bt", a, gc.sin(r)))

    low = lowered(net)
    for word in ("exp(", "sin("):
        found = [n for n, text in low.book.texts.items() for x in text.splitlines() if f" = {word}" in x and "#" not in x]
        (kernel,) = found
        assert {str(i.extent) for i in low.program.instructions if i.kernel == kernel} == {"T"}, word


def test_a_movement_is_read_through():
    @gc.model
    def net(a: gc.f64["B", 4], i: gc.i64["N"]):
        return gc.outputs(y=gc.sum(gc.exp(a.T[1:, ::-1] * 2), axis=0), z=gc.take(a, i) + 1)

    low = lowered(net)
    assert len(low.kernels) == 2 and not low.kinds("temp")


def test_a_reshape_is_a_view():
    @gc.model
    def net(a: gc.f64["B", 6]):
        h = gc.exp(a)
        return gc.outputs(y=gc.sum(gc.reshape(h, (gc.dim("B"), 2, 3)), axis=1))

    low = lowered(net)
    assert not low.copies and len(low.kinds("temp")) <= 1


def test_kernels_have_room():
    """A value of very many operands is cut into kernels that a call can pass."""
    names = [f"x{i}" for i in range(40)]
    scope = {"gc": gc}
    exec(compile(f"def wide({', '.join(f'{n}: gc.f64[3]' for n in names)}):\n    return gc.outputs(y={' + '.join(f'gc.sin({n})' for n in names)})", "wide.py", "exec"), scope)
    model = gc.model(scope["wide"])
    low = lowered(model)
    assert all(len(k.arrays) <= 60 for k in low.kernels)
    arrays = [np.full(3, float(i)) for i in range(40)]
    np.testing.assert_allclose(gc.compile(model, dtype="float64").forward(*arrays)["y"], np.sum(np.sin(arrays), axis=0))
