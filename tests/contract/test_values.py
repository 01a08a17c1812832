"""Every operation against NumPy (SciPy for its special functions), on ordinary and on edge inputs."""
import numpy as np
import pytest

import graphc as gc

from .helpers import build, check, reference, same

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.standard_normal(shape)


# Elementwise

def arithmetic(xp, a, b):
    p = xp.abs(a) + 0.5
    return dict(
        add=a + b, sub=a - b, mul=a * b, div=a / b, neg=-a, power=p ** b,
        radd=2 + a, rsub=2 - a, rmul=3 * a, rdiv=2 / p, rpower=2.0 ** a,
        square=a ** 2, cube=a ** 3, inverse=a ** -1, root=p ** 0.5, one=a ** 0, odd=p ** -1.5,
        chain=-(a - b) * 2 + (a + 1) / (p * p) - 3,
        three=a * b * a - b / p)


def comparisons(xp, a, b):
    return dict(lt=a < b, le=a <= b, gt=a > b, ge=a >= b,
                lt0=a < 0, ge1=1.0 >= b,
                count=xp.sum(a > 0), rows=xp.sum(a < b, axis=1), share=xp.mean(a > b))


def choices(xp, a, b):
    return dict(where=xp.where(a > b, a, b), where_number=xp.where(a > 0, a, 0.0), two_numbers=xp.where(a > b, 1.0, -1.0),
                row=xp.where(a[0] > 0, a, b), maximum=xp.maximum(a, b), minimum=xp.minimum(a, b),
                floor=xp.maximum(a, 0.25), ceiling=xp.minimum(0.25, b), nested=xp.where(a > 0, xp.where(b > 0, a, b), -a))


def functions(xp, a, b):
    p = xp.abs(a) + 0.125
    return dict(abs=xp.abs(a), exp=xp.exp(a), log=xp.log(p), log1p=xp.log1p(p), tanh=xp.tanh(a), sigmoid=xp.sigmoid(a),
                relu=xp.relu(a), sqrt=xp.sqrt(p), erf=xp.erf(a), mix=xp.tanh(xp.exp(-a * a) + xp.log(p) * xp.sigmoid(b)))


ELEMENTWISE = {f.__name__: f for f in (arithmetic, comparisons, choices, functions)}


@pytest.mark.parametrize("table", ELEMENTWISE.values(), ids=ELEMENTWISE)
def test_elementwise(table):
    a, b = normal(5, 7), normal(5, 7)
    b[0, :3] = a[0, :3]                                                # ties, for comparisons and maxima
    check(table, (gc.f64[5, 7], gc.f64[5, 7]), a, b)


@pytest.mark.parametrize("table", ELEMENTWISE.values(), ids=ELEMENTWISE)
def test_elementwise_in_float32(table):
    a, b = normal(33, 5).astype(np.float32), normal(33, 5).astype(np.float32)
    b = np.copysign(np.abs(b) + np.float32(0.25), b)                   # a division that is well conditioned
    m = build(table, gc.f32["N", 5], gc.f32["N", 5])
    got = m.forward(a, b)
    same(got, reference(table, a.astype(np.float64), b.astype(np.float64)), rtol=1e-5, atol=1e-5)
    for name in set(got) - {"share"}:                                  # the mean of a bool array is left open
        assert np.asarray(got[name]).dtype not in (np.float64,), name


def test_equality_operators_are_elementwise():
    def table(xp, a, b):
        return dict(eq=a == b, ne=a != b, zero=a == 0, one=1 != b, count=xp.sum(a == b))
    a, b = np.array([1.0, np.nan, 0, -0.0]), np.array([1.0, np.nan, 2, 0])
    check(table, (gc.f64[4], gc.f64[4]), a, b)


def test_broadcasting():
    def table(xp, a, b, c, d):                                         # (3, 1) (1, 4) (4,) ()
        return dict(ab=a + b, ba=b - a, ac=a * c, ca=c / (a * a + 1), bd=b + d, da=d - a, cd=xp.maximum(c, d),
                    where=xp.where(a > b, c, d), abc=a * b + c * d, power=xp.exp(a) ** b, compare=a < c,
                    rank=xp.reshape(a, (3, 1, 1)) * b + c, self=a + xp.transpose(a))
    check(table, (gc.f64[3, 1], gc.f64[1, 4], gc.f64[4], gc.f64[()]), normal(3, 1), normal(1, 4), normal(4), normal())


