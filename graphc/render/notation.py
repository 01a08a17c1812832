"""Operations as formulas: `z = x W + b`, `σ(z)`, `mean (ŷ − y)²`. An operation without a symbol is written as a call."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

from ..graph import scalar as sc
from ..graph.dtype import DType
from ..graph.formula import Affine, Formula, Index
from ..graph.node import Node, TensorType
from ..graph.scalar import Scalar
from ..graph.size import Size
from ..ops.contract import split_spec
from .outline import Outline, base, dropout_parts, marks, softmax_parts, summed_by_mean

CHOICE, SUM, PRODUCT, POWER, ATOM = range(5)
"""How tightly an expression holds together; a looser one is put in brackets inside a tighter one."""

SYMBOLS: dict[str, tuple[str, int, tuple[int, ...]]] = {
    "add": ("{} + {}", SUM, (SUM, SUM)),
    "sub": ("{} − {}", SUM, (SUM, PRODUCT)),
    "mul": ("{} · {}", PRODUCT, (PRODUCT, PRODUCT)),
    "div": ("{} / {}", PRODUCT, (PRODUCT, POWER)),
    "neg": ("−{}", SUM, (PRODUCT,)),
    "less": ("{} < {}", CHOICE, (SUM, SUM)),
    "less_equal": ("{} ≤ {}", CHOICE, (SUM, SUM)),
    "greater": ("{} > {}", CHOICE, (SUM, SUM)),
    "greater_equal": ("{} ≥ {}", CHOICE, (SUM, SUM)),
    "equal": ("{} == {}", CHOICE, (SUM, SUM)),
    "not_equal": ("{} ≠ {}", CHOICE, (SUM, SUM)),
    "logical_and": ("{} ∧ {}", CHOICE, (SUM, SUM)),
    "logical_or": ("{} ∨ {}", CHOICE, (SUM, SUM)),
    "logical_not": ("¬{}", POWER, (POWER,)),
    "where": ("{1} if {0} else {2}", CHOICE, (CHOICE, SUM, SUM)),
    "maximum": ("max({}, {})", ATOM, (CHOICE, CHOICE)),
    "minimum": ("min({}, {})", ATOM, (CHOICE, CHOICE)),
    "abs": ("|{}|", ATOM, (CHOICE,)),
    "relu": ("ReLU({})", ATOM, (CHOICE,)),
    "sigmoid": ("σ({})", ATOM, (CHOICE,)),
    "sqrt": ("√{}", POWER, (ATOM,)),
    "sum": ("Σ {}", PRODUCT, (PRODUCT,)),
    "max": ("max {}", PRODUCT, (PRODUCT,)),
    "min": ("min {}", PRODUCT, (PRODUCT,)),
    "argmax": ("argmax {}", PRODUCT, (PRODUCT,)),
    "take": ("{}[{}]", ATOM, (ATOM, CHOICE)),
    "take_along": ("{}[{}]", ATOM, (ATOM, CHOICE)),
    "stop_gradient": ("stop({})", ATOM, (CHOICE,)),
    "cast": ("{}", ATOM, (ATOM,)),
}
_RAISED = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")
_LOWERED = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
VARIABLES = "ijklmnpqrs"

Name = Callable[[Node, Node], str]
"""The name of a value as the box that reads it writes it."""


def subscript(number: int) -> str:
    return str(number).translate(_LOWERED)


def shape_text(kind: TensorType) -> str:
    """`(B, 16)`, `scalar`; the element type only where it is not floating-point."""
    shape = f"({', '.join(map(size_text, kind.shape))})" if kind.shape else "scalar"
    return shape if kind.dtype.is_float else f"{shape} {kind.dtype.name.rstrip('_')}"


def size_text(extent: Size) -> str:
    return str(extent).replace("*", "·")


def number_text(value: Any) -> str:
    """Four significant digits, a real minus, ∞."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = f"{value + 0.0:.4g}" if isinstance(value, float) else str(value)  # −0 + 0 is 0
    mantissa, e, exponent = text.partition("e") if text[-1].isdigit() else (text, "", "")
    if e:
        power = "10" + str(int(exponent)).translate(_RAISED)
        text = {"1": power, "-1": f"-{power}"}.get(mantissa, f"{mantissa}·{power}")
    return text.replace("-", "−").replace("inf", "∞")


