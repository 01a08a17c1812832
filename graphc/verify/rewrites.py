"""Each rewrite that fired, its two sides evaluated in 50-digit arithmetic at random points."""

from __future__ import annotations

import mpmath as mp

from ..graph.node import Node, postorder
from ..passes.default import ALL_RULES
from ..passes.rewrite import Firings
from . import exact
from .adjoints import ILL_FORMED, POINTS, close, rounding, sample
from .certificate import EXACT, FAILED, UNPROVED, Finding
from .sizes import drawn, guards_of


def rewrites(fired: Firings) -> list[Finding]:
    """A finding for each rule that fired, with its reason as the assumption."""
    findings = []
    for name, instances in fired.instances.items():
        rule = ALL_RULES[name]
        verdicts = [_verdict(before, after) for before, after in instances]
        standing = FAILED if False in verdicts else EXACT if True in verdicts else UNPROVED
        findings.append(Finding("rewrite", f"{name} ({rule.kind}, {fired.counts[name]} times)", standing, rule.reason))
    return findings


def _verdict(before: Node, after: Node) -> bool | None:
    try:
        return agree(before, after)
    except exact.NoExactValue:
        return None
    except ILL_FORMED:
        return False  # one side cannot even be evaluated


def agree(before: Node, after: Node) -> bool | None:
    """Do both sides agree wherever both are real? None where no point was found at which they are.

    What both sides hold is taken as free, so that only what the rule changed is evaluated; but where they then differ,
    it may be that one of these values depends on another, and all is evaluated.
    """
    verdict = _agree(before, after, _leaves(before, after))
    if verdict is not False:
        return verdict
    return _agree(before, after, [n for n in postorder([before, after]) if n.op in ("input", "param", "state")])


def _agree(before: Node, after: Node, leaves: list[Node]) -> bool | None:
    nodes = postorder([before, after], set(leaves)) + leaves
    tolerance = rounding(after.dtype) if after.op == "const" and before.op != "const" else mp.mpf(10) ** -45
    seen = None
    guards = guards_of(postorder([before], set(leaves)))  # what comes after must fit wherever this does
    for seed, rng, sizes in drawn(nodes, guards, 2 * POINTS):
        signed = seed >= POINTS
        if seed % POINTS and sum(n.type.numel.evaluate(sizes) for n in nodes) > MANY:
            continue  # so many numbers make one point as good as several
        limit = min((e.evaluate(sizes) for n in nodes for e in n.shape if e != 1), default=1)
        with mp.workdps(exact.DIGITS):
            values = {n: sample(n, sizes, rng, limit, signed) for n in leaves}
            left = exact.evaluate([before], values, sizes)[before]
            right = exact.evaluate([after], values, sizes)[after]
            for a, b in zip(left.ravel(), right.ravel(), strict=True):
                if a == b and not isinstance(a, mp.mpc):
                    seen = True
                    continue
                a, b = mp.mpmathify(a), mp.mpmathify(b)
                if isinstance(a, mp.mpc) or isinstance(b, mp.mpc) or not (mp.isfinite(a) and mp.isfinite(b)):
                    continue
                if not close(a, b, tolerance):
                    return False
                seen = True
    return seen


MANY = 1000  # numbers in an instance


def _leaves(before: Node, after: Node) -> list[Node]:
    """The nodes that stand on both sides and are read by a part that does not, and the leaves of either side."""
    both = set(postorder([before])) & set(postorder([after]))
    shared = {n for n in both if n is not before and n.op not in ("const", "size", "scan")}
    # a walk down from both roots that stops at what is shared
    found: dict[Node, None] = {}
    for node in postorder([before, after], set()):
        if node.op in ("input", "param", "state") or node in shared:
            found[node] = None
    visible = set(postorder([before, after], set(found)))
    read = {o for n in visible for o in n.operands} | {before, after}
    return [n for n in found if n in read]
