"""Sums of products whose strides merge are matrix products, handed to the matrix-product kernel."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from ..graph.formula import Affine
from ..graph.node import Node
from ..graph.size import Size, SizeLike, product, size
from .statements import Access, Statement


@dataclass(frozen=True)
class Matrix:
    """A matrix in an array: offset of its first element, distance between rows, whether it is transposed, and the
    distance between the matrices of a batch. All in elements."""

    array: Node
    offset: Size
    leading: Size
    transposed: bool
    batch_stride: Size


@dataclass(frozen=True)
class Product:
    """out = a @ b for a batch of matrices of m × k and k × n."""

    node: Node
    a: Matrix
    b: Matrix
    c: Matrix
    m: Size
    n: Size
    k: Size
    batch: Size


def strides_of(view: Sequence[Size]) -> list[Size]:
    """Row-major strides of a shape, in elements."""
    strides = [size(1)] * len(view)
    for d in reversed(range(len(view) - 1)):
        strides[d] = strides[d + 1] * view[d + 1]
    return strides


def flat(access: Access) -> Affine | None:
    """The flat position of an access over the loop variables; None where a look-up is part of it."""
    if any(i is None for i in access.map):
        return None
    total = Affine(size(0), ())
    for index, stride in zip(access.map, strides_of(access.view), strict=True):
        assert index is not None
        total = total + index * stride
    return total


def as_product(statement: Statement) -> Product | None:
    """The statement as a matrix product, or None."""
    body, node = statement.body, statement.node
    if statement.reduce != "sum" or not statement.plain or body.op != "mul" or not node.dtype.is_float:
        return None
    if any(factor.op != "access" for factor in body.args):
        return None
    left, right = (flat(factor.value) for factor in body.args)
    if left is None or right is None:
        return None
    strides = strides_of(node.shape)
    out = Affine(size(0), ())
    for index, stride in zip(statement.write, strides, strict=True):
        assert isinstance(index, Affine)
        out = out + index * stride
    box = statement.box
    in_a, in_b, in_c = set(left.axes), set(right.axes), set(out.axes)
    everywhere = [a for a in range(len(box)) if a in in_a and a in in_b and a in in_c]
    rows = [a for a in range(len(box)) if a in in_a and a not in in_b and a in in_c]
    columns = [a for a in range(len(box)) if a in in_b and a not in in_a and a in in_c]
    inner = [a for a in range(len(box)) if a in in_a and a in in_b and a not in in_c]
    if len(everywhere) + len(rows) + len(columns) + len(inner) != len(box) or not inner or not (rows or columns):
        return None  # without an inner axis nothing is summed; without rows and columns it is a dot, which a loop does
    a, b = ((factor.value.array, form) for factor, form in zip(body.args, (left, right), strict=True))
    ahead = _layout(node, box, a, b, out, everywhere, rows, columns, inner)
    return ahead or _layout(node, box, b, a, out, everywhere, columns, rows, inner)


Operand = tuple[Node, Affine]


def _layout(
    node: Node,
    box: Sequence[Size],
    a: Operand,
    b: Operand,
    out: Affine,
    batch: list[int],
    rows: list[int],
    columns: list[int],
    inner: list[int],
) -> Product | None:
    """The product with `rows` from a and `columns` from b, if every group of axes is evenly spaced."""
    merged = {}
    for name, form, axes in (
        ("ar", a[1], rows),
        ("ai", a[1], inner),
        ("bi", b[1], inner),
        ("bc", b[1], columns),
        ("cr", out, rows),
        ("cc", out, columns),
        ("ab", a[1], batch),
        ("bb", b[1], batch),
        ("cb", out, batch),
    ):
        step = _merge(form, axes, box)
        if step is None:
            return None
        merged[name] = step
    m, n, k = (product(box[x] for x in axes) for axes in (rows, columns, inner))
    a_matrix = _matrix(a, merged["ar"], merged["ai"], m, k, merged["ab"])
    b_matrix = _matrix(b, merged["bi"], merged["bc"], k, n, merged["bb"])
    c_matrix = _matrix((node, out), merged["cr"], merged["cc"], m, n, merged["cb"])
    if a_matrix is None or b_matrix is None or c_matrix is None or c_matrix.transposed:
        return None
    return Product(node, a_matrix, b_matrix, c_matrix, m, n, k, product(box[x] for x in batch))


def _merge(form: Affine, axes: Sequence[int], box: Sequence[Size]) -> Size | None:
    """The one stride of several axes taken as one, in their order; None where they are not evenly spaced."""
    step: Size | None = None
    for outer, inner in itertools.pairwise(axes):
        if form.coefficient(outer) != form.coefficient(inner) * box[inner]:
            return None
    if axes:
        step = form.coefficient(axes[-1])
    return size(0) if step is None else step


def _matrix(
    operand: Operand, row_step: Size, column_step: Size, rows: SizeLike, columns: SizeLike, batch_stride: Size
) -> Matrix | None:
    """A matrix with unit steps along rows, or along columns (then it is transposed)."""
    array, form = operand
    if not at_least(batch_stride, 0) or not at_least(form.constant, 0):
        return None
    if columns == 1 and column_step != 1 and row_step == 1:
        return Matrix(array, form.constant, size(1), False, batch_stride)
    if column_step == 1 or columns == 1:
        # a single row may have any distance to the next; BLAS wants at least the row's length
        leading = size(columns) if rows == 1 else row_step
        return Matrix(array, form.constant, leading, False, batch_stride) if at_least(leading, columns) else None
    if row_step == 1 or rows == 1:
        leading = size(rows) if columns == 1 else column_step
        return Matrix(array, form.constant, leading, True, batch_stride) if at_least(leading, rows) else None
    return None


def at_least(a: SizeLike, b: SizeLike) -> bool:
    """Is a ≥ b for certain, for all sizes? (Sizes are not negative, and reversed slices have negative steps.)"""
    return all(c >= 0 for _, c in (size(a) - b).terms)
