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

_FUNCTIONS = (
    "abs",
    "arange",
    "argmax",
    "broadcast_to",
    "cast",
    "concat",
    "const",
    "cos",
    "dim",
    "einsum",
    "elu",
    "equal",
    "erf",
    "exp",
    "expand_dims",
    "expm1",
    "floor",
    "full",
    "gelu",
    "grad",
    "hvp",
    "jvp",
    "layer_norm",
    "leaky_relu",
    "log",
    "log1p",
    "log_softmax",
    "logical_and",
    "logical_not",
    "logical_or",
    "logsumexp",
    "matmul",
    "max",
    "maximum",
    "mean",
    "min",
    "minimum",
    "ones",
    "relu",
    "reshape",
    "sigmoid",
    "sign",
    "silu",
    "sin",
    "softmax",
    "softplus",
    "split",
    "sqrt",
    "square",
    "squeeze",
    "stack",
    "step",
    "stop_gradient",
    "sum",
    "take",
    "take_along_axis",
    "tanh",
    "transpose",
    "where",
    "zeros",
)

_HOMES = {
    ".graph.dtype": ("f32", "f64", "i32", "i64", "bool_"),
    ".errors": ("GraphcError",),
    ".frontend.functions": _FUNCTIONS,
    ".frontend.model": ("model", "outputs", "param", "state", "update"),
    ".frontend.random": ("dropout", "training"),
    ".frontend.scan": ("scan",),
    ".frontend.trace": ("scope",),
    ".frontend.tensor": ("Tensor",),
    ".pipeline": ("compile",),
    ".runtime.artifact": ("load",),
    ".train.dataset": ("Dataset",),
    ".derivatives.partials": ("op",),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}
_MODULES = {"nn": ".nn", "init": ".frontend.init", "random": ".frontend.random", "testing": ".testing", "train": ".train"}

__all__ = [*_HOME, *_MODULES]


def __getattr__(name: str) -> object:
    if name in _MODULES:
        return _import_module(_MODULES[name], __name__)
    if name in _HOME:
        return getattr(_import_module(_HOME[name], __name__), name)
    raise AttributeError(f"module 'graphc' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
