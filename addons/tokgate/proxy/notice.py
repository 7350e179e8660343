"""What a refusal or a warning says, as facts without words or markup: from ruling and policy, for every format."""

from dataclasses import dataclass

from whenever import Instant

from tokgate.gate.enforcer import Ruling
from tokgate.policy.bans import Ban, EchOuter
from tokgate.policy.continuing import blocks_from, continued_until
from tokgate.policy.decision import Reason
from tokgate.policy.schedule import Duration, add_duration
from tokgate.policy.snapshot import Track
from tokgate.proxy.continuing import PATH, Button


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """What the page of a warning has beside the facts of its ban: when it blocks, and the button to continue.

    `until` is where continuing would end if the button were pressed now; `path`, `token` and `target` are the form's.
    """

    blocks_from: Instant | None
    lasting: Duration
    until: Instant
    shortened: bool
    """The ban blocks or ends before `lasting` is over."""
    path: str
    token: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """The facts of one refusal or warning. Absent things are None; instants are shown in `zone`, the reader's."""

    asked: str
    service: str | None = None
    ban: Ban | None = None
    reason: Reason
    since: Instant | None = None
    until: Instant | None = None
    overdue: bool = False
    zone: str = "UTC"
    opened: bool = False
    """This very connection was opened, to show the page."""
    inspected: bool = False
    """The policy has other connections opened too, to see what is asked for."""
    event: str
    implementer: str
    warning: Warned | None = None

    @property
    def status(self) -> int:
        """451 is for a legal mandate (RFC 7725); a refusal without one is a plain 403, and so is a warning.

        Nothing is denied for legal reasons where one may continue. Nor is it a success: what isn't read by a person
        (a prefetch, a download, a service worker's cache) must not take it for what was asked for.
        """
        mandated = self.ban is not None and (self.ban.authority is not None or self.ban.basis is not None)
        return 451 if mandated and self.warning is None else 403


def notice_of(ruling: Ruling, *, asked: str, event: str, implementer: str, opened: bool) -> Notice:
    """The facts of a ruling that blocks or warns. `implementer` is the URI of who runs this filter."""
    decision, snapshot = ruling.decision, ruling.snapshot
    ban = snapshot.bans.get(decision.ban) if decision.ban is not None else None
    service = snapshot.policy.services.get(decision.service) if decision.service is not None else None
    track = track_of(ruling)
    network = snapshot.policy.networks.get(decision.network) if decision.network is not None else None
    return Notice(
        asked=asked,
        service=service.title if service is not None else None,
        ban=ban,
        reason=decision.reason,
        since=track.schedule.starts if track is not None else None,
        until=track.schedule.ends if track is not None else None,
        overdue=decision.reason is Reason.BAN_OVERDUE,
        zone=track.zone if track is not None else network.timezone if network is not None else "UTC",
        opened=opened,
        inspected=_inspects(ruling),
        event=event,
        implementer=implementer,
    )


def track_of(ruling: Ruling) -> Track | None:
    """The ban in the time zone of the client's network."""
    decision = ruling.decision
    tracks = [track for track in ruling.snapshot.tracks if track.ban.name == decision.ban]
    return next((track for track in tracks if decision.network in track.networks), None)


def warned_of(track: Track, at: Instant, button: Button, token: str) -> Warned:
    """What a warning says at an instant."""
    until = continued_until(track, at)
    return Warned(
        blocks_from=blocks_from(track, at),
        lasting=track.ban.continue_for,
        until=until,
        shortened=until < add_duration(at, track.ban.continue_for, track.zone),
        path=PATH,
        token=token,
        target=button.target,
    )


def _inspects(ruling: Ruling) -> bool:
    """Whether anything that isn't refused may be opened for clients of this network now."""
    if ruling.snapshot.settings.ech_outer is EchOuter.INSPECT:
        return True
    inspecting = (track for track in ruling.snapshot.tracks if track.ban.inspect_stores)
    return any(t.schedule.standing(ruling.at).idle is None for t in inspecting if ruling.decision.network in t.networks)
