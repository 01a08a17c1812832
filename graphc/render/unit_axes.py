"""Adjoints in the shapes of the values that they belong to.

Derivatives are taken of formulas, to which an axis of length 1 is no axis: the gradient of a column `W (16, 1)` is found
as `(16)` and then reshaped. On paper the shapes of the model stand, and what is multiplied are matrices. So the graph is
rewritten for the picture: a reshape that only adds or drops axes of length 1 moves into what it reads, and a product
is one of matrices in the shapes that are there, with no transposition beside the product's own. The values stay.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, permutations, product

from ..graph.graph import Graph, with_operands
from ..graph.node import Node, TensorType
from ..graph.size import Size, size
from ..ops.build import broadcast_to, einsum, is_elementwise, reduce, reshape
from ..ops.contract import LETTERS, split_spec
from .notation import as_product, summed_axes
from .outline import long_axes

Shape = tuple[Size, ...]
Letters = tuple[str, ...]
"""A letter for each axis, "" for one of length 1."""


def with_unit_axes(graph: Graph, kept: Collection[Node]) -> tuple[Graph, dict[Node, Node]]:
    """The graph with its adjoints in the model's shapes, and what became of each node. kept: nodes that stay as they are,
    with all that they are computed from."""
    found = _Rewrite(graph, kept)
    new = found.nodes()
    tables = graph.tables.copy()
    for old, node in new.items():
        if node not in kept:
            tables.inherit(node, old)
    outputs = {name: found.read(node, node.shape) for name, node in graph.outputs.items()}
    updates = {new.get(k, k): found.read(v, v.shape) for k, v in graph.updates.items()}
    return replace(graph, outputs=outputs, updates=updates, tables=tables), new


def only_units(node: Node) -> bool:
    """Does it only add, drop or move axes of length 1?"""
    if node.op == "transpose":
        order = [d for d, e in zip(node.attr("perm"), node.shape, strict=True) if e != 1]
        return order == sorted(order)
    return node.op == "reshape" and long_axes(node.shape) == long_axes(node.operands[0].shape)


def _same_everywhere(node: Node) -> bool:
    """Is it an elementwise operation over values of its own shape, and scalars?"""
    return (
        (is_elementwise(node) or node.op == "cast")
        and bool(node.shape)
        and all(o.shape in ((), node.shape) for o in node.operands)
    )


def _is_outer(node: Node) -> bool:
    """Is it a product of two values, each of which lacks an axis that the other has?"""
    return node.op == "mul" and all(len(long_axes(o.shape)) < len(long_axes(node.shape)) for o in node.operands)


@dataclass
class _Rewrite:
    graph: Graph
    kept: Collection[Node]
    new: dict[Node, Node] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.readers: dict[Node, list[Node]] = {n: [] for n in self.graph.nodes}
        for node in self.graph.nodes:
            for operand in node.operands:
                self.readers[operand].append(node)
        for root in self.graph.roots:
            self.readers[root].append(root)

    def nodes(self) -> dict[Node, Node]:
        """Every node rebuilt."""
        wanted = self._wanted()
        for node in self.graph.nodes:
            self.new[node] = node if node in self.kept else self._rebuilt(node, wanted[node])
        return self.new

    def read(self, node: Node, shape: Shape) -> Node:
        """A node, rebuilt, in the shape in which it is read."""
        found = self.new[node]
        if found.op == "broadcast_to" and not found.operands[0].shape:  # the same everywhere, in any shape
            return broadcast_to(found.operands[0], shape)
        return reshape(self._behind(node) if shape != found.shape else found, shape)

    # -- which shape ----------------------------------------------------------------------------------------------------
    def _wanted(self) -> dict[Node, Shape | None]:
        """The shape in which each node is read, where all agree who read it; None where products and sums alone do, to
        which any shape is right."""
        natural = self._natural()
        asked: dict[Node, set[Shape]] = {n: set() for n in self.graph.nodes}
        for root in self.graph.roots:
            asked[root].add(root.shape)
        wanted: dict[Node, Shape | None] = {}
        for node in reversed(self.graph.nodes):
            shapes = asked[node]
            shape = next(iter(shapes), None)
            if len(shapes) > 1 or (shape is None and _same_everywhere(node)):
                shape = natural[node] if natural[node] in shapes or not shapes else node.shape
            wanted[node] = shape
            if node in self.kept:
                continue
            passes = only_units(node) or _same_everywhere(node)
            for operand in node.operands:
                if only_units(node) or (passes and operand.shape):
                    asked[operand] |= {shape} if shape is not None else set()
                elif not (node.op in ("sum", "einsum") or _is_outer(node)):
                    asked[operand].add(operand.shape)
        return wanted

    def _natural(self) -> dict[Node, Shape]:
        """The shape that each node has where nothing moves axes of length 1 on the way from what is kept."""
        found: dict[Node, Shape] = {}
        for node in self.graph.nodes:
            found[node] = node.shape
            if node not in self.kept and (only_units(node) or _same_everywhere(node)):
                shapes = [found[o] for o in node.operands if o.shape and o.op != "broadcast_to"]
                found[node] = max(shapes, key=len, default=node.shape)
        return found

    # -- rebuilding -----------------------------------------------------------------------------------------------------
    def _rebuilt(self, node: Node, wanted: Shape | None) -> Node:
        shape = node.shape if wanted is None else wanted
        if only_units(node):
            return self.read(node.operands[0], shape)
        if _same_everywhere(node):
            found = [self._behind(o).shape for o in node.operands if o.shape and o.op != "broadcast_to"]
            own = shape if shape in found else max(found, key=len, default=node.shape)
            operands = tuple(self.read(o, own if o.shape else ()) for o in node.operands)
            return reshape(Node(node.op, operands, TensorType(node.dtype, own), **dict(node.attrs)), shape)
        rebuilt = None
        if node.op == "sum":
            rebuilt = self._sum(node, shape)
        elif node.op == "einsum":
            rebuilt = self._product(node, wanted, *split_spec(node.attr("spec")))
        elif _is_outer(node):
            letters = LETTERS[: node.type.rank]
            rebuilt = self._product(
                node, wanted, [letters[node.type.rank - o.type.rank :] for o in node.operands], letters
            )
        elif node.op == "transpose" and node.operands[0] not in self.kept and len(self.readers[node.operands[0]]) == 1:
            rebuilt = _turned(self.new[node.operands[0]], node)
        if rebuilt is not None:
            return reshape(rebuilt, shape)
        return reshape(with_operands(node, tuple(self.read(o, o.shape) for o in node.operands)), shape)

    def _behind(self, operand: Node) -> Node:
        """What is behind movements of axes of length 1."""
        node = self.new[operand]
        while only_units(node):
            (node,) = node.operands
        return node

    def _plain(self, operand: Node, letters: Sequence[str]) -> tuple[Node, Letters]:
        """What is behind the movements that leave the long axes as they are but for their order, and its letters."""
        node = self.new[operand]
        own = _spread([c for c, e in zip(letters, operand.shape, strict=True) if e != 1], node.shape)
        while only_units(node) or node.op == "transpose":
            (source,) = node.operands
            if node.op == "transpose":
                perm = node.attr("perm")
                own = [own[perm.index(d)] for d in range(len(perm))]
            else:
                own = _spread([c for c in own if c], source.shape)
            node = source
        return node, tuple(own)

    def _product(self, node: Node, wanted: Shape | None, inputs: Sequence[str], output: str) -> Node | None:
        """A product of two values in the shapes that they have, where it is one of matrices."""
        if len(inputs) != 2:
            return None
        factors = [self._plain(o, letters) for o, letters in zip(node.operands, inputs, strict=True)]
        kept = [c for c, e in zip(output, node.shape, strict=True) if e != 1]
        if set(kept) - {c for _, letters in factors for c in letters}:
            return None
        given = () if wanted is None else (tuple(_spread(kept, wanted)),)
        for result in (*given, *_with_units(kept, max(f.type.rank for f, _ in factors))):
            for (a, first), (b, second) in product(*map(_as_factor, factors)):
                for x, y, out in _with_unit_letters(first, second, result):
                    if set(out) <= set(x + y) and _is_product(x, y, out):
                        return einsum(f"{x},{y}->{out}", a, b)
        return None

    def _sum(self, node: Node, shape: Shape) -> Node | None:
        """A sum of a value in the shape that it has: over axes of length 1 too where the result is wanted without them."""
        (operand,) = node.operands
        letters = LETTERS[: operand.type.rank]
        source, own = self._plain(operand, letters)
        summed = {letters[a] for a in node.attr("axes")}
        left = [c for c in own if c and c not in summed]
        if left != sorted(left):
            return None
        axes = [d for d, c in enumerate(own) if c in summed]
        units = [d for d, c in enumerate(own) if not c]
        for count in range(len(units) + 1):
            for dropped in combinations(units, count):
                rest = tuple(e for d, e in enumerate(source.shape) if d not in (*axes, *dropped))
                if rest == shape:
                    return reduce("sum", source, (*axes, *dropped))
        return reshape(reduce("sum", source, axes), shape)


def _spread(letters: Sequence[str], shape: Shape) -> list[str]:
    """The letters of the long axes, in their order, among the axes of a shape."""
    left = iter(letters)
    return ["" if e == 1 else next(left, "") for e in shape]


def _as_factor(value: tuple[Node, Letters]) -> list[tuple[Node, Letters]]:
    """A value, and if it is a vector the column that it may be read as."""
    node, letters = value
    return [value, (reshape(node, (*node.shape, size(1))), (*letters, ""))] if len(letters) == 1 else [value]


def _is_product(x: str, y: str, out: str) -> bool:
    summed = summed_axes(x, y, out)
    return as_product(x[summed:], y[summed:], out) is not None


def _turned(contraction: Node, transposed: Node) -> Node | None:
    """A product whose result is transposed, as the product of the factors in the other order."""
    if contraction.op != "einsum" or contraction.shape != transposed.operands[0].shape:
        return None
    inputs, output = split_spec(contraction.attr("spec"))
    output = "".join(output[d] for d in transposed.attr("perm"))
    if len(inputs) != 2 or not _is_product(inputs[0], inputs[1], output):
        return None
    return einsum(f"{','.join(inputs)}->{output}", *contraction.operands)


def _with_units(letters: Sequence[str], rank: int) -> Iterator[Letters]:
    """Axes with axes of length 1 among them: up to a rank, as many as there may be first."""
    for extra in range(max(rank - len(letters), 0), -1, -1):
        for places in combinations(range(len(letters) + extra), extra):
            left = iter(letters)
            yield tuple("" if d in places else next(left) for d in range(len(letters) + extra))


def _with_unit_letters(*values: Letters) -> Iterator[tuple[str, ...]]:
    """All ways to give letters to the axes of length 1, which may be the same axis in several values.

    Of an adjoint and a value, in this order, whose product is of one element, `xᵀ δ` comes before `δᵀ x`.
    """
    count = max(v.count("") for v in values)
    units = [c for c in reversed(LETTERS) if not any(c in v for v in values)][:count]
    *factors, result = [list(permutations(units, v.count(""))) for v in values]
    for chosen in product(*factors, result[::-1]):
        yield tuple("".join(c or next(left) for c in v) for v, left in zip(values, map(iter, chosen), strict=True))
