"""Timeline: which transitions are shown, in which times, and what happens when there are too many."""

import json
from pathlib import Path

from labs.command_line import POLICY, Command


def test_what_holds_where_it_begins(policies: Path, tokgate: Command) -> None:
    """The bans in force at the first instant, and a network that exemptions open wholly, as status says of now."""
    text = POLICY.replace("clients: [192.0.2.9/32]", 'clients: [192.0.2.0/24, "2001:db8:1::/48"]')
    (policies / "policy.yaml").write_text(text)
    before = tokgate("timeline", "--from", "2023-02-01T00:00Z")
    assert before.err.endswith(" no ban is in force until 2023-02-28T23:00:00Z\n")
    assert "2023-03-01 00:00 -05:00 America/New_York  2023-03-01T05:00:00Z  lab-watch   announced ->" in before.out
    words = ("timeline", "--from", "2023-05-01T00:00Z")
    said = tokgate(*words).err
    assert "2 bans are in force: spring-ban, lab-watch\n" in said
    assert "the whole network office is exempt from spring-ban until 2023-06-30T16:00:00Z: press\n" in said
    holds = json.loads(tokgate(*words, "--json").out)["holds"]
    assert (holds["in_force"], len(holds["opened"])) == (["spring-ban", "lab-watch"], 1)


def test_json(policies: Path, tokgate: Command) -> None:
    document = json.loads(tokgate("timeline", "--json", "--from", "2023-09-01T00:00Z").out)
    assert (document["from"], document["to"], document["more"]) == (
        "2023-09-01T00:00:00Z", "2024-09-01T00:00:00Z", False,
    )  # fmt: skip
    assert document["transitions"] == [
        {
            "at": "2023-09-09T22:00:00Z",
            "local": "2023-09-10 00:00 +02:00",
            "zone": "Europe/Brussels",
            "kind": "phase",
            "ban": "spring-ban",
            "title": "No clips at work",
            "ban_reason": None,
            "services": ["clips"],
            "networks": ["office"],
            "before": "block",
            "after": "expired",
            "exemption": None,
            "extends": None,
            "extended_by": [],
        }
    ]


def test_limit(policies: Path, tokgate: Command) -> None:
    """What is cut is told on stderr, and in JSON."""
    window = '    windows: [{days: mon-fri, from: "08:00", to: "18:00"}]\n    duration: P6M\n'
    (policies / "policy.yaml").write_text(POLICY.replace("    duration: P6M\n", window))
    asked = ("timeline", "--from", "2023-03-13T00:00Z")
    outcome = tokgate(*asked, "--limit", "3")
    assert len(outcome.out.splitlines()) == 4
    assert "window opens: block" in outcome.out
    assert "window closes: no block until the next" in outcome.out
    assert "only the first 3 transitions" in outcome.err
    assert len(tokgate(*asked).out.splitlines()) == 201
    assert json.loads(tokgate(*asked, "--limit", "3", "--json").out)["more"] is True


def test_nothing(policies: Path, tokgate: Command) -> None:
    outcome = tokgate("timeline", "--from", "2030-01-01T00:00Z")
    assert (outcome.code, outcome.out) == (0, "")
    nothing = "nothing changes from 2030-01-01T00:00:00Z to 2031-01-01T00:00:00Z"
    assert outcome.err == f"{nothing}\nat 2030-01-01T00:00:00Z 1 ban is in force: lab-watch\n"
