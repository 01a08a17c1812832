"""Rewrites of loops: what need not be done in a step is done before or after the loop, for all steps at once.

A loop has several results, so a rule gives a node for each of those that are used.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace

from ..graph.body import Body, dependents, make_body, replaced
from ..graph.graph import Graph, SideTables, with_operands
from ..graph.node import Node, postorder
from ..ops import build
from ..ops.build import make
from ..ops.contract import split_spec
from ..ops.scan import MOVEMENTS, Scan, item, with_body
from .batch import Operand, batch, can_batch, is_movement, stack, step_letter, summed_formula
from .kept import is_heavy, is_made_where_read, smallest
from .rewrite import EXACT, LIMIT, VALUE_CHANGING, Firings, Rule

Results = dict[int, Node]  # the number of a loop's result → the node to put in its place


@dataclass(frozen=True)
class LoopRule(Rule):
    """A rewrite of a loop, of which some results are used."""

    loop: Callable[[Scan, Collection[int], SideTables], Results | None] = lambda scan, used, tables: None


def loop_rule(name: str, kind: str, reason: str) -> Callable[[Callable[..., Results | None]], LoopRule]:
    """Make a rule of a function of a loop, the numbers of its results that are used, and the side tables."""
    return lambda loop: LoopRule(name, kind, reason, lambda node, memo: None, loop)


def simplify_loops(graph: Graph, fired: Firings | None = None) -> Graph:
    """Apply the rules below until none fires, to loops inside loops too."""
    for _ in range(LIMIT):
        before = graph.roots
        graph = _round(_merged(graph, fired), fired)
        if graph.roots == before:
            break
    return graph


def _round(graph: Graph, fired: Firings | None) -> Graph:
    used: dict[Node, set[int]] = {}
    for node in graph.nodes:
        if node.op == "item":
            used.setdefault(node.operands[0], set()).add(node.attr("index"))
    results: dict[Node, Results] = {}

    def change(node: Node, operands: tuple[Node, ...]) -> Node:
        if node.op == "item" and node.operands[0] in results:
            return results[node.operands[0]][node.attr("index")]
        new = with_operands(node, operands)
        if node.op != "scan":
            return new
        new = with_body(new, lambda g: simplify_loops(g, fired), graph.tables)
        known = set(postorder([new]))
        for rule in RULES:
            found = rule.loop(Scan.of(new), used[node], graph.tables)
            if found is None:
                continue
            for k, result in found.items():
                assert result.type == item(new, k).type, f"rule {rule.name} changed the type of result {k} of {new!r}"
                if fired is not None:
                    fired.record(rule, item(new, k), result)
                for inner in postorder([result], known):
                    graph.tables.add_origin(inner, *graph.tables.origins.get(node, ()))
            results[node] = found
            return new
        return new

    return graph.rewrite(change)


# -- loops that are one ----------------------------------------------------------------------------------------------
MERGE = Rule(
    "one loop", EXACT, "loops of the same carries over the same arrays are one that gives more", lambda n, m: None
)


def _merged(graph: Graph, fired: Firings | None) -> Graph:
    """Loops that differ only in what their steps give become one."""
    wider: dict[object, Scan] = {}
    for _ in range(2):  # first what each must give, then the same with all of it

        def change(node: Node, operands: tuple[Node, ...]) -> Node:
            if node.op == "item":
                (loop,) = operands
                scan, k = Scan.of(loop), node.attr("index")
                whole = wider[_likeness(scan)]
                n = len(scan.init)
                if k >= n and whole.body != scan.body:
                    return whole.stacked(whole.body.gives.index(scan.body.results[k]))
                return item(whole.node(), k)
            new = with_operands(node, operands)
            if new.op == "scan":
                scan = Scan.of(new)
                known = wider.setdefault(_likeness(scan), scan)
                more = [y for y in dict.fromkeys(scan.body.gives) if y not in known.body.gives]
                if more:
                    body = replace(known.body, results=(*known.body.results, *more))
                    wider[_likeness(scan)] = replace(known, body=body)
                    if fired is not None:
                        fired.counts[MERGE.name] += 1
            return new

        graph = graph.rewrite(change)
    return graph


def _likeness(scan: Scan) -> object:
    return scan.operands, scan.length, scan.reverse, scan.recompute, scan.body.inputs, scan.body.new_carries


# -- what is not needed ----------------------------------------------------------------------------------------------
def _without(
    scan: Scan,
    used: Iterable[int],
    carries: Sequence[int],
    gives: Sequence[int],
    put: dict[Node, Node],
    tables: SideTables,
) -> tuple[Scan, Results]:
    """The loop with only some carries and gives, inputs of the step replaced, and operands that it reads; its results."""
    body = scan.body
    roots = [body.results[k] for k in (*carries, *(len(body.carries) + j for j in gives))]
    roots = replaced(roots, put, tables)
    reads = set(postorder(roots))
    elements = [(v, o) for v, o in zip(body.elements, scan.xs, strict=True) if v in reads]
    given = [(v, o) for v, o in zip(body.given, scan.given, strict=True) if v in reads]
    kept = [body.carries[k] for k in carries]
    narrow = make_body(kept, [v for v, _ in elements], [v for v, _ in given], roots, tables)
    operands = tuple(scan.init[k] for k in carries), tuple(o for _, o in elements), tuple(o for _, o in given)
    new = Scan(narrow, scan.length, *operands, scan.reverse, scan.recompute)
    n, place = len(body.carries), {}
    for k in used:
        if k < n and k in carries:
            place[k] = new.last(list(carries).index(k))
        elif k >= n and k - n in gives:
            place[k] = new.stacked(list(gives).index(k - n))
    return new, place


@loop_rule("dead carry", EXACT, "carries, and values of the steps, that no result needs are not computed")
def dead(scan: Scan, used: Collection[int], tables: SideTables) -> Results | None:
    body, n = scan.body, len(scan.init)
    live = {k for k in used if k < n}
    gives = sorted(k - n for k in used if k >= n)
    while True:
        reads = set(postorder([body.results[k] for k in live] + [body.gives[j] for j in gives]))
        more = {k for k in range(n) if body.carries[k] in reads} - live
        if not more:
            break
        live |= more
    same = len(live) == n and len(gives) == len(body.gives)
    if same and all(v in reads for v in (*body.elements, *body.given)):
        return None
    return _without(scan, used, sorted(live), gives, {}, tables)[1]


@loop_rule("carry that stays", EXACT, "a carry that each step hands on as it is is no carry")
def constant_carry(scan: Scan, used: Collection[int], tables: SideTables) -> Results | None:
    body = scan.body
    stays = [k for k, c in enumerate(body.carries) if body.new_carries[k] is c]
    if not stays:
        return None
    moved = [Node("input", (), body.carries[k].type, name=f"stays:{k}") for k in stays]
    put = dict(zip((body.carries[k] for k in stays), moved, strict=True))
    wider = replace(
        scan,
        body=replace(
            body,
            given=(*body.given, *moved),
            results=tuple(replaced(body.results, put, tables)),
        ),
        given=(*scan.given, *(scan.init[k] for k in stays)),
    )
    rest = [k for k in range(len(body.carries)) if k not in stays]
    _, place = _without(wider, used, rest, range(len(body.gives)), {}, tables)
    return place | {k: scan.init[k] for k in stays if k in used}


@loop_rule(
    "element of equal rows", EXACT, "what is the same at every step is shared by the steps; a number is written there"
)
def uniform_element(scan: Scan, used: Collection[int], tables: SideTables) -> Results | None:
    body = scan.body
    put: dict[Node, Node] = {}
    shared: list[tuple[Node, Node]] = []
    for k, (inner, operand) in enumerate(zip(body.elements, scan.xs, strict=True)):
        row = _row(operand)
        if row is not None:
            stand_in = row if _is_number(row) else Node("input", (), row.type, name=f"row:{k}")
            put[inner] = build.broadcast_to(stand_in, inner.shape)
            shared += [] if stand_in is row else [(stand_in, row)]
    for inner, operand in zip(body.given, scan.given, strict=True):
        base = operand.operands[0] if operand.op == "broadcast_to" else operand
        if _is_number(base):
            put[inner] = build.broadcast_to(base, inner.shape)
    if not put:
        return None
    wider = replace(
        scan,
        body=replace(body, given=(*body.given, *(v for v, _ in shared))),
        given=(*scan.given, *(o for _, o in shared)),
    )
    return _without(wider, used, range(len(body.carries)), range(len(body.gives)), put, tables)[1]


def _is_number(node: Node) -> bool:
    return not node.shape and node.op in ("const", "size")


def _row(x: Node) -> Node | None:
    """What an array repeats along its first axis, without axes of length 1 in front; None where its rows differ."""
    if x.op != "broadcast_to":
        return None
    (base,) = x.operands
    if base.type.rank < x.type.rank:
        return base
    return build.reshape(base, base.shape[1:]) if base.shape[0] == 1 and x.shape[0] != 1 else None


@loop_rule("equal operands", EXACT, "arrays, and results, that are the same are taken, and given, once")
def equal_operands(scan: Scan, used: Collection[int], tables: SideTables) -> Results | None:
    body = scan.body
    first: dict[tuple[str, Node], Node] = {}
    put: dict[Node, Node] = {}
    for kind, inner, operands in (("xs", body.elements, scan.xs), ("given", body.given, scan.given)):
        for v, o in zip(inner, operands, strict=True):
            if first.setdefault((kind, o), v) is not v:
                put[v] = first[kind, o]
    if not put and len(set(body.gives)) == len(body.gives):
        return None
    gives = list(range(len(body.gives)))
    new, place = _without(scan, used, range(len(body.carries)), gives, put, tables)
    n = len(body.carries)
    again = {k: new.stacked(new.body.gives.index(new.body.gives[k - n])) for k in place if k >= n}
    return place | again


# -- what can be done outside ----------------------------------------------------------------------------------------
@loop_rule(
    "before the loop", VALUE_CHANGING, "what does not depend on the carries is computed once, for all steps together"
)
def hoist(scan: Scan, used: Collection[int], tables: SideTables) -> Results | None:
    body = scan.body
    changing = dependents(body.results, body.carries)
    by_step = dependents(body.results, body.elements) - changing
    shared = dependents(body.results, body.given) - changing - by_step
    early = [n for n in body.nodes if n in by_step and is_heavy(n) and _batches(n, body)]
    made = [v for v, o in zip(body.elements, scan.xs, strict=True) if is_made_where_read(o)]
    if scan.recompute:
        early = made = []  # it keeps as little as it can of all steps
    early = [n for n in smallest([*_outermost(early, body, by_step), *made], body, by_step) if n not in made]
    once = [
        n for n in body.nodes if n in shared and n.op not in MOVEMENTS and n.op != "input" and (n.shape or is_heavy(n))
    ]
    once = _outermost(once, body, shared)
    if not early and not once:
        return None
    stacks: dict[Node, Operand] = {v: (o, True) for v, o in zip(body.elements, scan.xs, strict=True)}
    operands = stacks | {v: (o, False) for v, o in zip(body.given, scan.given, strict=True)}
    arrays = [stack(o, scan.length) for o in batch(early, operands, scan.length)]
    values = [o for o, _ in batch(once, operands, scan.length)]
    new = [Node("input", (), n.type, name=f"early:{k}") for k, n in enumerate((*early, *once))]
    put = dict(zip((*early, *once), new, strict=True))
    wider = replace(
        scan,
        body=replace(
            body,
            elements=(*body.elements, *new[: len(early)]),
            given=(*body.given, *new[len(early) :]),
            results=tuple(replaced(body.results, put, tables)),
        ),
        xs=(*scan.xs, *arrays),
        given=(*scan.given, *values),
    )
    return _without(wider, used, range(len(body.carries)), range(len(body.gives)), {}, tables)[1]


def _batches(node: Node, body: Body) -> bool:
    return all(can_batch(n) for n in postorder([node], set(body.inputs)))


def _outermost(chosen: list[Node], body: Body, region: set[Node]) -> list[Node]:
    """Those of the chosen that something beside the computation of the chosen reads."""
    inside = set(postorder(chosen)) & region
    read = {o for n in body.nodes if n not in inside for o in n.operands} | set(body.results)
    return [n for n in chosen if n in read]


@loop_rule(
    "after the loop",
    VALUE_CHANGING,
    "sums over the steps, and values that no later step reads, are computed once, for all steps together",
)
def sink(scan: Scan, used: Collection[int], tables: SideTables) -> Results | None:
    body, n = scan.body, len(scan.init)
    if scan.recompute:
        return None
    terms = {k: t for k in range(n) if (t := _term(body, k)) is not None}
    kept = set(postorder([body.new_carries[k] for k in range(n) if k not in terms], set(body.inputs)))
    late = {n + j: y for j, y in enumerate(body.gives) if y not in kept and y not in body.carries}
    late |= {k: t for k, (_, t) in terms.items()}
    while True:
        begins = {k: _begins(root, kept, body) for k, root in late.items()}
        had = {*body.gives, *(v for k in begins if _weighs(late[k], kept, body) for v in begins[k])}
        held = [k for k, root in late.items() if not _worth(root, kept, body, set(begins[k]) - had)]
        if not held:
            break
        for k in held:  # it stays, and what it is computed from with it
            kept |= set(postorder([late.pop(k)], set(body.inputs)))
            terms.pop(k, None)
        late = {k: root for k, root in late.items() if k < n or root not in kept}
    if not late:
        return None
    more = list(dict.fromkeys(v for k in late for v in _begins(late[k], kept, body)))
    gives = [y for j, y in enumerate(body.gives) if n + j not in late]
    wider = replace(scan, body=replace(body, results=(*body.new_carries, *gives, *(v for v in more if v not in gives))))
    all_gives = wider.body.gives
    rest = [k for k in range(n) if k not in terms]
    wanted = {*range(n), *range(n, n + len(all_gives))}
    _, place = _without(wider, wanted, rest, range(len(all_gives)), {}, tables)
    stacks: dict[Node, Operand] = {v: (o, True) for v, o in zip(body.elements, scan.xs, strict=True)}
    stacks |= {v: (o, False) for v, o in zip(body.given, scan.given, strict=True)}
    stacks |= {v: (place[n + all_gives.index(v)], True) for v in more}
    results: Results = {}
    for k in used:
        if k in terms:
            sign, term = terms[k]
            results[k] = make(sign, scan.init[k], _summed(term, stacks, scan))
        elif k in late:
            (value,) = batch([late[k]], stacks, scan.length)
            results[k] = stack(value, scan.length)
        else:
            results[k] = place[k] if k < n else place[n + all_gives.index(body.results[k])]
    return results


def _term(body: Body, k: int) -> tuple[str, Node] | None:
    """("add" or "sub", x) where a carry is a sum over the steps, carry ± x, and nothing else reads it."""
    carry, new = body.carries[k], body.new_carries[k]
    if new.op not in ("add", "sub") or not carry.dtype.is_float:
        return None
    a, b = new.operands
    other = b if a is carry else a if new.op == "add" and b is carry else None
    if other is None or other is carry:
        return None
    if body.results.count(new) > 1 or carry in body.results:
        return None
    readers = [n for n in body.nodes if carry in n.operands or new in n.operands]
    return (new.op, build.broadcast_to(other, carry.shape)) if readers == [new] else None


def _begins(root: Node, kept: set[Node], body: Body) -> list[Node]:
    """The values of the steps, and carries, that a late computation begins with."""
    own = kept | set(body.carries)
    found = [o for n in postorder([root], set(own)) for o in n.operands if o in own] + ([root] if root in own else [])
    return list(dict.fromkeys(v for v in found if v.op not in ("const", "size") and v not in body.given))


def _late(root: Node, kept: set[Node], body: Body) -> list[Node]:
    """What would be computed after the loop."""
    return postorder([root], kept | set(body.inputs))


def _weighs(root: Node, kept: set[Node], body: Body) -> bool:
    work = _late(root, kept, body)
    return any(map(is_heavy, work)) and all(map(can_batch, work))


def _worth(root: Node, kept: set[Node], body: Body, stacks: Collection[Node]) -> bool:
    """Is it worth doing after the loop? Light work is not, where values would have to be kept for it."""
    return all(map(can_batch, _late(root, kept, body))) and (not stacks or _weighs(root, kept, body))


LINEAR = ("neg", "add", "sub", "concat", "transpose", "reshape")  # the sum of the results is the result of the sums


def _summed(term: Node, stacks: dict[Node, Operand], scan: Scan) -> Node:
    """Σ over the steps of a value."""
    if term not in stacks:
        if term.op in LINEAR and all(o.shape == term.shape or term.op in MOVEMENTS for o in term.operands):
            return with_operands(term, tuple(_summed(o, stacks, scan) for o in term.operands))
        if term.op == "formula" and len(term.operands) == 1 and is_movement(term):
            return with_operands(term, (_summed(term.operands[0], stacks, scan),))
        operands = batch(term.operands, stacks, scan.length)
        changing = any(stacked for _, stacked in operands)
        if term.op == "einsum" and changing:
            inputs, output = split_spec(term.attr("spec"))
            t = step_letter(term)
            terms = [t + i if stacked else i for i, (_, stacked) in zip(inputs, operands, strict=True)]
            return build.einsum(f"{','.join(terms)}->{output}", *(o for o, _ in operands))
        if term.op == "formula" and changing and (moved := summed_formula(term, operands, scan.length)) is not None:
            return moved
        if term.op == "sum" and changing:
            return build.reduce("sum", operands[0][0], (0, *(a + 1 for a in term.attr("axes"))))
    ((value, stacked),) = batch([term], stacks, scan.length)
    if stacked:
        return build.reduce("sum", value, (0,))
    return make("mul", value, build.size_value(scan.length, value.dtype))


RULES: tuple[LoopRule, ...] = (dead, constant_carry, uniform_element, equal_operands, hoist, sink)
