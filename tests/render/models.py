"""Models to draw: small ones with a name for what each shows."""

import graphc as gc


@gc.model
def computation_graph(a: gc.f32[()], b: gc.f32[()], c: gc.f32[()]):
    d = 2 * b
    e = a + d
    loss = c * e
    return gc.outputs(e=e, loss=loss)


@gc.model
def attention(x: gc.f32["B", "T", 16], y: gc.f32["B", "T", 16], mask: gc.bool_["T", "T"]):
    q = gc.nn.linear(x, 16, name="query", bias=False)
    k = gc.nn.linear(x, 16, name="key", bias=False)
    v = gc.nn.linear(x, 16, name="value", bias=False)
    scores = q @ gc.transpose(k, (0, 2, 1)) / 4.0
    e = gc.exp(gc.where(mask, scores, -1e9))
    weights = e / gc.sum(e, axis=-1, keepdims=True)
    context = weights @ v
    return gc.outputs(context=context, loss=gc.nn.mse(context, y))


@gc.model
def deep(x: gc.f32["B", 32], y: gc.f32["B", 32]):
    """Twelve equal layers; what joins them stands outside of their scopes."""
    h = x
    for i in range(12):
        h = gc.tanh(gc.nn.linear(h, 32, name=f"layer{i}"))
    return gc.outputs(h=h, loss=gc.nn.mse(h, y))


@gc.model
def residual(x: gc.f32["B", 32], y: gc.f32["B", 10], m: gc.f32["B", 32]):
    """Equal blocks with scopes of their own and a value that all of them read; equal heads side by side."""
    h = gc.nn.linear(x, 32, name="input")
    for i in range(5):
        with gc.scope(f"block{i}"):
            u = gc.nn.linear(gc.relu(h), 64, name="up")
            h = h + m * gc.nn.linear(gc.relu(u), 32, name="down")
    heads = [gc.tanh(gc.nn.linear(h, 5, name=f"head{j}")) for j in range(4)]
    out = gc.nn.linear(gc.concat(heads, axis=-1), 10, name="out")
    return gc.outputs(out=out, loss=gc.nn.mse(out, y))


@gc.model
def mixed(words: gc.i64["B", 5], x: gc.f32["B", 8], flag: gc.bool_["B"]):
    """Choices, look-ups, slices, marks, a state, names that need care, outputs of every kind."""
    E = gc.param("a <very> long & ünicode/name_that_goes_on_and_on_for_a_while/E", (100, 4))
    seen = gc.state("seen/count", (), 0)
    gc.update(seen, seen + 1)
    e = gc.take(E, words)
    flat = gc.reshape(e, (gc.dim("B"), 20))
    left, right = x[:, :4], x[:, ::-2]
    gate = gc.where(left > 0, right, gc.sqrt(gc.abs(left)))
    both = gc.concat([flat, gate], axis=1)
    z = gc.where(gc.expand_dims(flag, 1), both**3, gc.maximum(both, 0.5))
    score = gc.einsum("bi,bj,ij->b", gate, gate, gc.param("M", (4, 4)))
    p = gc.sigmoid(score)
    with gc.scope("loss <of> it all & more"):
        loss = -gc.mean(gc.log(p)) + gc.mean(z * z) / 2
    return gc.outputs(p=p, top=gc.argmax(both, axis=1), x=x, loss=loss, shifted=gc.transpose(both), one=gc.const(1.5))
