"""Local derivatives: what the gradient of an operation is multiplied by on its way back to an operand, where it is short."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import sympy as sp

from ..graph.node import Node
from ..graph.size import product
from ..ops.build import is_elementwise
from ..ops.contract import split_spec
from ..ops.elementwise.row import Elementwise
from ..ops.table import row_of
from ..pipeline import local_derivative
from .notation import Printer, as_product, number_text, size_text, summed_axes
from .outline import Outline, base, summed_by_mean

LONGEST = 26
"""Characters of a local derivative; a longer one is left out."""
Array = np.ndarray[Any, Any]


def local(value: Node, box: Node, outline: Outline, printer: Printer, values: Mapping[Node, Array] | None) -> str:
    """The local derivative of a box in one of the values that it reads, as text; "" where it is long or unknown."""
    name, own = printer.name(value, box), printer.name(box, box)
    head = f"∂{own}/∂{name} = "
    total = summed_by_mean(box)
    if total is not None and total in outline.inside:
        count = product(total.operands[0].shape[a] for a in total.attr("axes"))
        return f"{head}1/{_bracket(size_text(count))}"
    if box.op == "sum":
        return f"{head}1"
    if box.op == "einsum":
        return _of_product(value, box, own, name, printer)
    if not is_elementwise(box) or any(base(o) in outline.inside for o in box.operands):
        return ""
    return _of_elementwise(value, box, head, printer, values)


def _bracket(text: str) -> str:
    return text if text.replace("_", "").isalnum() else f"({text})"


def _of_product(value: Node, box: Node, own: str, name: str, printer: Printer) -> str:
    """Of z = x W: ∂L/∂x = ∂L/∂z Wᵀ, written with δ for ∂L/∂z."""
    inputs, output = split_spec(box.attr("spec"))
    if len(inputs) != 2 or base(box.operands[0]) is base(box.operands[1]):
        return ""
    mine = 0 if base(box.operands[0]) is value else 1
    other = printer.operand(box.operands[1 - mine], box, 4)
    first, second, result = output, inputs[1 - mine], inputs[mine]
    shared = summed_axes(first, second, result)
    turned = as_product(first[shared:], second[shared:], result)
    if turned is None:
        return ""
    order, marked = turned
    # the transpose of a transpose is the value itself
    factor = other.removesuffix("ᵀ").strip("()") if marked[1] and other.endswith("ᵀ") else other + marked[1]
    text = " ".join(("δ" + marked[0], factor)[k] for k in order)
    return f"{'Σ ' if shared else ''}{text}, δ = ∂L/∂{own}"


def _of_elementwise(value: Node, box: Node, head: str, printer: Printer, values: Mapping[Node, Array] | None) -> str:
    row = row_of(box.op)
    assert isinstance(row, Elementwise)
    names: dict[sp.Basic, sp.Basic] = {}
    for symbol, operand in zip(row.symbols, box.operands, strict=True):
        names[symbol] = sp.Symbol(printer.operand(operand, box, 4), real=True)
    names[sp.Symbol("y", real=True)] = sp.Symbol(printer.name(box, box), real=True)
    total: sp.Basic = sp.Integer(0)
    for position, operand in enumerate(box.operands):
        if base(operand) is value:
            total = sp.Add(total, local_derivative(box.op, position).xreplace(names))
    text = plain_text(total)
    if text is None or len(text) > LONGEST:
        return ""
    number = _number(total, box, names, values)
    return f"{head}{text}" + (f" = {number}" if number is not None and number != text else "")


def plain_text(expression: sp.Basic) -> str | None:
    """A SymPy expression as a line; of a choice between 1 and 0 its condition in brackets."""
    if isinstance(expression, sp.Piecewise):
        (one, condition), *rest = ((p.expr, p.cond) for p in expression.args)
        if one == 1 and len(rest) == 1 and rest[0][0] == 0:
            return f"[{_plain(condition)}]"
        return None
    return None if expression.has(sp.Piecewise) else _plain(expression)


def _plain(expression: sp.Basic) -> str:
    text = sp.sstr(expression, order="none")
    for old, new in (("**2", "²"), ("**3", "³"), ("**", "^"), ("*", " · "), ("-", "−"), ("/", " / ")):
        text = text.replace(old, new)
    return text


def _number(
    expression: sp.Basic, box: Node, names: Mapping[sp.Basic, sp.Basic], values: Mapping[Node, Array] | None
) -> str | None:
    """The number of a local derivative, where everything in it is a scalar."""
    if values is None or not expression.free_symbols:
        return None
    row = row_of(box.op)
    assert isinstance(row, Elementwise)
    numbers: dict[sp.Basic, sp.Basic] = {}
    nodes = [*zip(row.symbols, map(base, box.operands), strict=True), (sp.Symbol("y", real=True), box)]
    for symbol, node in nodes:
        if node in values and values[node].size == 1:
            numbers[names[symbol]] = sp.Float(float(values[node].reshape(-1)[0]))
    result = expression.xreplace(numbers)
    if result.free_symbols or not result.is_number:
        return None
    return number_text(float(result))
