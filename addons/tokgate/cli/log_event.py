"""Decides an event of the block log again, and compares the decisions."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tokgate.analytics.sources import each_line_once
from tokgate.blocklog.read.replay_query import RecordedQuery, alias_of, find, is_traffic, recorded
from tokgate.blocklog.records.record import text_at
from tokgate.cli.decision_query import identified, outcome
from tokgate.cli.exits import CommandError, Exit
from tokgate.cli.log.output import require
from tokgate.cli.log.verify_files import opener_of
from tokgate.cli.terminal import shown
from tokgate.policy.decision import Decision
from tokgate.policy.snapshot import Snapshot
from tokgate.policy.values.text import utc

_COMPARED: Final = (
    "verdict",
    "reason",
    "phase",
    "service",
    "rule",
    "signal",
    "network",
    "ban",
    "exemption",
    "response",
)
"""What a record and a decision both say."""


def find_event(logs: Sequence[Path], event: str, client: str | None) -> RecordedQuery:
    """The event with an id. If it is missing, or can't be decided again, the command ends.

    `client` is the address behind a pseudonym or a prefix in the log.
    """
    require(list(logs), rotated=True)
    files = each_line_once(logs)
    line = find(files, event.strip().lower(), opener_of(files))
    if line is None:
        where = ", ".join(str(path) for path in logs)
        raise CommandError(f"no event {shown(event)} in {shown(where)} nor in what was rotated from it", Exit.FINDINGS)
    hidden = alias_of(line.record)
    if hidden is not None and client is None:
        raise CommandError(f"the log shows the client only as {shown(hidden)}: give its address with --client")
    if hidden is None and client is not None:
        raise CommandError("the log says who the client was: --client is for those that it does not name", Exit.USAGE)
    found = recorded(line, client)
    if found is None:
        about = "it lacks what was asked for" if is_traffic(line.record) else "it is about tokgate itself, not traffic"
        raise CommandError(f"{line.file}:{line.number}: the event can't be decided again: {about}", Exit.FINDINGS)
    return found


@dataclass(frozen=True, slots=True)
class Recollection:
    """An event, and the decision of a snapshot about it."""

    event: RecordedQuery
    snapshot: Snapshot
    decision: Decision

    @property
    def same_policy(self) -> bool:
        """Whether the snapshot is of the policy that decided the event."""
        return self.event.version == self.snapshot.version

    @property
    def agrees(self) -> bool:
        """Whether both decisions agree, in the verdict and in each reason for it."""
        return not self._differences

    @property
    def _differences(self) -> list[str]:
        now = outcome(self.decision)
        return [key for key in _COMPARED if self.event.field(key) != now[key]]

    @property
    def differences(self) -> list[tuple[str, object, object]]:
        """The fields in which record and decision differ, with both values."""
        logged, now = self._logged(), outcome(self.decision)
        return [(key, logged[key], now[key]) for key in self._differences]

    def lines(self, source: str, found: str | None) -> Iterator[str]:
        """The event and its differences as lines of text, then an empty line.

        `found` is where the policies of the log are, unless they are those of `source`.
        """
        event, line = self.event, self.event.line
        logged = self._logged()
        yield f"event {text_at(line.record, 'event', 'id')} [{line.file}:{line.number}]"
        yield f"logged: {shown(text_at(line.record, 'message') or '')}"
        if event.count > 1:
            yield f"stands for {event.count} events, the first of them explained here"
        yield f"logged: {' '.join(f'{key}={shown(str(value))}' for key, value in logged.items() if value is not None)}"
        if self.same_policy:
            yield f"policy: {self.snapshot.version}, the one that decided it"
        else:
            named, here = shown(event.version or "none"), self.snapshot.version
            yield f"policy: NOT the one that decided it: the log names {named}, {shown(source)} is {here}"
            if found is not None:
                yield f"        that one is in git: --policies {shown(found)}"
            else:
                yield "        name the revision that was in force then: --policies REV:DIR"
        if self.agrees:
            yield "decided the same again:" if self.same_policy else "it decides the same:"
        else:
            changes = (f"{key} {before or 'none'} -> {now or 'none'}" for key, before, now in self.differences)
            yield f"DECIDED OTHERWISE: {', '.join(shown(change) for change in changes)}"
            if any(sighting.signal.is_url for sighting in event.sightings):
                yield "(the log keeps no query of a URL: a rule for a store listing may depend on it)"
        yield ""

    def _logged(self) -> dict[str, str | None]:
        return {key: self.event.field(key) for key in _COMPARED}

    def document(self) -> dict[str, Any]:
        """The JSON of `explain`, preceded by the event. `host` is the name that was decided about."""
        event = self.event
        return {
            "event": {
                "id": text_at(event.line.record, "event", "id"),
                "file": event.line.file,
                "line": event.line.number,
                "count": event.count,
                "policy": event.version,
                "logged": self._logged(),
                "seen": [{"signal": each.signal, "value": each.value} for each in event.sightings],
            },
            "policy": self.snapshot.version,
            "same_policy": self.same_policy,
            "agrees": self.agrees,
            "client": event.client,
            "host": event.sightings[0].value,
            "at": utc(event.at),
            **identified(event.identity),
            **outcome(self.decision),
        }
