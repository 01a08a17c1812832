"""graphc: a symbolic computation-graph compiler and autodiff engine.

    import graphc as gc

    @gc.model
    def xor(x: gc.f32["B", 2], y: gc.f32["B", 1], *, hidden: int = 2):
        h = gc.relu(gc.nn.linear(x, hidden, name="hidden"))
        y_hat = gc.nn.linear(h, 1, name="out")
        return gc.outputs(y_hat=y_hat, loss=gc.nn.mse(y_hat, y))

    m = gc.compile(xor, hidden=8)
    outputs, gradients = m.value_and_grad(x=x, y=y)

Everything is loaded when it is first used, so that a compiled model imports without SymPy and networkx.
"""

from importlib import import_module as _import_module

__version__ = "0.1.0"

_HOMES = {
    ".graph.dtype": ("f32", "f64", "i32", "i64", "bool_"),
    ".errors": ("GraphcError",),
    ".frontend.elementwise": (
        "abs",
        "cast",
        "cos",
        "elu",
        "equal",
        "erf",
        "exp",
        "expm1",
        "floor",
        "gelu",
        "leaky_relu",
        "log",
        "log1p",
        "logical_and",
        "logical_not",
        "logical_or",
        "maximum",
        "minimum",
        "relu",
        "sigmoid",
        "sign",
        "silu",
        "sin",
        "softplus",
        "sqrt",
        "square",
        "step",
        "stop_gradient",
        "tanh",
        "where",
    ),
    ".frontend.reduce": ("argmax", "logsumexp", "max", "mean", "min", "sum"),
    ".frontend.normalise": ("layer_norm", "log_softmax", "softmax"),
    ".frontend.contract": ("einsum",),
    ".frontend.shape": (
        "broadcast_to",
        "concat",
        "dim",
        "expand_dims",
        "reshape",
        "split",
        "squeeze",
        "stack",
        "transpose",
    ),
    ".frontend.index": ("take", "take_along_axis"),
    ".frontend.create": ("arange", "const", "full", "ones", "zeros"),
    ".frontend.grad": ("grad", "hvp", "jvp"),
    ".frontend.model": ("model", "outputs", "param", "state", "update"),
    ".frontend.random": ("dropout", "training"),
    ".frontend.scan": ("scan",),
    ".frontend.trace": ("scope",),
    ".frontend.tensor": ("Tensor", "matmul"),
    ".pipeline": ("compile",),
    ".runtime.artifact": ("load",),
    ".train.dataset": ("Dataset",),
    ".generation": ("generate",),
    ".vocabulary": ("Tokenizer", "Vocabulary"),
    ".derivatives.partials": ("op",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
_MODULES = {
    "nn": ".nn",
    "init": ".frontend.init",
    "random": ".frontend.random",
    "testing": ".testing",
    "train": ".train",
}

__all__ = [*_HOME, *_MODULES]


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return _import_module(_MODULES[name], __name__)
    if name in _HOME:
        return getattr(_import_module(_HOME[name], __name__), name)
    raise AttributeError(f"module 'graphc' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
