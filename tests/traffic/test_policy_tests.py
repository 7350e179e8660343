"""Tests of policies come to what live traffic comes to, by the same code."""

from pathlib import Path

import pytest
from whenever import Instant

from tokgate.config.loader import Loaded, load
from tokgate.policy.snapshot import compile_policy
from tokgate.traffic.policy_tests import TestResult, run_tests

NOW = Instant.from_utc(2023, 5, 1)
POLICY = """\
services:
  clips:
    names: {suffix: [clips.example.org]}
    addresses: [203.0.113.0/28]
    store: {google-play: [org.example.clips]}
networks:
  office: {cidrs: [192.0.2.0/25], users: [alice], interfaces: [eth7]}
  guests: {cidrs: [198.51.100.0/24]}
  lab: {cidrs: [192.0.2.128/25]}
bans:
  work:
    {title: Work, authority: The city, services: [clips], networks: [office], starts: 2023-03-10, response: RESPONSE,
     inspect_stores: INSPECT}
  house: {title: House rules, services: [clips], networks: [guests], starts: 2023-03-10, response: page}
  soft: {title: Soft, services: [clips], networks: [lab], starts: 2023-03-10, action: warn, response: page}
settings: {missing_sni: MISSING, ech_outer: ECH}
"""
PLAY = "https://play.google.com/store/apps/details?id=org.example.clips"
REFUSE = {"RESPONSE": "refuse", "INSPECT": "false", "MISSING": "check-address", "ECH": "allow"}
PAGE = REFUSE | {"RESPONSE": "page"}


def loaded(folder: Path, words: dict[str, str], test: str, client: str = "192.0.2.7") -> Loaded:
    text = POLICY
    for word, value in words.items():
        text = text.replace(word, value)
    (folder / "policy.yaml").write_text(f"{text}tests:\n  - {{client: {client}, at: 2023-05-01T12:00, {test}}}\n")
    return load(folder / "policy.yaml", NOW)


def result(folder: Path, words: dict[str, str], test: str, client: str = "192.0.2.7") -> TestResult:
    found = loaded(folder, words, test, client)
    assert found.policy is not None, found.errors
    (outcome,) = run_tests(compile_policy(found.policy), found.tests)
    return outcome


@pytest.mark.parametrize(
    ("words", "test"),
    [
        (REFUSE, "host: www.clips.example.org, expect: block, ban: work, reason: ban-block, response: refuse"),
        (REFUSE, "host: WWW.Clips.example.org., expect: block"),
        (PAGE, "host: www.clips.example.org, expect: block, response: page, status: 451"),
        (REFUSE, "url: 'http://www.clips.example.org/x', expect: block, status: 451"),
        (PAGE, "url: 'https://www.clips.example.org/x', expect: block, status: 451"),
        # Without `inspect_stores` nobody opens the store, and its listings pass.
        (REFUSE, f"url: '{PLAY}', expect: allow, reason: no-service"),
        (REFUSE | {"INSPECT": "true"}, f"url: '{PLAY}', expect: block, ban: work, status: 451"),
        (REFUSE | {"INSPECT": "true"}, "url: 'https://play.google.com/store', expect: allow, response: inspect"),
        (REFUSE | {"INSPECT": "true"}, f"url: '{PLAY}', transport: quic, expect: allow"),
        # A connection to one host, in which a client asks for what another one has.
        (PAGE, "host: www.clips.example.org, url: 'https://www.example.net/', expect: block, status: 451"),
        (PAGE, "host: www.clips.example.org, url: 'http://www.example.net/', expect: allow"),
        (REFUSE, "host: www.example.net, url: 'http://www.clips.example.org/', expect: block"),
        (REFUSE, "host: 203.0.113.1, url: 'http://www.example.net/', expect: block"),
        (REFUSE, "host: 203.0.113.1, expect: block, reason: ban-block"),
        (REFUSE | {"MISSING": "allow"}, "host: 203.0.113.1, expect: allow"),
        (REFUSE | {"MISSING": "block"}, "host: other.example.org, sni: none, expect: block, reason: missing-sni"),
        (REFUSE | {"MISSING": "check-certificate"}, "host: 192.0.2.200, sni: none, expect: block, reason: missing-sni"),
        (REFUSE, "host: www.clips.example.org, sni: none, expect: allow"),
        (REFUSE, "host: www.clips.example.org, ech: outer, expect: allow"),
        (REFUSE | {"ECH": "block"}, "host: www.clips.example.org, ech: outer, expect: block, reason: ech-outer"),
        (REFUSE | {"ECH": "inspect"}, "host: x.example.org, ech: outer, expect: allow, response: inspect"),
        (PAGE, "host: www.clips.example.org, transport: quic, expect: block, ban: work"),
        (REFUSE, "host: www.clips.example.org, transport: dns, expect: block, ban: work"),
        (REFUSE, "host: www.example.org, transport: dns, expect: allow"),
        (REFUSE, "host: 'no host name', expect: block, reason: invalid-host"),
    ],
)
def test_as_live_traffic(words: dict[str, str], test: str, tmp_path: Path) -> None:
    """What passes a test passes in a network, and what a test says that people read is what they read."""
    outcome = result(tmp_path, words, test)
    assert (outcome.failures, outcome.passed) == ((), True)


