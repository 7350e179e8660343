"""What the review page asks of the policies: why a line was decided so, as `explain --event` tells; phases of bans."""

from collections import OrderedDict
from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING, Final

from whenever import Instant, TimeDelta

from tokgate.blocklog.reader import Line, text_at
from tokgate.cli.exits import CommandError
from tokgate.cli.queries import judge, zone_of
from tokgate.cli.recollection import Recollection
from tokgate.cli.recorded import disguise, is_traffic, recorded
from tokgate.cli.revisions import find_revision, open_source
from tokgate.cli.steps import steps
from tokgate.cli.terminal import shown
from tokgate.policy.decision import Decision
from tokgate.policy.instants import both
from tokgate.policy.snapshot import Snapshot
from tokgate.review.lanes import Lane, lanes_of_policy
from tokgate.review.web.trace import Explanation

if TYPE_CHECKING:
    from tokgate.cli.recorded import Recorded

REMEMBERED: Final = 8
"""Policies of other versions that are kept, and versions that are known not to be found."""
_FRESH_FOR: Final = TimeDelta(seconds=10)
"""How long the policies at hand are taken to be as they were read."""
_NOT_FOUND_FOR: Final = TimeDelta(minutes=10)
"""How long a version that git did not have is not looked for again."""


class PolicyCounsel:
    """Answers from the policies of a source, and where a line names another version from git's revisions of them.

    Reading a revision changes the working directory for a moment: one thread at a time may ask.
    """

    def __init__(self, source: str) -> None:
        """Nothing is read before somebody asks."""
        self._source: Final = source
        self._present: tuple[Instant, Snapshot | str] | None = None
        self._past: Final[OrderedDict[str, tuple[Instant, tuple[str, Snapshot] | None]]] = OrderedDict()

    def explain(self, line: Line) -> Explanation:
        """Decide a line again, by the policy that it names where that is to be had."""
        hidden = disguise(line.record)
        if not is_traffic(line.record):
            return Explanation(notes=("This line is about tokgate itself: nothing was decided.",))
        if hidden is not None:
            return Explanation(notes=(_needs_address(line, hidden),))
        event = recorded(line)
        if event is None:
            return Explanation(warnings=("The line lacks what was asked for, so it can't be decided again.",))
        present = self._here()
        if isinstance(present, Snapshot) and present.version == event.version:
            return _explanation(event, present, self._source)
        past = self._of_version(event.version) if event.version is not None else None
        if past is not None:
            return _explanation(event, past[1], past[0])
        if isinstance(present, Snapshot):
            return _explanation(event, present, self._source)
        return Explanation(warnings=(present,))

    def lanes(self, start: datetime, end: datetime, bans: frozenset[str]) -> tuple[list[Lane], str]:
        """Where bans stood, those of `bans` first; and whose word that is."""
        present = self._here()
        if not isinstance(present, Snapshot):
            return [], ""
        lanes = lanes_of_policy(present, start, end)
        concerned = [lane for lane in lanes if lane.ban in bans]
        return concerned, f"by the policies as they are now, version {present.version}" if concerned else ""

    def _here(self) -> Snapshot | str:
        """The policies at hand, or why there are none."""
        now = Instant.now()
        if self._present is None or now - self._present[0] > _FRESH_FOR:
            try:
                self._present = now, open_source(self._source, now)
            except (CommandError, OSError) as error:
                self._present = now, f"This can't be explained: {shown(str(error))}."
        return self._present[1]

    def _of_version(self, version: str) -> tuple[str, Snapshot] | None:
        now = Instant.now()
        known = self._past.get(version)
        if known is not None and (known[1] is not None or now - known[0] < _NOT_FOUND_FOR):
            return known[1]
        found = find_revision(self._source, version, now)
        try:
            snapshot = None if found is None else (found, open_source(found, now))
        except CommandError:
            snapshot = None
        self._past[version] = now, snapshot
        while len(self._past) > REMEMBERED:
            self._past.popitem(last=False)
        return snapshot


def _needs_address(line: Line, hidden: str) -> str:
    event = shown(text_at(line.record, "event", "id") or "")
    return (
        f"The log names this client only as {shown(hidden)}, and so does this page. Who may know the address can "
        f"decide the line again with it: tokgate explain --event {event} --client ADDRESS"
    )


def _explanation(event: "Recorded", snapshot: Snapshot, source: str) -> Explanation:
    decision = judge(snapshot, event).decision
    comparison = Recollection(event, snapshot, decision)
    membership = snapshot.membership(event.client)
    return Explanation(
        verdict=str(decision.verdict),
        said=tuple(_said(event, snapshot, decision, zone_of(snapshot, membership))),
        notes=tuple(_notes(comparison, source)),
        warnings=tuple(_warnings(comparison, source)),
        steps=tuple(steps(snapshot, event)),
    )


def _notes(comparison: Recollection, source: str) -> Iterator[str]:
    if comparison.same_policy:
        yield f"By the policy that decided it: version {comparison.snapshot.version}, {shown(source)}."
    if comparison.event.count > 1:
        yield f"The line stands for {comparison.event.count} events; the first of them is explained."


def _warnings(comparison: Recollection, source: str) -> Iterator[str]:
    if not comparison.same_policy:
        named = shown(comparison.event.version or "none")
        yield (
            f"Not by the policy that decided it: the line names version {named}, which is not to be had here; "
            f"{shown(source)} is {comparison.snapshot.version}."
        )
    if not comparison.agrees:
        changes = "; ".join(
            f"{key}: {shown(str(was))}, now {shown(str(now))}" for key, was, now in comparison.differences
        )
        yield f"Decided otherwise now than the line says: {changes}."


def _said(event: "Recorded", snapshot: Snapshot, decision: Decision, zone: str) -> Iterator[str]:
    asked = " ".join(shown(part) for part in (event.client, *(sighting.value for sighting in event.sightings)))
    yield f"{asked} ({decision.reason})"
    yield f"at {both(event.at, zone)}"
    if decision.ban is not None:
        ban = snapshot.bans[decision.ban]
        yield f"ban {ban.name}: " + "; ".join(part for part in (ban.title, ban.authority, ban.basis) if part)
    change = decision.next_change
    yield f"next change: {'none' if change is None else both(change, zone)}"
