"""Dashboards: for Grafana, from Prometheus and from ClickHouse, and for Kibana. `generate.py` writes them."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

_VERDICTS: Final = {"block": "red", "warn": "orange", "monitor": "blue", "allow": "green"}
_EVERY: Final = '{instance=~"$instance"}'
_WIDTH: Final = 24
"""Columns of Grafana's grid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A panel of Grafana: `query` is PromQL or SQL. `legend` names series, `unit` is Grafana's."""

    title: str
    query: str
    kind: str = "timeseries"
    legend: str = ""
    unit: str = "short"
    width: int = 12
    height: int = 8
    text: str = ""
    red_from: float | None = None
    """A stat is red from here on."""
    green_from: float | None = None
    """A stat is green from here on, and red below."""


def _per_second(metric: str, by: str, more: str = "") -> str:
    return f'sum by ({by}) (rate({metric}{{instance=~"$instance"{more}}}[$__rate_interval]))'


GATEWAYS: Final = (
    Panel(title="Gateways that answer", query='sum(up{job="tokgate",instance=~"$instance"})', kind="stat", width=4,
          height=4, green_from=1),
    Panel(title="Healthy", query=f"min(tokgate_healthy{_EVERY})", kind="stat", width=4, height=4, green_from=1,
          text="0: /healthz and tokgate status of a gateway say what does not do its work."),
    Panel(title="Log written", query=f"min(tokgate_log_writable{_EVERY})", kind="stat", width=4, height=4,
          green_from=1),
    Panel(title="Records lost", query=f"sum(increase(tokgate_log_records_dropped_total{_EVERY}[$__range]))",
          kind="stat", width=4, height=4, red_from=1),
    Panel(title="Lines by others in the log", query=f"sum(increase(tokgate_log_foreign_lines_total{_EVERY}[$__range]))",
          kind="stat", width=4, height=4, red_from=1),
    Panel(title="Policies in force", query=f"count(count by (version) (tokgate_policy_info{_EVERY}))", kind="stat",
          width=4, height=4, red_from=2, text="More than one: gateways enforce different policies."),
    Panel(title="Decisions by verdict", query=_per_second("tokgate_decisions_total", "verdict"), legend="{{verdict}}",
          unit="ops"),
    Panel(title="Decisions by what could be seen", query=_per_second("tokgate_decisions_total", "visibility"),
          legend="{{visibility}}", unit="ops", text="What shows no name can only be judged by address."),
    Panel(title="Refused by network", query=_per_second("tokgate_decisions_total", "network", ',verdict="block"'),
          legend="{{network}}", unit="ops"),
    Panel(title="Share of traffic that showed a name", unit="percentunit", legend="{{instance}}",
          query='sum by (instance) (rate(tokgate_decisions_total{instance=~"$instance",'
          'visibility!~"none|ech-outer|address|unreadable"}[$__rate_interval])) / sum by (instance) '
          '(rate(tokgate_decisions_total{instance=~"$instance"}[$__rate_interval]))'),
    Panel(title="Open connections", query=f"sum by (instance, role) (tokgate_connections{_EVERY})",
          legend="{{instance}} {{role}}"),
    Panel(title="Turned away before a decision", query=_per_second("tokgate_given_up_total", "why"), legend="{{why}}",
          unit="ops"),
    Panel(title="Destinations that could not be reached",
          query=_per_second("tokgate_connect_errors_total", "kind"), legend="{{kind}}", unit="ops"),
    Panel(title="Time to connect, 95 of 100", unit="s", legend="{{instance}}",
          query='histogram_quantile(0.95, sum by (instance, le) '
          '(rate(tokgate_connect_seconds_bucket{instance=~"$instance"}[$__rate_interval])))'),
    Panel(title="Processes", query=f"sum by (instance, role, state) (tokgate_workers{_EVERY})",
          legend="{{instance}} {{role}} {{state}}"),
    Panel(title="Restarts and internal errors", unit="ops", legend="{{role}}{{where}}",
          query=f"{_per_second('tokgate_restarts_total', 'role')} or "
          f"{_per_second('tokgate_internal_errors_total', 'where')}"),
    Panel(title="Records waiting to be written", query=f"sum by (instance) (tokgate_log_queued_records{_EVERY})",
          legend="{{instance}}"),
    Panel(title="Bans and their phases", query=f"max by (ban, zone, phase) (tokgate_ban_phase{_EVERY})", kind="table"),
    Panel(title="Time until a ban ends", query=f"min by (ban) (tokgate_ban_seconds_until_end{_EVERY})",
          legend="{{ban}}", unit="s"),
)  # fmt: skip
"""The gateways, from their metrics: no client, no name that was asked for."""

_WHERE: Final = (
    "$__timeFilter(time) AND traffic AND coalesce(network, '-') IN (${network:singlequote}) "
    "AND coalesce(ban, '-') IN (${ban:singlequote})"
)
_COUNT: Final = "sum(events) AS attempts"


def _most(column: str, more: str = "", rows: int = 15) -> str:
    return (
        f"SELECT {column}, {_COUNT}{more} FROM tokgate.events FINAL WHERE {_WHERE} "
        f"GROUP BY {column} ORDER BY attempts DESC LIMIT {rows}"
    )


LOG: Final = (
    Panel(title="Attempts", query=f"SELECT {_COUNT} FROM tokgate.events FINAL WHERE {_WHERE}", kind="stat", width=6,
          height=4),
    Panel(title="Refused", query=f"SELECT {_COUNT} FROM tokgate.events FINAL WHERE {_WHERE} AND verdict = 'block'",
          kind="stat", width=6, height=4),
    Panel(title="Clients", query=f"SELECT uniqExact(client) AS clients FROM tokgate.events FINAL WHERE {_WHERE}",
          kind="stat", width=6, height=4),
    Panel(title="Records that did not arrive", kind="stat", width=6, height=4, red_from=1,
          query="SELECT sum(missing) AS missing FROM tokgate.arrival WHERE $__dateFilter(day)"),
    Panel(title="Attempts by verdict", width=24,
          query=f"SELECT $__timeInterval(time) AS time, verdict, {_COUNT} FROM tokgate.events FINAL WHERE {_WHERE} "
          "GROUP BY time, verdict ORDER BY time"),
    Panel(title="By ban", query=_most("ban"), kind="table"),
    Panel(title="By network", query=_most("network"), kind="table"),
    Panel(title="By domain", query=_most("target", ", uniqExact(client) AS clients"), kind="table"),
    Panel(title="By client", query=_most("client", ", min(first_time) AS first, max(last_time) AS last"), kind="table"),
    Panel(title="Seen in", query=_most("signal"), kind="table"),
    Panel(title="What was done", query=_most("action"), kind="table"),
    Panel(title="The latest records", kind="table", width=24, height=10,
          query="SELECT time, verdict, client, name, network, ban, action, events, message, event_id "
          f"FROM tokgate.events FINAL WHERE {_WHERE} ORDER BY time DESC LIMIT 100"),
    Panel(title="Gateways", query="SELECT gateway, policy, version, heard, policy_failed, dropped "
          "FROM tokgate.gateways ORDER BY heard", kind="table", width=24),
)  # fmt: skip
"""A fleet's log, from ClickHouse: it names clients."""


