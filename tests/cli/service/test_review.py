"""`tokgate review` as a command: who it lets in by default, what it refuses to do, and how it explains lines."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from cli.test_policy_source_git import git
from labs.builders import at, policy_in
from labs.command_line import POLICY, Command
from labs.logs import decided
from labs.samples import stamp
from tokgate.blocklog.read.reader import Line, parse_line
from tokgate.blocklog.records.lifecycle import stopped
from tokgate.blocklog.records.record import encode
from tokgate.cli.commands import CommandError
from tokgate.cli.main import build_parser
from tokgate.cli.service.policy_context import PolicyExplainer
from tokgate.policy.decision import Signal
from tokgate.policy.snapshot import compile_policy

WHEN = "2023-05-02T08:00:00.5Z"
type Made = Callable[..., Line]


@pytest.fixture
def line(policies: Path) -> Made:
    """The line of a client that asked for a name, as the policy in the folder decides it."""

    def make(**changes: Any) -> Line:
        snapshot = compile_policy(policy_in(policies, at(WHEN)))
        raw = encode(decided(snapshot, WHEN, "192.0.2.7", (Signal.SNI, "www.clips.example.org")) | changes)
        Path("block.ndjson").write_bytes(raw)
        found = parse_line(raw, "block.ndjson", 1)
        assert isinstance(found, Line)
        return found

    return make


def test_a_line_is_explained_as_explain_does(line: Made, tokgate: Command) -> None:
    """The same steps, and by the policy that decided it."""
    made = line()
    explained = PolicyExplainer("policies").explain(made)
    text = tokgate("explain", "--event", made.record["event"]["id"]).out
    assert explained.verdict == "block"
    assert explained.warnings == ()
    assert made.record["tokgate"]["policy"]["version"] in explained.notes[0]
    for step in explained.steps:
        assert f"\n{step['number']}. {step['title']}\n" in text
        assert all(f"   {said}\n" in text for said in step["lines"])
        assert all(f"   - {said}\n" in text for said in step["others"])
    assert all(f"{said}\n" in text for said in explained.said[1:3])


def test_the_policy_of_the_time_is_found_in_git(line: Made, policies: Path, tokgate: Command) -> None:
    """The line names a version that the folder has no more: the revision that has it decides, as for `explain`."""
    git("init", "-q")
    made = line()
    git("add", "policies")
    git("commit", "-qm", "one")
    (policies / "policy.yaml").write_text(POLICY.replace("duration: P6M", "action: monitor"))
    git("commit", "-qam", "two")
    explained = PolicyExplainer("policies").explain(made)
    assert explained.verdict == "block"
    assert explained.warnings == ()
    assert re.search(r"version \w+, \w+:policies\.", explained.notes[0])
    assert any(":policies/policy.yaml:" in said for step in explained.steps for said in step["lines"])
    outcome = tokgate("explain", "--event", made.record["event"]["id"])
    assert (outcome.code, explained.notes[0] in outcome.out) == (0, True)


def test_another_policy_is_said_to_be_one(line: Made, policies: Path) -> None:
    """Without git it decides otherwise, and both are told."""
    made = line()
    (policies / "policy.yaml").write_text(POLICY.replace("duration: P6M", "action: monitor"))
    explained = PolicyExplainer("policies").explain(made)
    assert explained.verdict == "monitor"
    assert "Not by the policy that decided it" in explained.warnings[0]
    assert "verdict: block, now monitor" in explained.warnings[1]


@pytest.mark.parametrize("shown", ["p1-abcdefghijklmnop", "192.0.2.0/24", "withheld"])
def test_pseudonyms_stay_pseudonyms(line: Made, shown: str) -> None:
    """The page asks nobody who it was; it says which command does."""
    explained = PolicyExplainer("policies").explain(line(source={"address": shown}))
    assert explained.steps == ()
    assert f"only as {shown}, and so does this page" in explained.notes[0]


def test_lines_about_tokgate_itself(policies: Path) -> None:
    made = parse_line(encode(stopped(stamp(), 1, "SIGTERM")), "block.ndjson", 1)
    assert isinstance(made, Line)
    assert "nothing was decided" in PolicyExplainer("policies").explain(made).notes[0]


def test_without_policies(line: Made, policies: Path) -> None:
    """Said, and no phases are drawn."""
    made = line()
    (policies / "policy.yaml").write_text("bans: 7")
    explainer = PolicyExplainer("policies")
    (said,) = explainer.explain(made).warnings
    assert said == "This can't be explained: policies holds no valid policy: nothing to decide with."
    assert explainer.lanes(at(WHEN).to_stdlib(), at(WHEN).to_stdlib(), frozenset()) == ([], "")
    assert explainer.now() == ()


def test_what_holds_now(policies: Path) -> None:
    """Bans in force, in the words of status; or that no ban is in force."""
    text = (policies / "policy.yaml").read_text()
    watching = "monitor: Watching the lab [lab-watch] for"
    assert PolicyExplainer("policies").now() == ("1 ban is in force", f"{watching} lab", f"{watching} abroad")
    (policies / "policy.yaml").write_text(text.replace("starts: 2023-03-01T00:00", "starts: 2098-03-01T00:00"))
    assert PolicyExplainer("policies").now() == ("no ban is in force until 2098-02-28T23:00:00Z",)


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        ("--listen 0.0.0.0:8090", "say how browsers call the page"),
        ("--listen 192.0.2.1:8090", "other machines could reach it"),
        ("--listen [::]:8090 --origin https://review.example.org", "other machines could reach it"),
        ("--listen 192.0.2.1:8090 --htpasswd x", "in the clear"),
        ("--listen 192.0.2.1:8090 --htpasswd x --origin https://review.example.org", "in the clear"),
        ("--trusted-header X-Remote-User", "--trusted-header needs --trusted-proxy"),
        ("--trusted-proxy 192.0.2.1/32", "--trusted-proxy needs --trusted-header or --htpasswd"),
        ("--trusted-header X --trusted-proxy 192.0.2.1/32 --htpasswd x", "not allowed with"),
        ("--tls-cert x", "need each other"),
        ("--listen nowhere", "is no HOST:PORT"),
        ("--listen 127.0.0.1:99999", "is no HOST:PORT"),
        ("--trusted-header X --trusted-proxy 192.0.2.1/24", "host bits"),
        ("--origin review.example.org", "no origin"),
        ("--origin https://review.example.org/path", "no origin"),
    ],
)
def test_what_would_be_open_is_refused(tokgate: Command, said: str, complaint: str) -> None:
    """Never on an address that others can reach without a way to tell who they are; nor with passwords in the clear."""
    outcome = tokgate("review", *said.split())
    assert outcome.code == 2
    assert complaint in outcome.err


def test_defaults() -> None:
    args = build_parser(("review",)).parse_args(["review"])
    assert (args.listen, args.htpasswd, args.trusted_header) == (("127.0.0.1", 8090), None, None)
    assert build_parser(("review",)).parse_args(["review", "--listen", "[::1]:1"]).listen == ("::1", 1)


@pytest.mark.parametrize(
    "content",
    ["alice:plain", "alice:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "alice:$apr1$x$y", ":$2b$04$", "no colon", "# nobody"],
)
def test_a_file_of_users_must_be_one(policies: Path, tokgate: Command, content: str) -> None:
    """Weaker hashes than bcrypt's, and a file without users, are refused at the start."""
    Path("users").write_text(f"{content}\n")
    outcome = tokgate("review", "--listen", "127.0.0.1:0", "--htpasswd", "users")
    assert (outcome.code, outcome.err.startswith("tokgate: users:")) == (3, True), outcome.err


