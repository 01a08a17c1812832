"""The text form of a graph: it prints and parses back to the same graph.

graph xor
%0 = input {name="x"} : f32[B, 2]                        @ "xor.py":6
%3 = einsum(%0, %1) {spec="ab,bc->ac"} : f32[B, 2]       @ "xor.py":7 hidden
output y_hat = %9
update total = %12
guard B == T because "…"

The body of a loop stands before the first line that names it, after the nodes that it is made of:

%2 = input {name="carry:0"} : f32[B, 3]
%4 = tanh(%3) : f32[B, 3]
body 0
carry %2
result %4
end
%7 = scan(%5, %6) {body=body 0, …} : (f32[B, 3], f32[T, B, 3])
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from ..errors import GraphError, SourceLine
from . import dtype as dtypes
from .body import Body
from .formula import Affine, Clause, Formula, Index, Lookup, Read, affine
from .graph import Graph, Guard, Origin, SideTables
from .node import Constant, Node, TensorType, tuple_type
from .scalar import Scalar
from .size import Size, parse

FORMAT = 1


# -- printing --------------------------------------------------------------------------------------------------------
def print_graph(graph: Graph) -> str:
    """The graph as text, with the origin of each node."""
    used = set(graph.nodes)
    unused = [n for n in (*graph.inputs, *graph.updates) if n not in used]
    printed = _Lines(graph.tables)
    printed.add([*unused, *graph.nodes])
    number = printed.number
    lines = [f"graph {graph.name}", *printed.lines]
    lines += [f"input {number[n]}" for n in graph.inputs]
    lines += [f"output {_name(name)} = {number[node]}" for name, node in graph.outputs.items()]
    lines += [f"update {number[target]} = {number[node]}" for target, node in graph.updates.items()]
    lines += [
        f"guard {g.left} {g.relation} {g.right} because {_quote(g.message)}"
        + (f" @ {_origin(Origin(g.source))}" if g.source else "")
        for g in graph.guards
    ]
    return "\n".join(lines) + "\n"


class _Lines:
    """The lines of nodes, each numbered and printed once, and the bodies of loops before the loops that run them."""

    def __init__(self, tables: SideTables):
        self.tables = tables
        self.number: dict[Node | Body, str] = {}
        self.nodes, self.bodies = count(), count()
        self.lines: list[str] = []

    def add(self, nodes: Iterable[Node]) -> None:
        for node in nodes:
            if node in self.number:
                continue
            for _, value in node.attrs:
                if isinstance(value, Body) and value not in self.number:
                    self._body(value)
            self.number[node] = f"%{next(self.nodes)}"
            origins = "".join(f" @ {_origin(o)}" for o in self.tables.origins.get(node, ()))
            name = f" as = {_quote(self.tables.names[node])}" if node in self.tables.names else ""
            self.lines.append(f"{self.number[node]} = {print_node(node, self.number)}{origins}{name}")

    def _body(self, body: Body) -> None:
        self.add((*body.inputs, *body.nodes))
        self.number[body] = f"body {next(self.bodies)}"
        places = zip(BODY_LINES, (body.carries, body.elements, body.given, body.results), strict=True)
        ends = [f"{kind} {self.number[node]}" for kind, nodes in places for node in nodes]
        self.lines += [self.number[body], *ends, "end"]


BODY_LINES = ("carry", "element", "given", "result")


def print_node(node: Node, number: Mapping[Node | Body, str]) -> str:
    """One node without its origins: `add(%1, %2) : f32[B, 2]`."""
    operands = f"({', '.join(number[o] for o in node.operands)})" if node.operands else ""
    attrs = ", ".join(f"{k}={number[v] if isinstance(v, Body) else _value(v)}" for k, v in node.attrs)
    return f"{node.op}{operands}{f' {{{attrs}}}' if attrs else ''} : {node.type}"


def _name(text: str) -> str:
    return text if text.isidentifier() else _quote(text)


def _quote(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _origin(origin: Origin) -> str:
    place = f"{_quote(origin.source.file)}:{origin.source.line}" if origin.source else "-"
    return f"{place} {_quote(origin.scope)}" if origin.scope else place


def _value(value: Any) -> str:
    if isinstance(value, str):
        return _quote(value)
    if isinstance(value, (bool, int)) or value is None:
        return repr(value)
    if isinstance(value, Size):
        return f"<{value}>"
    if isinstance(value, dtypes.DType):
        return value.name
    if isinstance(value, tuple):
        return f"({', '.join(map(_value, value))}{',' if len(value) == 1 else ''})"
    if isinstance(value, Constant):
        return _constant(value)
    if isinstance(value, Formula):
        clauses = " ; ".join(_clause(c) for c in value.clauses)
        init = f" init {value.init}" if value.init is not None else ""
        init += "".join(f" check @{k} < {limit}" for k, limit in value.checks)
        return f"{{|{value.reduce}{init} : {clauses}|}}"
    raise TypeError(f"an attribute of type {type(value).__name__} has no text form")


def _constant(value: Constant) -> str:
    shape = ", ".join(map(str, value.array.shape))
    if value.array.size <= 16:
        data = " ".join(repr(v) for v in value.array.ravel().tolist())
    else:
        data = "base64 " + base64.b64encode(value.array.tobytes()).decode()
    return f"array {value.dtype}[{shape}] {{{data}}}"


def _map(indices: tuple[Index, ...]) -> str:
    return f"[{', '.join(map(str, indices))}]"


def _clause(clause: Clause) -> str:
    guards = "".join(f" when {g} >= 0" for g in clause.guards)
    reads = " ".join(map(str, clause.reads))
    return (
        f"for ({', '.join(map(str, clause.box))}){guards} out{_map(clause.write)} = {clause.body} with {reads}".rstrip()
    )


# -- parsing ---------------------------------------------------------------------------------------------------------
_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:\\.|[^"\\])*")|(?P<size><[^<>]*>)|(?P<node>%\d+)
    |(?P<word>-?inf\b|-?nan\b|-?\d+\.?\d*(?:e[-+]?\d+)?|[A-Za-z_]\w*|\{\||\|\}|->|==|>=|//|[-+*/%(){}\[\],:;=|@.<>]))""",
    re.VERBOSE,
)


