"""An event of the block log, and what policies decide of it now: whether they are the same, and agree."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tokgate.blocklog.reader import text_at, with_rotated
from tokgate.cli.exits import CommandError, Exit
from tokgate.cli.log_output import require
from tokgate.cli.queries import identified, outcome
from tokgate.cli.recorded import Recorded, disguise, find, is_traffic, recorded
from tokgate.cli.terminal import shown
from tokgate.policy.decision import Decision, Signal
from tokgate.policy.instants import utc
from tokgate.policy.snapshot import Snapshot

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


def find_event(logs: Sequence[Path], event: str, client: str | None) -> Recorded:
    """The event with that id; one that is not there, or that can't be decided again, ends the command.

    `client` is the address behind a pseudonym or a prefix.
    """
    require(list(logs), rotated=True)
    line = find([path for log in logs for path in with_rotated(log)], event.strip().lower())
    if line is None:
        where = ", ".join(str(path) for path in logs)
        raise CommandError(f"no event {shown(event)} in {shown(where)} nor in what was rotated from it", Exit.FINDINGS)
    hidden = disguise(line.record)
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

    event: Recorded
    snapshot: Snapshot
    decision: Decision

    @property
    def same_policy(self) -> bool:
        """Whether the snapshot is of the policy that decided the event."""
        return self.event.version == self.snapshot.version

    @property
    def agrees(self) -> bool:
        """Whether both say the same, in verdict and in every reason for it."""
        return not self._differences

    @property
    def _differences(self) -> list[str]:
        now = outcome(self.decision)
        return [key for key in _COMPARED if self.event.said(key) != now[key]]

    @property
    def differences(self) -> list[tuple[str, object, object]]:
        """What the record says, and what is decided now, where they differ."""
        logged, now = self._logged(), outcome(self.decision)
        return [(key, logged[key], now[key]) for key in self._differences]

    def lines(self, source: str, found: str | None) -> Iterator[str]:
        """What the log says, whether these are its policies, and where they differ; then an empty line.

        `found` is where the policies of the log are, if they are not those of `source`.
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
            changes = (f"{key} {logged[key]} -> {outcome(self.decision)[key]}" for key in self._differences)
            yield f"DECIDED OTHERWISE: {', '.join(shown(change) for change in changes)}"
            if any(sighting.signal is Signal.URL for sighting in event.sightings):
                yield "(the log keeps no query of a URL: a rule for a store listing may depend on it)"
        yield ""

    def _logged(self) -> dict[str, str | None]:
        return {key: self.event.said(key) for key in _COMPARED}

    def document(self) -> dict[str, Any]:
        """As explain's JSON, with the event before it. `host` is what the decision was about."""
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