def test_broadcasting_against_symbolic_sizes():
    def table(xp, a, b, c):
        return dict(column=a * b, row=a + c, all=xp.tanh(a - b) * c, reduced=xp.sum(a * b, axis=0), last=xp.mean(a + c, axis=1))
    m = build(table, gc.f64["B", "T"], gc.f64["B", 1], gc.f64["T"], dtype="float64")
    for n, t in ((1, 1), (1, 6), (5, 1), (4, 3)):
        arrays = normal(n, t), normal(n, 1), normal(t)
        same(m.forward(*arrays), reference(table, *arrays))


def test_only_a_literal_one_broadcasts():
    with pytest.raises(gc.GraphcError):                                # refused at once, or when the sizes are known
        build(lambda xp, a, b: dict(y=a + b), gc.f64["N", 4], gc.f64["M", 4], dtype="float64").forward(normal(1, 4), normal(3, 4))


def test_nan_infinities_and_zeros_are_numpys():
    edge = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 1e300, -1e300, 1e-300, 800.0, -800.0, 5e-324])

    def table(xp, a, b):
        return dict(exp=xp.exp(a), log=xp.log(a), log1p=xp.log1p(a), sqrt=xp.sqrt(a), tanh=xp.tanh(a), abs=xp.abs(a),
                    relu=xp.relu(a), maximum=xp.maximum(a, b), minimum=xp.minimum(a, b), floor=xp.maximum(a, 0.0),
                    sigmoid=xp.sigmoid(a), erf=xp.erf(a), add=a + b, sub=a - b, mul=a * b, div=a / b, inverse=1 / a,
                    square=a ** 2, less=a < b, where=xp.where(a > b, a, b),
                    product=a * 0.0, itself=a - a, quotient=a / a)
    a, b = (g.ravel().copy() for g in np.meshgrid(edge, edge))
    check(table, (gc.f64["N"], gc.f64["N"]), a, b, atol=1e-320)


def test_nan_infinities_and_zeros_in_float32():
    edge = np.array([np.nan, np.inf, -np.inf, 0, -0.0, 1, -1, 3e38, -3e38, 1e-30, 88, 89, -87, -200], np.float32)

    def table(xp, a):
        return dict(exp=xp.exp(a), log=xp.log(a), log1p=xp.log1p(a), sqrt=xp.sqrt(a), tanh=xp.tanh(a), relu=xp.relu(a),
                    sigmoid=xp.sigmoid(a), erf=xp.erf(a), floor=xp.maximum(a, 1.0), square=a * a, inverse=1 / a)
    with np.errstate(all="ignore"):
        want = {k: v.astype(np.float32) for k, v in reference(table, edge.astype(np.float64)).items()}
    same(build(table, gc.f32["N"]).forward(np.tile(edge, 5)), {k: np.tile(v, 5) for k, v in want.items()}, rtol=1e-5, atol=1.2e-38)


def test_reductions_of_nan_and_infinities():
    rows = np.array([[1, np.nan, 2], [np.inf, 1, 2], [-np.inf, 1, 2], [np.inf, -np.inf, 0], [np.nan, np.nan, np.nan],
                     [-np.inf, -np.inf, -np.inf], [0, -0.0, 1e308], [1e308, 1e308, 0]])

    def table(xp, a):
        return dict(sum=xp.sum(a, axis=1), max=xp.max(a, axis=1), mean=xp.mean(a, axis=1), columns=xp.max(a, axis=0),
                    all=xp.max(a), total=xp.sum(a))
    check(table, (gc.f64["N", 3],), rows)


def test_what_floating_point_may_not_rewrite():
    def table(xp, a):
        return dict(quotient=a / a, product=0 * a, cancel=(a + 1) - 1, back=xp.exp(xp.log(a)), root=xp.sqrt(a * a),
                    square=xp.sqrt(a) ** 2, difference=a - a, double=(a * 2) / 2, huge=(a * 1e200) * 1e200 / 1e200 / 1e200)
    check(table, (gc.f64["N"],), np.array([0.0, -1.0, 1e-20, np.inf, np.nan, 3.0, 1e308, -1e308]), atol=0)


# Reductions

def reductions(xp, a):                                                 # (B, 3, 4)
    out = {}
    for name in ("sum", "mean", "max"):
        f = getattr(xp, name)
        out |= {f"{name}_{i}": f(a, axis=axis) for i, axis in enumerate((1, 2, -1, -2, (1, 2), (-1, 1)))}
        out |= {f"{name}_keep_{i}": f(a, axis=axis, keepdims=True) for i, axis in enumerate((1, -1, (1, 2), (2, -2)))}
    return out