class _Reader:
    """Tokens of one line, with the line's number for messages."""

    def __init__(self, text: str, line: int):
        self.line, self.position, self.tokens = line, 0, []
        at = 0
        while text[at:].strip():
            match = _TOKEN.match(text, at)
            if not match:
                raise GraphError(f"line {line} of the graph text cannot be read at {text[at : at + 20]!r}")
            self.tokens.append(match[0].strip())
            at = match.end()

    def peek(self, ahead: int = 0) -> str:
        i = self.position + ahead
        return self.tokens[i] if i < len(self.tokens) else ""

    def next(self, expected: str | None = None) -> str:
        token = self.peek()
        if expected is not None and token != expected or not token:
            raise GraphError(
                f"line {self.line} of the graph text: {token or 'the end'!r} stands where {expected!r} should"
            )
        self.position += 1
        return token

    def accept(self, token: str) -> bool:
        if self.peek() == token:
            self.position += 1
            return True
        return False

    def string(self) -> str:
        return re.sub(r"\\(.)", lambda m: "\n" if m[1] == "n" else m[1], self.next()[1:-1])

    def until(self, *stops: str) -> str:
        """Tokens up to a stop outside brackets, joined."""
        taken, depth = [], 0
        while self.peek() and not (depth == 0 and self.peek() in stops):
            token = self.next()
            depth += (token in "([") - (token in ")]")
            taken.append(token)
        return " ".join(taken)

    def listed(self, item: Callable[[], Any], close: str) -> tuple[Any, ...]:
        items: list[Any] = []
        while not self.accept(close):
            items.append(item())
            if not self.accept(","):
                self.next(close)
                break
        return tuple(items)


