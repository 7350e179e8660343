"""The facts that a block page or warning states, without words or markup: the same for every format."""

from dataclasses import dataclass

from whenever import Instant

from tokgate.block_page.continue_form import Button
from tokgate.blocklog.records.requests import RequestState
from tokgate.policy.analysis.terms import Term, blocks_from, continued_until, earlier_terms
from tokgate.policy.bans import Ban
from tokgate.policy.decision import Reason
from tokgate.policy.schedule import Duration, Inactive, Schedule, add_duration
from tokgate.policy.settings import EchOuter
from tokgate.policy.snapshot import Track
from tokgate.policy.values import Language
from tokgate.traffic.enforcer import Ruling
from tokgate.traffic.refusal_texts import status_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """What a warning has besides the facts of its ban.

    `blocks_from` is when the ban blocks. `until` is where continuing would end if the form were submitted now. `token`
    and `target` are the form's.
    """

    blocks_from: Instant | None
    lasting: Duration
    until: Instant
    shortened: bool
    """The ban blocks or ends before `lasting` is over."""
    token: str
    target: str


@dataclass(frozen=True, slots=True)
class Request:
    """A person's own request, as the page tells of it."""

    id: str
    state: RequestState
    at: Instant
    until: Instant | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """The form to ask for an exception, and the last request of this person under the ban, if there is one."""

    token: str
    offered: tuple[Duration, ...]
    last: Request | None = None
    problem: str | None = None
    """Why a request was not taken: a key of the texts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """The facts of one refusal or warning. `zone` is the time zone in which to show instants."""

    asked: str
    service: str | None = None
    ban: Ban | None = None
    reason: Reason
    unreadable: bool = False
    """It was not understood where it leads: nothing is said of bans, services or addresses."""
    contact: str | None = None
    """Whom to ask about what was not understood."""
    since: Instant | None = None
    until: Instant | None = None
    pauses: Instant | None = None
    """When the window closes in which the ban applies now; None if the ban ends first, or has no windows."""
    overdue: bool = False
    earlier: tuple[Term, ...] = ()
    """The bans that this one extends, the latest first."""
    zone: str = "UTC"
    language: Language | None = None
    """The network's own."""
    opened: bool = False
    """This connection was opened, to show the page."""
    inspected: bool = False
    """The policy has other connections opened too, to see their requests."""
    event: str = ""
    """The id of its record, known once it is written."""
    implementer: str
    warning: Warned | None = None
    asking: Asking | None = None
    """None where nobody can ask."""

    @property
    def status(self) -> int:
        """The HTTP status of the page, as `status_of` says."""
        return status_of(self.ban, self.reason, warns=self.warning is not None)


def notice_of(ruling: Ruling, *, implementer: str, opened: bool) -> Notice:
    """The facts of a ruling that blocks or warns, without `event`. `implementer` is the URI of who runs the filter."""
    decision, snapshot = ruling.decision, ruling.snapshot
    service = None if decision.service is None else snapshot.policy.services.get(decision.service)
    network = None if decision.network is None else snapshot.policy.networks.get(decision.network)
    track, unreadable = track_of(ruling), decision.is_unreadable
    schedule = None if track is None else track.schedule
    tracks = (each for each in snapshot.tracks if unreadable and decision.network in each.networks)
    contact = next((each.ban.contact for each in tracks if each.ban.contact is not None), None)
    return Notice(
        asked="" if unreadable else ruling.sighting.value,
        service=None if service is None else service.title,
        ban=ruling.ban,
        reason=decision.reason,
        unreadable=unreadable,
        contact=contact,
        since=None if schedule is None else schedule.starts,
        until=None if schedule is None else schedule.ends,
        pauses=None if schedule is None else _pauses(schedule, ruling.at),
        overdue=decision.reason is Reason.BAN_OVERDUE,
        earlier=() if track is None else tuple(earlier_terms(snapshot.bans, track.ban, track.zone)),
        zone=track.zone if track is not None else network.timezone if network is not None else "UTC",
        language=None if network is None else network.language,
        opened=opened,
        inspected=_inspects(ruling),
        implementer=implementer,
    )


def track_of(ruling: Ruling) -> Track | None:
    """The ban in the time zone of the client's network."""
    decision = ruling.decision
    tracks = [track for track in ruling.snapshot.tracks if track.ban.name == decision.ban]
    return next((track for track in tracks if decision.network in track.networks), None)


def warned_of(track: Track, at: Instant, button: Button, token: str) -> Warned:
    """The facts of a warning at an instant."""
    until = continued_until(track, at)
    return Warned(
        blocks_from=blocks_from(track, at),
        lasting=track.ban.continue_for,
        until=until,
        shortened=until < add_duration(at, track.ban.continue_for, track.zone),
        token=token,
        target=button.target,
    )


def _pauses(schedule: Schedule, at: Instant) -> Instant | None:
    closes = schedule.weekly.closes(at)
    return closes if closes is not None and schedule.state_at(closes).idle is Inactive.OUTSIDE_WINDOW else None


def _inspects(ruling: Ruling) -> bool:
    """Whether anything that isn't refused may be opened for clients of this network now."""
    if ruling.snapshot.settings.ech_outer is EchOuter.INSPECT:
        return True
    inspecting = (track for track in ruling.snapshot.tracks if track.ban.inspect_stores)
    return any(t.schedule.state_at(ruling.at).idle is None for t in inspecting if ruling.decision.network in t.networks)
