"""Dashboards: each query has an answer, each field is one of the log, each key is one that Grafana knows."""

import json
import re
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import generate
import pytest
import yaml

from labs.requirements import REQUIRED, needs
from labs.siem import elastic_fields, leaves, needs_chdb
from labs.vitals import HEALTHY, NOW, measured
from tokgate.service.metrics.families import families
from tokgate.service.metrics.http_server import complete

if TYPE_CHECKING:
    from labs.clickhouse import ClickHouse

ROOT = Path(generate.HERE)
BOARDS = {path.stem: json.loads(path.read_text("utf-8")) for path in (ROOT / "grafana/dashboards").glob("*.json")}
OBJECTS = [json.loads(line) for line in (ROOT / "elastic/dashboards.ndjson").read_text("utf-8").splitlines()]
MINUTES = 120


def targets(board: str, key: str) -> list[Any]:
    return [
        pytest.param(target[key], id=panel["title"]) for panel in BOARDS[board]["panels"] for target in panel["targets"]
    ]


def _series(folder: Path) -> Iterator[dict[str, str]]:
    """What Prometheus has of a gateway on which everything that is measured happens each minute."""
    vitals = measured(folder, **HEALTHY, decisions=[["office", "sni", "allow", 60], ["office", "none", "block", 4]])
    counted = {"connect-error": {"timeout": 1}, "connect-seconds": {"0.05": 3}}
    told = {'up{job="tokgate",instance="gw1"}': "1x120"}
    for family in families(complete(vitals | {"kinds": counted}, NOW)):
        for sample in family.samples:
            labels = "".join(f",{key}={json.dumps(value)}" for key, value in sample.labels.items())
            grows = sample.value if family.type in ("counter", "histogram") else 0
            told[f'{sample.name}{{job="tokgate",instance="gw1"{labels}}}'] = f"{sample.value}+{grows}x{MINUTES}"
    for name, values in told.items():
        yield {"series": name, "values": values}