def parse_graph(text: str) -> Graph:
    """Read a graph's text. GraphError says which line cannot be read."""
    name, tables = "", SideTables()
    nodes: dict[str, Node] = {}
    inputs: list[Node] = []
    outputs: dict[str, Node] = {}
    updates: dict[Node, Node] = {}
    guards: list[Guard] = []
    bodies: list[Body] = []
    parts: dict[str, list[Node]] = {}  # of the body that is being read
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        reader = _Reader(line, number)
        try:
            head = reader.next()
            if head == "graph":
                name = reader.next()
            elif head == "input":
                inputs.append(nodes[reader.next()])
            elif head == "output":
                key = reader.string() if reader.peek().startswith('"') else reader.next()
                reader.next("=")
                outputs[key] = nodes[reader.next()]
            elif head == "update":
                target = nodes[reader.next()]
                reader.next("=")
                updates[target] = nodes[reader.next()]
            elif head == "guard":
                left = parse(reader.until("==", ">="))
                relation = reader.next()
                right = parse(reader.until("because"))
                reader.next("because")
                message = reader.string()
                source = _read_origin(reader).source if reader.accept("@") else None
                guards.append(Guard(left, right, message, source, relation))
            elif head == "body":
                reader.next()
                parts = {kind: [] for kind in BODY_LINES}
            elif head in BODY_LINES:
                parts[head].append(nodes[reader.next()])
            elif head == "end":
                bodies.append(Body(*(tuple(parts[kind]) for kind in BODY_LINES)))
            elif head.startswith("%"):
                reader.next("=")
                node = nodes[head] = _read_node(reader, nodes, bodies)
                while reader.accept("@"):
                    tables.add_origin(node, _read_origin(reader))
                if reader.accept("as"):
                    reader.next("=")
                    tables.names[node] = reader.string()
            else:
                raise GraphError(f"line {number} of the graph text begins with {head!r}")
            if reader.peek():
                raise GraphError(f"line {number} of the graph text goes on with {reader.peek()!r} after its end")
        except (KeyError, ValueError, IndexError) as error:
            raise GraphError(f"line {number} of the graph text cannot be read: {error}") from error
    if not name or not (outputs or updates):
        raise GraphError("the graph text is incomplete: it names no graph or no output")
    return Graph(name, tuple(inputs), outputs, updates, tuple(guards), tables)


def _read_origin(reader: _Reader) -> Origin:
    source = None
    if not reader.accept("-"):
        file = reader.string()
        reader.next(":")
        source = SourceLine(file, int(reader.next()))
    scope = reader.string() if reader.peek().startswith('"') else ""
    return Origin(source, scope)


def _read_node(reader: _Reader, nodes: dict[str, Node], bodies: list[Body]) -> Node:
    op = reader.next()
    operands = reader.listed(lambda: nodes[reader.next()], ")") if reader.accept("(") else ()
    attrs: dict[str, Hashable] = {}
    if reader.accept("{"):
        for key, value in reader.listed(lambda: (reader.next(), reader.next("=") and _read_value(reader)), "}"):
            attrs[key] = bodies[value.number] if isinstance(value, _BodyName) else value
    reader.next(":")
    return Node(op, operands, _read_type(reader), **attrs)


@dataclass(frozen=True)
class _BodyName:
    """A body that an attribute names."""

    number: int


def _read_type(reader: _Reader) -> TensorType:
    if reader.accept("("):
        return tuple_type(reader.listed(lambda: _read_type(reader), ")"))
    dtype = dtypes.BY_NAME[reader.next()]
    reader.next("[")
    shape = []
    while not reader.accept("]"):
        shape.append(parse(reader.until(",", "]")))
        reader.accept(",")
    return TensorType(dtype, tuple(shape))


def _read_value(reader: _Reader) -> Any:
    token = reader.peek()
    if token.startswith('"'):
        return reader.string()
    if token.startswith("<"):
        return parse(reader.next()[1:-1])
    if token == "{|":
        return _read_formula(reader)
    if token == "array":
        return _read_constant(reader)
    if token == "body":
        reader.next()
        return _BodyName(int(reader.next()))
    if token == "(":
        reader.next()
        return reader.listed(lambda: _read_value(reader), ")")
    reader.next()
    if token in ("True", "False", "None"):
        return {"True": True, "False": False, "None": None}[token]
    if token == "-":
        return -int(reader.next())
    return dtypes.BY_NAME[token] if token in dtypes.BY_NAME else int(token)