class Printer:
    """Formulas of an outline's boxes."""

    def __init__(self, outline: Outline, name: Name):
        self.outline, self.name = outline, name

    def formula(self, box: Node) -> str:
        """The formula of a box, without its own name."""
        return self._node(box, box)[0]

    def detail(self, box: Node) -> str:
        """What the formula leaves out: the axes of a reduction or of a look-up."""
        node = summed_by_mean(box) if self._is_mean(box) else box
        assert node is not None
        attrs = dict(node.attrs)
        if "axes" in attrs and node.operands:
            rank = node.operands[0].type.rank
            axes = attrs["axes"]
            return "" if len(axes) == rank else f"over ax{'i' if len(axes) == 1 else 'e'}s {', '.join(map(str, axes))}"
        if "axis" in attrs and node.operands and node.operands[0].type.rank > 1:
            return f"along axis {attrs['axis']}"
        return ""

    def _is_mean(self, node: Node) -> bool:
        total = summed_by_mean(node)
        return total is not None and total in self.outline.inside

    def operand(self, operand: Node, box: Node, level: int = CHOICE) -> str:
        """An operand as the formula of a box writes it: a number, a name with its marks, or a formula in it."""
        node = base(operand)
        if operand in self.outline.numbers or node in self.outline.inside:
            text, own = self._node(node, box)
        else:
            text, own = self.name(node, box), ATOM
        if any(m.op == "transpose" for m in marks(operand)):
            text, own = f"{_bracketed(text, own, ATOM)}ᵀ", POWER
        return _bracketed(text, own, level)

    def _node(self, node: Node, box: Node) -> tuple[str, int]:
        """(formula, how tightly it holds together)"""
        if self._is_mean(node):
            total = summed_by_mean(node)
            assert total is not None
            return f"mean {self.operand(total.operands[0], box, PRODUCT)}", PRODUCT
        if (parts := softmax_parts(node)) is not None and all(n in self.outline.inside for n in parts):
            return f"softmax {self.operand(parts[0].operands[0], box, PRODUCT)}", PRODUCT
        if (dropout := dropout_parts(node)) is not None and all(n in self.outline.inside for n in dropout[1]):
            return f"dropout({self.operand(dropout[0], box)})", ATOM
        if node.op == "const":
            value = node.attr("value").array
            return (number_text(value.item()), ATOM if value >= 0 else SUM) if not value.shape else ("constant", ATOM)
        if node.op == "size":
            text = size_text(node.attr("value"))
            return text, ATOM if text.isalnum() else SUM
        if node.op == "mul" and node.operands[0] is node.operands[1]:
            return f"{self.operand(node.operands[0], box, ATOM)}²", POWER
        if node.op == "div" and node in self.outline.numbers:
            return f"{self.operand(node.operands[0], box, POWER)}/{self.operand(node.operands[1], box, POWER)}", PRODUCT
        if node.op == "grad":
            y, x = (self.operand(o, box, ATOM) for o in node.operands)
            return f"∂{y}/∂{x}", PRODUCT
        if node.op == "pow":
            return self._power(node, box)
        if node.op == "einsum":
            return self._einsum(node, box)
        if node.op == "slice":
            return f"{self.operand(node.operands[0], box, ATOM)}[{_slice(node)}]", ATOM
        if node.op == "concat":
            texts = [self.operand(o, box) for o in node.operands]
            same = len(texts) > 1 and len(set(texts)) == 1  # equal repeats that are drawn once
            return f"[{f'{texts[0]}; … × {len(texts)}' if same else '; '.join(texts)}]", ATOM
        if node.op == "arange":
            start, step = node.attr("start"), node.attr("step")
            stop = size_text(start + step * node.shape[0])
            return f"{size_text(start)}, {size_text(start + step)}, … < {stop}", CHOICE
        if node.op == "formula":
            texts = [self.operand(o, box, ATOM) for o in node.operands]
            numbers = {k for k, o in enumerate(node.operands) if o in self.outline.numbers}
            return formula_text(node.attr("formula"), texts, numbers), SUM
        return call(node.op, [partial(self.operand, o, box) for o in node.operands], _attrs(node))

    def _power(self, node: Node, box: Node) -> tuple[str, int]:
        x, n = node.operands
        exponent = self.operand(n, box, ATOM)
        raised = exponent.replace("−", "-").translate(_RAISED) if exponent.lstrip("−").isdigit() else f"^{exponent}"
        return f"{self.operand(x, box, ATOM)}{raised}", POWER

    def _einsum(self, node: Node, box: Node) -> tuple[str, int]:
        inputs, output = split_spec(node.attr("spec"))
        if len(inputs) == 2:
            summed = summed_axes(inputs[0], inputs[1], output)
            turned = as_product(inputs[0][summed:], inputs[1][summed:], output)
            if turned is not None:
                order, marked = turned
                texts = [self.operand(node.operands[k], box, POWER) + marked[k] for k in order]
                return ("Σ " if summed else "") + " ".join(texts), PRODUCT
        texts = [self.operand(o, box) for o in node.operands]
        return f"einsum({node.attr('spec').replace('->', ' → ')}; {', '.join(texts)})", ATOM