def files() -> Iterator[tuple[str, str]]:
    """Every file and its contents, by its path from here."""
    instances = _variable("instance", "Gateway", {"type": "prometheus", "uid": "${datasource}"}, {
        "query": 'label_values(up{job="tokgate"}, instance)', "refId": "instance",
    })  # fmt: skip
    found = (
        ("gateways", "tokgate: gateways", "prometheus", GATEWAYS, [instances]),
        ("log", "tokgate: block log", "grafana-clickhouse-datasource", LOG, [_of_column("network"), _of_column("ban")]),
    )
    for name, title, source, panels, variables in found:
        board = _dashboard(f"tokgate-{name}", title, source, panels, variables)
        yield f"grafana/dashboards/tokgate-{name}.json", json.dumps(board, indent=2) + "\n"
    yield "elastic/dashboards.ndjson", "".join(json.dumps(each) + "\n" for each in _kibana())


def _of_column(column: str) -> dict[str, Any]:
    source = {"type": "grafana-clickhouse-datasource", "uid": "${datasource}"}
    sql = f"SELECT DISTINCT coalesce({column}, '-') FROM tokgate.hourly ORDER BY 1"
    return _variable(column, column.capitalize(), source, sql)


def _variable(name: str, label: str, source: dict[str, str], query: Any) -> dict[str, Any]:
    return {
        "name": name, "label": label, "type": "query", "datasource": source, "query": query,
        "refresh": 2, "includeAll": True, "multi": True, "sort": 1, "options": [],
        "current": {"text": ["All"], "value": ["$__all"]},
    }  # fmt: skip