def reductions_over_the_batch(xp, a):
    out = {}
    for name in ("sum", "mean", "max"):
        f = getattr(xp, name)
        out |= {f"{name}": f(a), f"{name}_keep": f(a, keepdims=True), f"{name}_0": f(a, axis=0), f"{name}_3": f(a, axis=-3),
                f"{name}_02": f(a, axis=(0, 2)), f"{name}_10": f(a, axis=(-2, 0), keepdims=True), f"{name}_012": f(a, axis=(0, 1, 2))}
    return out


def test_reductions():
    m = build(reductions, gc.f64["B", 3, 4], dtype="float64")
    for n in (1, 2, 7, 0):
        a = normal(n, 3, 4)
        same(m.forward(a), reference(reductions, a))


def test_reductions_over_the_batch():
    m = build(reductions_over_the_batch, gc.f64["B", 3, 4], dtype="float64")
    for n in (1, 2, 9):
        a = normal(n, 3, 4)
        same(m.forward(a), reference(reductions_over_the_batch, a))


def test_reductions_of_sizes_one_and_none():
    def table(xp, a, b):                                               # (1, 1) ()
        return dict(one=xp.sum(a, axis=0), max=xp.max(a, axis=1), both=xp.mean(a), keep=xp.max(a, axis=(0, 1), keepdims=True),
                    scalar=xp.sum(b), scalar_max=xp.max(b), scalar_mean=xp.mean(b))
    check(table, (gc.f64[1, 1], gc.f64[()]), normal(1, 1), normal())


def test_the_empty_sum_is_zero_and_the_empty_mean_nan():
    def table(xp, a):
        return dict(sum=xp.sum(a), rows=xp.sum(a, axis=0), mean=xp.mean(a), means=xp.mean(a, axis=0))
    m = build(table, gc.f64["B", 2], dtype="float64")
    with np.errstate(all="ignore"):
        got = m.forward(np.zeros((0, 2)))
    assert float(got["sum"]) == 0 and np.asarray(got["rows"]).tolist() == [0, 0]
    assert np.isnan(float(got["mean"])) and np.isnan(got["means"]).all()


@pytest.mark.parametrize("n", [1, 15, 16, 17, 1000, 4099])
def test_float32_sums_of_many_lengths(n, long_sums):
    a = RNG.random((n, 3), dtype=np.float32)
    got, want = long_sums.forward(a), a.astype(np.float64)
    np.testing.assert_allclose(got["all"], want.sum(), rtol=1e-5)
    np.testing.assert_allclose(got["columns"], want.sum(0), rtol=1e-5)
    np.testing.assert_allclose(got["mean"], want.mean(), rtol=1e-5)
    np.testing.assert_array_equal(got["max"], a.max(0))


@pytest.fixture(scope="module")
def long_sums():
    return build(lambda xp, a: dict(all=xp.sum(a), columns=xp.sum(a, axis=0), mean=xp.mean(a), max=xp.max(a, axis=0)), gc.f32["N", 3])


# Contractions

def test_matmul():
    def table(xp, a, b, c, d):                                         # (3, 4) (4, 5) (4,) (2, 3, 4)
        return dict(mm=a @ b, mv=a @ c, vm=c @ b, dot=c @ c, named=xp.matmul(a, b), batch_matrix=d @ b, batch_vector=d @ c,
                    matrix_batch=xp.transpose(b) @ xp.transpose(d, (0, 2, 1)), gram=xp.transpose(a) @ a, outer=a @ xp.transpose(a),
                    batch=d @ xp.transpose(d, (0, 2, 1)), spread=xp.reshape(d, (2, 1, 3, 4)) @ xp.stack([b, -b, 2 * b]),
                    fused=xp.tanh(a @ b + 1) * 2, vector_batch=xp.reshape(d, (2, 4, 3))[:, :, 0] @ b)
    check(table, (gc.f64[3, 4], gc.f64[4, 5], gc.f64[4], gc.f64[2, 3, 4]), normal(3, 4), normal(4, 5), normal(4), normal(2, 3, 4),
          rtol=1e-11)


def test_matmul_of_many_sizes():
    def table(xp, a, b, c):
        return dict(ab=a @ b, abt=a @ xp.transpose(c), atb=xp.transpose(b) @ xp.transpose(a))
    for dtype, kind, tolerance in (("float64", gc.f64, 1e-11), ("float32", gc.f32, 2e-5)):
        m = build(table, kind["M", "K"], kind["K", "N"], kind["N", "K"], dtype=dtype)
        for sizes in ((1, 1, 1), (1, 5, 1), (7, 1, 3), (0, 3, 2), (33, 17, 65), (64, 128, 10)):
            rows, inner, columns = sizes
            arrays = [x.astype(dtype) for x in (normal(rows, inner), normal(inner, columns), normal(columns, inner))]
            same(m.forward(*arrays), reference(table, *[x.astype(float) for x in arrays]), rtol=tolerance, atol=tolerance * 10)


