"""A document as Markdown, HTML, LaTeX or plain text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from xml.sax.saxutils import escape

from . import mathematics as maths
from .box import Box
from .document import Block, Bullets, Code, Display, Document, Line, Math, Paragraph, Section, Strong


def _aligned(display: Display) -> str:
    """The rows in LaTeX."""
    left, *rest = [maths.latex(b) for b in (display.left, *display.right)]
    tag = rf" \tag{{{display.number}}}" if display.number else ""
    if len(rest) == 1:
        return f"{left} = {rest[0]}{tag}"
    rows = " \\\\\n".join([f"{left} &= {rest[0]}", *(f"&= {r}" for r in rest[1:])])
    return f"\\begin{{aligned}}\n{rows}\n\\end{{aligned}}{tag}"


# -- Markdown --------------------------------------------------------------------------------------------------------
def _markdown_line(line: Line) -> str:
    parts = []
    for item in line:
        if isinstance(item, Math):
            parts.append(f"${maths.latex(item.box)}$")
        elif isinstance(item, Code):
            parts.append(f"`{item.text}`")
        else:
            text = item.text if isinstance(item, Strong) else item
            for sign in "\\`*_<$":
                text = text.replace(sign, f"\\{sign}")
            parts.append(f"**{text}**" if isinstance(item, Strong) else text)
    return "".join(parts)


def _markdown_block(block: Block) -> str:
    match block:
        case Paragraph(line):
            return _markdown_line(line)
        case Bullets(lines):
            return "\n".join(f"- {_markdown_line(line)}" for line in lines)
        case Display():
            return f"$$\n{_aligned(block)}\n$$"


def markdown(document: Document) -> str:
    parts = [f"# {document.title}"]
    for section in document.sections:
        parts.append(f"{'#' * section.level} {_markdown_line(section.title)}")
        parts += map(_markdown_block, section.blocks)
    return "\n\n".join(parts) + "\n"


# -- HTML ------------------------------------------------------------------------------------------------------------
STYLE = """
body { font: 17px/1.55 Georgia, "DejaVu Serif", serif; color: #1c1c1c; background: #fff; max-width: 58rem;
  margin: 2rem auto; padding: 0 1.2rem; }
