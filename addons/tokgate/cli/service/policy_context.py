"""Answers the review page from policies: explanations as of `explain --event`, and phases of bans."""

from collections.abc import Collection
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from whenever import Instant, TimeDelta

from tokgate.analytics.report.report_data import BanPhases, phases_of_policy
from tokgate.blocklog.read.reader import Line
from tokgate.blocklog.read.replay_query import alias_of, is_traffic, is_unreadable, recorded
from tokgate.blocklog.records.record import text_at
from tokgate.cli.commands import CommandError
from tokgate.cli.decision_query import judge
from tokgate.cli.decision_steps import steps
from tokgate.cli.policy.explain import Recollection, said
from tokgate.cli.policy_source import find_revision, open_source
from tokgate.cli.terminal import visible
from tokgate.policy.analysis.now import now_of
from tokgate.policy.snapshot import Snapshot
from tokgate.webui.context import Devices, Explanation

if TYPE_CHECKING:
    from tokgate.blocklog.read.replay_query import RecordedQuery

SHOWN: Final = 10
"""Bans in force that the page names."""
REMEMBERED: Final = 8
"""Policies of other versions that are kept, and versions that are not found."""
_FRESH_FOR: Final = TimeDelta(seconds=10)
"""How long the current policies are cached."""
_SEARCHED: Final = 600
"""Seconds after which another version is searched for again."""


class PolicyExplainer:
    """Answers from the policies of a source. If a line names another version, git's revisions are searched for it.

    Not thread-safe.
    """

    def __init__(self, source: str) -> None:
        """The policies are read at the first call."""
        self._source: Final = source
        self._present: tuple[Instant, Snapshot | str] | None = None
        self._devices: tuple[Snapshot, Devices] | None = None
        self._of_version: Final = lru_cache(maxsize=REMEMBERED)(self._found)

    def explain(self, line: Line) -> Explanation:
        """Decide again what the line records, by the policy version that it names if that is available."""
        hidden = alias_of(line.record)
        if is_unreadable(line.record):
            return Explanation(notes=("It could not be read where this led, and no ban refused it.",))
        if not is_traffic(line.record):
            return Explanation(notes=("This line is about tokgate itself: nothing was decided.",))
        if hidden is not None:
            how = f"tokgate explain --event {visible(text_at(line.record, 'event', 'id') or '')} --client ADDRESS"
            why = f"The log names this client only as {visible(hidden)}, and so does this page"
            return Explanation(notes=(f"{why}. Who may know the address can decide the line again with it: {how}",))
        event = recorded(line)
        if event is None:
            return Explanation(warnings=("The line lacks what was asked for, so it can't be decided again.",))
        present = self._here()
        if isinstance(present, Snapshot) and present.version == event.version:
            return _explanation(event, present, self._source)
        now = Instant.now()
        past = None if event.version is None else self._of_version(event.version, now.timestamp() // _SEARCHED)
        if past is not None:
            return _explanation(event, past[1], past[0])
        if isinstance(present, Snapshot):
            return _explanation(event, present, self._source)
        return Explanation(warnings=(present,))

    def lanes(self, start: datetime, end: datetime, bans: frozenset[str]) -> tuple[list[BanPhases], str]:
        """The phases of bans in `[start, end)`, those of `bans` first, and a text that names their source."""
        present = self._here()
        if not isinstance(present, Snapshot):
            return [], ""
        lanes = phases_of_policy(present, start, end)
        concerned = [lane for lane in lanes if lane.ban in bans]
        return concerned, f"by the policies as they are now, version {present.version}" if concerned else ""

    def now(self) -> tuple[str, ...]:
        """What holds by the current policies, as `tokgate status` has it; none without policies."""
        present = self._here()
        if not isinstance(present, Snapshot):
            return ()
        now = now_of(present, Instant.now())
        return (now.summary, *now.sentences(SHOWN))

    def devices(self, clients: Collection[str]) -> Devices:
        """The names that inventories have for these addresses, and the zones of all networks."""
        present = self._here()
        if not isinstance(present, Snapshot):
            return Devices()
        if self._devices is None or self._devices[0] is not present:
            networks = present.policy.networks.values()
            named = [(each.name, each.addresses) for network in networks for each in network.devices]
            names = {str(prefix.network_address): name for name, prefixes in named if name for prefix in prefixes}
            self._devices = present, Devices(names, tuple(sorted({network.timezone for network in networks})))
        known = self._devices[1]
        return Devices({client: known.names[client] for client in clients if client in known.names}, known.zones)

    def _here(self) -> Snapshot | str:
        """The current policies, or why they can't be used."""
        now = Instant.now()
        if self._present is None or now - self._present[0] > _FRESH_FOR:
            try:
                self._present = now, open_source(self._source, now)
            except (CommandError, OSError) as error:
                self._present = now, f"This can't be explained: {visible(str(error))}."
        return self._present[1]

    def _found(self, version: str, _: int) -> tuple[str, Snapshot] | None:
        found = find_revision(self._source, version, Instant.now())
        with suppress(CommandError):
            return None if found is None else (found, open_source(found, Instant.now()))
        return None


def _explanation(event: "RecordedQuery", snapshot: Snapshot, source: str) -> Explanation:
    recalled = Recollection(event, snapshot, source, judge(snapshot, event).decision)
    return Explanation(
        verdict=str(recalled.decision.verdict),
        said=tuple(said(snapshot, event, recalled.decision)),
        notes=tuple(recalled.notes),
        warnings=tuple(recalled.warnings),
        steps=tuple(steps(snapshot, event)),
    )
