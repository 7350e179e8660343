"""Verifies a log: the hash, number and position of every record, and the checkpoints in it and outside.

Reads in one pass and in constant memory. Each fault is reported with its position, and verification goes on.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tokgate.blocklog.integrity.chain_state import (
    CLOCK_TOLERANCE,
    Chain,
    Deletion,
    Deletions,
    Finding,
    FindingCode,
    changed,
    continues,
    follow,
    foreign,
    misfit,
    new_chain,
    signs_another,
)
from tokgate.blocklog.integrity.checkpoint import Checkpoint, checkpoint_of
from tokgate.blocklog.integrity.trusted_keys import (
    Attestations,
    ExternalCheckpoint,
    KeySuccessions,
    LinePosition,
    TrustedKeys,
)
from tokgate.blocklog.paths import PACKED, bare_name
from tokgate.blocklog.read.reader import LONGEST_LINE, UNREADABLE, OpenLog, decode_strictly, in_order, open_log
from tokgate.blocklog.records.chain import NO_HASH, Head, proper_hash, stated_head
from tokgate.blocklog.records.log_state import StrayLines
from tokgate.blocklog.records.record import EventAction, Record, instant_in, text_at, value_at

_TICK: Final = 10_000
MOST_OF_A_START: Final = 300
"""Most records after `started` without a checkpoint; the writer makes one after its first batch."""
_EXPANSION: Final = 200
"""How many times as long as the compressed file its lines may be: far more than any log's."""
_ROOM: Final = 256 << 20
"""Octets that are always read, four times a file's."""
_MOST_TORN: Final = 10_000
"""Lines in a row that are no records, after which the rest of a file is left."""
MOST_UNSIGNED: Final = 1_500
"""Most records in a row without a checkpoint; the writer makes one after a thousand."""
LONGEST_UNSIGNED: Final = 600.0
"""Longest time in seconds that the last records may span without a checkpoint; the writer makes one after 60."""


