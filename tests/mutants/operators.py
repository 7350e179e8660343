"""The faults that are put into a module: a fixed set of small changes, each of which a test should notice.

No change touches text, annotations, decorators, docstrings or calls that only write a diagnostic log. Numbers from
1,000 on are limits whose exact value nothing depends on, so they are not moved by one.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

LARGE: Final = 1000
"""From here on a number is a limit, not a position."""


class Operator(StrEnum):
    """What kind of change a mutant is."""

    COMPARISON = "comparison"
    CONDITION = "condition dropped"
    BRANCH = "branches swapped"
    CONSTANT = "constant"
    ARITHMETIC = "arithmetic"
    RETURN = "return"
    STATEMENT = "statement removed"
    EXCEPTION = "exception not caught"
    CALL = "other call"


@dataclass(frozen=True, slots=True)
class Mutant:
    """One change: `was` is replaced by `became` at octets [start, end) of the module's source."""

    module: str
    function: str
    """Qualified name within the module; empty at its top."""
    operator: Operator
    lines: range
    """The lines of the statement that changes; any test that reaches one of them may notice."""
    at_import: bool
    """It runs once, when the module is imported, and not when a test reaches it."""
    start: int
    end: int
    was: str
    became: str

    @property
    def place(self) -> tuple[str, str, str, str]:
        """What tells it from others when lines have moved."""
        return self.module, self.function, self.was, self.became

    def applied(self, source: bytes) -> bytes:
        """The module with the change."""
        return source[: self.start] + self.became.encode() + source[self.end :]


def mutants(module: str, source: bytes) -> list[Mutant]:
    """All mutants of a module, in the order of its lines. Every one compiles."""
    found = list(_Finder(module, source).found())
    return [mutant for mutant in found if _compiles(mutant.applied(source))]


def _compiles(source: bytes) -> bool:
    try:
        compile(source, "<mutant>", "exec", dont_inherit=True)
    except SyntaxError:
        return False
    return True


_COMPARED: Final[dict[type[ast.cmpop], str]] = {
    ast.Lt: "<=",
    ast.LtE: "<",
    ast.Gt: ">=",
    ast.GtE: ">",
    ast.Eq: "!=",
    ast.NotEq: "==",
    ast.Is: "is not",
    ast.IsNot: "is",
    ast.In: "not in",
    ast.NotIn: "in",
}
_NEGATED: Final = (ast.Eq, ast.NotEq, ast.Is, ast.IsNot, ast.In, ast.NotIn)
_COMPUTED: Final[dict[type[ast.operator], str]] = {
    ast.Add: "-",
    ast.Sub: "+",
    ast.Mult: "//",
    ast.FloorDiv: "*",
    ast.LShift: ">>",
    ast.RShift: "<<",
    ast.BitAnd: "|",
    ast.BitOr: "&",
}
_OTHER_CALL: Final = {"min": "max", "max": "min", "any": "all", "all": "any"}
_LOGGERS: Final = ("_log", "log", "logger")
_UNCHANGED_KEYWORDS: Final = ("strict", "slots", "frozen", "kw_only", "exc_info", "daemon", "usedforsecurity")