def test_a_product_over_nothing_is_zero():
    m = build(lambda xp, a, b: dict(y=a @ b), gc.f64[2, "K"], gc.f64["K", 3], dtype="float64")
    assert m.forward(np.ones((2, 0)), np.ones((0, 3)))["y"].tolist() == [[0] * 3] * 2


def test_einsum():
    def table(xp, a, b, c, d):                                         # (2, 3) (3, 4) (2, 3, 4) (4,)
        specs = {"ij,jk->ik": (a, b), "ij,jk": (a, b), "ij,jk->ki": (a, b), "ij->ji": (a,), "ij->": (a,), "ij->j": (a,), "ij->i": (a,),
                 "ij,ij->ij": (a, a), "ij,ij->": (a, a), "ij,kj->ik": (a, a), "ijk,k->ij": (c, d), "ijk,ij->k": (c, a),
                 "ijk,jk->i": (c, b), "bij,bkj->bik": (c, c), "i,j->ij": (d, d), "i,i->": (d, d), "i,j->ji": (d, d),
                 "ij,jk,k->i": (a, b, d), "k,jk,ij->": (d, b, a), "ijk->kij": (c,), "ijk->ik": (c,), "ij,k->ijk": (a, d)}
        return {f"case{i}": xp.einsum(spec, *operands) for i, (spec, operands) in enumerate(specs.items())}
    check(table, (gc.f64[2, 3], gc.f64[3, 4], gc.f64[2, 3, 4], gc.f64[4]), normal(2, 3), normal(3, 4), normal(2, 3, 4), normal(4), rtol=1e-11)


def test_einsum_of_attention():
    def table(xp, a, b):
        scores = xp.einsum("bqhd,bkhd->bhqk", a, b)
        return dict(scores=scores, context=xp.einsum("bhqk,bkhd->bqhd", scores, b))
    check(table, (gc.f64["B", "Q", 2, 3], gc.f64["B", "K", 2, 3]), normal(2, 4, 2, 3), normal(2, 5, 2, 3), rtol=1e-11)


# Shapes and indices

def test_shapes():
    def table(xp, a, b):                                               # (2, 3, 4) (3, 4)
        first, second = xp.split(a, 2, axis=2)
        thirds = xp.split(b, 3, axis=0)
        return dict(
            flat=xp.reshape(a, (24,)), guess=xp.reshape(a, (4, -1)), all=xp.reshape(a, (-1,)), merge=xp.reshape(a, (6, 4)),
            cut=xp.reshape(a, (2, 3, 2, 2)), extra=xp.reshape(b, (3, 1, 4, 1)), across=xp.reshape(b, (2, 6)),
            reverse=xp.transpose(a), swap=xp.transpose(a, (1, 0, 2)), turn=xp.transpose(a, (2, 0, 1)), negative=xp.transpose(a, (0, -1, -2)),
            both=xp.reshape(xp.transpose(a, (1, 0, 2)), (6, 4)), again=xp.transpose(xp.reshape(xp.transpose(b), (2, 6))),
            wide=xp.broadcast_to(b, (2, 3, 4)), one=xp.broadcast_to(b[:, :1], (3, 5)), many=xp.broadcast_to(b[0], (2, 2, 4)),
            concat=xp.concat([b, 2 * b], axis=0), concat1=xp.concat([b, b[:, :2], -b], axis=1), concat2=xp.concat([a, a], axis=-1),
            three=xp.concat([a, xp.reshape(b, (1, 3, 4))], axis=0), stack=xp.stack([b, -b]), stack1=xp.stack([b, 2 * b, b], axis=1),
            last=xp.stack([b, b * b], axis=-1), first=first, second=second, swapped=xp.concat([second, first], axis=2),
            thirds=thirds[2] - thirds[0], through=xp.sum(xp.reshape(xp.tanh(a), (6, 4)) * 2, axis=0))
    check(table, (gc.f64[2, 3, 4], gc.f64[3, 4]), normal(2, 3, 4), normal(3, 4))


