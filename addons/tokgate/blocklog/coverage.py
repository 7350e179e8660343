"""How much of the traffic could be judged: counts by network and visibility, their sum in words, and their record."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from whenever import Instant

from tokgate.blocklog.document import EventAction, Record, frame, timestamp
from tokgate.blocklog.observation import Visibility
from tokgate.blocklog.stamp import Stamp

type Coverage = Mapping[str, Mapping[str, int]]
"""Connections and requests, by network and visibility."""

_BY_NAME: Final = frozenset({Visibility.SNI, Visibility.QUIC_SNI, Visibility.DECRYPTED, Visibility.DNS})
_UNSEEN: Final = {
    Visibility.ADDRESS: "judged by address alone, since what they spoke shows no name",
    Visibility.NONE: "TLS that named no host",
    Visibility.ECH_OUTER: "TLS whose real name was encrypted (ECH)",
}
NOT_COUNTED: Final = "What does not pass through tokgate is not counted."


@dataclass(frozen=True, slots=True)
class Share:
    """What could be seen of some traffic, by visibility; words that aren't known count as unseen."""

    seen: Mapping[str, int]

    @property
    def total(self) -> int:
        """All of it."""
        return sum(self.seen.values())

    @property
    def named(self) -> int:
        """What showed the name that it was for, so that a ban on names could judge it."""
        return sum(number for visibility, number in self.seen.items() if visibility in _BY_NAME)

    @property
    def percent(self) -> str:
        """The share that was named, never rounded up to 100."""
        if not self.total:
            return "–"
        share = self.named * 1000 // self.total / 10
        return f"{share:g} %"

    def sentences(self) -> tuple[str, ...]:
        """What was judged, and what was not seen."""
        if not self.total:
            return ("Nothing passed or was refused.", NOT_COUNTED)
        if self.named == self.total:
            return (f"All of {_number(self.total)} showed a name, by which they were judged.", NOT_COUNTED)
        unseen = [f"{self.seen[word]:,} {what}" for word, what in _UNSEEN.items() if self.seen.get(word)]
        other = self.total - self.named - sum(self.seen.get(word, 0) for word in _UNSEEN)
        if other:
            unseen.append(f"{other:,} of which this version doesn't know what was seen")
        return (
            f"Of {_number(self.total)} {self.percent} showed a name, by which they were judged.",
            f"Not seen by name: {'; '.join(unseen)}.",
            NOT_COUNTED,
        )


def _number(total: int) -> str:
    return "1 connection or request" if total == 1 else f"{total:,} connections and requests"


def share_of(coverage: Coverage) -> Share:
    """Over all networks."""
    seen: Counter[str] = Counter()
    for visible in coverage.values():
        seen.update(visible)
    return Share(seen)


def coverage_counted(stamp: Stamp, coverage: Coverage, since: Instant) -> Record:
    """What passed or was refused from `since` to the record's own instant; nothing is told with a 0."""
    until = timestamp(stamp.at)
    message = " ".join((f"From {timestamp(since)} to {until}:", *share_of(coverage).sentences()))
    record = frame(stamp, EventAction.COVERAGE_COUNTED, message, category=("network",), kinds=("info",))
    counts = {network: dict(visible) for network, visible in sorted(coverage.items())}
    share = share_of(coverage)
    judged = {"total": share.total, "named": share.named}
    if share.total:
        judged["percent"] = share.named * 100 // share.total
    return record | {"tokgate": {"coverage": counts, "judged": judged, "since": timestamp(since)}}