@pytest.mark.parametrize(
    ("client", "test"),
    [
        ("203.0.113.99", "host: clips.example.org, user: Alice, expect: block, ban: work"),
        ("203.0.113.99", "host: clips.example.org, interface: eth7, expect: block, ban: work"),
        ("203.0.113.99", "host: clips.example.org, expect: allow, reason: unknown-client"),
        ("198.51.100.7", "host: clips.example.org, expect: block, ban: house, status: 403"),
        ("192.0.2.200", "host: clips.example.org, expect: warn, ban: soft, response: page, status: 403"),
        ("192.0.2.200", "url: 'https://clips.example.org/', expect: warn, status: 403"),
        ("192.0.2.200", "host: clips.example.org, transport: quic, expect: warn"),
    ],
)
def test_whoever_it_is(client: str, test: str, tmp_path: Path) -> None:
    """Users, interfaces and other clients get their own ban, and the status of its page."""
    assert result(tmp_path, REFUSE, test, client).failures == ()


@pytest.mark.parametrize(
    ("words", "test"),
    [
        (REFUSE, "host: www.clips.example.org"),
        (PAGE, "host: www.clips.example.org, transport: quic"),
        (PAGE, "host: www.clips.example.org, transport: dns"),
        (REFUSE | {"INSPECT": "true"}, "host: play.google.com"),
    ],
)
def test_where_nobody_reads_a_page(words: dict[str, str], test: str, tmp_path: Path) -> None:
    """A connection that is refused, or opened without a page, has no status: it would promise one to the operator."""
    assert result(tmp_path, words, f"{test}, expect: allow").status is None


def test_each_expectation_can_fail(tmp_path: Path) -> None:
    """A failed test says all that came otherwise, and what it was."""
    test = "host: clips.example.org, expect: allow, ban: house, reason: expired, response: page, status: 451"
    outcome = result(tmp_path, REFUSE, test)
    assert not outcome.passed
    assert outcome.failures == (
        "allow, got block (ban-block)",
        "ban house, got work",
        "reason expired, got ban-block",
        "response page, got refuse",
        "status 451, got none",
    )


@pytest.mark.parametrize(
    ("test", "key"),
    [
        ("host: a.example, sni: none, ech: outer", "ech"),
        ("host: a.example, sni: none, transport: dns", "sni"),
        ("url: 'http://a.example/', ech: outer", "ech"),
        ("url: 'http://a.example/', transport: quic", "transport"),
        ("url: 'https://a.example/', transport: dns", "url"),
        ("host: a..example, transport: dns", "host"),
        ("host: a.example, ban: wrok", "ban"),
        ("host: a.example, status: 200", "status"),
        ("host: a.example, reason: because", "reason"),
    ],
)
def test_a_test_that_makes_no_sense(test: str, key: str, tmp_path: Path) -> None:
    """What no traffic can be is an error at the key that says so, and not a test that passes for nothing."""
    found = loaded(tmp_path, REFUSE, f"{test}, expect: allow")
    (error,) = found.errors
    assert f"{key}: " in (error.line or "")[: error.origin.column]