def test_basic_indexing():
    def table(xp, a, b):                                               # (4, 5, 6) (7,)
        return dict(
            row=a[0], last=a[-1], one=a[1, 2, 3], negative=a[-1, -2, -3], part=a[1:3], head=a[:2], tail=a[2:], back=a[-2:], most=a[:-1],
            step=a[::2], offset=a[1::2], columns=a[:, 1:4:2], reverse=a[::-1], both=a[::-1, :, ::-2], down=a[3:0:-1], down2=a[:, 4:1:-2],
            new=a[None], middle=a[:, None], end=a[..., None], dots=a[..., 0], dots2=a[0, ...], dots3=a[..., 1:3, 0], mixed=a[1, ..., ::2],
            many=a[:, None, 2, None, ::-1], long=a[1:100], empty=a[2:2], point=b[3], vector=b[::3], turned=b[::-1], tail2=b[-3:-1],
            chained=a[1:][::2, 1:][:, ::-1], used=b[1:] - b[:-1], whole=a[...], nothing=b[:], spread=b[:, None] * b[None, :])
    check(table, (gc.f64[4, 5, 6], gc.f64[7]), normal(4, 5, 6), normal(7))


def test_indexing_beside_a_symbolic_axis():
    def table(xp, a):
        return dict(first=a[:, 0], half=a[:, ::2], turned=a[:, ::-1], backwards=a[::-1], row=a[0], end=a[-1], tail=a[1:], most=a[:-1],
                    even=a[::2], change=a[1:] - a[:-1], pairs=a[:, :2] * a[:, 2:])
    m = build(table, gc.f64["N", 4], dtype="float64")
    for n in (1, 2, 3, 6):
        a = normal(n, 4)
        same(m.forward(a), reference(table, a))


def test_take():
    def table(xp, a, b, c):                                            # (5, 3), two axes of indices, one index
        return dict(rows=xp.take(a, b, axis=0), one=xp.take(a, c, axis=0), columns=xp.take(a, xp.const(np.array([2, 0, 2, 1])), axis=1),
                    negative_axis=xp.take(a, xp.const(np.array([1, 1])), axis=-1),
                    fused=xp.tanh(xp.take(a * 2, b, axis=0)) + 1)
    a, b = normal(5, 3), np.array([[0, 4, 4, 1], [2, 2, 0, 3]])
    for kind, dtype in ((gc.i64, np.int64), (gc.i32, np.int32)):
        check(table, (gc.f64[5, 3], kind["B", 4], kind[()]), a, b.astype(dtype), np.array(3, dtype))


def test_take_of_no_indices():
    m = build(lambda xp, a, b: dict(y=xp.take(a, b, axis=0)), gc.f64[5, 3], gc.i64["N"], dtype="float64")
    assert m.forward(normal(5, 3), np.zeros(0, np.int64))["y"].shape == (0, 3)


# Compositions

@pytest.mark.parametrize("axis", [-1, 0, 1])
def test_softmax_family(axis):
    def table(xp, a):
        return dict(softmax=xp.softmax(a, axis=axis), log_softmax=xp.log_softmax(a, axis=axis), logsumexp=xp.logsumexp(a, axis=axis))
    check(table, (gc.f64["B", 3, 4],), 5 * normal(2, 3, 4))


def test_softmax_of_one_class_is_one():
    m = build(lambda xp, a: dict(p=xp.softmax(a, axis=-1), l=xp.log_softmax(a, axis=-1)), gc.f64["B", 1], dtype="float64")
    out = m.forward(normal(3, 1))
    assert out["p"].tolist() == [[1]] * 3 and out["l"].tolist() == [[0]] * 3


def test_losses():
    def table(xp, z, y, labels):
        out = {}
        for reduction in ("mean", "sum", "none"):
            out[f"mse_{reduction}"] = gc.nn.mse(z, y, reduction=reduction)
            out[f"bce_{reduction}"] = gc.nn.binary_cross_entropy(z, y, reduction=reduction)
            out[f"ce_{reduction}"] = gc.nn.cross_entropy(z, labels, reduction=reduction)
        return out | dict(mse=gc.nn.mse(z, y), bce=gc.nn.binary_cross_entropy(z, y), ce=gc.nn.cross_entropy(z, labels))
    z, y, labels = 3 * normal(6, 4), RNG.random((6, 4)), np.array([0, 3, 1, 1, 2, 0])
    every = dict(mse=(z - y) ** 2, bce=np.logaddexp(0, z) - y * z, ce=np.log(np.exp(z).sum(1)) - z[np.arange(6), labels])
    want = {}
    for name, value in every.items():
        want |= {f"{name}_mean": value.mean(), f"{name}_sum": value.sum(), f"{name}_none": value, name: value.mean()}
    m = build(table, gc.f64["B", 4], gc.f64["B", 4], gc.i64["B"], dtype="float64")
    same(m.forward(z, y, labels), {k: np.asarray(v) for k, v in want.items()})


