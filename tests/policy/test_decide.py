"""The one decide: every step of the precedence, and every reason.

Refusing connections that name no host: only clients under a ban that blocks now, and not the exempt.
"""

from dataclasses import replace
from typing import Any

import pytest
from whenever import Instant, Time, Weekday

from labs import builders
from labs.builders import OFFICE, at, ban, exemption, network, service, snapshot, wall
from tokgate.policy.bans import Action
from tokgate.policy.decide import Sighting, decide, decide_on_error, decide_signals, decide_unreadable
from tokgate.policy.decision import Decision, Reason, Response, Signal, Verdict
from tokgate.policy.schedule import Window
from tokgate.policy.settings import OnError
from tokgate.policy.snapshot import Snapshot

CLIENT = "192.0.2.1"
CLIPS = "www.clips.example.org"
APRIL = at("2023-04-15T10:00Z")


NIGHTS = (Window(frozenset(Weekday), Time(22), Time(6)),)


@pytest.mark.parametrize(
    ("stated", "client", "host", "moment", "verdict", "reason"),
    [
        ({}, CLIENT, "example.net", APRIL, "allow", "no-service"),
        ({}, CLIENT, CLIPS, APRIL, "block", "ban-block"),
        ({}, "::ffff:192.0.2.1", CLIPS, APRIL, "block", "ban-block"),
        ({}, "2001:db8:1::5", CLIPS, APRIL, "block", "ban-block"),
        ({}, CLIENT, "203.0.113.9", APRIL, "block", "ban-block"),
        ({}, "198.51.100.1", CLIPS, APRIL, "allow", "unknown-client"),
        ({}, "not an address", CLIPS, APRIL, "allow", "invalid-client"),
        ({}, CLIENT, "clips..example.org", APRIL, "allow", "invalid-host"),
        ({}, CLIENT, CLIPS, at("2023-03-09T22:59:59.999999Z"), "allow", "announced"),
        ({"announced": wall("2023-03-01T00:00")}, CLIENT, CLIPS, at("2023-02-01T00:00Z"), "allow", "no-ban"),
        ({"services": ()}, CLIENT, CLIPS, APRIL, "allow", "no-ban"),
        ({"services": (), "on_all": True}, CLIENT, "example.net", APRIL, "block", "ban-block"),
        ({"services": (), "on_all": True, "excepted": ("clips",)}, CLIENT, CLIPS, APRIL, "allow", "excepted"),
    ],
)
def test_verdict_and_reason(
    stated: dict[str, Any], client: str, host: str, moment: Instant, verdict: str, reason: str
) -> None:
    decision = decide(snapshot(ban(**stated)), client, host, moment)
    assert (decision.verdict, decision.reason) == (verdict, reason)


def test_exemption_ends_by_itself() -> None:
    """The named client passes until the exemption's end; its neighbour never does."""
    policy = snapshot(ban(), exemptions=(exemption(starts=wall("2023-03-20T09:00")),))
    press = "192.0.2.9"
    before = decide(policy, press, CLIPS, at("2023-03-20T07:59:59Z"))
    assert (before.verdict, before.next_change) == (Verdict.BLOCK, at("2023-03-20T08:00Z"))
    during = decide(policy, press, CLIPS, at("2023-03-20T08:00Z"))
    assert (during.verdict, during.reason, during.exemption) == (Verdict.ALLOW, Reason.EXEMPT, "press")
    assert during.next_change == at("2023-03-31T16:00Z")
    assert decide(policy, press, CLIPS, at("2023-03-31T16:00Z")).verdict is Verdict.BLOCK
    assert decide(policy, CLIENT, CLIPS, at("2023-03-20T08:00Z")).verdict is Verdict.BLOCK


def test_exemption_is_found_again_after_its_end_was_seen() -> None:
    """A replay of last week's log asks about the past after the present: the press was exempt then, and stays so."""
    policy = snapshot(ban(), exemptions=(exemption(starts=wall("2023-03-20T00:00")),))
    moments = [at(f"2023-{day}T12:00Z") for day in ("04-15", "03-25", "03-15")]

    assert [decide(policy, "192.0.2.9", CLIPS, moment).verdict for moment in moments] == ["block", "allow", "block"]


