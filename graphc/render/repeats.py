"""Equal repeats: scopes that hold the same computation, one after another or side by side, are drawn once, `× n`.

Two scopes are equal where one's nodes can be carried over to the other's: same operations, attributes and types,
parameters of the same names within the scope, and what comes from outside either the same value or, in a chain, the
value that the scope before gives in the same place. What a chain computes between two scopes belongs to the first.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from dataclasses import dataclass, field

from ..graph.graph import Graph
from ..graph.node import Node
from .outline import base

FEWEST = 3
"""Repeats that are drawn once; fewer are drawn one by one."""

Path = tuple[str, ...]


@dataclass
class Scopes:
    """Where the nodes of a graph are drawn. hidden: nodes of later repeats → the node of the first that stands for it.

    titles: what is written on a scope with repeats, by its path.
    """

    of: dict[Node, Path]
    hidden: dict[Node, Node] = field(default_factory=dict)
    titles: dict[Path, str] = field(default_factory=dict)


def scope_of(graph: Graph, node: Node) -> Path:
    """The scope in which a node was first made."""
    origins = graph.tables.origins.get(node, ())
    return tuple(part for part in origins[0].scope.split("/") if part) if origins else ()


def scopes(graph: Graph, collapse: bool = True) -> Scopes:
    """The scope of every node, equal ones collapsed."""
    result = Scopes({n: scope_of(graph, n) for n in (*graph.inputs, *graph.nodes)})
    if collapse:
        _collapse(graph, (), result)
    return result


def _collapse(graph: Graph, parent: Path, result: Scopes) -> None:
    """Collapse the scopes directly inside `parent`, then go into those that remain."""
    depth = len(parent) + 1
    members: dict[Path, list[Node]] = {}
    for node in graph.nodes:
        scope = result.of[node]
        if len(scope) >= depth and scope[: depth - 1] == parent and node not in result.hidden:
            members.setdefault(scope[:depth], []).append(node)
    paths = list(members)
    signatures = [_signature(members[p], p) for p in paths]
    at = 0
    while at < len(paths):
        end = at + 1
        while end < len(paths) and signatures[end] == signatures[at] and _stem(paths[end]) == _stem(paths[at]):
            end += 1
        at += _merge(graph, parent, paths[at:end], members, result) if end - at >= FEWEST else 1
    for path in paths:
        if any(n not in result.hidden for n in members[path]):
            _collapse(graph, path, result)


def _stem(path: Path) -> str:
    """The scope's name without its number: `layer3` and `layer4` may be repeats, `query` and `key` are not."""
    return re.sub(r"\d+", "#", path[-1])


def _signature(nodes: Iterable[Node], path: Path) -> tuple[object, ...]:
    """What equal scopes have in common, cheaply: the operations in their order."""
    return tuple((n.op, n.type, _attrs(n, "/".join(path))) for n in nodes)


def _attrs(node: Node, prefix: str) -> tuple[tuple[str, object], ...]:
    """The attributes, a parameter's name taken within its scope."""
    if node.op not in ("param", "state"):
        return node.attrs
    return tuple((k, v.removeprefix(prefix) if k == "name" else v) for k, v in node.attrs)


def _merge(graph: Graph, parent: Path, paths: list[Path], members: dict[Path, list[Node]], result: Scopes) -> int:
    """Hide all scopes of a run but the first, as far as they carry over; how many are done with."""
    inside = {n for p in paths for n in members[p]}
    order = {n: i for i, n in enumerate(graph.nodes)}
    between = _between(graph, parent, [members[p] for p in paths], inside, result)
    unit = sorted([*members[paths[0]], *between], key=order.__getitem__)
    maps: list[dict[Node, Node]] = [{n: n for n in unit}]
    roles: Roles | None = None
    for path in paths[1:]:
        carried = _carry(unit, dict(zip(members[paths[0]], members[path], strict=True)), maps[-1], order.keys())
        if carried is None or (roles is not None and carried[1] != roles):
            break
        maps.append(carried[0])
        roles = carried[1]
    chain = roles is not None and any(roles.values())
    if len(maps) < FEWEST or not (chain or _read_together(graph, maps)):
        return 1
    for found in maps[1:]:
        result.hidden |= {other: node for node, other in found.items() if other is not node}
    for node in between:
        result.of[node] = paths[0]
    how = "each fed by the one before" if chain else "side by side"
    result.titles[paths[0]] = f"{paths[0][-1]} … {paths[len(maps) - 1][-1]}   × {len(maps)}, {how}"
    return len(maps)


def _between(graph: Graph, parent: Path, scopes: list[list[Node]], inside: set[Node], result: Scopes) -> list[Node]:
    """What is computed from the first scope alone, in no scope of its own: in a chain, before the second scope."""
    depends = {n: {i} for i, nodes in enumerate(scopes) for n in nodes}
    for node in graph.nodes:
        if node not in depends:
            depends[node] = set().union(*(depends[o] for o in node.operands))
    chain = any(0 in depends[o] for n in scopes[1] for o in n.operands)
    before = set(scopes[1])
    for node in reversed(graph.nodes):
        if chain and node not in before and any(u in before for u in graph.users(node)):
            before.add(node)
    return [
        n
        for n in graph.nodes
        if depends[n] == {0} and n not in inside and result.of[n] == parent and (not chain or n in before)
    ]


def _read_together(graph: Graph, maps: list[dict[Node, Node]]) -> bool:
    """Is what reads one of the repeats, outside of them, something that reads them all?"""
    inside = {n for found in maps for n in found.values()}
    roots = set(graph.roots)
    for node in maps[0]:
        images = {found[node] for found in maps}
        readers = {u for image in images for u in graph.users(image) if u not in inside}
        if len(images) > 1 and (images & roots or any(not images <= set(map(base, r.operands)) for r in readers)):
            return False
    return True


Roles = dict[Node, Node | None]
"""value from outside → the node of the unit whose image in the repeat before it is; None: the same value in all."""


def _carry(
    unit: list[Node], known: dict[Node, Node], before: dict[Node, Node], nodes: Container[Node]
) -> tuple[dict[Node, Node], Roles] | None:
    """The nodes of the unit carried over to the next repeat, and what comes from outside; None where something differs."""
    found: dict[Node, Node] = {}
    outside: dict[Node, Node] = {}  # value from outside → the value of this repeat in its place
    for node in unit:
        target = known.get(node)
        if target is None:  # between two scopes: the same operation over what was carried over
            operands = tuple(found.get(o, outside.get(o, o)) for o in node.operands)
            target = Node(node.op, operands, node.type, **dict(node.attrs))
            if target not in nodes:
                return None
        for own, other in zip(node.operands, target.operands, strict=True):
            if (found[own] if own in found else outside.setdefault(own, other)) is not other:
                return None
        found[node] = target
    origin = {image: node for node, image in before.items()}
    roles: Roles = {}
    for own, other in outside.items():
        if own is not other and other not in origin:
            return None
        roles[own] = None if own is other else origin[other]
    return found, roles
