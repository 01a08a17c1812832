"""Frozen parameters in the order in which matrix products read them: packed once, for all calls until `thaw`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from . import driver, products
from .memory import side_by_side

Array = np.ndarray[Any, Any]


class Packed:
    """The packed right-hand operands of a model's products, each made when the first product asks for it."""

    def __init__(self, params: Mapping[str, Array]):
        self._params = params
        self._made: dict[tuple[Any, ...], Array] = {}

    def operand(self, name: str, offset: int, t: str, n: int, k: int, ldb: int, trans_b: bool) -> Array:
        """The (k, n) matrix that lies in a parameter from the element `offset` on, its rows ldb apart, packed."""
        key = (name, offset, t, n, k, ldb, trans_b)
        if key not in self._made:
            source = self._params[name].reshape(-1)[offset:]
            _, (target,) = side_by_side([(source.dtype, (products.packed_size(t, n, k),))])
            kernel = driver.fixed_kernels(f"pack_{t}")[f"pack_{t}"]
            first = driver.FIRST_FREE_SLOT
            values = ((0, n), (0, k), (0, ldb), (0, int(trans_b)))
            program = driver.Program([driver.Call(kernel, ((first, 0), (first + 1, 0), *values))], first + 2)
            program.bind(first, source)
            program.bind(first + 1, target)
            program.run()
            self._made.setdefault(key, target)  # another thread may have been faster: its array's address is in use
        return self._made[key]