def test_linear():
    @gc.model
    def net(x: gc.f64["B", 3], s: gc.f64["B", "T", 3]):
        with gc.scope("flat"):
            y = gc.nn.linear(x, 5, name="layer")
        return gc.outputs(y=y, s=gc.nn.linear(s, 2, name="each"))
    m = gc.compile(net, dtype="float64")
    assert {n: p.shape for n, p in m.params.items()} == {"flat/layer/W": (3, 5), "flat/layer/b": (5,), "each/W": (3, 2), "each/b": (2,)}
    for p in m.params.values():
        p[...] = RNG.standard_normal(p.shape)
    x, s = normal(2, 3), normal(2, 6, 3)
    out = m.forward(x=x, s=s)
    np.testing.assert_allclose(out["y"], x @ m.params["flat/layer/W"] + m.params["flat/layer/b"], rtol=1e-12)
    np.testing.assert_allclose(out["s"], s @ m.params["each/W"] + m.params["each/b"], rtol=1e-12)


# Arrays as they come

@pytest.fixture(scope="module")
def mixed():
    def table(xp, a, b):
        return dict(y=xp.tanh(a @ b + 1), rows=xp.sum(a, axis=1), columns=xp.max(a, axis=0), turned=xp.transpose(a) * 2, same=a, tail=a[1:, ::-1])
    return table, build(table, gc.f64["N", 4], gc.f64[4, 3], dtype="float64")