def test_a_port_that_is_taken(policies: Path, tokgate: Command) -> None:
    outcome = tokgate("review", "--listen", "127.0.0.1:0", "--access-log", "missing/access.ndjson")
    assert (outcome.code, "missing/access.ndjson" in outcome.err) == (3, True)
    outcome = tokgate("review", "--listen", "203.0.113.250:1", "--trusted-header", "X", "--trusted-proxy", "::1/128")
    assert (outcome.code, "can't listen on 203.0.113.250:1" in outcome.err) == (3, True)


@pytest.mark.parametrize(
    ("said", "believed"),
    [
        ("--htpasswd users --trusted-proxy 192.0.2.4/32 --trusted-proxy 2001:db8::4/128", 2),
        ("--htpasswd users", 0),
        ("--trusted-header X-Remote-User --trusted-proxy 192.0.2.4/32", 1),
    ],
)
def test_who_is_believed_about_clients(
    policies: Path, tokgate: Command, monkeypatch: pytest.MonkeyPatch, said: str, believed: int
) -> None:
    """Behind a proxy clients are told apart only where the proxy is named for it."""
    Path("users").write_text("alice:$2b$04$DJU7mqEIvZJ8wUCtWYtBquYDOtQ3fUWXxS7rdNd2LCC1yJLsDbHzu\n")
    given: list[tuple[object, ...]] = []

    def build(site: object, *, proxies: Sequence[object], **others: object) -> None:
        given.append(tuple(proxies))
        raise CommandError("that is enough")

    monkeypatch.setattr("tokgate.webui.app.build", build)
    assert "that is enough" in tokgate("review", "--listen", "127.0.0.1:0", *said.split()).err
    assert [str(each) for each in given[0]] == ["192.0.2.4/32", "2001:db8::4/128"][:believed]
