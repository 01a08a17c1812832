"""Index forms evaluated element by element in plain Python: independent of how they were derived."""
import itertools
import math

import numpy as np

from graphc.explain.expression import Apply, Bracket, Cases, Extent, Num, Reduce, Ref, Var
from graphc.ops.elementwise import ROWS

OPERATIONS = {
    "add": lambda *a: sum(a), "mul": lambda *a: math.prod(a), "neg": lambda a: -a, "div": lambda a, b: a / b,
    "pi": lambda: math.pi, "e": lambda: math.e, "floordiv": lambda a, b: a // b, "mod": lambda a, b: a % b,
    "within": lambda a, n: 0 <= a < n, "trunc": math.trunc, "sign": np.sign, "logical_not": np.logical_not,
    "logical_and": np.logical_and, "logical_or": np.logical_or,
}


class Evaluator:
    """Values of expressions, given the arrays of the symbols and the sizes."""

    def __init__(self, arrays, sizes):
        self.arrays, self.sizes = dict(arrays), sizes

    def extent(self, size):
        return size.evaluate(self.sizes)

    def define(self, symbol, indices, value):
        """The whole array of an element's expression."""
        shape = tuple(self.extent(v.extent) for v in indices)
        dtype = {"f": float, "i": int, "b": bool}[symbol.kind]
        array = np.zeros(shape, dtype)
        for at in itertools.product(*map(range, shape)):
            array[at] = self.value(value, dict(zip(indices, at)))
        return array

    def value(self, e, env):
        match e:
            case Var():
                return env[e]
            case Num(value):
                return float(value) if value != int(value) else int(value)
            case Extent(size):
                return self.extent(size)
            case Ref(symbol, indices):
                return self.arrays[symbol.name][tuple(int(self.value(i, env)) for i in indices)]
            case Bracket(condition):
                return 1 if self.value(condition, env) else 0
            case Cases(branches, otherwise):
                return self.value(next((v for v, c in branches if self.value(c, env)), otherwise), env)
            case Reduce(op, over, body):
                points = itertools.product(*(range(self.extent(v.extent)) for v in over))
                values = [self.value(body, env | dict(zip(over, at))) for at in points]
                if op.startswith("arg"):
                    return int(getattr(np, op)(values))
                return {"sum": sum, "prod": math.prod, "max": max, "min": min}[op](values)
            case Apply("mul", args):
                # a bracket that is 0 guards what beside it may be no element at all
                brackets = [a for a in args if isinstance(a, Bracket)]
                if not all(self.value(b, env) for b in brackets):
                    return 0
                return math.prod(self.value(a, env) for a in args if a not in brackets)
            case Apply("dot", (a, b)):
                return self.value(a, env) @ self.value(b, env)
            case Apply(op, args):
                values = [self.value(a, env) for a in args]
                if op in OPERATIONS:
                    return OPERATIONS[op](*values)
                return ROWS[op].oracle(*map(np.asarray, values))
        raise TypeError(e)

    # -- matrix form ------------------------------------------------------------------------------------------------
    def whole(self, e):
        """A matrix form: arrays of one axis are columns."""
        match e:
            case Num(value):
                return float(value)
            case Extent(size):
                return self.extent(size)
            case Ref(symbol, ()):
                array = self.arrays[symbol.name]
                return array[:, None] if array.ndim == 1 else array
            case Bracket(condition):
                return np.where(self.whole(condition), 1.0, 0.0)
            case Apply("matmul", args):
                result = self.whole(args[0])
                for a in args[1:]:
                    result = result @ self.whole(a)
                return result
            case Apply("transpose", (x,)):
                return self.whole(x).T
            case Apply("ones", (n,)):
                return np.ones((int(self.whole(n)), 1))
            case Apply("onehot", (x, n)):
                return np.eye(int(self.whole(n)))[self.whole(x)[:, 0]]
            case Apply("mul" | "hadamard", args):
                result = 1.0
                for a in args:
                    result = result * self.whole(a)
                return result
            case Apply(op, args):
                values = [self.whole(a) for a in args]
                return OPERATIONS[op](*values) if op in OPERATIONS else ROWS[op].oracle(*map(np.asarray, values))
        raise TypeError(e)