LAYOUTS = {
    "fortran": lambda n: np.asfortranarray(normal(n, 4)),
    "transposed": lambda n: normal(4, n).T,
    "every second row": lambda n: normal(2 * n, 4)[::2],
    "reversed": lambda n: normal(n, 4)[::-1, ::-1],
    "some columns": lambda n: normal(n, 9)[:, 1::2],
    "one row repeated": lambda n: np.broadcast_to(normal(1, 4), (n, 4)),
    "one column repeated": lambda n: np.broadcast_to(normal(n, 1), (n, 4)),
    "unaligned": lambda n: np.frombuffer(b"x" + normal(n, 4).tobytes(), np.float64, n * 4, offset=1).reshape(n, 4),
    "read-only": lambda n: np.frombuffer(normal(n, 4).tobytes()).reshape(n, 4),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_memory_layout(mixed, layout):
    table, m = mixed
    b = np.asfortranarray(normal(4, 3))
    for n in (1, 5):
        a = LAYOUTS[layout](n)
        before = a.copy()
        same(m.forward(a, b), reference(table, before, b))
        np.testing.assert_array_equal(a, before)                       # inputs are never written


def test_a_big_endian_array_is_read_right_or_refused(mixed):
    table, m = mixed
    a, b = normal(3, 4), normal(4, 3)
    try:
        got = m.forward(a.astype(">f8"), b)
    except gc.GraphcError:
        return
    same(got, reference(table, a, b))


def test_lists_and_numbers_are_converted():
    m = build(lambda xp, a, b, c: dict(y=a * b + xp.take(a, c, axis=0)), gc.f32["N"], gc.f32[()], gc.i64[()])
    got = m.forward([1.0, 2.0, 3.0], 2.0, 1)["y"]
    assert got.tolist() == [4, 6, 8] and got.dtype == np.float32
    assert m.forward([1, 2], 3, 0)["y"].tolist() == [4, 7]


def test_outputs_belong_to_the_caller_and_do_not_overlap():
    @gc.model
    def net(x: gc.f64["N"]):
        w = gc.param("w", (3,))
        y = x * 2
        return gc.outputs(x=x, again=x, y=y, alias=y, w=w, view=y[1:], constant=gc.const(np.arange(3.0)))
    m = gc.compile(net, dtype="float64")
    x = normal(4)
    out = m.forward(x=x)
    arrays = {**{k: np.asarray(v) for k, v in out.items()}, "the input": x, "the parameter": m.params["w"]}
    names = list(arrays)
    for i, one in enumerate(names):
        for other in names[i + 1:]:
            assert not np.shares_memory(arrays[one], arrays[other]), (one, other)
    before = {k: np.array(v) for k, v in out.items()}
    for array in out.values():
        array[...] = 77
    for name, value in m.forward(x=x).items():
        np.testing.assert_array_equal(value, before[name])


def test_asking_for_outputs_by_name():
    m = build(lambda xp, a, b: dict(sum=a + b, double=2 * a, half=b / 2), gc.f64["N"], gc.f64["N"], dtype="float64")
    x = normal(3)
    assert set(m.forward(a=x)) == {"double"} and set(m.forward(b=x)) == {"half"}
    assert set(m.forward(a=x, b=x)) == {"sum", "double", "half"}
    assert set(m.forward(a=x, b=x, outputs=["sum"])) == {"sum"}
    np.testing.assert_array_equal(m.forward(a=x, outputs=["double"])["double"], 2 * x)


# Other types

def test_integers():
    def table(xp, a, b):
        return dict(add=a + b, sub=a - b, mul=a * b, neg=-a, abs=xp.abs(a), square=a * a, maximum=xp.maximum(a, b), minimum=xp.minimum(a, b),
                    where=xp.where(a > b, a, b), sum=xp.sum(a), rows=xp.sum(a, axis=1), max=xp.max(a, axis=0), less=a < b,
                    plus=a + 1, twice=2 * a, matmul=a @ xp.transpose(b), part=a[:, ::-1], flat=xp.reshape(a, (-1,)), both=xp.concat([a, b], axis=1),
                    division=a / (xp.abs(b) + 1), mean=xp.mean(a), zero=a * 0)
    for kind, dtype in ((gc.i32, np.int32), (gc.i64, np.int64)):
        a, b = (RNG.integers(-9, 10, (4, 3)).astype(dtype) for _ in range(2))
        check(table, (kind["N", 3], kind["N", 3]), a, b)


def test_large_integers_stay_exact():
    m = build(lambda xp, a: dict(next=a + 1, sum=xp.sum(a), max=xp.max(a)), gc.i64["N"], dtype="float64")
    a = np.array([2 ** 53 + 1, 2, -5])
    out = m.forward(a)
    assert np.asarray(out["next"]).tolist() == [2 ** 53 + 2, 3, -4] and int(out["sum"]) == 2 ** 53 - 2 and int(out["max"]) == 2 ** 53 + 1


def test_bools_choose_and_count():
    def table(xp, a, b, c):
        return dict(where=xp.where(a, b, c), count=xp.sum(a), rows=xp.sum(a, axis=1), same=a, part=a[::2], flat=xp.reshape(a, (-1,)),
                    share=xp.mean(a), other=xp.where(b > c, a, b > 0))
    check(table, (gc.bool_["N", 3], gc.f64["N", 3], gc.f64["N", 3]), RNG.random((4, 3)) < 0.5, normal(4, 3), normal(4, 3))


def test_promotion_is_numpys():
    def table(xp, a, b, c):                                            # f32, f64, i32
        return dict(wide=a + b, weak=a * 2.5 + 1, integers=c + 1, half=c / 2, mixed=b * c, compare=a < b)
    a, b, c = normal(3).astype(np.float32), normal(3), np.array([1, 2, 3], np.int32)
    got = build(table, gc.f32[3], gc.f64[3], gc.i32[3]).forward(a, b, c)
    want = reference(table, a, b, c)
    same(got, want, rtol=1e-6)
    for name in ("wide", "weak", "integers", "mixed", "compare"):
        assert got[name].dtype == want[name].dtype, name


def test_float64_reads_every_f32_as_f64():
    @gc.model
    def net(x: gc.f32[3]):
        return gc.outputs(y=x + gc.param("w", (3,)), z=gc.zeros((2,)), o=gc.ones((2, 1)))
    m = gc.compile(net, dtype="float64")
    out = m.forward(x=np.array([0.1, 0.2, 0.3]))
    assert {np.asarray(v).dtype.name for v in out.values()} == {"float64"} and m.params["w"].dtype == np.float64
    np.testing.assert_array_equal(out["y"], [0.1, 0.2, 0.3])
    assert out["z"].tolist() == [0, 0] and out["o"].tolist() == [[1], [1]]
    m = gc.compile(net)
    out = m.forward(x=np.zeros(3, np.float32))
    assert {np.asarray(v).dtype.name for v in out.values()} == {"float32"} and m.params["w"].dtype == np.float32


# Parameters, states, entries

def test_default_initial_values():
    @gc.model
    def net():
        return gc.outputs(y=gc.sum(gc.param("W", (200, 100))) + gc.sum(gc.param("b", (7,))) + gc.param("s", ()))
    one, same_seed, other = gc.compile(net), gc.compile(net, seed=0), gc.compile(net, seed=1)
    w, bound = one.params["W"], np.sqrt(6 / 300)
    assert np.abs(w).max() <= bound and np.abs(w).max() > 0.98 * bound and abs(w.mean()) < 0.05 * bound
    assert abs(w.std() - bound / np.sqrt(3)) < 0.02 * bound
    assert not one.params["b"].any() and one.params["s"] == 0
    np.testing.assert_array_equal(w, same_seed.params["W"])
    assert (w != other.params["W"]).mean() > 0.99


def test_scopes_nest_and_shared_names_share():
    @gc.model
    def net():
        with gc.scope("encoder"), gc.scope("hidden"):
            w = gc.param("W", (2,))
        a, b = gc.param("tied", (2,), shared=True), gc.param("tied", (2,), shared=True)
        return gc.outputs(loss=gc.sum(w * a + b))
    m = gc.compile(net)
    assert set(m.params) == {"encoder/hidden/W", "tied"}
    m.params["encoder/hidden/W"][...], m.params["tied"][...] = [2, 3], [1, 1]
    out, grads = m.value_and_grad()
    assert float(out["loss"]) == 7 and grads["tied"].tolist() == [3, 4] and grads["encoder/hidden/W"].tolist() == [1, 1]


def test_updates_of_states_and_parameters_happen_when_the_call_ends():
    @gc.model
    def net(x: gc.f64[2]):
        w, a, b = gc.param("w", (2,)), gc.state("a", (2,)), gc.state("b", (2,))
        gc.update(a, a + x)
        gc.update(b, a)                                                # the a of before the call
        gc.update(w, w + 0.5 * x)
        return gc.outputs(a=a, b=b, y=w * x)
    m = gc.compile(net, dtype="float64")
    seen = [m.forward(x=np.array([v, -v])) for v in (1.0, 2.0, 3.0)]
    assert [o["a"][0] for o in seen] == [0, 1, 3] and [o["b"][0] for o in seen] == [0, 0, 1] and [o["y"][0] for o in seen] == [0, 1, 4.5]
    np.testing.assert_array_equal(m.params["w"], [3, -3])
    m.reset()
    out = m.forward(x=np.zeros(2))
    assert not out["a"].any() and not out["b"].any()
    np.testing.assert_array_equal(m.params["w"], [3, -3])              # reset is for states


def test_hyperparameters_choose_the_model():
    @gc.model
    def net(x: gc.f32["B", 2], *, layers: int = 1, slope: float = 2.0):
        for i in range(layers):
            x = x * slope + gc.param(f"b{i}", (2,))
        return gc.outputs(y=x)
    x = np.ones((1, 2), np.float32)
    assert gc.compile(net).forward(x=x)["y"].tolist() == [[2, 2]]
    m = gc.compile(net, layers=3, slope=3.0)
    assert m.forward(x=x)["y"].tolist() == [[27, 27]] and len(m.params) == 3


def test_out_reuses_arrays_clone_shares_and_freeze_protects(xor_py):
    m = gc.compile(str(xor_py))
    x, y = RNG.random((5, 2), dtype=np.float32), RNG.random((5, 1), dtype=np.float32)
    first = m.forward(x=x, y=y)
    want = {k: np.array(v) for k, v in m.forward(x=-x, y=y).items()}
    second = m.forward(x=-x, y=y, out=first)
    for name in want:
        np.testing.assert_array_equal(second[name], want[name])
    assert np.shares_memory(second["y_hat"], first["y_hat"])
    other = m.clone()
    m.params["out/b"][...] += 1
    np.testing.assert_array_equal(other.forward(x=x)["y_hat"], m.forward(x=x)["y_hat"])
    before = m.forward(x=x)["y_hat"]
    m.freeze()
    np.testing.assert_allclose(m.forward(x=x)["y_hat"], before, rtol=1e-6)
    with pytest.raises((ValueError, gc.GraphcError)):
        m.params["out/b"][...] = 3
    m.thaw()
    m.params["out/b"][...] += 1
    np.testing.assert_allclose(m.forward(x=x)["y_hat"], before + 1, rtol=1e-6)


def test_equal_calls_give_equal_bits(xor_py):
    m = gc.compile(str(xor_py), hidden=33)
    x, y = RNG.random((100, 2), dtype=np.float32), RNG.random((100, 1), dtype=np.float32)
    out, grads = m.value_and_grad(x=x, y=y)
    m.value_and_grad(x=x[:3], y=y[:3])                                 # other sizes in between
    again, grads2 = m.value_and_grad(x=x, y=y)
    np.testing.assert_array_equal(out["y_hat"], again["y_hat"])
    for name in grads:
        np.testing.assert_array_equal(grads[name], grads2[name])