def _read_number(reader: _Reader) -> float | int | bool:
    negative = reader.accept("-")
    token = reader.next()
    if token in ("True", "False"):
        return token == "True"
    value = float(token) if re.search(r"[.en]", token) else int(token)
    return -value if negative else value


def _read_constant(reader: _Reader) -> Constant:
    reader.next("array")
    kind = _read_type(reader)
    shape = tuple(int(s) for s in kind.shape)
    reader.next("{")
    if reader.accept("base64"):
        data = ""
        while not reader.accept("}"):
            data += reader.next()
        return Constant(np.frombuffer(base64.b64decode(data), kind.dtype.numpy).reshape(shape))
    values = []
    while not reader.accept("}"):
        values.append(_read_number(reader))
    return Constant(np.array(values, kind.dtype.numpy).reshape(shape))


def _read_formula(reader: _Reader) -> Formula:
    reader.next("{|")
    reduce = reader.next()
    init = _read_scalar(reader) if reader.accept("init") else None
    checks = []
    while reader.accept("check"):
        reader.next("@")
        k = int(reader.next())
        reader.next("<")
        checks.append((k, parse(reader.until("check", ":"))))
    reader.next(":")
    clauses = [_read_clause(reader)]
    while reader.accept(";"):
        clauses.append(_read_clause(reader))
    reader.next("|}")
    return Formula(tuple(clauses), reduce, init, tuple(checks))


def _read_clause(reader: _Reader) -> Clause:
    reader.next("for")
    reader.next("(")
    box = []
    while not reader.accept(")"):
        box.append(parse(reader.until(",", ")")))
        reader.accept(",")
    guards = []
    while reader.accept("when"):
        guards.append(_read_affine(reader))
        reader.next(">=")
        reader.next("0")
    reader.next("out")
    write = _read_map(reader)
    reader.next("=")
    body = _read_scalar(reader)
    reader.next("with")
    reads = []
    while reader.accept("@"):
        operand = int(reader.next())
        reads.append(Read(operand, _read_map(reader)))
    return Clause(tuple(box), tuple(reads), body, write, tuple(guards))


def _read_map(reader: _Reader) -> tuple[Index, ...]:
    reader.next("[")

    def index() -> Index:
        if reader.accept("@"):
            operand = int(reader.next())
            found = _read_map(reader)
            assert all(isinstance(i, Affine) for i in found)
            return Lookup(operand, found)  # type: ignore[arg-type]
        return _read_affine(reader)

    return reader.listed(index, "]")


def _read_affine(reader: _Reader) -> Affine:
    """p0 + (B)*p1 + (T - 1): coefficients and constants stand in brackets, but for plain numbers."""
    total = affine(0)
    while True:
        if re.fullmatch(r"p\d+", reader.peek()):
            total = total + affine(0, {int(reader.next()[1:]): 1})
        elif reader.accept("("):
            inner = parse(reader.until(")"))
            reader.next(")")
            total = total + (affine(0, {int(reader.next()[1:]): inner}) if reader.accept("*") else affine(inner))
        else:
            total = total + affine(int(reader.next()))
        if not reader.accept("+"):
            return total


def parse_scalar(text: str) -> Scalar:
    """The scalar expression that `graphc.graph.scalar.to_text` printed."""
    return _read_scalar(_Reader(text, 1))


def _read_scalar(reader: _Reader) -> Scalar:
    token = reader.peek()
    if re.fullmatch(r"-|-?\d.*|-?inf|-?nan|True|False", token):
        value = _read_number(reader)
        reader.next(":")
        return Scalar("const", (), dtypes.BY_NAME[reader.next()], value)
    op = reader.next()
    content: Any = None
    if op in ("index", "size"):
        inner = _Reader(reader.next()[1:-1], reader.line)
        content = _read_affine(inner) if op == "index" else parse(" ".join(inner.tokens))
    elif re.fullmatch(r"a\d+", op):
        op, content = "arg", int(op[1:])
    reader.next(":")
    dtype = dtypes.BY_NAME[reader.next()]
    args = reader.listed(lambda: _read_scalar(reader), ")") if reader.accept("(") else ()
    return Scalar(op, args, dtype, content)