def test_next_change_passes_over_what_changes_nothing() -> None:
    """In a succession the ban's name changes; a weaker ban in between is silent."""
    policy = snapshot(
        ban("first", expires=wall("2023-06-01T00:00")),
        ban("second", starts=wall("2023-06-01T00:00"), expires=wall("2023-07-01T00:00")),
        ban("silent", action=Action.MONITOR, starts=wall("2023-05-01T00:00"), expires=wall("2023-05-02T00:00")),
    )
    decision = decide(policy, CLIENT, CLIPS, APRIL)
    assert (decision.ban, decision.next_change) == ("first", at("2023-05-31T22:00Z"))
    assert decide(policy, CLIENT, CLIPS, APRIL.add(hours=1)) is decision
    assert decide(policy, CLIENT, CLIPS, at("2023-08-01T00:00Z")).next_change is None


def test_store_listings_are_blocked_by_url() -> None:
    """The store's host is opened only under a ban that inspects stores, and only the banned listing is refused."""
    url = "https://play.google.com/store/apps/details?id=org.example.clips"
    policy = snapshot(ban(inspect_stores=True))
    front = decide(policy, CLIENT, "play.google.com", APRIL)
    assert (front.verdict, front.reason, front.response) == (Verdict.ALLOW, Reason.STORE_FRONT, Response.INSPECT)
    listed = decide(policy, CLIENT, url, APRIL, Signal.URL)
    assert (listed.verdict, listed.signal, listed.rule) == ("block", "url", "store:google-play/org.example.clips")
    assert decide(policy, CLIENT, url.replace("clips", "maps"), APRIL, Signal.URL).verdict is Verdict.ALLOW
    assert decide(policy, CLIENT, "play.google.com", at("2023-01-01T00:00Z")).response is None
    closed = decide(snapshot(ban()), CLIENT, "play.google.com", APRIL)
    assert (closed.reason, closed.response) == (Reason.NO_SERVICE, None)


@pytest.mark.parametrize(
    ("action", "response", "delivered"),
    [
        (Action.BLOCK, Response.REFUSE, Response.REFUSE),
        (Action.BLOCK, Response.PAGE, Response.PAGE),
        (Action.WARN, Response.PAGE, Response.PAGE),
        (Action.WARN, Response.REFUSE, None),
        (Action.MONITOR, Response.PAGE, None),
    ],
)
def test_response(action: Action, response: Response, delivered: Response | None) -> None:
    """Only a block refuses; a warning may show a page; monitoring shows nothing."""
    assert decide(snapshot(ban(action=action, response=response)), CLIENT, CLIPS, APRIL).response is delivered


def test_a_shared_address_contradicts_nothing() -> None:
    """An address in no service is no mismatch; one of a banned service beside an innocent name is."""
    policy = snapshot(ban())
    shared = [Sighting(Signal.SNI, CLIPS), Sighting(Signal.ADDRESS, "198.51.100.7")]
    assert not decide_signals(policy, CLIENT, shared, APRIL).mismatch
    hidden = [Sighting(Signal.SNI, "example.net"), Sighting(Signal.ADDRESS, "203.0.113.7")]
    judgement = decide_signals(policy, CLIENT, hidden, APRIL)
    assert (judgement.decision.signal, judgement.mismatch) == (Signal.ADDRESS, True)
    assert decide(policy, CLIENT, "203.0.113.7", APRIL, Signal.HTTP_HOST).signal is Signal.ADDRESS


def test_a_judgement_needs_a_sighting() -> None:
    """Nothing seen is the caller's error."""
    with pytest.raises(ValueError, match="at least one"):
        decide_signals(snapshot(ban()), CLIENT, [], APRIL)


LISTED = ("google-play/org.example.clips",)


