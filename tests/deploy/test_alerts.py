"""Each alert fires when what it warns of happens, as tokgate's own metrics tell of it, and is silent otherwise."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml
from whenever import Instant

from labs.requirements import needs
from labs.vitals import DEATHS, GATEWAY, HEALTHY, LOG, NOW, measured
from tokgate.cli.log.verify import metrics_text
from tokgate.service.children import Child, Role
from tokgate.service.metrics.families import families
from tokgate.service.metrics.http_server import complete
from tokgate.service.metrics.sample import Deaths, Vitals
from tokgate.service.process_health import HANGS, RestartState, faults
from tokgate.service.status import worker_of

RULES = Path(__file__).parents[2] / "deploy" / "prometheus" / "tokgate.rules.yml"
ALERTS = {rule["alert"]: rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]}
needs_promtool = needs("promtool")
LENGTH = 180
"""Minutes of each story, which is scraped once a minute."""

type Story = Callable[[Path, int], Vitals | None]
"""The vitals in a minute; None while nobody answers."""


def well(folder: Path, minute: int) -> Vitals:
    """Nothing happens, in an hour or in three."""
    return measured(folder, **HEALTHY)


def _at(key: str, number: int, **more: Any) -> Story:
    """A key of the vitals counts up by a number each minute."""

    def story(folder: Path, minute: int) -> Vitals:
        now = measured(folder, **HEALTHY)
        return now | {key: now[key] | dict.fromkeys(more["names"], number * minute)}

    return story


def no_gate(folder: Path, minute: int) -> Vitals:
    """The only gate was stopped: it is there, and says nothing."""
    child = Child(Role.GATE, 0, 1, 0.0, "x", report={"connections": 5}, heard=1.0)
    made = measured(folder, **HEALTHY, faults=[*faults([child], [(Role.GATE, 0)], {}, HANGS)])
    return made | {"workers": [worker_of(child.name, 1, 9.0, "x", child.report, silent=HANGS)]}


def keeps_dying(folder: Path, minute: int) -> Vitals:
    """Memory runs out for the opener, again and again."""
    state = RestartState(deaths=minute, last="opener-0 ended with signal 9")
    state.recent.extend((1.0, 2.0, 3.0))
    said = [*faults([], [], {(Role.OPENER, 0): state}, 4.0)]
    return measured(folder, **HEALTHY, faults=said, deaths=Deaths(DEATHS.wanted, {"opener-0": minute}, {}))


def another(folder: Path, minute: int) -> Vitals:
    """A gateway with another policy."""
    now = well(folder, minute)
    return now | {"policy": now["policy"] | {"version": "another"}}


def _ban(folder: Path, **changed: Any) -> Vitals:
    now = well(folder, 0)
    return now | {"policy": now["policy"] | {"bans": [ban | changed for ban in now["policy"]["bans"]]}}


def _kinds(counted: Callable[[int], dict[str, dict[str, int]]]) -> Story:
    """What happens to connections, as counted until a minute."""
    return lambda folder, minute: measured(folder, **HEALTHY) | {"kinds": counted(minute)}


def _reported(**said: Any) -> Story:
    """A gate reports this of itself."""

    def story(folder: Path, minute: int) -> Vitals:
        now = well(folder, minute)
        first, *others = now["workers"]
        return now | {"workers": [first | {"report": first["report"] | said}, *others]}

    return story


CANARY = GATEWAY | {
    "problems": ["canary: IPv4: the banned test name passed"],
    "differences": {},
    "canary": {"ok": False, "at": "2023-03-10T08:00:07Z", "problems": ["IPv4: the banned test name passed"]},
}

STORIES: dict[str, Story] = {
    "TokgateDown": lambda folder, minute: None,
    "TokgateNoGate": no_gate,
    "TokgateUnhealthy": lambda folder, minute: measured(folder, **HEALTHY, faults=["no opener serves"]),
    "TokgateProcessHangs": lambda folder, minute: measured(
        folder, **HEALTHY, deaths=Deaths(DEATHS.wanted, {"gate-0": minute // 60}, {"gate-0": minute // 60})
    ),
    "TokgateCannotConnect": _kinds(lambda minute: {"connect-error": {"no-port": 60 * minute}}),
    "TokgateDestinationsFail": _kinds(
        lambda minute: {"connect-error": {"timeout": 40 * minute}, "connect-seconds": {"0.05": 60 * minute}}
    ),
    "TokgateNamesNotResolved": _kinds(lambda minute: {"dns-error": {"unanswered": 120 * minute}}),
    "TokgateDescriptorsRunOut": _reported(descriptors=[900, 1000]),
    "TokgateNobodySignsIn": _reported(accounts="ldap.example.org does not answer"),
    "TokgateGatewayDiffers": lambda folder, minute: measured(folder, **HEALTHY, gateway=GATEWAY),
    "TokgateCanaryFails": lambda folder, minute: measured(folder, **HEALTHY, gateway=CANARY),
    "TokgateLogNotWritten": lambda folder, minute: measured(folder),
    "TokgateLogWrittenByOthers": lambda folder, minute: measured(
        folder, writer=LOG | {"foreign": minute, "failing_since": None}
    ),
    "TokgateRecordsLost": lambda folder, minute: measured(
        folder, writer=LOG | {"dropped": minute, "failing_since": None}
    ),
    "TokgatePolicyNotInForce": lambda folder, minute: measured(folder, **HEALTHY, error="no such service"),
    "TokgatePoliciesDiffer": well,  # of two gateways: see `second`
    "TokgateBanEndsSoon": lambda folder, minute: _ban(folder, ends=str(NOW.add(hours=24 * 6))),
    "TokgateBanOverdue": lambda folder, minute: _ban(folder, overdue=True),
    "TokgateLogFindings": well,  # with what a verification wrote: see `MORE`
    "TokgateLogNotVerified": well,
    "TokgateBanHeld": lambda folder, minute: _ban(folder, held=True),
    "TokgateProcessesDie": keeps_dying,
    "TokgateInternalErrors": _at("errors", 1, names=["gate"]),
    "TokgateConnectionsTurnedAway": _at("counts", 100, names=["refused-at-limit"]),
    "TokgateCoverageDrops": lambda folder, minute: measured(
        folder, **HEALTHY, decisions=[["office", "sni", "allow", 60 * minute], ["office", "none", "allow", 40 * minute]]
    ),
    "TokgateCertificateExpires": well,  # with an authority that ends soon: see `MORE`
}


def _verified(findings: int, days: int) -> dict[str, float]:
    """What `tokgate log verify --textfile` wrote so many days before promtool's time, which begins at 1970."""
    text = metrics_text(findings, 1000, Instant.from_timestamp(0).subtract(hours=24 * days))
    lines = (line.split() for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in lines}


