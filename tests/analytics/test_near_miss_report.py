"""Candidates: added up over hours and gateways, and offered in a form that a policy reads."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from labs.builders import at
from labs.command_line import Command
from labs.logs import WriteLog, refusal
from labs.samples import stamp
from tokgate.analytics.engine import LogDatabase
from tokgate.analytics.near_miss_report import candidates
from tokgate.blocklog.records.near_miss_record import near_misses
from tokgate.config.loader import load
from tokgate.policy.analysis.likeness import How, Likeness

CLIPS = ["cliptok.com"]
POLICY: dict[str, Any] = {
    "version": 1,
    "services": {"clips": {"names": {"suffix": CLIPS}}, "not-clips": {"names": {"suffix": ["anticliptok.org"]}}},
    "networks": {"office": {"cidrs": ["192.0.2.0/24"]}},
    "bans": {"ban": {"title": "Clips", "services": ["clips"], "networks": ["office"], "starts": "2023-03-10T00:00"}},
}


def likeness(name: str, how: How = How.CONTAINS, service: str = "clips") -> Likeness:
    """One."""
    return Likeness(name, service, "cliptok", how)


@pytest.fixture
def log(write_log: WriteLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two hours of two processes."""
    monkeypatch.chdir(tmp_path)
    first = [(likeness("cliptokapi.org"), 5), (likeness("anticliptok.org"), 9), (likeness("x.net", service="ads"), 1)]
    second = [(likeness("cliptokapi.org"), 7), (likeness("cliptok.net", How.SAME_LABEL), 1)]
    return write_log(
        [
            near_misses(stamp("2023-03-10T11:00:00Z"), first, at("2023-03-10T10:00:00Z")),
            refusal(),
            near_misses(stamp("2023-03-10T15:00:00Z"), second, at("2023-03-10T14:00:00Z"), more=3),
        ]
    )


def test_they_are_added_up(log: Path) -> None:
    """Counts, from the first hour to the last; by service, the most telling first."""
    with LogDatabase([log]) as database:
        found = candidates(database)
    assert [(c.service, c.name, c.count) for c in found] == [
        ("ads", "x.net", 1),
        ("clips", "cliptok.net", 1),
        ("clips", "cliptokapi.org", 12),
        ("clips", "anticliptok.org", 9),
    ]
    assert (found[2].first.hour, found[2].last.hour) == (10, 15)


def test_the_fragment_completes_a_service_file(log: Path, tokgate: Command) -> None:
    """YAML with the evidence beside each name; what the policies match in any service is left out."""
    Path("policies").mkdir()
    Path("policies/policy.yaml").write_text(yaml.safe_dump(POLICY))
    outcome = tokgate("log", "candidates", "--log", str(log))
    assert (outcome.code, outcome.err) == (0, "")
    assert "LOOK AT EACH" in outcome.out
    assert "- cliptokapi.org  # 12 times, 2023-03-10 10:00 to 2023-03-10 15:00 UTC; contains cliptok\n" in outcome.out
    said = yaml.safe_load(outcome.out)
    offered = said["services"]["clips"]["names"]["suffix"]
    assert said["services"] == {
        "ads": {"names": {"suffix": ["x.net"]}},
        "clips": {"names": {"suffix": ["cliptok.net", "cliptokapi.org"]}},
    }
    wider = POLICY | {"services": POLICY["services"] | {"clips": {"names": {"suffix": CLIPS + offered}}}}
    Path("policies/policy.yaml").write_text(yaml.safe_dump(wider))
    assert load(Path("policies"), at("2023-05-01T00:00:00Z")).policy is not None
    assert list(yaml.safe_load(tokgate("log", "candidates", "--log", str(log)).out)["services"]) == ["ads"]


def test_json_and_filters(log: Path, tokgate: Command) -> None:
    """One object a line; a period is kept to."""
    lines = tokgate("log", "candidates", "--log", str(log), "--json", "--since", "2023-03-10T12:00").out.splitlines()
    assert [json.loads(line) for line in lines] == [
        {
            "name": "cliptok.net", "service": "clips", "how": "same-label", "word": "cliptok", "count": 1,
            "first": "2023-03-10T14:00:00.000000Z", "last": "2023-03-10T15:00:00.000000Z",
        },
        {
            "name": "cliptokapi.org", "service": "clips", "how": "contains", "word": "cliptok", "count": 7,
            "first": "2023-03-10T14:00:00.000000Z", "last": "2023-03-10T15:00:00.000000Z",
        },
    ]  # fmt: skip


def test_nothing_to_offer_is_said(write_log: WriteLog, tokgate: Command, tmp_path: Path) -> None:
    """A log without any, which proves little where the setting is off; records of another shape say nothing."""
    bent = refusal() | {"tokgate": {"near_misses": {"names": ["bent", {"name": "x"}]}}}
    log = str(write_log([refusal(), bent]))
    outcome = tokgate("log", "candidates", "--log", log, "--policies", str(tmp_path / "none"))
    assert (outcome.code, outcome.out.splitlines()[1:]) == (
        0,
        ["# It has any only of times when `settings.log.near_misses` was true."],
    )


def test_a_broken_policy_is_told_and_everything_shown(log: Path, tokgate: Command) -> None:
    """Offering goes on."""
    Path("policies").mkdir()
    Path("policies/policy.yaml").write_text("bans: {ban: {}}")
    outcome = tokgate("log", "candidates", "--log", str(log))
    assert outcome.code == 0
    assert "has errors" in outcome.err
    assert "anticliptok.org" in outcome.out


def test_only_time_is_a_filter(tokgate: Command) -> None:
    """A record of near misses names no client, network, ban or verdict: such a filter would leave nothing."""
    shown = tokgate("log", "candidates", "--help").out
    assert "--since" in shown
    assert not re.search(r"--(client|user|name|ban|network|verdict|action)\b", shown)
    assert tokgate("log", "candidates", "--client", "192.0.2.7").code == 2
