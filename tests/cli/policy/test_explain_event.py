"""Explain --event: a line of the log decided again, by the policy that it names or by another, and how that is told."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labs.builders import at, policy_in
from labs.command_line import POLICY, Command
from labs.logs import decided
from labs.samples import stamp
from tokgate.blocklog.records.record import encode
from tokgate.policy.decision import Signal
from tokgate.policy.snapshot import compile_policy

WHEN = "2023-05-02T08:00:00.5Z"
EVENT = stamp().id
type Log = Callable[..., dict[str, Any]]


@pytest.fixture
def log(policies: Path) -> Log:
    """Write the event of a client that showed these names to ./block.ndjson, as the policy in the folder decides it."""

    def write(client: str, *shown: tuple[Signal, str], **changes: Any) -> dict[str, Any]:
        record = decided(compile_policy(policy_in(policies, at(WHEN))), WHEN, client, *shown)
        record["tokgate"] |= changes
        Path("block.ndjson").write_bytes(b"no record\n" + encode(record))
        return record

    return write


def document(tokgate: Command, *arguments: str, code: int = 0) -> dict[str, Any]:
    outcome = tokgate("explain", "--event", EVENT, "--json", *arguments)
    assert outcome.code == code, outcome.err
    found: dict[str, Any] = json.loads(outcome.out)
    return found


def test_the_same_policy(log: Log, tokgate: Command) -> None:
    """The line, the policy, and the steps; exit code 0."""
    record = log("192.0.2.7", (Signal.SNI, "www.clips.example.org"))
    outcome = tokgate("explain", "--event", EVENT)
    version = record["tokgate"]["policy"]["version"]
    head, _, steps = outcome.out.partition("\n\n")
    assert head.splitlines() == [
        f"event {EVENT} [block.ndjson:2]",
        f"logged: {record['message']}",
        (
            "logged: verdict=block reason=ban-block phase=block service=clips rule=suffix:clips.example.org signal=sni "
            "network=office ban=spring-ban response=refuse"
        ),
        f"By the policy that decided it: version {version}, policies.",
        "Decided the same again.",
    ]
    assert steps.startswith("block: 192.0.2.7 www.clips.example.org (ban-block)\nat 2023-05-02 10:00 +02:00")
    assert "[policies/policy.yaml:15]" in steps
    assert outcome.code == 0


@pytest.mark.parametrize(
    ("policy", "told", "agrees", "verdict"),
    [
        (
            POLICY.replace("duration: P6M", "action: monitor"),
            "otherwise now than the line says: verdict: block, now monitor; reason: ban-block, now ban-mon",
            False,
            "monitor",
        ),
        (POLICY.replace("No clips at work", "Clips"), "the same again.\n", True, "block"),
        ("version: 1\n", "ban: spring-ban, now none; response: refuse, now none.\n", False, "allow"),
    ],
    ids=["otherwise", "the same", "without the service"],
)
def test_another_policy(
    log: Log, policies: Path, tokgate: Command, policy: str, told: str, agrees: bool, verdict: str
) -> None:
    """Said in so many words, with what the policy at hand decides, be it the same; exit code 1."""
    version = log("192.0.2.7", (Signal.SNI, "www.clips.example.org"))["tokgate"]["policy"]["version"]
    (policies / "policy.yaml").write_text(policy)
    outcome = tokgate("explain", "--event", EVENT)
    assert f"Not by the policy that decided it: the line names version {version}, which is not to be had" in outcome.out
    assert (outcome.code, told in outcome.out.partition("\nDecided ")[2]) == (1, True)
    found = document(tokgate, code=1)
    assert (found["same_policy"], found["agrees"], found["verdict"]) == (False, agrees, verdict)
    assert (found["event"]["logged"]["verdict"], found["event"]["policy"]) == ("block", version)


def test_several_signals(log: Log, tokgate: Command) -> None:
    """All names that the connection showed are judged together, as they were."""
    log("192.0.2.7", (Signal.SNI, "www.example.org"), (Signal.HTTP_HOST, "clips.example.org"))
    found = document(tokgate)
    assert {each["signal"] for each in found["event"]["seen"]} == {"sni", "http-host"}
    assert "6. Strictest over all signals" in tokgate("explain", "--event", EVENT).out


def test_a_store_listing_whose_query_was_not_kept(log: Log, tokgate: Command) -> None:
    """The log holds no query: that the answer differs for this is said."""
    url = "https://play.google.com/store/apps/details?id=org.example.clips"
    log("192.0.2.7", (Signal.HTTP_HOST, "play.google.com"), (Signal.URL, url))
    outcome = tokgate("explain", "--event", EVENT)
    assert outcome.code == 1
    assert "The log keeps no query of a URL" in outcome.out


def test_repeats(log: Log, tokgate: Command) -> None:
    """A record that stands for many is explained at the first of them."""
    times = {"count": 7, "first": "2023-03-09T22:59:59Z", "last": WHEN, "of": EVENT}
    log("192.0.2.7", (Signal.SNI, "clips.example.org"), repeats=times)
    outcome = tokgate("explain", "--event", EVENT)
    assert "The line stands for 7 events; the first of them is explained.\n" in outcome.out
    assert "\nat 2023-03-09 23:59:59 +01:00" in outcome.out


def test_rotated_logs_are_searched(log: Log, tokgate: Command) -> None:
    """The id from a block page of last week is found."""
    log("192.0.2.7", (Signal.SNI, "clips.example.org"))
    Path("block.ndjson").rename("block-20230503T000000.000Z.ndjson")
    Path("block.ndjson").touch()
    assert document(tokgate)["event"]["file"] == "block-20230503T000000.000Z.ndjson"
    assert document(tokgate, "--log", "block-20230503T000000.000Z.ndjson")["event"]["line"] == 2


def test_what_cannot_be_explained(log: Log, tokgate: Command) -> None:
    """Unknown ids, missing logs, records about tokgate itself, and questions asked twice."""
    record = log("192.0.2.7", (Signal.SNI, "clips.example.org"))
    unknown = tokgate("explain", "--event", "01862000-0000-7000-8000-00000000000f")
    assert (unknown.code, unknown.out) == (1, "")
    assert "no event 01862000-0000-7000-8000-00000000000f in block.ndjson" in unknown.err
    assert tokgate("explain", "--event", EVENT, "--log", "none.ndjson").code == 3
    assert tokgate("explain", "--event", EVENT, "--host", "a.example").code == 2
    record["event"]["action"] = "started"
    Path("block.ndjson").write_bytes(encode(record))
    assert "it is about tokgate itself" in tokgate("explain", "--event", EVENT).err
    record["event"]["action"] = "unreadable-refused"
    Path("block.ndjson").write_bytes(encode(record))
    assert "no ban refused it" in tokgate("explain", "--event", EVENT).err


@pytest.mark.parametrize("shown", ["p1-0123456789abcdef", "192.0.2.0/24"])
def test_a_client_that_the_log_does_not_name(log: Log, tokgate: Command, shown: str) -> None:
    """Nothing is guessed: who knows the address gives it."""
    record = log("192.0.2.7", (Signal.SNI, "clips.example.org"))
    assert tokgate("explain", "--event", EVENT, "--client", "192.0.2.7").code == 2
    del record["source"]["ip"]
    record["source"]["address"] = shown
    Path("block.ndjson").write_bytes(encode(record))
    ask = ("explain", "--event", EVENT)
    outcome = tokgate(*ask)
    assert (outcome.code, outcome.out) == (3, "")
    assert outcome.err == f"tokgate: the log shows the client only as {shown}: give its address with --client\n"
    assert document(tokgate, "--client", "192.0.2.7")["verdict"] == "block"
    assert f"Decided the same again, if {shown} was 192.0.2.7." in tokgate(*ask, "--client", "192.0.2.7").out
    another = tokgate(*ask, "--client", "192.0.3.7")
    assert (another.code, "the log says that the client is in" in another.err) == ((1, False), (2, True))["/" in shown]
    traffic = json.loads(tokgate("diff", "policies", "policies", "--log", "block.ndjson", "--json").out)["traffic"]
    assert (traffic["events"], traffic["unreadable"]) == (0, 1)


def test_a_look_is_recorded(log: Log, tokgate: Command) -> None:
    """Whoever has an event explained reads the log: who, when, which event and why are kept."""
    log("192.0.2.7", (Signal.SNI, "clips.example.org"))
    assert tokgate("explain", "--event", EVENT, "--why", "complaint").code == 0
    (look,) = map(json.loads, Path("block.access.ndjson").read_text().splitlines())
    assert EVENT in json.dumps(look)
    assert "complaint" in json.dumps(look)
    assert tokgate("explain", "--client", "192.0.2.7", "--host", "clips.example.org").code == 0
    assert len(Path("block.access.ndjson").read_text().splitlines()) == 1
