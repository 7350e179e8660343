"""`tokgate override requests`, `approve`, `decline`: what is shown, what an answer makes, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from whenever import Instant

from labs.builders import policy_in
from labs.command_line import Command, Outcome
from labs.samples import exception_request
from tokgate.blocklog.records.record import new_event_id, timestamp
from tokgate.blocklog.records.requests import ExceptionRequest
from tokgate.policy.decide import decide
from tokgate.policy.decision import Reason
from tokgate.policy.membership import Identity
from tokgate.policy.snapshot import compile_policy
from tokgate.traffic.exception_requests import RequestFolder

POLICY = """\
version: 1
services: {clips: {names: {suffix: [clips.example.org]}}}
networks: {office: {cidrs: [192.0.2.0/24], timezone: Europe/Brussels}}
bans:
  clips: {title: Clips, services: [clips], networks: [office], starts: 2023-03-10}
settings: {overrides: {longest: PT8H}}
"""


@pytest.fixture
def policies(policies: Path) -> Path:
    (policies / "policy.yaml").write_text(POLICY)
    return policies


def ask(**stated: Any) -> str:
    now = Instant.now()
    said = {"id": new_event_id(now), "at": timestamp(now), "ban": "clips", "lasting": "PT2H"}
    request = exception_request(**(said | {"why": r"Press \u202e [1]"} | stated))
    assert RequestFolder(Path("block.requests")).add(request) is request
    return request["id"]


def run(tokgate: Command, *words: str, code: int = 0) -> Outcome:
    done = tokgate(*words)
    assert done.code == code, done.err
    return done


def kept(name: str) -> ExceptionRequest:
    return RequestFolder(Path("block.requests")).all()[name]


def reason(policies: Path, client: str, identity: Identity | None = None) -> Reason:
    """Why a client is refused or not, now."""
    now, snapshot = Instant.now(), compile_policy(policy_in(policies))
    return decide(snapshot, client, "www.clips.example.org", now, identity=identity).reason


def test_list(tokgate: Command, policies: Path) -> None:
    """Those that wait, as a table and in JSON; with --all also the others; without any, a word on stderr."""
    assert tokgate("override", "requests").err == "no requests that wait for an answer\n"
    name, other = ask(), ask(client="192.0.2.8", user="alice")
    run(tokgate, "override", "decline", name, "--reason", "No", "--by", "bob")
    shown = run(tokgate, "override", "requests").out
    assert (name in shown, other in shown, "alice at 192.0.2.8" in shown) == (False, True, True)
    (waiting,) = json.loads(run(tokgate, "override", "requests", "--json").out)["requests"]
    assert (waiting["id"], waiting["state"], waiting["lasting"]) == (other, "pending", "PT2H")
    every = json.loads(run(tokgate, "override", "requests", "--all", "--json", "--log", "block.ndjson").out)
    assert [each["state"] for each in every["requests"]] == ["declined", "pending"]


def test_approve(tokgate: Command, policies: Path) -> None:
    """An override for that client alone, for as long as was asked, with what was asked for as its reason."""
    name = ask()
    done = run(tokgate, "override", "approve", name, "--by", "bob", "--ticket", "CHG-1")
    override = done.out.strip()
    stated = yaml.safe_load((policies / "overrides" / f"{override}.yaml").read_text())["exemptions"][override]
    assert (stated["clients"], stated["by"], stated["ticket"]) == (["192.0.2.7/32"], "bob", "CHG-1")
    assert stated["reason"] == r"Press \u202e [1]"
    lasting = Instant.parse_iso(stated["until"]) - Instant.parse_iso(stated["starts"])
    assert lasting.total("hours") == 2
    assert (reason(policies, "192.0.2.7"), reason(policies, "192.0.2.8")) == (Reason.EXEMPT, Reason.BAN_BLOCK)
    request = kept(name)
    assert (request["state"], request["override"], request["by"]) == ("approved", override, "bob")
    assert Instant.parse_iso(request["until"] or "") == Instant.parse_iso(stated["until"])


def test_approve_for_a_user(tokgate: Command, policies: Path) -> None:
    """Who signed in is exempt wherever they are, and nobody else at their client; the answer in JSON."""
    name = ask(user="alice")
    done = run(tokgate, "override", "approve", name, "--for", "30m", "--reason", "As agreed", "--json")
    answered = json.loads(done.out)
    assert (answered["state"], answered["reason"]) == ("approved", "As agreed")
    assert reason(policies, "192.0.2.99", Identity(user="alice")) is Reason.EXEMPT
    assert reason(policies, "192.0.2.7") is Reason.BAN_BLOCK


def test_decline(tokgate: Command, policies: Path) -> None:
    """No override, and why, for who asked."""
    name = ask()
    answered = json.loads(run(tokgate, "override", "decline", name, "--reason", "Not now", "--json").out)
    assert (answered["state"], answered["reason"], answered["override"]) == ("declined", "Not now", None)
    assert kept(name) == answered
    assert not (policies / "overrides").exists()


@pytest.mark.parametrize("answer", [("approve",), ("decline", "--reason", "No")], ids=["approve", "decline"])
def test_an_answer_is_given_once(tokgate: Command, policies: Path, answer: tuple[str, ...]) -> None:
    """A second one is a finding that says what was, and a request that isn't there a usage error."""
    name, (command, *options) = ask(), answer
    run(tokgate, "override", command, name, *options, "--by", "bob")
    files = sorted(policies.rglob("*"))
    for second in (("approve",), ("decline", "--reason", "No")):
        again = run(tokgate, "override", second[0], name, *second[1:], code=1)
        assert f"was {kept(name)['state']} by bob" in again.err
    assert sorted(policies.rglob("*")) == files
    assert "there is no request" in run(tokgate, "override", command, "../other", *options, code=2).err


@pytest.mark.parametrize(
    ("stated", "options", "message"),
    [
        ({"client": "198.51.100.7"}, (), "in none of the networks"),
        ({"ban": "gone"}, (), "unknown ban"),
        ({"lasting": "PT24H"}, (), "lasts at most PT8H"),
        ({}, ("--for", "9h"), "lasts at most PT8H"),
    ],
)
def test_what_can_not_be_approved(
    tokgate: Command, policies: Path, stated: dict[str, str], options: tuple[str, ...], message: str
) -> None:
    """What `add` would refuse is refused; nothing is written, and the request still waits."""
    name = ask(**stated)
    refused = tokgate("override", "approve", name, *options)
    assert (refused.code in (1, 2), message in refused.err) == (True, True)
    assert (kept(name)["state"], (policies / "overrides").exists()) == ("pending", False)
