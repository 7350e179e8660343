"""Coverage: counts of traffic by network and visibility, the share that showed a name, and their record."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from whenever import Instant

from tokgate.blocklog.records.record import EventAction, Record, Stamp, frame, timestamp
from tokgate.policy.analysis.now import Now
from tokgate.policy.observation import KernelRefusal, Visibility

type Coverage = Mapping[str, Mapping[str, int]]
"""Connections and requests, by network and visibility."""

_BY_NAME: Final = frozenset({Visibility.SNI, Visibility.QUIC_SNI, Visibility.DECRYPTED, Visibility.DNS})
_UNSEEN: Final = {
    Visibility.ADDRESS: "judged by address alone",
    Visibility.UNREADABLE: "that might be TLS, QUIC or HTTP and can't be read",
    Visibility.NONE: "TLS that named no host",
    Visibility.ECH_OUTER: "TLS whose real name was encrypted (ECH)",
}
_REFUSED: Final = {
    KernelRefusal.QUIC: "of QUIC to port 443",
    KernelRefusal.QUIC_OTHER_PORTS: "of QUIC to other ports",
    KernelRefusal.UDP_TO_ADDRESSES: "of UDP to banned addresses",
    KernelRefusal.TCP_PAST_GATES: "of TCP connections that no gate had",
    KernelRefusal.NOT_EXCEPTED: "under a ban on all, of what no gate takes",
    KernelRefusal.UNKNOWN_CLIENTS: "of clients in no network",
    KernelRefusal.DESTINATION_FAILED: "to destinations that had just failed",
    KernelRefusal.DIALLED_DIRECTLY: "to the gates' own ports",
}
MAX_BANS: Final = 100
"""Bans in force that a record names; the rest is counted."""
NOT_COUNTED: Final = "What does not pass through tokgate is not counted."


@dataclass(frozen=True, slots=True)
class Share:
    """Counts of some traffic by visibility; an unknown visibility counts as without a name."""

    seen: Mapping[str, int]

    @property
    def total(self) -> int:
        """Connections and requests of all visibilities."""
        return sum(self.seen.values())

    @property
    def named(self) -> int:
        """Those that showed a name, so that bans on names could apply."""
        return sum(number for visibility, number in self.seen.items() if visibility in _BY_NAME)

    @property
    def percent(self) -> str:
        """The share that showed a name, rounded down to a tenth of a percent; `–` without traffic."""
        if not self.total:
            return "–"
        share = self.named * 1000 // self.total / 10
        return f"{share:g} %"

    def sentences(self) -> tuple[str, ...]:
        """The share that showed a name, the rest by visibility, and what isn't counted, in English."""
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
    """The counts by visibility, summed over all networks."""
    seen: Counter[str] = Counter()
    for visible in coverage.values():
        seen.update(visible)
    return Share(seen)


def coverage_counted(
    stamp: Stamp,
    coverage: Coverage,
    since: Instant,
    refused: Mapping[str, int] = MappingProxyType({}),
    unreadable: int = 0,
    now: Now | None = None,
) -> Record:
    """The record of coverage from `since` to the record's own instant, and of what holds `now`.

    `refused`: packets, by the kernel, by kind. `unreadable`: refused because it can't be read or hides its destination.
    """
    until = timestamp(stamp.at)
    share = share_of(coverage)
    sentences = [f"From {timestamp(since)} to {until}:", *share.sentences()]
    if unreadable:
        sentences.append(f"Refused under no ban, since it could not be read: {unreadable:,}.")
    if refused:
        kinds = "; ".join(f"{number:,} {_REFUSED[KernelRefusal(kind)]}" for kind, number in refused.items())
        sentences.append(f"Packets that the kernel refused, and no gate saw: {kinds}.")
    if now is not None:
        sentences += [f"Then {now.summary}.", *(f"{each.sentence}." for each in now.opened)]
    record = frame(stamp, EventAction.COVERAGE_COUNTED, " ".join(sentences), category=("network",), kinds=("info",))
    counts = {network: dict(visible) for network, visible in sorted(coverage.items())}
    judged = {"total": share.total, "named": share.named}
    if share.total:
        judged["percent"] = share.named * 100 // share.total
    kernel = {"gateway": {"refused": dict(refused)}} if refused else {}
    own = {"coverage": counts, "judged": judged, "since": timestamp(since)} | kernel
    own |= {"unreadable": unreadable} if unreadable else {}
    return record | {"tokgate": own | ({} if now is None else _in_force(now))}


def _in_force(now: Now) -> dict[str, list[str]]:
    """The bans in force, and the networks that exemptions open as a whole, in words."""
    bans = [f"{each.phase}: {each.ban.name} for {', '.join(each.networks)}" for each in now.in_force]
    more = [f"and {len(bans) - MAX_BANS} more"] if len(bans) > MAX_BANS else []
    found = {"in_force": [*bans[:MAX_BANS], *more], "open": [each.sentence for each in now.opened]}
    return {key: told for key, told in found.items() if told}