class Verifier:
    """Verifies the files of a log.

    `trusted` are public keys in base64, in the order in which they replaced each other; without any, the first key of
    each chain is trusted. `whole`: the files are the whole log, so a signed `log-deleted` record must name any earlier
    file.
    """

    def __init__(
        self,
        trusted: Sequence[str] = (),
        elsewhere: Iterable[ExternalCheckpoint] = (),
        opener: OpenLog = open_log,
        *,
        whole: bool = False,
        successions: Iterable[ExternalCheckpoint] = (),
        at_least: float = 0,
    ) -> None:
        """`elsewhere` are checkpoints from outside the log, `opener` opens its files.

        `successions` are those kept beside the log, which lead from the first key to the one in force where it begins.
        `at_least` is for how many days the policy has files kept; infinity: for good.
        """
        self.opener: Final = opener
        self._whole: Final = whole
        self.chains: Final[dict[str, Chain]] = {}
        self.lines = 0
        self.unfinished: LinePosition | None = None
        """The last file's last line, if it has no newline: its writer crashed, or is writing it now."""
        self._trust: Final = TrustedKeys(trusted)
        self.elsewhere: Final = Attestations(elsewhere, self._trust.accepts)
        self._successions: Final = KeySuccessions(successions, self._trust)
        self._torn_lines = TornLines()
        self._deletions: Final = Deletions(at_least)
        self.met: Callable[[Record, Head, str | None], None] = lambda *_: None
        """Called with each record of a chain, its head, and the hash before it, if that is known."""
        self.signed: Callable[[Chain, Checkpoint, str | None], None] = lambda *_: None
        """Called with each checkpoint, before the records that it covers are forgotten, and what is wrong with it."""
        self._access_files: Final[dict[str, tuple[str, LinePosition]]] = {}
        """The files that `access-log-rotated` records name, with their digests and where those records stand."""
        self._in_this_file: set[str] = set()

    def run(self, files: Iterable[Path], tick: Callable[[int], None] = lambda _: None) -> Iterator[Finding]:
        """All findings, in the order of the log. `tick` is called with the number of lines read. Raises OSError."""
        for path in in_order(files, self.opener):
            self._in_this_file = set()
            if path.is_dir():
                yield Finding(str(path), 1, FindingCode.UNREADABLE, "a folder stands in this file's place")
                continue
            with self.opener(path) as stream:
                number = octets = 0
                most = max(_ROOM, _EXPANSION * path.stat().st_size) if path.suffix in PACKED else math.inf
                try:
                    while raw := stream.readline(LONGEST_LINE):
                        number += 1
                        self.lines += 1
                        octets += len(raw)
                        if octets > most or len(self._torn_lines.lines) > _MOST_TORN:
                            raise ValueError("there is more of it than of any log that tokgate writes")
                        if self.lines % _TICK == 0:
                            tick(self.lines)
                        yield from self._line((str(path), number), raw)
                except (*UNREADABLE, ValueError) as error:
                    what = f"the rest can't be read, from octet {octets} of its lines on: {error}"
                    yield Finding(str(path), number + 1, FindingCode.UNREADABLE, what)
        if self._torn_lines.open_end and len(self._torn_lines.lines) == 1:
            self.unfinished = self._torn_lines.lines[0]
            self._torn_lines = TornLines()
        yield from self._unreported()
        for chain in self.chains.values():
            chain.deleted = None if chain.follows is None else self._deletion(chain.follows)
            yield from changed(chain, signed=None)
            yield from foreign(chain)
            for place in chain.runs.late:
                what = "no run wrote this: the last one had stopped and signed all its records, and none has started"
                yield Finding(*place, FindingCode.FOREIGN, what)
            yield from self._before(chain)
            yield from self._unsigned(chain, chain.place, ended=True)
        yield from self._looks()
        yield from self._taken_away()
        yield from self._cut()

    def _line(self, place: LinePosition, raw: bytes) -> Iterator[Finding]:
        record, repeated = decode_strictly(raw)
        if record is None:
            self._torn_lines.add(place, raw)
            return
        if repeated is not None:
            yield Finding(*place, FindingCode.CHANGED, f"the key {repeated!r} stands in it twice")
        head = stated_head(record)
        if head is None:
            yield from self._unreported()
            yield Finding(*place, FindingCode.UNCHAINED, "this record belongs to no chain: it was put in, or stripped")
            return
        yield from self._recovery(place, record, head)
        yield from self._record(place, record, head)
        self._in_this_file.add(head.chain)

    def _recovery(self, place: LinePosition, record: Record, head: Head) -> Iterator[Finding]:
        action = text_at(record, "event", "action")
        if action == EventAction.LOG_FOREIGN and self._torn_lines.is_reported_by(record, "foreign"):
            for each in self._torn_lines.lines:
                yield Finding(*each, FindingCode.FOREIGN, "tokgate did not write this, as a later record tells")
            self._torn_lines = TornLines()
        tells = action == EventAction.LOG_RECOVERED or (
            action == EventAction.LOG_CONTINUED and value_at(record, "tokgate", "torn") is not None
        )
        if action == EventAction.LOG_CONTINUED and not tells:  # the next record may tell that others wrote them
            self._torn_lines.open_end = False
        elif not tells:
            yield from self._unreported()
        elif self._torn_lines.is_reported_by(record):
            self._torn_lines = TornLines()
        else:
            known = self.chains.get(head.chain)
            before_is_here = known is not None and known.head.sequence == head.sequence - 1
            if self._torn_lines.lines or self._in_this_file or before_is_here:
                yield from self._unreported()
                yield Finding(*place, FindingCode.RECOVERY, "what this record says is torn before it is not there")

    def _unreported(self) -> Iterator[Finding]:
        """Findings for torn lines that no record mentions."""
        for place in self._torn_lines.lines:
            yield Finding(*place, FindingCode.TORN, "this is no record, and no recovery record tells of it")
        self._torn_lines = TornLines()

    def _record(self, place: LinePosition, record: Record, head: Head) -> Iterator[Finding]:
        chain, parent, finding = self.chains.get(head.chain), None, None
        if chain is None:
            before, finding = self._begin(place, record, head)
            chain = self.chains[head.chain] = new_chain(place, record, head)
        elif (parent := chain.recent.rival(record, head)) is not None:
            before = parent.head.hash
        else:
            before, finding = follow(chain, place, record, head)
        if self._in_this_file and head.chain not in self._in_this_file:
            yield Finding(
                *place, FindingCode.NEW_CHAIN, f"from here on there are records of another chain, {head.chain}"
            )
        if finding is not None:
            yield finding
            if finding.code is FindingCode.ORDER and before is None:
                return
        if before is not None and proper_hash(before, record) != head.hash:
            yield from misfit(chain, place, record, head)
        if chain.recent.head.place != place:
            chain.recent.add(head, place, parent)
        chain.head, chain.place, chain.records = head, place, chain.records + 1
        chain.latest = text_at(record, "@timestamp")
        chain.unsigned_since = chain.unsigned_since or chain.latest
        kept = self.elsewhere.against(head)
        if kept is not None:
            file, line = kept.place
            what = f"the checkpoint of {kept.checkpoint.at} ({file}:{line}) attests another record {head.sequence}"
            yield Finding(*place, FindingCode.CONTRADICTED, f"{what} than this one")
        yield from self._about_the_log(place, chain, record, before)

    def _about_the_log(
        self, place: LinePosition, chain: Chain, record: Record, before: str | None
    ) -> Iterator[Finding]:
        """Findings of a record about the log itself: a checkpoint, deleted files, what others wrote, the clock."""
        self.met(record, chain.head, before)
        if (what := chain.runs.add(record, place, chain.head.sequence)) is not None:
            yield Finding(*place, FindingCode.MISSING, what)
        match text_at(record, "event", "action"):
            case EventAction.LOG_CHECKPOINT:
                yield from self._checkpoint(place, chain, record, before)
            case EventAction.LOG_DELETED:
                for what in self._deletions.add(record, chain.head):
                    yield Finding(*place, FindingCode.DELETED, what)
            case EventAction.ACCESS_LOG_ROTATED:
                file, digest = (text_at(record, "tokgate", "access_log", key) for key in ("file", "sha256"))
                if file is not None and digest is not None:
                    self._access_files[Path(file).name] = digest, place
            case EventAction.LOG_FOREIGN | EventAction.LOG_CUT:
                yield Finding(
                    *place, FindingCode.FOREIGN, text_at(record, "message") or "the log was written by others"
                )
            case EventAction.CLOCK_SET_BACK:
                chain.clock.tell()

    def _begin(self, place: LinePosition, record: Record, head: Head) -> tuple[str | None, Finding | None]:
        """The hash before a chain's first record in these files, if it is known, and a finding, if there is one."""
        if head.sequence == 1:  # `_record` reports another chain in the middle of a file
            return NO_HASH, None
        continued = continues(record, head)
        if continued is not None and not self._in_this_file:
            return continued, None
        what = f"record {head.sequence} stands first: what came before it in its file is missing"
        return continued, Finding(*place, FindingCode.MISSING, what)

    def _checkpoint(self, place: LinePosition, chain: Chain, record: Record, before: str | None) -> Iterator[Finding]:
        checkpoint = checkpoint_of(chain.head.chain, value_at(record, "tokgate", "checkpoint"))
        if checkpoint is None or not checkpoint.genuine:
            what = "this checkpoint's signature is not genuine"
            if checkpoint is not None:
                self.signed(chain, checkpoint, what)
            yield Finding(*place, FindingCode.SIGNATURE, what)
            return
        if not self._trusted(chain, checkpoint):
            self.signed(chain, checkpoint, "this checkpoint is signed by a key that is not trusted here")
            if not chain.seal.is_strange(checkpoint):
                over = f"this checkpoint, over records {chain.seal.reach + 1} to {chain.head.sequence - 1}"
                what = f"{over}, is signed by a key that is not trusted here: {checkpoint.key}"
                also = "" if checkpoint.next_key is None else ", nor announced by a checkpoint before it"
                yield Finding(*place, FindingCode.KEY, what + also)
            return
        wrong = signs_another(chain, checkpoint, before)
        self.signed(chain, checkpoint, wrong)
        if wrong is not None:
            yield from changed(chain, signed=False)
            yield Finding(*place, FindingCode.SIGNATURE, wrong)
            if chain.key is not None:
                chain.seal.announce(checkpoint)
            return
        known = chain.misfits and checkpoint.tree is not None and chain.recent.hashes(checkpoint.tree.first)
        yield from changed(chain, signed=True if known else None)
        yield from self._unsigned(chain, place, ended=False)
        yield from foreign(chain)
        later = chain.clock.checkpoint(instant_in(checkpoint.at))
        if later is not None:
            what = f"time runs backwards: this checkpoint is of {checkpoint.at}, the one before it of {later}"
            yield Finding(*place, FindingCode.CLOCK, f"{what}, and no record tells that the clock was set back")
        chain.seal.by(checkpoint)
        chain.runs.signed()
        chain.unsigned_since = None

    def _trusted(self, chain: Chain, checkpoint: Checkpoint) -> bool:
        """Whether the key may sign here. Where the checkpoint that announced it is gone, a kept copy shows that."""
        if chain.key is None and not self._trust.knows(checkpoint):
            earliest = self._successions.lead_to(checkpoint, chain.first)
            if earliest is None:
                return False
            self._trust.add(checkpoint)
            chain.clock.latest, chain.clock.told = earliest, False
        if not self._trust.accepts(checkpoint):
            return False
        later = bool(self._trust) and checkpoint.epoch > chain.seal.epoch
        return self._trust.in_turn(chain.seal, checkpoint) or (later and self.elsewhere.holds(checkpoint))

    def _deletion(self, name: str) -> Deletion | None:
        """The record that says that tokgate deleted a file, if a checkpoint covers it."""
        said = self._deletions.named.get(bare_name(name))
        return said if said is not None and self._is_signed(said.head) else None

    def _looks(self) -> Iterator[Finding]:
        """Findings for files of who looked that differ, or in a whole log are gone although nothing says why."""
        for name, (digest, said) in self._access_files.items():
            beside = Path(said[0]).parent
            path = next((p for ending in ("", *PACKED) if (p := beside / f"{name}{ending}").exists()), None)
            if path is None:
                if self._whole and self._deletion(name) is None:
                    what = f"{name}, which says who looked into this log, is gone"
                    why = "no signed record tells that tokgate deleted it"
                    yield Finding(*said, FindingCode.MISSING, f"{what}, and {why}")
                continue
            try:
                with open_log(path) as stream:
                    same = hashlib.file_digest(stream, "sha256").hexdigest() == digest
            except UNREADABLE as error:
                yield Finding(str(path), 1, FindingCode.UNREADABLE, str(error))
                continue
            if not same:
                what = f"this file of who looked into the log is another than the record at {said[0]}:{said[1]} says"
                yield Finding(str(path), 1, FindingCode.CHANGED, what)

    def _is_signed(self, head: Head) -> bool:
        return head.sequence <= self.chains[head.chain].signed

    def _taken_away(self) -> Iterator[Finding]:
        """Findings for records that checkpoints elsewhere attest, and that were too late for retention to delete."""
        signed = [said.over for said in self._deletions.named.values() if self._is_signed(said.head)]
        over = max(signed).add(seconds=CLOCK_TOLERANCE) if signed else None
        attested = [*self._successions.followed.items()]
        for name, chain in self.chains.items():
            if chain.deleted is not None and (known := self.elsewhere.last_before(name, chain.first)) is not None:
                attested.append((name, known))
        for name, each in attested if self._whole else ():
            there = self.chains.get(name)
            here = there is not None and there.first <= each.sequence <= there.head.sequence
            if not here and (over is None or each.latest > over):
                what = f"records of chain {name} up to {each.sequence}, signed at {each.latest}, are not here"
                what = f"{what}, and no signed record tells that tokgate deleted what is so late"
                yield Finding(*each.place, FindingCode.MISSING, what)

    def _before(self, chain: Chain) -> Iterator[Finding]:
        """A finding if earlier files are missing from a whole log."""
        if self._whole and chain.follows is not None and not chain.deleted:
            gone = f"records 1 to {chain.first - 1} are not here (the last were in {chain.follows})"
            what = f"{gone}, and no signed record tells that tokgate deleted them"
            yield Finding(*chain.begins, FindingCode.MISSING, what)

    def _unsigned(self, chain: Chain, place: LinePosition, *, ended: bool) -> Iterator[Finding]:
        """A finding for records that have no checkpoint although the writer should have made one.

        Times are compared only at the chain's end, since a killed run may be followed by another days later.
        """
        if chain.key is None:  # never signed at all, which `_cut` reports
            return
        first, last = chain.seal.reach + 1, chain.head.sequence
        since, latest = instant_in(chain.unsigned_since), instant_in(chain.latest)
        seconds = (latest - since).total("seconds") if ended and since is not None and latest is not None else 0.0
        begun = chain.runs.begun if ended else None
        if begun is not None and last - begun >= MOST_OF_A_START:
            what = f"records {first} to {last} stand without a checkpoint, which is due at once after `started`"
            yield Finding(*place, FindingCode.UNSIGNED, f"{what}: nobody started tokgate, or it could not use its key")
        elif last - first >= MOST_UNSIGNED or seconds > LONGEST_UNSIGNED:
            what = f"records {first} to {last} stand without a checkpoint, which is due after 1,000 records or a minute"
            why = "they were written anew, or tokgate could not use its key"
            yield Finding(*place, FindingCode.UNSIGNED, f"{what}: {why}")

    def _cut(self) -> Iterator[Finding]:
        """Findings for attested records that are missing, and for chains that no trusted key signed."""
        for kept in self.elsewhere.last():
            last, head = kept.checkpoint, kept.checkpoint.head
            chain = self.chains.get(head.chain)
            if chain is None and self._trust:
                what = f"chain {head.chain}, attested up to record {head.sequence} by this checkpoint, is gone"
                yield Finding(*kept.place, FindingCode.CUT, what)
            elif chain is not None and head.sequence >= chain.head.sequence:
                # A checkpoint is sent once it is on the disk, as the record after the last that it attests.
                file, line = kept.place
                what = f"the checkpoint of {last.at} ({file}:{line}) attests record {head.sequence}"
                what = f"{what} and is record {head.sequence + 1} itself; the log ends here,"
                yield Finding(
                    *chain.place, FindingCode.CUT, f"{what} at record {chain.head.sequence}: its tail was cut"
                )
        for first, other in self.elsewhere.conflicts():
            file, line = first.place
            what = f"this checkpoint and that of {file}:{line} attest different records"
            number = f"{other.checkpoint.head.sequence} of chain {other.checkpoint.head.chain}"
            yield Finding(*other.place, FindingCode.CONTRADICTED, f"{what} {number}: the key signed two logs")
        for name, chain in self.chains.items():
            if self._trust and chain.key is None:
                what = f"no checkpoint of chain {name} is signed by the key that is trusted"
                yield Finding(*chain.place, FindingCode.KEY, what)


@dataclass(slots=True)
class TornLines:
    """Consecutive lines that are no records."""

    lines: list[LinePosition] = field(default_factory=list)
    content: StrayLines = field(default_factory=StrayLines)
    open_end: bool = False
    """Whether the last has no newline and may be the beginning of a record, or what a power failure leaves of one."""

    def add(self, place: LinePosition, raw: bytes) -> None:
        """Add the next line, `raw` with its newline if it has one."""
        self.lines.append(place)
        self.content.add(raw)
        self.open_end = not self.content.ended and raw[:1] in (b"{", b"\0")

    def is_reported_by(self, record: Record, field_name: str = "torn") -> bool:
        """Whether `tokgate.torn` of a record, or another field, tells of exactly these octets."""
        said, own = value_at(record, "tokgate", field_name), self.content.said()
        return isinstance(said, dict) and all(({"lines": 1} | said).get(key) == own[key] for key in own)
