"""The one decide: every step of the precedence, and every reason."""

import pytest
from whenever import Time, Weekday

from labs.builders import OFFICE, at, ban, exemption, network, service, snapshot, wall
from tokgate.policy.bans import Action
from tokgate.policy.decide import Sighting, decide, decide_on_error, decide_signals, decide_unreadable
from tokgate.policy.decision import Reason, Response, Signal, Verdict
from tokgate.policy.schedule import Window
from tokgate.policy.settings import OnError
from tokgate.policy.snapshot import Snapshot

CLIENT = "192.0.2.1"
CLIPS = "www.clips.example.org"
APRIL = at("2023-04-15T10:00Z")


NIGHTS = (Window(frozenset(Weekday), Time(22), Time(6)),)


def test_a_client_without_an_address() -> None:
    assert decide(snapshot(ban()), "not an address", CLIPS, APRIL).reason is Reason.INVALID_CLIENT


def test_exemption_ends_by_itself() -> None:
    """The named client passes until the exemption's end; its neighbour never does. A replay asks about the past."""
    policy = snapshot(ban(), exemptions=(exemption(starts=wall("2023-03-20T09:00")),))
    press, starts, ends = "192.0.2.9", at("2023-03-20T08:00Z"), at("2023-03-31T16:00Z")
    before = decide(policy, press, CLIPS, starts.subtract(nanoseconds=1))
    assert (before.verdict, before.next_change) == (Verdict.BLOCK, starts)
    during = decide(policy, press, CLIPS, starts)
    assert (during.verdict, during.reason, during.exemption) == (Verdict.ALLOW, Reason.EXEMPT, "press")
    assert during.next_change == ends
    assert decide(policy, press, CLIPS, ends).verdict is Verdict.BLOCK
    assert decide(policy, CLIENT, CLIPS, starts).verdict is Verdict.BLOCK
    assert decide(policy, press, CLIPS, starts) == during
    refused = [decide_unreadable(policy, press, each, Reason.MISSING_SNI) for each in (APRIL, starts, ends)]
    assert [each is not None for each in refused] == [True, False, True]


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