def summed_axes(a: str, b: str, out: str) -> int:
    """How many leading axes of both factors a contraction sums whole products over: `abc,abd->cd` is Σ xᵀ y."""
    count = 0
    while count < min(len(a), len(b)) - 2 and a[count] == b[count] and a[count] not in out:
        count += 1
    return count


def as_product(a: str, b: str, out: str) -> tuple[tuple[int, int], tuple[str, str]] | None:
    """A contraction as a matrix product: (the order of the operands, the ᵀ of each); None where it is none."""
    batch = 0
    while batch < min(len(a), len(b), len(out)) and a[batch] == b[batch] == out[batch]:
        batch += 1
    a, b, out = a[batch:], b[batch:], out[batch:]
    if len(set(a)) < len(a) or len(set(b)) < len(b):  # the diagonal of a factor
        return None
    if batch and not len(a) == len(b) == len(out) == 2:
        return None  # of vectors, one product for each: `x y` would say another
    summed = [c for c in a if c in b and c not in out]
    if len(summed) != 1 or set(out) != (set(a) | set(b)) - set(summed):
        return _outer(a, b, out) if not summed else None
    k = summed[0]
    for order, (x, y) in (((0, 1), (a, b)), ((1, 0), (b, a))):
        left, right = x.replace(k, ""), y.replace(k, "")
        if left + right == out and len(right) <= 1:
            if x.endswith(k):
                first = ""
            elif len(x) == 2:
                first = "ᵀ"
            else:
                continue
            second = "" if y.startswith(k) else "ᵀ"
            found = (first, second)
            return order, (found if order == (0, 1) else found[::-1])
    return None


def _outer(a: str, b: str, out: str) -> tuple[tuple[int, int], tuple[str, str]] | None:
    if len(a) == len(b) == 1 and a != b:
        return ((0, 1), ("", "ᵀ")) if out == a + b else ((1, 0), ("ᵀ", "")) if out == b + a else None
    return None


def _bracketed(text: str, own: int, level: int) -> str:
    return f"({text})" if own < level else text


Operand = Callable[[int], str]


def call(op: str, operands: Sequence[Operand], attrs: str = "") -> tuple[str, int]:
    """An operation over operands, each of which is asked for its text at a level."""
    if op in SYMBOLS and len(operands) == len(SYMBOLS[op][2]):
        template, own, levels = SYMBOLS[op]
        return template.format(*(o(level) for o, level in zip(operands, levels, strict=True))), own
    inside = ", ".join([*(o(CHOICE) for o in operands), *([attrs] if attrs else [])])
    return f"{op}({inside})", ATOM


