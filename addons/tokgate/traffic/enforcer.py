"""Enforces the policy on live traffic: calls `decide`, handles its failures, counts, and writes records.

All traffic passes here, so that a failing decision never lets traffic pass unnoticed.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final, Protocol

from whenever import Instant

from tokgate.blocklog.records import lifecycle
from tokgate.blocklog.records.ecs_fields import folded_name
from tokgate.blocklog.records.folding import Fold, Folding, Shares, key_of
from tokgate.blocklog.records.record import Observer, Record, Stamp, new_stamp
from tokgate.blocklog.records.traffic import is_notable, repeats_record, traffic_record
from tokgate.policy import decide as core
from tokgate.policy.bans import Ban
from tokgate.policy.decide import Judgement, Sighting
from tokgate.policy.decision import Decision, Reason, Response, Signal, Verdict
from tokgate.policy.membership import Identity
from tokgate.policy.observation import Observation, Stage, Visibility
from tokgate.policy.settings import OnError
from tokgate.policy.snapshot import Snapshot
from tokgate.policy.values.hostname import load_suffix_list
from tokgate.traffic.counters import ERROR, UNREADABLE, Counters
from tokgate.traffic.limits import RECORDS_A_MINUTE, client_key
from tokgate.traffic.warning_state import WarnedClients


class SnapshotSource(Protocol):
    """The source of the policy in force: `config.reload.holder.PolicyHolder` in production."""

    @property
    def snapshot(self) -> Snapshot:
        """The current one; it may be another at each reading."""


class RecordSink(Protocol):
    """The destination of records: `blocklog.write.writer.LogWriter` in production."""

    def put(self, record: Record) -> bool:
        """Take a record without waiting; False if it was dropped."""


@dataclass(frozen=True, slots=True)
class Ruling(Judgement):
    """A judgement with the policy and the instant that it rests on."""

    snapshot: Snapshot
    at: Instant

    @property
    def ban(self) -> Ban | None:
        """The ban that the decision names; None without one."""
        return None if self.decision.ban is None else self.snapshot.bans.get(self.decision.ban)

    @property
    def blocks(self) -> bool:
        """Whether the traffic must not reach its destination."""
        return self.decision.verdict is Verdict.BLOCK


@dataclass(frozen=True, slots=True)
class _First:
    """An event that was recorded. The record of its repeats is made from it."""

    stamp: Stamp
    seen: Observation
    ruling: Ruling


class Enforcer:
    """Decides about live traffic with the policy in force now. Never raises.

    `settle` is to be called about once a second, and `close` at the end: they write the records of repeats.
    """

    def __init__(
        self,
        source: SnapshotSource,
        sink: RecordSink,
        observer: Observer,
        *,
        counters: Counters | None = None,
        now: Callable[[], Instant] = Instant.now,
        monotonic: Callable[[], float] = time.monotonic,
        warned: WarnedClients | None = None,
    ) -> None:
        """`now` is the wall clock: bans begin and end by it, however it jumps. Repeats fold by `monotonic`."""
        self.warned: Final = warned if warned is not None else WarnedClients()
        self.counters: Final = counters if counters is not None else Counters()
        self._source: Final = source
        self._sink: Final = sink
        self.observer: Final = observer
        self.now: Final = now
        self._monotonic: Final = monotonic
        self._folding: Final[Folding[_First]] = Folding()
        self._shares: Final = Shares(RECORDS_A_MINUTE)
        load_suffix_list()  # not at the first record

    @property
    def snapshot(self) -> Snapshot:
        """The compiled policy in force; another object after a reload."""
        return self._source.snapshot

    def judge(self, client: str, sightings: Sequence[Sighting], identity: Identity | None = None) -> Ruling:
        """Decide over everything seen of a connection or request; at least one sighting."""
        snapshot, at = self._source.snapshot, self.now()
        try:
            found = core.decide_signals(snapshot, client, sightings, at, identity)
        except Exception as error:  # on_error decides, whatever it was that failed
            self.failed("decide", error)
            return self.judge_on_error(sightings)
        return Ruling(found.decision, found.sighting, found.mismatch, snapshot, at)

    def judge_on_error(self, sightings: Sequence[Sighting]) -> Ruling:
        """The ruling of `on_error` about the same sightings."""
        snapshot, at = self._source.snapshot, self.now()
        decisions = [(_on_error(snapshot, s), s) for s in sightings if not s.signal.is_url]
        if not decisions:
            decisions = [(Decision(Verdict.ALLOW, Reason.INTERNAL_ERROR), Sighting(Signal.ADDRESS, ""))]
        decision, sighting = max(decisions, key=lambda pair: pair[0].verdict.severity)
        return Ruling(decision, sighting, mismatch=False, snapshot=snapshot, at=at)

    def repeats(self, client: str, name: str, decision: Decision, stage: Stage, at: Instant) -> bool:
        """Whether this event repeats one that was recorded within the last minute; if so it is counted, all of it.

        The quick way for a carrier that has a decision and nothing else to tell: after True it carries the decision
        out and builds nothing. `name` is the one in its SNI, and nothing else that it shows may be a service's.
        """
        fold = self._folding.repeat(key_of(client, name.lower(), decision, stage), at)
        if fold is None:
            return False
        self.counters.cells[self.counters.refused[decision.network]] += 1
        return True

    def record(
        self, ruling: Ruling, visibility: Visibility, observe: Callable[[], Observation], *, allowed: bool = True
    ) -> Stamp:
        """Count what was decided and write its record if it is worth one. The stamp is the record's, for the page.

        A repeat is only counted, and has the stamp of the first record. `observe` is called only if there may be a
        record. Without `allowed`, what passes isn't counted: it will be, at a later stage of the same connection.
        """
        decision = ruling.decision
        if decision.network in ruling.snapshot.own_networks:  # nobody's traffic
            return Stamp("", ruling.at, self.observer)
        if ruling.blocks or allowed:
            outcome = UNREADABLE if decision.is_unreadable else decision.verdict
            self.counters.count(decision.network, visibility, outcome)
        if not is_notable(decision):
            return Stamp("", ruling.at, self.observer)
        stamp = new_stamp(ruling.at, self.observer)
        try:
            return self._write_or_fold(_First(stamp, observe(), ruling))
        except Exception as error:  # a record that can't be made must not change what happens to the traffic
            self.failed("record", error)
            return stamp

    def cut(self, ruling: Ruling, seen: Observation) -> None:
        """Count a connection that was ended while it lasted, and write a record of its own about that.

        Its decision was counted at its beginning.
        """
        self.counters.cuts += 1
        self._put(lambda: traffic_record(new_stamp(ruling.at, self.observer), seen, ruling, ruling.snapshot))

    def settle(self) -> None:
        """Write the records of repeats whose minute is over."""
        self._tell(self._folding.due(self._monotonic()))

    def close(self) -> None:
        """Write the records of all repeats. To be called before the sink is closed."""
        self._tell(self._folding.close())

    def failed(self, where: str, error: BaseException) -> None:
        """Count and log an internal error; never raises."""
        self.counters.add(ERROR, where)
        self.counters.last_error = f"{where}: {type(error).__name__} at {self.now()}"
        try:
            self._sink.put(lifecycle.internal_error(new_stamp(self.now(), self.observer), error, where))
        except Exception:
            self.counters.add(ERROR, "record")

    def write(self, build: Callable[[Stamp], Record | None]) -> None:
        """Write a record about tokgate itself."""
        self._put(lambda: build(new_stamp(self.now(), self.observer)))

    def tell(self, ruling: Ruling, seen: Observation) -> None:
        """Write the record of something that a client did about a decision: by itself, neither counted nor folded."""
        self.write(lambda stamp: traffic_record(stamp, seen, ruling, ruling.snapshot))

    def _put(self, build: Callable[[], Record | None]) -> None:
        """Write a record, if there is one; that it can't be made or written is an error by itself."""
        try:
            record = build()
            if record is not None:
                self._sink.put(record)
        except Exception as error:
            self.failed("record", error)

    def _write_or_fold(self, event: _First) -> Stamp:
        """Write an event's record, or count it as a repeat. The stamp is the one to be found in the log."""
        seen, ruling = event.seen, event.ruling
        name = folded_name(seen, ruling)
        key = key_of(
            seen.client.ip,
            name,
            ruling.decision,
            seen.stage,
            opened=seen.opened,
            mismatch=ruling.mismatch,
            passed=seen.passed,
            identity=seen.identity,
        )
        now = self._monotonic()
        self._tell(self._folding.due(now))
        fold = self._folding.repeat(key, ruling.at)
        if fold is not None:
            return fold.event.stamp
        client = client_key(seen.client.ip)
        shared = name != "" and not self._shares.take(client, now)  # what can't be read has few keys anyway
        if shared:  # one record counts what has everything but its name in common
            key = key_of(client, "", replace(ruling.decision, rule=None), seen.stage, identity=seen.identity)
            fold = self._folding.repeat(key, ruling.at)
            if fold is not None:
                fold.meet(name)
                return fold.event.stamp
        record = traffic_record(event.stamp, seen, ruling, ruling.snapshot)
        if record is not None and self._sink.put(record):  # a dropped record can't be referred to
            closed = self._folding.open(key, event, now, names=shared)
            if closed is not None:
                self._tell(iter((closed,)))
        return event.stamp

    def _tell(self, folds: Iterator[Fold[_First]]) -> None:
        """Write the records of closed folds."""
        for fold in folds:
            if fold.last is not None:
                stamp, first, ruling = new_stamp(fold.last, self.observer), fold.event, fold.event.ruling
                self._put(partial(repeats_record, stamp, first.seen, ruling, ruling.snapshot, fold, first.stamp.id))


def _on_error(snapshot: Snapshot, sighting: Sighting) -> Decision:
    """`decide_on_error`; should even that raise, `on_error` holds for everything: no banned name may slip through."""
    try:
        return core.decide_on_error(snapshot, sighting.value)
    except Exception:
        if snapshot.settings.on_error is OnError.ALLOW:
            return Decision(Verdict.ALLOW, Reason.INTERNAL_ERROR)
        return Decision(Verdict.BLOCK, Reason.INTERNAL_ERROR, response=Response.REFUSE)
