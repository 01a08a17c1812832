"""Boxes as LaTeX, MathML and Unicode text."""

from __future__ import annotations

from xml.sax.saxutils import escape

from .box import Atom, Big, Box, Branches, Fence, Frac, Hat, Root, Row, Script, var
from .names import GREEK

# -- LaTeX -----------------------------------------------------------------------------------------------------------
SIGNS = {
    "−": "-", "·": r"\cdot", "⊙": r"\odot", "⊤": r"\top", "∂": r"\partial", "∈": r"\in", "ℝ": r"\mathbb{R}",
    "ℤ": r"\mathbb{Z}", "{0,1}": r"\lbrace 0,1\rbrace", "×": r"\times", "≤": r"\le", "≥": r"\ge", "≠": r"\ne",
    "<": r"\lt", ">": r"\gt", "∧": r"\land", "∨": r"\lor", "¬": r"\lnot", "⌊": r"\lfloor", "⌋": r"\rfloor",
    "∑": r"\sum", "∏": r"\prod", "∞": r"\infty", "ℓ": r"\ell", "′": "'", "≡": r"\equiv", "⇒": r"\Rightarrow",
    "→": r"\to", "|": r"\vert",
} | {letter: rf"\{name}" for name, letter in GREEK.items()}  # fmt: skip
SIGNS["ο"] = "o"
FUNCTIONS = ("log", "exp", "tanh", "sin", "cos", "max", "min")
SPECIAL = {c: f"\\{c}" for c in "#$%&_{}"} | {"\\": r"\backslash ", "~": r"\sim ", "^": r"\hat{}"}


def latex_text(text: str) -> str:
    """Text for \\mathrm or \\text."""
    return "".join(SPECIAL.get(c, c) for c in text)


def latex(box: Box) -> str:
    match box:
        case Atom(text, kind):
            return _latex_atom(text, kind)
        case Row(items):
            return "".join(_spaced(latex(i)) for i in items).replace("  ", " ").strip()
        case Script(base, sub, sup):
            inner = latex(base)
            inner = f"{{{inner}}}" if isinstance(base, Script | Row) else inner
            return inner + (f"_{{{latex(sub)}}}" if sub else "") + (f"^{{{latex(sup)}}}" if sup else "")
        case Frac(top, bottom):
            return rf"\frac{{{latex(top)}}}{{{latex(bottom)}}}"
        case Root(body):
            return rf"\sqrt{{{latex(body)}}}"
        case Hat(body):
            return rf"\hat{{{latex(body)}}}"
        case Fence(body, left, right):
            first, last = (r"\left", r"\right") if _is_tall(body) else ("", "")
            return _spaced(f"{first}{SIGNS.get(left, left)}") + f"{latex(body)}{last}{SIGNS.get(right, right)}"
        case Big(sign, under):
            return rf"{SIGNS[sign]}_{{{latex(under)}}}"
        case Branches(rows):
            return r"\begin{cases} " + r" \\ ".join(f"{latex(v)} & {latex(c)}" for v, c in rows) + r" \end{cases}"


def _is_tall(box: Box) -> bool:
    """Must brackets around it grow?"""
    match box:
        case Frac() | Big() | Branches():
            return True
        case Row(items):
            return any(map(_is_tall, items))
        case Fence(body, _, _) | Root(body) | Hat(body):
            return _is_tall(body)
    return False


def _spaced(text: str) -> str:
    """A command's name must not run into a letter that follows."""
    return text + " " if text[-1:].isalpha() and "\\" in text else text


def _latex_atom(text: str, kind: str) -> str:
    if kind == "space":
        return r"\,"
    if kind == "text":
        return rf"\text{{{latex_text(text)}}}"
    if kind == "fn":
        return f"\\{text}" if text in FUNCTIONS else rf"\mathrm{{{latex_text(text)}}}"
    if kind == "op":
        sign = SIGNS.get(text, text)
        return sign if text in ("ℝ", "ℤ", "{0,1}", "⊤") else f"{sign} " if text in "∂¬" else f" {sign} "
    plain = "".join(SIGNS.get(c, c) for c in text)
    letter = plain if len(text.rstrip("′")) == 1 or kind == "num" else rf"\mathrm{{{latex_text(text)}}}"
    return rf"\boldsymbol{{{letter}}}" if kind == "bold" else letter


