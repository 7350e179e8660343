"""Bans on all but some services: what a client may reach, and by which `except`."""

from collections.abc import Sequence

import pytest

from labs.builders import CLIPS, OFFICE, at, ban, network, service, snapshot
from tokgate.policy.analysis.comparison import verdict_changes
from tokgate.policy.analysis.held_bans import restricted
from tokgate.policy.decide import Sighting, decide, decide_on_error, decide_signals, decide_unreadable, is_under_block
from tokgate.policy.decision import Reason, Signal, Verdict
from tokgate.policy.membership import Identity
from tokgate.policy.schedule import Span
from tokgate.policy.snapshot import Snapshot

LIBRARY = service(
    "library", "suffix:library.example", addresses=("203.0.113.0/28",), stores=("google-play/org.library.app",)
)
MAIL = service("mail", "suffix:mail.example", "exact:shared.library.example", addresses=("198.51.100.128/28",))
GUESTS = network("guests", "198.51.100.0/25")
NOW = at("2023-05-01T12:00Z")
PUPIL, GUEST = "192.0.2.7", "198.51.100.7"


def room(*more: object, **stated: object) -> Snapshot:
    """An exam room that may reach the library and nothing else."""
    bans = (ban("room", **{"services": (), "on_all": True, "excepted": ("library",)} | stated), *more)
    return snapshot(*bans, networks=(OFFICE, GUESTS), services=(LIBRARY, MAIL, CLIPS))  # type: ignore[arg-type]


ROOM = room()


@pytest.mark.parametrize(
    ("host", "signal", "verdict", "service"),
    [
        ("library.example", Signal.SNI, Verdict.ALLOW, "library"),
        ("WWW.Library.Example.", Signal.QUIC_SNI, Verdict.ALLOW, "library"),
        ("shared.library.example", Signal.SNI, Verdict.ALLOW, "library"),  # the mail's as well
        ("203.0.113.9", Signal.ADDRESS, Verdict.ALLOW, "library"),
        ("https://library.example/x", Signal.URL, Verdict.ALLOW, "library"),
        ("notlibrary.example", Signal.SNI, Verdict.BLOCK, "all"),
        ("www.example.org", Signal.DNS_NAME, Verdict.BLOCK, "all"),
        ("www.example.org", Signal.CERTIFICATE, Verdict.BLOCK, "all"),
        ("https://www.example.org/", Signal.URL, Verdict.BLOCK, "all"),
        ("mail.example", Signal.SNI, Verdict.BLOCK, "mail"),
        ("198.18.0.77", Signal.ADDRESS, Verdict.BLOCK, "all"),
        ("198.51.100.129", Signal.ADDRESS, Verdict.BLOCK, "mail"),
        ("play.google.com", Signal.SNI, Verdict.BLOCK, "all"),  # the library's app is there, and all others
        ("https://[", Signal.URL, Verdict.BLOCK, "all"),
    ],
)
def test_what_is_not_excepted_is_refused(host: str, signal: Signal, verdict: Verdict, service: str) -> None:
    """Whatever it is called, or not; and other networks have nothing to do with it."""
    found = decide(ROOM, PUPIL, host, NOW, signal)
    assert (found.verdict, found.ban, found.service) == (verdict, "room", service)
    assert found.reason is (Reason.BAN_BLOCK if verdict is Verdict.BLOCK else Reason.EXCEPTED)
    assert decide(ROOM, GUEST, host, NOW, signal).verdict is Verdict.ALLOW


@pytest.mark.parametrize(
    ("sightings", "verdict"),
    [
        ([(Signal.SNI, "library.example"), (Signal.ADDRESS, "192.0.2.200")], Verdict.ALLOW),
        ([(Signal.SNI, "library.example"), (Signal.ADDRESS, "198.51.100.130")], Verdict.BLOCK),  # the mail's
        ([(Signal.SNI, "library.example"), (Signal.HTTP_HOST, "www.example.org")], Verdict.BLOCK),
        ([(Signal.HTTP_HOST, "192.0.2.200"), (Signal.ADDRESS, "192.0.2.200")], Verdict.BLOCK),
        ([(Signal.SNI, "www.example.org"), (Signal.ADDRESS, "203.0.113.9")], Verdict.BLOCK),
        ([(Signal.SNI, ""), (Signal.ADDRESS, "203.0.113.9")], Verdict.BLOCK),
        ([(Signal.ADDRESS, "203.0.113.9")], Verdict.ALLOW),
        ([(Signal.ADDRESS, "192.0.2.200")], Verdict.BLOCK),
    ],
)
def test_several_signals(sightings: Sequence[tuple[Signal, str]], verdict: Verdict) -> None:
    """An address of no service says nothing beside a name; each name has to be excepted."""
    assert decide_signals(ROOM, PUPIL, [Sighting(*each) for each in sightings], NOW).decision.verdict is verdict


def test_what_cannot_be_read_or_decided() -> None:
    """It is refused as under any ban that blocks; after an error what some ban doesn't except is banned."""
    assert is_under_block(ROOM, PUPIL, NOW)
    assert decide_unreadable(ROOM, PUPIL, NOW, Reason.UNREADABLE) is not None
    assert decide_on_error(ROOM, "www.example.org").verdict is Verdict.BLOCK
    assert decide_on_error(ROOM, "library.example").verdict is Verdict.ALLOW
    assert decide_on_error(snapshot(ban()), "www.example.org").verdict is Verdict.ALLOW
    assert decide(ROOM, PUPIL, "www.example.org", NOW, identity=Identity(user="alice")).verdict is Verdict.BLOCK


def test_differences() -> None:
    """A ban on all is compared for each service and for all else."""
    span = Span(NOW, at("2023-05-02T12:00Z"))
    found = {(each.service, each.after.verdict) for each in verdict_changes(room(excepted=()), ROOM, span)}
    assert found == {("library", Verdict.ALLOW)}
    none = snapshot(networks=(OFFICE, GUESTS), services=(LIBRARY, MAIL, CLIPS))
    assert {each.service for each in verdict_changes(none, ROOM, span)} == {"mail", "clips", "all"}
    assert set(restricted(ROOM.policy, ("room",)).services) == {"library"}