def _dashboard(
    uid: str, title: str, source: str, panels: tuple[Panel, ...], variables: list[dict[str, Any]]
) -> dict[str, Any]:
    chosen = {
        "name": "datasource", "label": "Data source", "type": "datasource", "query": source, "refresh": 1,
        "multi": False, "includeAll": False, "options": [],
    }  # fmt: skip
    return {
        "uid": uid, "title": title, "tags": ["tokgate"], "schemaVersion": 39, "version": 1, "editable": True,
        "timezone": "browser", "refresh": "1m", "time": {"from": "now-24h", "to": "now"}, "graphTooltip": 1,
        "templating": {"list": [chosen, *variables]}, "annotations": {"list": []}, "links": [],
        "panels": list(_placed(panels, source)),
    }  # fmt: skip


def _placed(panels: tuple[Panel, ...], source: str) -> Iterator[dict[str, Any]]:
    x = y = row = 0
    for number, panel in enumerate(panels, 1):
        if x + panel.width > _WIDTH:
            x, y, row = 0, y + row, 0
        yield _panel(number, panel, source) | {"gridPos": {"x": x, "y": y, "w": panel.width, "h": panel.height}}
        x, row = x + panel.width, max(row, panel.height)


def _panel(number: int, panel: Panel, source: str) -> dict[str, Any]:
    reference = {"type": source, "uid": "${datasource}"}
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    if panel.red_from is not None:
        steps.append({"color": "red", "value": panel.red_from})
    if panel.green_from is not None:
        steps = [{"color": "red", "value": None}, {"color": "green", "value": panel.green_from}]
    kinds: dict[str, dict[str, Any]] = {
        "stat": {"reduceOptions": {"calcs": ["lastNotNull"], "values": False}, "colorMode": "value"},
        "table": {"showHeader": True, "cellHeight": "sm"},
        "timeseries": {"legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
                       "tooltip": {"mode": "multi", "sort": "desc"}},
    }  # fmt: skip
    return {
        "id": number, "title": panel.title, "description": panel.text, "type": panel.kind, "datasource": reference,
        "targets": [_target(panel, source) | {"refId": "A", "datasource": reference}],
        "fieldConfig": {
            "defaults": {"unit": panel.unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps}},
            "overrides": [_coloured(verdict, colour) for verdict, colour in _VERDICTS.items()],
        },
        "options": kinds[panel.kind],
    }  # fmt: skip


def _target(panel: Panel, source: str) -> dict[str, Any]:
    if source == "prometheus":
        once = panel.kind != "timeseries"
        return {"expr": panel.query, "legendFormat": panel.legend or "__auto", "instant": once, "range": not once,
                "format": "table" if panel.kind == "table" else "time_series"}  # fmt: skip
    return {"rawSql": panel.query, "editorType": "sql", "format": 0 if panel.kind == "timeseries" else 1,
            "queryType": "timeseries" if panel.kind == "timeseries" else "table"}  # fmt: skip


def _coloured(verdict: str, colour: str) -> dict[str, Any]:
    return {
        "matcher": {"id": "byName", "options": verdict},
        "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}],
    }


_VIEW: Final = "tokgate-block"
_ATTEMPTS: Final = {
    "id": "1", "type": "count", "schema": "metric", "enabled": True, "params": {"customLabel": "Records"},
}  # fmt: skip
_TABLES: Final = {
    "bans": ("By ban", "tokgate.ban"),
    "networks": ("By network", "tokgate.network"),
    "domains": ("By domain", "destination.registered_domain"),
    "clients": ("By client", "source.ip"),
    "signals": ("Seen in", "tokgate.signal"),
    "actions": ("What was done", "event.action"),
}
_SHOWN: Final = (
    "tokgate.verdict", "source.ip", "destination.domain", "tokgate.network", "tokgate.ban", "event.action",
    "tokgate.repeats.count", "message",
)  # fmt: skip