@needs("promtool")
def test_expressions_have_answers(tmp_path: Path) -> None:
    """Prometheus answers each over tokgate's own metrics, with at least one series."""
    asked = [param.values[0] for param in targets("tokgate-gateways", "expr")]
    given = {"$__rate_interval": "5m", "$__range": "1h", "$instance": "gw.*"}
    tests = []
    for expression in asked:
        plain = re.sub(r"\$\w+", lambda found: given[found[0]], str(expression))
        expected = {"labels": "{}", "value": 1}
        tests.append({"expr": f"count({plain}) > bool 0", "eval_time": f"{MINUTES}m", "exp_samples": [expected]})
    test = {"interval": "1m", "input_series": list(_series(tmp_path)), "promql_expr_test": tests}
    path = tmp_path / "dashboards.test.yml"
    path.write_text(yaml.safe_dump({"tests": [test]}))
    done = subprocess.run(["promtool", "test", "rules", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(tests) > 15


def _asked(sql: str, chosen: dict[str, str]) -> str:
    """SQL as Grafana's plugin for ClickHouse sends it: macros and variables filled in."""
    day = "'2026-11-24 00:00:00'"
    macros = {
        r"\$__timeFilter\((\w+)\)": rf"\1 >= toDateTime({day}) AND \1 <= toDateTime({day}) + INTERVAL 1 DAY",
        r"\$__dateFilter\((\w+)\)": r"\1 >= toDate('2026-11-24') AND \1 <= toDate('2026-11-25')",
        r"\$__timeInterval\((\w+)\)": r"toStartOfInterval(toDateTime(\1), INTERVAL 3600 second)",
    }
    for macro, filled in macros.items():
        sql = re.sub(macro, filled, sql)
    return re.sub(r"\$\{(\w+):singlequote\}", lambda found: chosen[found[1]], sql)


@pytest.fixture(scope="module")
def chosen(clickhouse: "ClickHouse") -> dict[str, str]:
    """All values of all variables, by the dashboard's own queries."""
    variables = {each["name"]: each for each in BOARDS["tokgate-log"]["templating"]["list"] if each["type"] == "query"}
    return {
        name: ", ".join(f"'{value}'" for (value,) in clickhouse.answer(each["query"]).rows)
        for name, each in variables.items()
    }


@needs_chdb
@pytest.mark.parametrize("sql", targets("tokgate-log", "rawSql"))
def test_queries_have_answers(clickhouse: "ClickHouse", chosen: dict[str, str], sql: str) -> None:
    """ClickHouse answers each over real records, with all values of all variables chosen."""
    assert set(chosen) == {"network", "ban"}
    assert "offices" in chosen["network"]
    rows = list(clickhouse.answer(_asked(sql, chosen)).rows)
    assert rows
    assert "$" not in _asked(sql, chosen)


@needs_chdb
def test_attempts_are_all_counted(clickhouse: "ClickHouse", chosen: dict[str, str]) -> None:
    """The dashboard's number is the log's: no record is lost to a filter, nor a value to its variable."""
    (total,) = (panel for panel in BOARDS["tokgate-log"]["panels"] if panel["title"] == "Attempts")
    shown = clickhouse.one(_asked(total["targets"][0]["rawSql"], chosen))
    assert shown == clickhouse.one("SELECT sum(events) FROM tokgate.events WHERE traffic")


@pytest.mark.skipif(find_spec("grafana_foundation_sdk") is None and not REQUIRED, reason="needs Grafana's SDK")
@pytest.mark.parametrize("name", BOARDS)
def test_grafana_knows_every_key(name: str) -> None:
    """Read and written by Grafana's own SDK, nothing is lost: no key is misspelt."""
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import Dashboard

    again = json.loads(JSONEncoder().encode(Dashboard.from_json(BOARDS[name])))
    assert list(_lost(BOARDS[name], again)) == []


def _lost(made: Any, again: Any, path: str = "") -> Iterator[str]:
    if isinstance(made, dict):
        for key, value in made.items():
            yield from _lost(value, again[key], f"{path}.{key}") if key in (again or {}) else [f"{path}.{key}"]
    elif isinstance(made, list):
        for number, (one, other) in enumerate(zip(made, again, strict=True)):
            yield from _lost(one, other, f"{path}[{number}]")
    elif made != again:
        yield path


@pytest.mark.parametrize("name", BOARDS)
def test_panels_do_not_overlap(name: str) -> None:
    panels = BOARDS[name]["panels"]
    taken = [
        (x, y)
        for grid in (panel["gridPos"] for panel in panels)
        for x in range(grid["x"], grid["x"] + grid["w"])
        for y in range(grid["y"], grid["y"] + grid["h"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) == 23
    assert len({panel["id"] for panel in panels}) == len(panels)


def _provisioned(kind: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / f"grafana/provisioning/{kind}/tokgate.yaml").read_text())
    return found


def test_grafana_is_provisioned() -> None:
    """The dashboards' kinds of data sources are among those provisioned, and their folder is named."""
    kinds = {source["type"] for source in _provisioned("datasources")["datasources"]}
    assert {panel["datasource"]["type"] for board in BOARDS.values() for panel in board["panels"]} == kinds
    assert _provisioned("dashboards")["providers"][0]["options"]["path"] in (ROOT / "grafana/README.md").read_text()


def test_fields_are_the_logs() -> None:
    """Each field that Kibana is asked for is mapped, with a type that the aggregation takes."""
    mapped = {name: field["type"] for name, field in leaves(elastic_fields())}
    wanted = {"terms": {"keyword", "ip"}, "sum": {"long"}, "date_histogram": {"date"}}
    asked = set()
    for each in OBJECTS:
        for field in [*each["attributes"].get("columns", ()), *(f for f, _ in each["attributes"].get("sort", ()))]:
            assert field in mapped
        state = json.loads(each["attributes"].get("visState", "{}"))
        for aggregation in state.get("aggs", ()):
            if field := aggregation["params"].get("field"):
                assert mapped[field] in wanted[aggregation["type"]], field
                asked.add(field)
    assert {"source.ip", "tokgate.ban", "@timestamp", "tokgate.repeats.count"} <= asked


def test_saved_objects_refer_to_each_other() -> None:
    """Nothing refers to what isn't there, panels name their references, and each id is there once."""
    there = [(each["type"], each["id"]) for each in OBJECTS]
    assert len(there) == len(set(there))
    for each in OBJECTS:
        assert {(found["type"], found["id"]) for found in each["references"]} <= set(there)
        assert isinstance(
            json.loads(each["attributes"].get("kibanaSavedObjectMeta", {}).get("searchSourceJSON", "{}")), dict
        )
    (board,) = (each for each in OBJECTS if each["type"] == "dashboard")
    panels = json.loads(board["attributes"]["panelsJSON"])
    names = {found["name"]: found["type"] for found in board["references"]}
    assert {f"{panel['panelIndex']}:{panel['panelRefName']}": panel["type"] for panel in panels} == names
    assert len(panels) == 8
