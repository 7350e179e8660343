"""What stores are told: in step with the log's schema and rules, in ECS's own types, and in the KQL that is allowed."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import generate
import pytest
import yaml
from kusto_query_language_parser.parse_tools.KqlLexer import KqlLexer
from kusto_query_language_parser.parse_tools.KqlParser import KqlParser

from labs.siem import SIEM, elastic_fields, leaves
from tokgate.analytics.columns import COLUMNS
from tokgate.blocklog.records.log_schema import IP, TIME, log_schema
from tokgate.blocklog.records.record import ECS_VERSION

with (Path(__file__).parent / f"ecs-{ECS_VERSION}.csv").open(encoding="utf-8", newline="") as table:
    ECS = {row["field"]: row for row in csv.DictReader(table)}
"""Every field of ECS: its type, whether it is a list, its words if they are a closed set. From Elastic's own package
`@elastic/ecs` 9.4.0 (Apache License 2.0)."""
TRANSFORMATIONS = frozenset(
    ["extend", "iif", "isnotempty", "isnotnull", "parse_json", "project", "todatetime", "tobool", "tolong", "tostring"]
)
"""https://learn.microsoft.com/azure/azure-monitor/data-collection/data-collection-transformations-kql"""


def test_what_is_committed_is_what_is_made() -> None:
    """Every generated file, byte for byte, and no other in its folders."""
    made = generate.files()
    for name, text in made.items():
        assert (SIEM / name).read_text(encoding="utf-8") == text, f"run deploy/siem/generate.py: {name} is stale"
    rules = {f"sentinel/rules/{path.name}" for path in (SIEM / "sentinel" / "rules").iterdir()}
    assert rules <= set(made)


OF_JSON = {"integer": "long", "number": "double", "boolean": "boolean", "object": "flattened", "string": "keyword"}
OF_OWN = {"tokgate.policy.problems": "match_only_text"}
"""Own fields whose type isn't the one that their JSON type gives."""


def test_every_field_of_the_log_is_mapped() -> None:
    """None is left to be guessed: the mapping does not grow by itself. A list is mapped as its items."""
    mapped, schema = dict(leaves(elastic_fields())), dict(leaves(log_schema()["properties"]))
    assert list(mapped) == list(schema)
    own = {name: said.get("items", said) for name, said in schema.items() if name.startswith("tokgate.")}
    special = {name: "ip" if said == IP else "date" for name, said in own.items() if said in (IP, TIME)} | OF_OWN
    assert {name: mapped[name]["type"] for name in own} == {
        name: OF_JSON[said.get("type", "string")] for name, said in own.items()
    } | special
    # Prefixes: `tokgate.clients.range: 10.32.9.7` finds the overrides that an address was under.
    assert mapped["tokgate.clients"]["fields"] == {"range": {"type": "ip_range"}}


USED = sorted(name for name, _ in leaves(log_schema()["properties"]) if not name.startswith("tokgate."))


@pytest.mark.parametrize("name", USED)
def test_ecs_types(name: str) -> None:
    """What isn't under `tokgate` is a field of ECS, with the type that ECS gives it, and a list where ECS says so."""
    mapped = dict(leaves(elastic_fields()))
    assert mapped[name]["type"] == ECS[name]["type"]
    schema = dict(leaves(log_schema()["properties"]))[name]
    assert (schema.get("type") == "array") is (ECS[name]["array"] == "true")
    words = schema.get("items", schema)
    stated = set(words.get("enum", [words["const"]] if "const" in words else []))
    allowed = set(ECS[name]["words"].split())
    assert not allowed or stated <= allowed


TEMPLATE = json.loads((SIEM / "sentinel/template.json").read_text(encoding="utf-8"))
TRANSFORMED = (SIEM / "sentinel/transform.kql").read_text(encoding="utf-8")
CONVERTED = {
    "VARCHAR": ("string", "tostring({})"),
    "BIGINT": ("long", "tolong({})"),
    "BOOLEAN": ("boolean", "tobool({})"),
    "TIMESTAMP": ("datetime", "todatetime({})"),
    "JSON": ("dynamic", "{}"),
}
"""Sentinel's type and the conversion to it, by the type of a column of the view `events`."""


