"""What a refusal says, as facts without words or markup: taken from the ruling and the policy, for every format."""

from dataclasses import dataclass

from whenever import Instant

from tokgate.gate.enforcer import Ruling
from tokgate.policy.bans import Ban, EchOuter
from tokgate.policy.decision import Reason
from tokgate.policy.snapshot import Track


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """The facts of one refusal. Absent things are None; instants are shown in `zone`, that of the reader's network."""

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

    @property
    def status(self) -> int:
        """451 is for a legal mandate (RFC 7725); a refusal without one is a plain 403."""
        mandated = self.ban is not None and (self.ban.authority is not None or self.ban.basis is not None)
        return 451 if mandated else 403


def notice_of(ruling: Ruling, *, asked: str, event: str, implementer: str, opened: bool) -> Notice:
    """The facts of a ruling that blocks. `implementer` is the URI of who runs this filter."""
    decision, snapshot = ruling.decision, ruling.snapshot
    ban = snapshot.bans.get(decision.ban) if decision.ban is not None else None
    service = snapshot.policy.services.get(decision.service) if decision.service is not None else None
    track = _track(ruling, ban)
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


def _track(ruling: Ruling, ban: Ban | None) -> Track | None:
    """The ban in the time zone of the client's network."""
    tracks = [track for track in ruling.snapshot.tracks if ban is not None and track.ban.name == ban.name]
    return next((track for track in tracks if ruling.decision.network in track.networks), None)


def _inspects(ruling: Ruling) -> bool:
    """Whether anything that isn't refused may be opened for clients of this network now."""
    if ruling.snapshot.settings.ech_outer is EchOuter.INSPECT:
        return True
    inspecting = (track for track in ruling.snapshot.tracks if track.ban.inspect_stores)
    return any(t.schedule.standing(ruling.at).idle is None for t in inspecting if ruling.decision.network in t.networks)
