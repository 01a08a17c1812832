"""Each rewrite that fired, its two sides evaluated in 50-digit arithmetic at random points."""

from __future__ import annotations

import random

import mpmath as mp
import numpy as np

from ..graph.node import Node, postorder
from ..passes.default import ALL_RULES
from ..passes.rewrite import Firings
from . import exact
from .adjoints import POINTS, close, sample
from .certificate import EXACT, FAILED, UNPROVED, Finding


def rewrites(fired: Firings) -> list[Finding]:
    """A finding for each rule that fired, with its reason as the assumption."""
    findings = []
    for name, instances in fired.instances.items():
        rule = ALL_RULES[name]
        verdicts = [agree(before, after) for before, after in instances]
        standing = FAILED if False in verdicts else EXACT if True in verdicts else UNPROVED
        findings.append(Finding("rewrite", f"{name} ({rule.kind}, {fired.counts[name]} times)", standing, rule.reason))
    return findings


def agree(before: Node, after: Node) -> bool | None:
    """Do both sides agree wherever both are real? None where no point was found at which they are."""
    old, new = set(postorder([before])), set(postorder([after]))
    shared = {n for n in old & new if n.op not in ("const", "size")}
    frontier = [n for n in postorder([after, before]) if n in shared and n is not before]
    frontier = [n for n in frontier if _reached(n, before, shared) or _reached(n, after, shared)]
    leaves = dict.fromkeys([*frontier, *(n for n in old | new if n.op in ("input", "param", "state"))])
    names = sorted({s for n in old | new for e in n.shape for s in e.names})
    seen = None
    for seed in range(2 * POINTS):
        rng = random.Random(seed)
        sizes = {n: 2 + (i + seed) % 3 for i, n in enumerate(names)}
        limit = min((e.evaluate(sizes) for n in old | new for e in n.shape if e != 1), default=1)
        with mp.workdps(exact.DIGITS):
            values = {n: sample(n, sizes, rng, limit) * (_sign(n, rng) if seed >= POINTS else 1) for n in leaves}
            left = exact.evaluate([before], values, sizes)[before]
            right = exact.evaluate([after], values, sizes)[after]
            for a, b in zip(left.ravel(), right.ravel(), strict=True):
                if isinstance(a, mp.mpc) or isinstance(b, mp.mpc) or not (mp.isfinite(a) and mp.isfinite(b)):
                    continue
                if not close(mp.mpf(a), mp.mpf(b), mp.mpf(10) ** -45):
                    return False
                seen = True
    return seen


def _sign(node: Node, rng: random.Random) -> np.ndarray | int:
    """Some points with negative numbers too."""
    return rng.choice((1, -1)) if node.dtype.is_float else 1


def _reached(node: Node, root: Node, shared: set[Node]) -> bool:
    """Is the node read by a part of `root` that is not shared, or the root itself?"""
    if node is root:
        return True
    return any(node in n.operands for n in postorder([root]) if n not in shared or n is root)
