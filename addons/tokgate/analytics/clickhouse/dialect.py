"""Translates tokgate's SQL from DuckDB's dialect to ClickHouse's: sqlglot's translation, and what it lacks.

Values stay parameters: nothing that a user said becomes part of the text.
"""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final

import sqlglot
from sqlglot import exp
from sqlglot.dialects import DuckDB
from sqlglot.tokenizer_core import TokenType

type Values = Mapping[str, Any]
"""Parameters by name: texts, whole numbers, instants in UTC without `tzinfo`."""


def named(sql: str, parameters: object) -> tuple[str, dict[str, Any]]:
    """The same with a name for each parameter: `$p1` for `$1` or the first `?`."""
    if isinstance(parameters, Mapping):
        return sql, dict(parameters)
    values = {f"p{number}": value for number, value in enumerate(parameters, 1)} if isinstance(parameters, list) else {}
    pieces, at, number = list[str](), 0, 0
    for token in DuckDB().tokenize(sql):
        if token.token_type is TokenType.PLACEHOLDER:
            number += 1
            pieces += [sql[at : token.start], f"$p{number}"]
            at = token.end + 1
        elif token.token_type is TokenType.PARAMETER and sql[token.end + 1].isdigit():
            pieces += [sql[at : token.start], "$p"]
            at = token.end + 1
    return "".join([*pieces, sql[at:]]), values


def translated(sql: str, values: Values, relations: Mapping[str, str]) -> str:
    """A statement of tokgate's for ClickHouse, with parameters as `{name:Type}`.

    `relations` are queries, in DuckDB's dialect too, that stand for the views of LogDatabase and Index, by name.
    """
    tree = sqlglot.parse_one(sql, read="duckdb").transform(_relation, relations)
    for node in reversed(list(tree.find_all(*_TRANSLATIONS))):  # what is within comes before what holds it
        made = _TRANSLATIONS[type(node)](node, values)
        if made is not node:
            node.replace(made)
    return tree.sql(dialect="clickhouse")


def _relation(node: exp.Expr, relations: Mapping[str, str]) -> exp.Expr:
    if isinstance(node, exp.Table) and not node.db and node.name in relations:
        query = sqlglot.parse_one(relations[node.name], read="duckdb")
        return exp.Subquery(this=query, alias=exp.TableAlias(this=exp.to_identifier(node.name)))
    return node


def _made(text: str, *parts: exp.Expr) -> exp.Expr:
    """An expression in ClickHouse's dialect, where `x0`, `x1`, … stand for parts."""

    def filled(node: exp.Expr) -> exp.Expr:
        if isinstance(node, exp.Column) and node.name.startswith("x") and node.name[1:].isdigit():
            return parts[int(node.name[1:])].copy()
        return node

    return sqlglot.parse_one(text, read="clickhouse").transform(filled)


def _parameter(name: str, values: Values) -> exp.Expr:
    match values[name]:
        case None:
            return exp.null()
        case datetime():
            return _made(f"toDateTime64({{{name}:String}}, 6, 'UTC')")
        case int():
            return exp.Placeholder(this=name, kind=exp.DataType.build("Int64", dialect="clickhouse"))
        case _:
            return exp.Placeholder(this=name, kind=exp.DataType.build("String", dialect="clickhouse"))


def _function(node: exp.Anonymous, values: Values) -> exp.Expr:
    match node.name.lower(), node.expressions:
        case "getvariable", [name]:
            return _parameter(name.name, values)
        case "ipv4_number", [address]:
            return _made("toInt64(toUInt32(toIPv4OrNull(x0)))", address)
        case "ipv6_digits", [address]:
            return _made("if(position(x0, ':') > 0, lower(hex(toIPv6OrNull(x0))), NULL)", address)
        case "timezone", [exp.Literal(this="UTC"), exp.Expr() as at]:
            return at
        case "timezone", [zone, at]:
            return _made("toTimeZone(x0, x1)", at, zone)
    return node


def _cast(node: exp.Cast, _: Values) -> exp.Expr:
    kind = node.to.sql(dialect="clickhouse")
    if node.to.is_type("timestampntz", "timestamp"):
        return _made("toDateTime64(x0, 6, 'UTC')", node.this)
    if isinstance(node, exp.TryCast):
        return _made(f"accurateCastOrNull(x0, '{kind.removeprefix('Nullable(').removesuffix(')')}')", node.this)
    return node


_TRANSLATIONS: Final[Mapping[type[exp.Expr], Callable[[Any, Values], exp.Expr]]] = {
    exp.Placeholder: lambda node, values: _parameter(node.name, values),
    exp.Anonymous: _function,
    exp.Cast: _cast,
    exp.TryCast: _cast,
    exp.SplitPart: lambda node, _: _made(
        "arrayElement(splitByString(x1, coalesce(x0, '')), x2)",
        node.this,
        node.args["delimiter"],
        node.args["part_index"],
    ),
    exp.RegexpFullMatch: lambda node, _: _made("match(x0, concat('^(', x1, ')$'))", node.this, node.expression),
    exp.LogicalAnd: lambda node, _: _made("min(x0)", node.this),
}