h1 { font-size: 1.7rem; } h2 { font-size: 1.3rem; margin-top: 2.2rem; border-bottom: 1px solid #bbb; }
h3 { font-size: 1.05rem; margin: 1.8rem 0 .3rem; }
code { font: .88em "DejaVu Sans Mono", Menlo, Consolas, monospace; color: #234; background: #eef1f4; padding: .1em .3em; }
math { font-family: "Latin Modern Math", "STIX Two Math", "Cambria Math", "DejaVu Math TeX Gyre", math; }
.display { display: flex; align-items: center; margin: .7rem 0; overflow-x: auto; }
.display > math { margin: 0 auto; font-size: 1.08em; }
.number { color: #555; padding-left: 1rem; }
.whole { font-weight: bold; }
mtd { padding: .3em .15em; text-align: center; }
mtd.right { text-align: right; } mtd.left { text-align: left; }
li { margin: .3rem 0; }
@media print { body { max-width: none; } }
"""


def _math(box: Box) -> str:
    return f"<math>{maths.mathml(box)}</math>"


def _html_line(line: Line) -> str:
    parts = []
    for item in line:
        if isinstance(item, Math):
            parts.append(_math(item.box))
        elif isinstance(item, Code):
            parts.append(f"<code>{escape(item.text)}</code>")
        else:
            parts.append(f"<strong>{escape(item.text)}</strong>" if isinstance(item, Strong) else escape(item))
    return "".join(parts)


def _html_block(block: Block) -> str:
    match block:
        case Paragraph(line):
            return f"<p>{_html_line(line)}</p>"
        case Bullets(lines):
            return "<ul>" + "".join(f"<li>{_html_line(line)}</li>" for line in lines) + "</ul>"
        case Display(left, right, number):
            rows = "".join(
                f"<mtr><mtd class='right'>{maths.mathml(left) if n == 0 else ''}</mtd><mtd><mo>=</mo></mtd>"
                f"<mtd class='left'><mstyle displaystyle='true'>{maths.mathml(r)}</mstyle></mtd></mtr>"
                for n, r in enumerate(right)
            )
            label = f"<span class='number'>({escape(number)})</span>" if number else ""
            table = f"<math display='block'><mtable displaystyle='true'>{rows}</mtable></math>"
            return f"<div class='display'>{table}{label}</div>"


def html_body(document: Document) -> str:
    """The document without a page around it."""
    parts = [f"<h1>{escape(document.title)}</h1>"]
    for section in document.sections:
        parts.append(f"<h{section.level}>{_html_line(section.title)}</h{section.level}>")
        parts += map(_html_block, section.blocks)
    return "\n".join(parts)


def html(document: Document) -> str:
    head = f"<meta charset='utf-8'/><title>{escape(document.title)}</title><style>{STYLE}</style>"
    return f"<!DOCTYPE html>\n<html lang='en'><head>{head}</head>\n<body>\n{html_body(document)}\n</body></html>\n"


# -- LaTeX -----------------------------------------------------------------------------------------------------------
PREAMBLE = r"""\documentclass[11pt]{article}
\usepackage[T1]{fontenc}
\usepackage[utf8]{inputenc}
\usepackage{amsmath,amssymb}
\usepackage[margin=2.4cm]{geometry}
\setlength{\parindent}{0pt}
\setlength{\parskip}{0.6em}
\allowdisplaybreaks
"""


def _tex_text(text: str) -> str:
    """Text, its signs of mathematics in mathematics."""
    special = {"\\": r"\textbackslash{}", "^": r"\textasciicircum{}", "~": r"\textasciitilde{}"}
    special |= {c: f"\\{c}" for c in "#$%&_{}"} | {"–": "--", "—": "---", "“": "``", "”": "''", "…": r"\ldots{}"}
    special |= {
        "²": r"\textsuperscript{2}",
        "³": r"\textsuperscript{3}",
        "√": r"\(\surd\)",
        "⁻": r"\textsuperscript{-}",
    }
    parts = []
    for c in text:
        if c in special:
            parts.append(special[c])
        elif c in maths.SIGNS and c not in "|":
            parts.append(rf"\({maths.SIGNS[c]}\)")
        elif c == "\u0302" or ord(c) < 0x250:
            parts.append(c if c != "\u0302" else "")
        else:
            parts.append(_tex_raised(c))
    return "".join(parts)


def _tex_raised(c: str) -> str:
    """A raised or lowered sign of Unicode by its plain one."""
    import unicodedata

    kind, _, code = unicodedata.decomposition(c).partition(" ")
    plain = chr(int(code, 16)) if kind in ("<super>", "<sub>") else "?"
    name = "textsuperscript" if kind == "<super>" else "textsubscript"
    plain = plain.replace("\u2212", "-")
    return rf"\{name}{{{plain}}}" if kind in ("<super>", "<sub>") else plain


def _tex_line(line: Line) -> str:
    parts = []
    for item in line:
        if isinstance(item, Math):
            parts.append(rf"\({maths.latex(item.box)}\)")
        elif isinstance(item, str):
            parts.append(_tex_text(item))
        else:
            parts.append(rf"\{'texttt' if isinstance(item, Code) else 'textbf'}{{{_tex_text(item.text)}}}")
    return "".join(parts)


def _tex_block(block: Block) -> str:
    match block:
        case Paragraph(line):
            return _tex_line(line)
        case Bullets(lines):
            return "\\begin{itemize}\n" + "\n".join(rf"\item {_tex_line(line)}" for line in lines) + "\n\\end{itemize}"
        case Display():
            return f"\\[\n{_aligned(block)}\n\\]"


def tex(document: Document) -> str:
    parts = [PREAMBLE + rf"\title{{{_tex_text(document.title)}}}" + "\n\\date{}\n\\begin{document}\n\\maketitle"]
    for section in document.sections:
        command = "section*" if section.level == 2 else "subsubsection*"
        parts.append(rf"\{command}{{{_tex_line(section.title)}}}")
        parts += map(_tex_block, section.blocks)
    return "\n\n".join(parts) + "\n\n\\end{document}\n"


# -- plain text ------------------------------------------------------------------------------------------------------
def _text_line(line: Line) -> str:
    return "".join(maths.text(i.box) if isinstance(i, Math) else i if isinstance(i, str) else i.text for i in line)


def _text_block(block: Block) -> str:
    match block:
        case Paragraph(line):
            return _text_line(line)
        case Bullets(lines):
            return "\n".join(f"  • {_text_line(line)}" for line in lines)
        case Display(left, right, number):
            first = maths.text(left)
            rows = [f"    {first if n == 0 else ' ' * len(first)} = {maths.text(r)}" for n, r in enumerate(right)]
            return "\n".join([rows[0] + (f"    ({number})" if number else ""), *rows[1:]])


def plain(document: Document) -> str:
    parts = [f"{document.title}\n{'=' * len(document.title)}"]
    for section in document.sections:
        title = _text_line(section.title)
        parts.append(title + ("\n" + "-" * len(title) if section.level == 2 else ""))
        parts += map(_text_block, section.blocks)
    return "\n\n".join(parts) + "\n"


WRITERS: Mapping[str, Callable[[Document], str]] = {"md": markdown, "html": html, "tex": tex, "txt": plain}

__all__ = ["WRITERS", "Section", "html", "html_body", "markdown", "plain", "tex"]
