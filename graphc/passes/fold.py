"""Constant folding: operations on constants are done now, choices on constant conditions are made."""

from __future__ import annotations

from ..graph.node import Constant, Node, TensorType
from ..graph.size import size
from ..ops import build
from ..ops.fold import evaluate
from .rewrite import EXACT, Memo, Rule, rule

LARGEST = 4096  # elements of a folded array: beyond, the artifact would grow more than the work shrinks


def _array(node: Node) -> Constant | None:
    return node.attr("value") if node.op == "const" else None


@rule("fold", EXACT, "an operation on constants, done by NumPy in the same precision")
def fold(node: Node, memo: Memo) -> Node | None:
    if not build.is_elementwise(node) or node.op in ("stop_gradient", "watched"):
        return None
    arrays = [_array(o) for o in node.operands]
    if any(a is None for a in arrays):
        return None
    numel = node.type.numel.constant
    if numel is None or numel > LARGEST:
        return None
    result = evaluate(node.op, [a.array[()] for a in arrays if a is not None], node.dtype.numpy)
    return Node("const", (), TensorType(node.dtype, tuple(map(size, result.shape))), value=Constant(result))


@rule("constant condition", EXACT, "a choice whose condition is known")
def choose(node: Node, memo: Memo) -> Node | None:
    if node.op != "where":
        return None
    condition = build.const_value(_source(node.operands[0]))
    if condition is None:
        return None
    return build.broadcast_to(node.operands[1 if condition else 2], node.shape)


@rule("constant size", EXACT, "a size that is a number")
def constant_size(node: Node, memo: Memo) -> Node | None:
    return (
        build.size_value(node.attr("value"), node.dtype)
        if node.op == "size" and node.attr("value").constant is not None
        else None
    )


def _source(node: Node) -> Node:
    while node.op == "broadcast_to":
        (node,) = node.operands
    return node


RULES: tuple[Rule, ...] = (fold, choose, constant_size)
