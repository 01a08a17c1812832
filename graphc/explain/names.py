"""How the values of a model are written: x, W with its scope above, ŷ, z for what a layer computes."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from ..graph.node import Node
from ..ops.elementwise import ROWS as ELEMENTWISE
from ..ops.leaves import LEAVES
from .box import Atom, Box, Hat, Row, Script, row, var
from .expression import Symbol

GREEK = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "zeta": "ζ", "eta": "η", "theta": "θ",
    "iota": "ι", "kappa": "κ", "lambda": "λ", "mu": "μ", "nu": "ν", "xi": "ξ", "pi": "π", "rho": "ρ", "sigma": "σ",
    "tau": "τ", "phi": "φ", "chi": "χ", "psi": "ψ", "omega": "ω",
}  # fmt: skip
LETTERS = {"einsum": "z", "exp": "e", "sum": "s", "div": "r", "max": "m", "min": "m", "log": "ℓ", "take": "v"}
LOSS = "L"


def letter_box(name: str) -> Box:
    """A name as it is written: one letter, a Greek one, ŷ for y_hat, W with 1 for W1, else the word."""
    if name.endswith("_hat") and len(name) > 4:
        return Hat(letter_box(name[:-4]))
    if name in GREEK:
        return var(GREEK[name])
    numbered = re.fullmatch(r"([A-Za-z])_?(\d+)", name)
    if numbered:
        return Script(var(numbered[1]), None, _above(numbered[2]))
    return var(name)


def _above(*parts: str) -> Box:
    """What stands above a symbol at its right: a scope, a number in brackets."""
    boxes: list[Box] = [Atom(f"({p})", "num") if p.isdigit() else Atom(p, "text") for p in parts]
    return row(*boxes)


def with_above(box: Box, *parts: str) -> Box:
    above = _above(*parts)
    if isinstance(box, Script):
        return Script(box.base, box.sub, Row((box.sup, *_items(above))) if box.sup else above)
    return Script(box, None, above)


def _items(box: Box) -> tuple[Box, ...]:
    return box.items if isinstance(box, Row) else (box,)


def symbols_for(
    nodes: Iterable[Node], known: Mapping[Node, str], loss: Node, scopes: Mapping[Node, str]
) -> dict[Node, Symbol]:
    """A symbol for each value, no two alike: the model's name where it gives one, else a letter by the operation."""
    nodes = list(nodes)
    wanted = {n: _wanted(n, known, loss, scopes) for n in nodes}
    shared = Counter(wanted.values())
    taken = {w for n, w in wanted.items() if n.op in LEAVES}
    count: Counter[tuple[str, str]] = Counter()
    symbols: dict[Node, Symbol] = {}
    for node in nodes:
        letter, scope = key = wanted[node]
        parts = [scope] if scope else []
        if node.op not in LEAVES and node is not loss and (shared[key] > 1 or key in taken or letter == "u"):
            count[key] += 1
            parts.append(str(count[key]))
        box = letter_box(letter)
        name = "^".join([letter, *parts])
        symbols[node] = Symbol(name, with_above(box, *parts) if parts else box, node.shape, node.dtype.kind)
    return symbols


def _wanted(node: Node, known: Mapping[Node, str], loss: Node, scopes: Mapping[Node, str]) -> tuple[str, str]:
    """(the letter or name, the scope above it)"""
    if node is loss:
        return LOSS, ""
    name = known.get(node)
    if name is not None:
        scope, _, own = name.rpartition("/")
        return own, scope
    if _adds_product(node):
        return "z", scopes.get(node, "")
    if node.op == "const":
        return "K", ""
    if node.op in LETTERS:
        return LETTERS[node.op], scopes.get(node, "") if node.op == "einsum" else ""
    return ("h", "") if node.op in ELEMENTWISE and ELEMENTWISE[node.op].floats_only and node.op != "div" else ("u", "")


def _adds_product(node: Node) -> bool:
    """Is it a sum with a product in it, as x W + h U + b?"""
    return node.op == "add" and any(o.op == "einsum" or _adds_product(o) for o in node.operands)


def cotangent_of(symbol: Symbol, partial: bool) -> Symbol:
    """δ with the symbol above it; of a parameter ∂L/∂W."""
    return Symbol(f"δ^{symbol.name}", Script(var("δ"), None, symbol.box), symbol.shape, "f", symbol, partial)
