"""Writes what is made of the Sigma rules, and dashboards, for each store; and the table of columns.

    python deploy/siem/generate.py

Needs tokgate's development requirements. A test asserts that what is committed is what this writes.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import dashboards
import yaml
from sigma.backends.elasticsearch.elasticsearch_esql import ESQLBackend
from sigma.backends.elasticsearch.elasticsearch_lucene import LuceneBackend
from sigma.backends.kusto.kusto import KustoBackend
from sigma.backends.splunk.splunk import SplunkBackend
from sigma.collection import SigmaCollection
from sigma.correlations import SigmaCorrelationRule
from sigma.processing.pipeline import ProcessingPipeline
from sigma.rule import SigmaRule

from tokgate.analytics.columns import COLUMNS
from tokgate.blocklog.records.record import TRAFFIC, EventAction

HERE: Final = Path(__file__).resolve().parent
TABLE: Final = "TokgateBlock_CL"
"""Sentinel's table."""
_EVERY: Final = "1h"
_SECONDS: Final = 3_600
_SEVERITY: Final = {
    "informational": "Informational",
    "low": "Low",
    "medium": "Medium",
    "high": "High",
    "critical": "High",
}
_RISK: Final = {"informational": 5, "low": 21, "medium": 47, "high": 73, "critical": 99}
_ISO: Final = {"m": "PT{}M", "h": "PT{}H", "d": "P{}D"}
_SEVERE: Final = {
    EventAction.EXEMPTION_USED: "informational",
    EventAction.WOULD_BLOCK: "informational",
    EventAction.BAN_NEAR_EXPIRY: "low",
    EventAction.LOG_RECOVERED: "medium",
    EventAction.POLICY_LOAD_FAILED: "medium",
    EventAction.PASSED_ON_ERROR: "high",
    EventAction.INTERNAL_ERROR: "high",
    EventAction.GATEWAY_DIFFERS: "high",
    EventAction.CANARY_FAILED: "critical",
    EventAction.LOG_GAP: "high",
    EventAction.CLOCK_SET_BACK: "medium",
    EventAction.LOG_FOREIGN: "critical",
    EventAction.LOG_CUT: "critical",
}
_LONGEST_DAYS: Final = 14
"""How far back a scheduled rule of Sentinel may look."""


class _Dumper(yaml.SafeDumper):
    """Text of several lines as it reads."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def files() -> dict[str, str]:
    """Every generated file and its contents, by its path from here."""
    found = {
        "elastic/rules.ndjson": _elastic_rules(),
        "splunk/default/savedsearches.conf": _splunk_searches(),
        "splunk/lookups/tokgate_severity.csv": _splunk_severities(),
        "columns.md": _columns(),
    }
    found |= dashboards.files()
    return found | {f"sentinel/rules/{name}.yaml": text for name, text in _sentinel_rules()}


def _columns() -> str:
    """A table of the view `events`, for people."""
    types = {each: "" if each.type == "VARCHAR" else f" {each.type}" for each in COLUMNS}
    rows = "".join(f"| `{each.name}`{types[each]} | {each.meaning} |\n" for each in COLUMNS)
    return (
        "# Columns of `events`\n\nOf `tokgate log query`, `export` and ClickHouse, VARCHAR where no type is named. "
        "Times are UTC; what a record does not say is null.\n\n"
        f"| column | meaning |\n|---|---|\n{rows}"
    )


def rule_files() -> list[Path]:
    """The Sigma rules, by their names."""
    return sorted(path for path in (HERE / "sigma").glob("*/*.yml") if path.parent.name != "pipelines")


def _rules(path: Path) -> SigmaCollection:
    return SigmaCollection.from_yaml(path.read_text(encoding="utf-8"))


def _pipeline(name: str) -> ProcessingPipeline:
    return ProcessingPipeline.from_yaml((HERE / "sigma" / "pipelines" / f"{name}.yml").read_text(encoding="utf-8"))


def _splunk_searches() -> str:
    """Scheduled searches: the earliest time is what a correlation looks at, else the hour since the last run."""
    parts = ["# Made by deploy/siem/generate.py from deploy/siem/sigma. Disabled until you enable them."]
    for path in rule_files():
        rules = _rules(path)
        (query,) = SplunkBackend(_pipeline("splunk")).convert(rules)
        rule = rules.rules[-1]
        parts.append(
            "\n".join(
                (
                    f"[tokgate - {rule.title}]",
                    f"description = {_line(rule.description)}",
                    f"search = {_spl(query)}",
                    f"dispatch.earliest_time = -{_span(rule)}",
                    "dispatch.latest_time = now",
                    "cron_schedule = 7 * * * *",
                    "enableSched = 1",
                    "disabled = 1",
                    "counttype = number of events",
                    "relation = greater than",
                    "quantity = 0",
                    "alert.track = 1",
                    f"alert.severity = {_splunk_severity(rule)}",
                )
            )
        )
    return "\n\n".join(parts) + "\n"


def _splunk_severities() -> str:
    """How bad a record of each action is, where a rule doesn't say better."""
    lines = [
        f"{action},{_SEVERE.get(action, 'low' if action in TRAFFIC else 'informational')}" for action in EventAction
    ]
    return "\n".join(("event.action,severity", *lines)) + "\n"


def _spl(query: str) -> str:
    """A search in one setting: line by line, each continued."""
    lines = [line.strip() for line in f"`tokgate_index` {query}".splitlines() if line.strip()]
    return " \\\n    ".join(lines)


def _splunk_severity(rule: SigmaRule | SigmaCorrelationRule) -> int:
    return {"informational": 1, "low": 2, "medium": 3, "high": 4, "critical": 5}[_level(rule)]