@pytest.mark.parametrize(
    ("on_error", "host", "verdict"),
    [
        (OnError.BLOCK, CLIPS, Verdict.BLOCK),
        (OnError.BLOCK, "203.0.113.7", Verdict.BLOCK),
        (OnError.BLOCK, "example.net", Verdict.ALLOW),
        (OnError.BLOCK, "other.example.com", Verdict.ALLOW),
        (OnError.BLOCK, "play.google.com", Verdict.ALLOW),
        (OnError.ALLOW, CLIPS, Verdict.ALLOW),
    ],
)
def test_fallback(on_error: OnError, host: str, verdict: Verdict) -> None:
    """An internal error blocks names of banned services only (never a store that lists them), or nothing at all."""
    other = service("other", "suffix:other.example.com")
    policy = snapshot(
        ban(),
        services=(service("clips", "suffix:clips.example.org", addresses=("203.0.113.0/24",), stores=LISTED), other),
    )
    policy = snapshot(ban(), services=tuple(policy.policy.services.values()), on_error=on_error)
    decision = decide_on_error(policy, host)
    assert (decision.verdict, decision.reason) == (verdict, Reason.INTERNAL_ERROR)


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gate that runs for years and a scanner that invents names don't fill the memory with decisions."""
    monkeypatch.setattr(Snapshot, "MAX_CACHES", 3)
    floors = tuple(network(f"floor-{number}", f"198.51.100.{16 * number}/28") for number in range(9))
    policy = snapshot(ban(windows=NIGHTS), networks=(OFFICE, *floors))

    for number in range(9):
        decide(policy, CLIENT, f"clips..{number}.example.org", APRIL)
        assert not policy._caches
    for number in range(9):
        decide(policy, f"198.51.100.{16 * number}", CLIPS, APRIL)
        assert len(policy._caches) == number % 3 + 1  # they are kept until there are too many
    first = decide(policy, CLIENT, CLIPS, APRIL)
    assert decide(policy, CLIENT, CLIPS, APRIL.add(hours=1)) is first  # it was not decided again
    assert decide(policy, CLIENT, CLIPS, APRIL.add(hours=24)) != first


START = builders.at("2023-03-09T23:00:00Z")
END = builders.at("2023-09-09T22:00:00Z")


@pytest.mark.parametrize(
    ("client", "at", "refused"),
    [
        ("192.0.2.7", START, True),
        ("2001:db8:1::7", START, True),
        ("192.0.2.7", START.subtract(nanoseconds=1), False),
        ("192.0.2.7", END.subtract(nanoseconds=1), True),
        ("192.0.2.7", END, False),
        ("198.51.100.7", START, False),
        ("no address", START, False),
        ("192.0.2.9", START, False),
        ("192.0.2.9", builders.at("2023-03-31T16:00:00Z"), True),
    ],
)
def test_refusal(client: str, at: Instant, refused: bool) -> None:
    """From the ban's start to its end, for its networks, except while an exemption holds."""
    ban = builders.ban(expires=builders.wall("2023-09-10T00:00"))
    snapshot = builders.snapshot(ban, exemptions=(builders.exemption(),))

    decision = decide_unreadable(snapshot, client, at, Reason.MISSING_SNI)

    assert (decision is not None) is refused
    if decision is not None:
        said = Decision(Verdict.BLOCK, Reason.MISSING_SNI, network="office", response=Response.REFUSE)
        assert decision == said, "it is no ban's refusal"
        assert decision.is_unreadable
        assert not replace(decision, ban="ban").is_unreadable
        assert not replace(decision, reason=Reason.UNKNOWN_CLIENT).is_unreadable
        assert not replace(decision, verdict=Verdict.ALLOW).is_unreadable


@pytest.mark.parametrize("stated", [{"action": Action.WARN}, {"action": Action.MONITOR}, {"announced": None}])
def test_milder_bans_refuse_nothing(stated: dict[str, Any]) -> None:
    """Only a ban that blocks has anything to protect."""
    expected = stated.get("action") is None
    snapshot = builders.snapshot(builders.ban(**stated))

    assert (decide_unreadable(snapshot, "192.0.2.7", START, Reason.ECH_OUTER) is not None) is expected