def _attrs(node: Node) -> str:
    """Attributes of an operation that has no symbol: those that are short."""
    texts = [f"{k}={v}" for k, v in node.attrs if isinstance(v, (int, str, Size, DType)) and len(str(v)) < 16]
    return ", ".join(texts) if node.op not in SYMBOLS and node.operands else ""


def _slice(node: Node) -> str:
    """The index of a slice: `:, 1:3`, `::2`."""
    (x,) = node.operands
    parts = []
    for start, step, length, extent in zip(node.attr("start"), node.attr("step"), node.shape, x.shape, strict=True):
        if start == 0 and step == 1 and length == extent:
            parts.append(":")
        elif length == 1:
            parts.append(size_text(start))
        elif step.constant is not None and step.constant < 0:
            parts.append(f"{size_text(start)}::{size_text(step)}")
        else:
            stop = start + (length - 1) * step + 1
            by = "" if step == 1 else f":{size_text(step)}"
            parts.append(f"{'' if start == 0 else size_text(start)}:{size_text(stop)}{by}")
    return ", ".join(parts).replace("-", "−")


# -- formulas in index form ------------------------------------------------------------------------------------------
def formula_text(formula: Formula, operands: Sequence[str], numbers: Collection[int] = ()) -> str:
    """A formula in index form: `Σ_j δ[i, j] if I[i] == j else 0`; a scatter says where it writes.

    numbers: the operands that are the same everywhere, and need no index.
    """
    texts = []
    for clause in formula.clauses:
        reads = [
            operands[r.operand] + ("" if r.operand in numbers else f"[{_indices(r.map, operands)}]")
            for r in clause.reads
        ]

        def leaf(e: Scalar, reads: Sequence[str] = reads) -> str:
            if e.op == "arg":
                return reads[e.value]
            if e.op == "index":
                return affine_text(e.value)
            return size_text(e.value) if e.op == "size" else number_text(e.value)

        body, own = _scalar(clause.body, leaf)
        plain = all(isinstance(i, Affine) and i.variable is not None for i in clause.write)
        kept = {a for i in clause.write if isinstance(i, Affine) for a in i.axes}
        reduced = [_variable(a) for a in range(len(clause.box)) if a not in kept]
        if formula.reduce != "assign" and reduced and plain:
            symbol = {"sum": "Σ", "prod": "Π"}.get(formula.reduce, formula.reduce)
            body = f"{symbol}_{''.join(reduced)} {_bracketed(body, own, PRODUCT)}"
        if not plain:
            body = f"[{_indices(clause.write, operands)}] {'=' if formula.reduce == 'assign' else '+='} {body}"
        texts.append(body)
    return " ; ".join(texts)


def _scalar(expression: Scalar, leaf: Callable[[Scalar], str]) -> tuple[str, int]:
    def visit(e: Scalar, args: tuple[tuple[str, int], ...]) -> tuple[str, int]:
        if e.op in sc.LEAVES:
            return leaf(e), ATOM
        if e.op == "mul" and e.args[0] is e.args[1]:
            return f"{_bracketed(*args[0], ATOM)}²", POWER
        return call(e.op, [partial(_bracketed, *a) for a in args])

    text, own = sc.fold(expression, visit)
    return text, own


def _variable(axis: int) -> str:
    return VARIABLES[axis] if axis < len(VARIABLES) else f"i{axis}"


def affine_text(form: Affine) -> str:
    parts = [_variable(a) if c == 1 else f"{size_text(c)}·{_variable(a)}" for a, c in form.terms]
    if form.constant != 0 or not parts:
        parts.append(size_text(form.constant))
    return " + ".join(parts).replace("+ -", "− ")


def _indices(indices: Sequence[Index], operands: Sequence[str]) -> str:
    return ", ".join(
        affine_text(i) if isinstance(i, Affine) else f"{operands[i.operand]}[{', '.join(map(affine_text, i.map))}]"
        for i in indices
    )