def _kibana() -> Iterator[dict[str, Any]]:
    """Saved objects: a data view, a search, visualizations by aggregations, and the dashboard that has them."""
    yield _saved("index-pattern", _VIEW, {
        "title": "logs-tokgate.block-*", "name": "tokgate: block log", "timeFieldName": "@timestamp",
    })  # fmt: skip
    view = [{"id": _VIEW, "name": "kibanaSavedObjectMeta.searchSourceJSON.index", "type": "index-pattern"}]
    source = {"query": {"query": "", "language": "kuery"}, "filter": [],
              "indexRefName": "kibanaSavedObjectMeta.searchSourceJSON.index"}  # fmt: skip
    meta = {"kibanaSavedObjectMeta": {"searchSourceJSON": json.dumps(source)}}
    yield _saved("search", "tokgate-records", {
        "title": "tokgate: records", "columns": list(_SHOWN), "sort": [["@timestamp", "desc"]], **meta,
    }, view)  # fmt: skip
    over_time = [
        _ATTEMPTS,
        {"id": "2", "type": "date_histogram", "schema": "segment", "enabled": True,
         "params": {"field": "@timestamp", "interval": "auto", "min_doc_count": 1}},
        {"id": "3", "type": "terms", "schema": "group", "enabled": True,
         "params": {"field": "tokgate.verdict", "size": 5, "order": "desc", "orderBy": "1"}},
    ]  # fmt: skip
    bars = {"type": "histogram", "addLegend": True, "addTooltip": True, "legendPosition": "bottom",
            "seriesParams": [{"data": {"id": "1", "label": "Records"}, "type": "histogram", "mode": "stacked",
                              "show": True, "valueAxis": "ValueAxis-1"}]}  # fmt: skip
    seen = [("over-time", "tokgate: records by verdict", "histogram", bars, over_time)]
    for name, (title, field) in _TABLES.items():
        rows = {"id": "2", "type": "terms", "schema": "bucket", "enabled": True,
                "params": {"field": field, "size": 15, "order": "desc", "orderBy": "1",
                           "customLabel": title}}  # fmt: skip
        sums = {"id": "3", "type": "sum", "schema": "metric", "enabled": True,
                "params": {"field": "tokgate.repeats.count", "customLabel": "Repeats"}}  # fmt: skip
        seen.append(
            (name, f"tokgate: {title.lower()}", "table", {"perPage": 15, "showTotal": False}, [_ATTEMPTS, sums, rows])
        )
    for name, title, kind, shown, aggregations in seen:
        state = {"title": title, "type": kind, "params": shown, "aggs": aggregations}
        yield _saved("visualization", f"tokgate-{name}", {
            "title": title, "visState": json.dumps(state), "uiStateJSON": "{}", **meta,
        }, view)  # fmt: skip
    yield _board([f"tokgate-{name}" for name, *_ in seen])


def _board(names: list[str]) -> dict[str, Any]:
    panels, references = [], []
    places = [(0, 0, 48, 12)] + [(24 * (n % 2), 12 + 12 * (n // 2), 24, 12) for n in range(len(names) - 1)]
    below = places[-1][1] + 12
    for number, (kind, name, (x, y, w, h)) in enumerate(
        [*(("visualization", name, place) for name, place in zip(names, places, strict=True)),
         ("search", "tokgate-records", (0, below, 48, 16))], 1,
    ):  # fmt: skip
        index = str(number)
        panels.append({"panelIndex": index, "type": kind, "panelRefName": f"panel_{index}", "embeddableConfig": {},
                       "gridData": {"x": x, "y": y, "w": w, "h": h, "i": index}})  # fmt: skip
        references.append({"name": f"{index}:panel_{index}", "type": kind, "id": name})
    return _saved("dashboard", "tokgate-log", {
        "title": "tokgate: block log", "panelsJSON": json.dumps(panels),
        "optionsJSON": json.dumps({"useMargins": True, "syncColors": True}), "timeRestore": True, "timeFrom": "now-24h",
        "timeTo": "now", "kibanaSavedObjectMeta": {
            "searchSourceJSON": json.dumps({"query": {"query": "", "language": "kuery"}, "filter": []}),
        },
    }, references)  # fmt: skip


def _saved(kind: str, name: str, attributes: dict[str, Any], references: Any = ()) -> dict[str, Any]:
    return {"type": kind, "id": name, "attributes": attributes, "references": list(references)}