def test_sentinels_table_has_every_column() -> None:
    """By its name, of its type and from its field, told as in the log's own view; rules find fields by columns."""
    table, rule = TEMPLATE["resources"]
    told = {column["name"]: column for column in table["properties"]["schema"]["columns"]}
    made = dict(re.findall(r"^    (\w+) = (.*?),?$", TRANSFORMED, re.MULTILINE))
    assert list(made) == list(told)
    names = generate.column_names()
    for column in COLUMNS:
        name = "TimeGenerated" if column.name == "time" else column.name
        kind, convert = CONVERTED[column.type]
        assert told[name] == {"name": name, "type": kind, "description": column.meaning}
        if column.path:
            assert made[name] == convert.format("r" + "".join(f'["{key}"]' for key in column.path))
            assert names[".".join(column.path)] == name
    assert set(names.values()) <= set(told)
    assert names["source.ip"] == names["source.address"] == "client"
    (flow,) = rule["properties"]["dataFlows"]
    assert flow["transformKql"] + "\n" == TRANSFORMED
    assert table["name"].endswith(f"/{generate.TABLE}')]")


def test_the_transformation_is_one_that_is_allowed() -> None:
    """Azure Monitor has fewer functions than KQL: none but those that it lists are called."""
    called = re.findall(r"\b([a-z_]+)\(", TRANSFORMED) + re.findall(r"^\| ([a-z]+)", TRANSFORMED, re.MULTILINE)
    assert set(called) <= TRANSFORMATIONS | {"where"}


KQL = sorted([*SIEM.glob("sentinel/*.kql"), *SIEM.glob("sentinel/rules/*.yaml")])


@pytest.mark.parametrize("path", KQL, ids=lambda path: path.stem)
def test_kql_can_be_parsed(path: Path) -> None:
    """Each query is KQL by its published grammar, and names no column that the table lacks."""
    text = path.read_text(encoding="utf-8")
    query = yaml.safe_load(text)["query"] if path.suffix == ".yaml" else text
    assert syntax_errors(query) == []
    assert syntax_errors(query.replace("|", "||", 1)) != []


def syntax_errors(query: str) -> list[str]:
    """What the parser minds."""
    from antlr4 import CommonTokenStream, InputStream
    from antlr4.error.ErrorListener import ErrorListener

    class Listener(ErrorListener):  # type: ignore[misc]
        def __init__(self) -> None:
            self.found: list[str] = []

        def syntaxError(self, recognizer: Any, symbol: Any, line: int, column: int, message: str, error: Any) -> None:  # noqa: N802
            self.found.append(f"{line}:{column}: {message}")

    listener = Listener()
    lexer = KqlLexer(InputStream(query))
    parser = KqlParser(CommonTokenStream(lexer))
    for part in (lexer, parser):
        part.removeErrorListeners()
        part.addErrorListener(listener)
    parser.top()
    return listener.found


@pytest.mark.parametrize("path", sorted(SIEM.glob("sentinel/rules/*.yaml")), ids=lambda path: path.stem)
def test_rules_for_sentinel_look_far_enough(path: Path) -> None:
    """A rule looks back at least to its last run, and at most as far as Sentinel allows."""
    rule = yaml.safe_load(path.read_text(encoding="utf-8"))
    hours = {"PT1H": 1, "P7D": 168, "P14D": 336}
    assert hours[rule["queryFrequency"]] <= hours[rule["queryPeriod"]]
    assert rule["severity"] in ("Informational", "Low", "Medium", "High")


ELASTIC = sorted((SIEM / "elastic").glob("*.json"))


@pytest.mark.parametrize("path", ELASTIC, ids=lambda path: path.stem)
def test_bodies_for_elasticsearch_are_json(path: Path) -> None:
    """And the index template is made of component templates that are shipped, or optional."""
    body = json.loads(path.read_text(encoding="utf-8"))
    if path.stem == "index-template":
        shipped = {f"tokgate@{other.stem}" for other in ELASTIC}
        assert set(body["composed_of"]) <= shipped | set(body["ignore_missing_component_templates"])
    if path.stem == "settings":
        assert body["template"]["settings"]["index.lifecycle.name"] == "tokgate"
        assert body["template"]["settings"]["index.default_pipeline"] == "tokgate"