MORE: dict[str, dict[str, float]] = {
    "TokgateCertificateExpires": {f"tokgate_certificate_seconds_until_expiry,file={json.dumps('ca.pem')}": 86400.0},
    "TokgateLogFindings": _verified(1, 0),
    "TokgateLogNotVerified": _verified(0, 3),
}
"""Series that are none of the vitals, by alert."""


def test_every_alert_has_a_story() -> None:
    """An alert that nobody has seen firing may be one that can't; each says how urgent it is, and what to do."""
    assert sorted(STORIES) == sorted(ALERTS)
    for rule in ALERTS.values():
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"].keys() == {"summary", "description"}


def _series(story: Story, folder: Path, instance: str, more: dict[str, float]) -> Iterator[dict[str, str]]:
    """The story's series, as promtool takes them: a value a minute, `_` where there is none."""
    values: dict[str, list[str]] = {}
    for minute in range(LENGTH + 1):
        vitals = story(folder, minute)
        found = {"up": float(vitals is not None)} | more
        if vitals is not None:
            for family in families(complete(vitals, NOW.add(minutes=minute))):
                for sample in family.samples:
                    labels = "".join(f",{key}={json.dumps(value)}" for key, value in sample.labels.items())
                    found[f"{sample.name}{labels}"] = sample.value
        for name, value in found.items():
            values.setdefault(name, ["_"] * minute).append(f"{value:.17g}")
        for name, told in values.items():
            if name not in found:
                told.append("_")
    for name, told in values.items():
        metric, _, labels = name.partition(",")
        where = f'job="tokgate",instance="{instance}"'
        yield {"series": f"{metric}{{{where}{',' * bool(labels)}{labels}}}", "values": " ".join(told)}


def _test(alert: str, folder: Path) -> dict[str, Any]:
    """A story as a test of promtool's: at its end the alert fires; without an alert, none does."""
    story, more = (STORIES[alert], MORE.get(alert, {})) if alert else (well, _verified(0, 1))
    series = [*_series(story, folder, "gw1.example.org", more)]
    if alert == "TokgatePoliciesDiffer":
        series += _series(another, folder, "gw2.example.org", {})
    which = f'alertname="{alert}",' if alert else ""
    expr = f'count(ALERTS{{{which}alertstate="firing"}})'
    expected = [{"labels": "{}", "value": 1}] if alert else []
    told = {"expr": expr, "eval_time": f"{LENGTH}m", "exp_samples": expected}
    return {"interval": "1m", "input_series": series, "promql_expr_test": [told]}


@needs_promtool
def test_each_fires(tmp_path: Path) -> None:
    """What tokgate's own metrics tell of the condition the rule takes for it; where all is well all is quiet.

    An alert that fires without a reason is soon one that nobody reads.
    """
    path = tmp_path / "alert.test.yml"
    tests = [_test(alert, tmp_path) for alert in (*ALERTS, "")]
    path.write_text(json.dumps({"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": tests}))
    done = subprocess.run(["promtool", "test", "rules", str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