# -- MathML ----------------------------------------------------------------------------------------------------------
def mathml(box: Box) -> str:
    match box:
        case Atom(text, kind):
            return _mathml_atom(text, kind)
        case Row(items):
            return f"<mrow>{''.join(map(mathml, items))}</mrow>"
        case Script(base, sub, sup):
            tag = "msubsup" if sub and sup else "msub" if sub else "msup"
            return f"<{tag}>{mathml(base)}{mathml(sub) if sub else ''}{mathml(sup) if sup else ''}</{tag}>"
        case Frac(top, bottom):
            return f"<mfrac>{mathml(top)}{mathml(bottom)}</mfrac>"
        case Root(body):
            return f"<msqrt>{mathml(body)}</msqrt>"
        case Hat(body):
            return f"<mover accent='true'>{mathml(body)}<mo>^</mo></mover>"
        case Fence(body, left, right):
            return f"<mrow>{_fence(left, 'prefix')}{mathml(body)}{_fence(right, 'postfix')}</mrow>"
        case Big(sign, under):
            return f"<munder><mo movablelimits='false'>{sign}</mo>{mathml(under)}</munder>"
        case Branches(rows):
            cells = "".join(
                f"<mtr><mtd class='left'>{mathml(v)}</mtd><mtd class='left'>{mathml(c)}</mtd></mtr>" for v, c in rows
            )
            return f"<mrow>{_fence('{', 'prefix')}<mtable>{cells}</mtable></mrow>"


def _fence(sign: str, form: str) -> str:
    return f"<mo form='{form}' fence='true' stretchy='true'>{sign}</mo>"


def _mathml_atom(text: str, kind: str) -> str:
    text = escape(text)
    if kind == "space":
        return "<mspace width='0.17em'/>"
    if kind == "num":
        return f"<mn>{text}</mn>"
    if kind == "text":
        # a space at an end is dropped from <mtext>
        return f"<mtext>{text.replace(' ', chr(0xA0))}</mtext>"
    if kind == "op":
        return f"<mi mathvariant='normal'>{text}</mi>" if text in "∂ℝℤ⊤{0,1}" else f"<mo>{text}</mo>"
    if kind == "bold":
        return f"<mi class='whole'>{text}</mi>"
    return f"<mi>{text}</mi>"


# -- Unicode text ----------------------------------------------------------------------------------------------------
BELOW = str.maketrans("0123456789aehijklmnoprstuvx,+−", "₀₁₂₃₄₅₆₇₈₉ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓ‚₊₋")
ABOVE = str.maketrans("0123456789()+−⊤ijn", "⁰¹²³⁴⁵⁶⁷⁸⁹⁽⁾⁺⁻ᵀⁱʲⁿ")


def text(box: Box) -> str:
    match box:
        case Atom(content, kind):
            if kind == "space":
                return " "
            return f" {content} " if kind == "op" and content in "+=<>≤≥≠∧∨∈⊙≡⇒→" else content
        case Row(items):
            # a minus between two has spaces, one that begins has none
            parts = [
                " − " if n and i == Atom("−", "op") and not _is_sign(items[n - 1]) else _part(i, _beside(items, n))
                for n, i in enumerate(items)
            ]
            return "".join(parts).replace("  ", " ")
        case Script(base, sub, sup):
            inner = text(base)
            inner = f"({inner})" if isinstance(base, Row | Frac) else inner
            return (
                inner
                + (_raised(text(sub), BELOW, "_") if sub else "")
                + (_raised(text(sup), ABOVE, "^") if sup else "")
            )
        case Frac(top, bottom):
            return f"{_grouped(top)}/{_grouped(bottom)}"
        case Root(body):
            return f"√{_grouped(body)}"
        case Hat(body):
            inner = text(body)
            return inner[0] + "\u0302" + inner[1:]
        case Fence(body, left, right):
            return f"{left}{text(body)}{right}"
        case Big(sign, under):
            return f"{'Σ' if sign == '∑' else 'Π'}{_raised(text(under), BELOW, '_')} "
        case Branches(rows):
            return "{ " + "; ".join(f"{text(v)} {text(c)}" for v, c in rows) + " }"


def _is_sign(box: Box) -> bool:
    return isinstance(box, Atom) and box.kind == "op"


def _beside(items: tuple[Box, ...], n: int) -> bool:
    """Does a factor stand beside it?"""
    before, after = items[n - 1] if n else Atom("=", "op"), items[n + 1] if n + 1 < len(items) else Atom("=", "op")
    return not all(isinstance(b, Atom) and b.kind == "op" and b.text in "=+−<>≤≥≠" for b in (before, after))


def _part(box: Box, beside: bool) -> str:
    return f"({text(box)})" if beside and isinstance(box, Frac) and not _is_derivative(box) else text(box)


def _is_derivative(box: Frac) -> bool:
    return _is_partial(box.top)


def _grouped(box: Box) -> str:
    inner = text(box)
    simple = isinstance(box, Atom | Script | Fence) or _is_partial(box)
    return inner if simple else f"({inner})"


def _is_partial(box: Box) -> bool:
    return isinstance(box, Row) and len(box.items) == 2 and box.items[0] in (Atom("∂", "op"), var("d"))


def _raised(inner: str, table: dict[int, int], sign: str) -> str:
    plain = inner.replace(" ", "")
    if all(ord(c) in table for c in plain):
        return plain.translate(table)
    return f"{sign}{plain}" if plain.isalnum() and plain.isascii() else f"{sign}({inner})"