def _elastic_rules() -> str:
    """Detection rules to import into Kibana: Lucene for single records, ES|QL where records are counted.

    The backends' own `siem_rule` formats look ATT&CK's words up on the internet, so the frame is written here.
    """
    lines = []
    for path in rule_files():
        rules = _rules(path)
        rule = rules.rules[-1]
        if isinstance(rule, SigmaCorrelationRule):
            (query,) = ESQLBackend(_pipeline("elastic")).convert(rules)
            asked = {"type": "esql", "language": "esql", "query": query}
        else:
            (query,) = LuceneBackend(_pipeline("elastic")).convert(rules)
            asked = {"type": "query", "language": "lucene", "query": query, "index": ["logs-tokgate.*"]}
        level = _level(rule)
        known = {
            "rule_id": str(rule.id),
            "name": f"tokgate - {rule.title}",
            "description": _line(rule.description),
            "severity": level if level != "informational" else "low",
            "risk_score": _RISK[level],
            "from": f"now-{_span(rule)}",
            "interval": _EVERY,
            "enabled": False,
            "author": ["tokgate"],
            "false_positives": list(rule.falsepositives),
            "tags": ["tokgate", *(f"{tag.namespace}.{tag.name}" for tag in rule.tags)],
        }
        lines.append(json.dumps(known | asked, ensure_ascii=False))
    return "\n".join(lines) + "\n"


def column_names() -> dict[str, str]:
    """The log's field names, which Sigma rules use, and the columns of Sentinel's table that hold them."""
    text = (HERE / "sigma/pipelines/sentinel.yml").read_text(encoding="utf-8")
    found: dict[str, str] = yaml.safe_load(text)["transformations"][0]["mapping"]
    return found


def _sentinel_rules() -> Iterator[tuple[str, str]]:
    for path in rule_files():
        rules = _rules(path)
        rule = rules.rules[-1]
        single = SigmaCollection.from_dicts([next(yaml.safe_load_all(path.read_text(encoding="utf-8")))])
        (condition,) = KustoBackend(_pipeline("sentinel")).convert(single)
        condition = re.sub(r"=~ (true|false)\b", r"== \1", condition)  # the backend compares flags as if they were text
        query = f"{TABLE}\n| where {condition}\n"
        if isinstance(rule, SigmaCorrelationRule):
            query += _counted(rule)
        span = _span(rule)
        known = {
            "id": str(rule.id),
            "name": f"tokgate - {rule.title}",
            "kind": "Scheduled",
            "version": "1.0.0",
            "description": _line(rule.description),
            "severity": _SEVERITY[_level(rule)],
            "queryFrequency": _iso(_EVERY),
            "queryPeriod": _iso(span),
            "triggerOperator": "gt",
            "triggerThreshold": 0,
            "relevantTechniques": [tag.name.upper() for tag in rule.tags if tag.namespace == "attack"],
            "query": query,
            "entityMappings": _entities(rule),
        }
        yield f"{path.parent.name}-{path.stem}", yaml.dump(known, Dumper=_Dumper, sort_keys=False, width=110)


def _counted(rule: SigmaCorrelationRule) -> str:
    """What the correlation counts, as KQL: the backend has no words for it."""
    names = column_names()
    groups = ", ".join(names[field] for field in rule.group_by or [])
    counted = "count()"
    if rule.type.name == "VALUE_COUNT":
        counted = f"dcount({names[str(rule.condition.fieldref)]}, 4)"  # type: ignore[union-attr]
    limit = f"{rule.condition.op.name.lower()} {rule.condition.count}".replace("gte", ">=")  # type: ignore[union-attr]
    window = f"bin(TimeGenerated, {rule.timespan.spec})" if _days(rule) < 1 else ""
    by = ", ".join(part for part in (groups, window) if part)
    times = "since = min(TimeGenerated), latest = max(TimeGenerated)"
    return f"| summarize found = {counted}, {times} by {by}\n| where found {limit}\n"


def _entities(rule: SigmaRule | SigmaCorrelationRule) -> list[dict[str, Any]]:
    """Whom the alert is about: the client, or the gateway."""
    grouped = [column_names()[field] for field in getattr(rule, "group_by", None) or []]
    if grouped:
        named = [name for name in grouped if name in ("client", "gateway")]
    else:
        named = ["client"] if "block" in str(rule.logsource.service) else ["gateway"]  # type: ignore[union-attr]
    kinds = {"client": ("IP", "Address"), "gateway": ("Host", "HostName")}
    return [
        {"entityType": kinds[name][0], "fieldMappings": [{"identifier": kinds[name][1], "columnName": name}]}
        for name in named
    ]


def _level(rule: SigmaRule | SigmaCorrelationRule) -> str:
    return rule.level.name.lower() if rule.level is not None else "medium"


def _line(text: str | None) -> str:
    return " ".join((text or "").split())


def _span(rule: SigmaRule | SigmaCorrelationRule) -> str:
    """How far a scheduled search looks back: at least from one run to the next."""
    if not isinstance(rule, SigmaCorrelationRule) or rule.timespan.seconds < _SECONDS:
        return _EVERY
    return f"{_LONGEST_DAYS}d" if _days(rule) > _LONGEST_DAYS else str(rule.timespan.spec)


def _days(rule: SigmaCorrelationRule) -> float:
    return rule.timespan.seconds / 86_400


def _iso(span: str) -> str:
    number, unit = re.fullmatch(r"([0-9]+)([mhd])", span).groups()  # type: ignore[union-attr]
    return _ISO[unit].format(number)


def main() -> None:
    """Write all files."""
    for name, text in files().items():
        path = HERE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        print(name)


if __name__ == "__main__":
    main()