class _Finder:
    """Walks over one module."""

    def __init__(self, module: str, source: bytes) -> None:
        self._module: Final = module
        self._source: Final = source
        self._tree: Final = ast.parse(source)
        self._starts: Final = [0]
        for line in source.splitlines(keepends=True):
            self._starts.append(self._starts[-1] + len(line))

    def found(self) -> Iterator[Mutant]:
        """Mutants of the statements at the top and of all within."""
        yield from self._body(self._tree.body, "", at_import=True)

    def _body(self, body: list[ast.stmt], function: str, *, at_import: bool) -> Iterator[Mutant]:
        for statement in body:
            yield from self._statement(statement, function, at_import=at_import)

    def _statement(self, statement: ast.stmt, function: str, *, at_import: bool) -> Iterator[Mutant]:
        if _is_exempt(statement):
            return
        where = _Where(function, statement, at_import=at_import)
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inner = f"{function}.{statement.name}".lstrip(".")
            if not isinstance(statement, ast.ClassDef):
                for default in (*statement.args.defaults, *statement.args.kw_defaults):
                    yield from self._expression(default, _Where(inner, statement, at_import=True))
            within = isinstance(statement, ast.ClassDef) and at_import
            yield from self._body(statement.body, inner, at_import=within)
            return
        yield from self._of_statement(statement, where)
        for child in _own_expressions(statement):
            yield from self._expression(child, where)
        for name in ("body", "orelse", "finalbody"):
            yield from self._body(getattr(statement, name, []), function, at_import=at_import)
        for handler in getattr(statement, "handlers", []):
            yield from self._handler(handler, function, at_import=at_import)
        for case in getattr(statement, "cases", []):
            guard = case.guard or case.body[0]
            yield from self._expression(case.guard, _Where(function, guard, at_import=at_import))
            yield from self._body(case.body, function, at_import=at_import)

    def _of_statement(self, statement: ast.stmt, where: _Where) -> Iterator[Mutant]:
        match statement:
            case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
                yield self._change(Operator.RETURN, value, "None", where)
            case ast.If(test=test) if not _is_negatable(test):
                yield self._change(Operator.BRANCH, test, f"not ({self._text(test)})", where)
        if where.function and _is_removable(statement):
            yield self._change(Operator.STATEMENT, statement, "pass", where)

    def _handler(self, handler: ast.ExceptHandler, function: str, *, at_import: bool) -> Iterator[Mutant]:
        if isinstance(handler.type, ast.Tuple):
            where = _Where(function, handler.type, at_import=at_import)
            names = [self._text(each) for each in handler.type.elts]
            for dropped in range(len(names)):
                kept = ", ".join((*names[:dropped], *names[dropped + 1 :], ""))
                yield self._change(Operator.EXCEPTION, handler.type, f"({kept})", where)
        yield from self._body(handler.body, function, at_import=at_import)

    def _expression(self, node: ast.AST | None, where: _Where) -> Iterator[Mutant]:
        if node is None:
            return
        match node:
            case ast.Compare(left=left, ops=[op], comparators=[right]):
                changed = f"{self._text(left)} {_COMPARED[type(op)]} {self._text(right)}"
                yield self._change(Operator.COMPARISON, node, f"({changed})", where)
            case ast.BoolOp(op=op, values=values):
                joint = " and " if isinstance(op, ast.And) else " or "
                texts = [f"({self._text(value)})" for value in values]
                for dropped in range(len(texts)):
                    kept = joint.join((*texts[:dropped], *texts[dropped + 1 :]))
                    yield self._change(Operator.CONDITION, node, f"({kept})", where)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                yield self._change(Operator.CONDITION, node, f"({self._text(operand)})", where)
            case ast.IfExp(test=test) if not _is_negatable(test):
                yield self._change(Operator.BRANCH, test, f"(not ({self._text(test)}))", where)
            case ast.comprehension(ifs=ifs):
                for test in ifs:
                    if not _is_negatable(test):
                        yield self._change(Operator.BRANCH, test, f"(not ({self._text(test)}))", where)
            case ast.Constant(value=bool() as value):
                yield self._change(Operator.CONSTANT, node, str(not value), where)
            case ast.Constant(value=int() as value) if value < LARGE:
                yield self._change(Operator.CONSTANT, node, str(value + 1), where)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _COMPUTED and not _is_text(left, right):
                changed = f"({self._text(left)}) {_COMPUTED[type(op)]} ({self._text(right)})"
                yield self._change(Operator.ARITHMETIC, node, f"({changed})", where)
            case ast.Call(func=ast.Name(id=name) as called) if name in _OTHER_CALL:
                yield self._change(Operator.CALL, called, _OTHER_CALL[name], where)
        for child in _own_expressions(node):
            yield from self._expression(child, where)

    def _change(self, operator: Operator, node: ast.AST, became: str, where: _Where) -> Mutant:
        start, end = self._offsets(node)
        was = self._source[start:end].decode()
        return Mutant(self._module, where.function, operator, where.lines, where.at_import, start, end, was, became)

    def _offsets(self, node: ast.AST) -> tuple[int, int]:
        assert isinstance(node, ast.expr | ast.stmt)
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        return self._starts[node.lineno - 1] + node.col_offset, self._starts[node.end_lineno - 1] + node.end_col_offset

    def _text(self, node: ast.AST) -> str:
        start, end = self._offsets(node)
        return self._source[start:end].decode()


class _Where:
    """The function and the lines that a change belongs to."""

    def __init__(self, function: str, node: ast.stmt | ast.expr, *, at_import: bool) -> None:
        self.function: Final = function
        self.at_import: Final = at_import
        end = node.end_lineno or node.lineno
        body = getattr(node, "body", None)
        if isinstance(body, list):  # a compound statement: its head alone
            end = max(node.lineno, body[0].lineno - 1)
        self.lines: Final = range(node.lineno, end + 1)


def _own_expressions(node: ast.AST) -> Iterator[ast.AST]:
    """The expressions directly within; not the statements of a body, nor annotations."""
    for name, value in ast.iter_fields(node):
        if name in ("body", "orelse", "finalbody", "handlers", "cases") and isinstance(value, list):
            continue
        if name in ("annotation", "returns", "type_params", "decorator_list"):
            continue
        for child in value if isinstance(value, list) else [value]:
            unchanged = isinstance(child, ast.keyword) and child.arg in _UNCHANGED_KEYWORDS
            if isinstance(child, ast.AST) and not isinstance(child, ast.JoinedStr) and not unchanged:
                yield child


def _is_exempt(statement: ast.stmt) -> bool:
    """What holds no behaviour: imports, types, docstrings, diagnostics."""
    match statement:
        case ast.Import() | ast.ImportFrom() | ast.TypeAlias() | ast.Global() | ast.Nonlocal() | ast.Assert():
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")):
            return True
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.Expr(value=ast.Call(func=ast.Name(id="assert_never"))):
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id=name)))) if name in _LOGGERS:
            return True
        case ast.Assign(targets=[ast.Name(id="__slots__" | "__all__")]):
            return True
    return False


def _is_removable(statement: ast.stmt) -> bool:
    match statement:
        case ast.Expr(value=ast.Call() | ast.Await() | ast.Yield() | ast.YieldFrom()):
            return True
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            return True
        case ast.AnnAssign(target=ast.Attribute(), value=ast.expr()):
            return False  # says what an object holds: without it nothing works
        case ast.AugAssign() | ast.Delete() | ast.Raise() | ast.Continue() | ast.Break() | ast.Return(value=None):
            return True
    return False


def _is_negatable(test: ast.expr) -> bool:
    """Whether another operator turns it round already."""
    if isinstance(test, ast.UnaryOp):
        return isinstance(test.op, ast.Not)
    return isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], _NEGATED)


def _is_text(*operands: ast.expr) -> bool:
    return any(
        isinstance(o, ast.JoinedStr) or (isinstance(o, ast.Constant) and isinstance(o.value, str)) for o in operands
    )
