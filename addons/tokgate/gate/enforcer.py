"""Where live traffic meets the policy: asks `decide`, answers for its failures, counts and writes the record.

All that carries traffic goes through here, so that a failing decision is never a silent pass.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from whenever import Instant

from tokgate.blocklog import lifecycle
from tokgate.blocklog.document import Record
from tokgate.blocklog.observation import Observation, Visibility
from tokgate.blocklog.records import traffic_record
from tokgate.blocklog.stamp import Observer, Stamp, new_stamp
from tokgate.gate.counters import Counters
from tokgate.policy import decide as core
from tokgate.policy.bans import OnError
from tokgate.policy.decide import Judgement, Sighting
from tokgate.policy.decision import Decision, Reason, Response, Signal, Verdict
from tokgate.policy.snapshot import Snapshot


class SnapshotSource(Protocol):
    """Whoever holds the policy in force: `config.reload.PolicyHolder` in production."""

    @property
    def snapshot(self) -> Snapshot:
        """The current one; it may be another at each reading."""
        ...


class RecordSink(Protocol):
    """Whoever takes records: `blocklog.writer.LogWriter` in production."""

    def put(self, record: Record) -> bool:
        """Take a record without waiting; False if it was dropped."""
        ...


@dataclass(frozen=True, slots=True)
class Ruling:
    """A judgement with the policy and the instant that it rests on."""

    judgement: Judgement
    snapshot: Snapshot
    at: Instant

    @property
    def decision(self) -> Decision:
        """What was decided."""
        return self.judgement.decision

    @property
    def blocks(self) -> bool:
        """Whether the traffic must not reach its destination."""
        return self.judgement.decision.verdict is Verdict.BLOCK


class Enforcer:
    """Decides about live traffic with the policy in force now. Never raises."""

    def __init__(
        self,
        source: SnapshotSource,
        sink: RecordSink,
        observer: Observer,
        *,
        counters: Counters | None = None,
        now: Callable[[], Instant] = Instant.now,
    ) -> None:
        """`now` is the wall clock: bans begin and end by it, however it jumps."""
        self.counters: Final = counters if counters is not None else Counters()
        self._source: Final = source
        self._sink: Final = sink
        self._observer: Final = observer
        self._now: Final = now

    @property
    def snapshot(self) -> Snapshot:
        """The policy in force."""
        return self._source.snapshot

    def judge(self, client: str, sightings: Sequence[Sighting]) -> Ruling:
        """Decide over everything seen of a connection or request; at least one sighting."""
        snapshot, at = self._source.snapshot, self._now()
        try:
            judgement = core.decide_signals(snapshot, client, sightings, at)
        except Exception as error:  # on_error decides, whatever it was that failed
            self.failed("decide", error)
            return self.judge_by_fallback(sightings)
        return Ruling(judgement, snapshot, at)

    def judge_by_fallback(self, sightings: Sequence[Sighting]) -> Ruling:
        """What `on_error` says of the same sightings."""
        snapshot, at = self._source.snapshot, self._now()
        decisions = [(_fallback(snapshot, s), s) for s in sightings if s.signal is not Signal.URL]
        if not decisions:
            decisions = [(Decision(Verdict.ALLOW, Reason.INTERNAL_ERROR), Sighting(Signal.ADDRESS, ""))]
        decision, sighting = max(decisions, key=lambda pair: pair[0].verdict.severity)
        return Ruling(Judgement(decision, sighting, mismatch=False), snapshot, at)

    def enter(
        self, ruling: Ruling, visibility: Visibility, observe: Callable[[], Observation], *, allowed: bool = True
    ) -> Stamp:
        """Count what was decided and write its record if it is worth one. The stamp is the record's, for the page.

        `observe` is called only if there may be a record; without `allowed`, traffic that passes isn't counted either:
        it will be, at a later stage of the same connection.
        """
        decision = ruling.decision
        stamp = new_stamp(ruling.at, self._observer) if _notable(ruling) else Stamp("", ruling.at, self._observer)
        if ruling.blocks or allowed:
            self.counters.count(decision.network, visibility, decision.verdict)
        if stamp.id:
            try:
                record = traffic_record(stamp, observe(), ruling.judgement, ruling.snapshot)
                if record is not None:
                    self._sink.put(record)
            except Exception as error:  # a record that can't be made must not change what happens to the traffic
                self.failed("record", error)
        return stamp

    def failed(self, where: str, error: BaseException) -> None:
        """Count and log an internal error; never raises."""
        self.counters.errors[where] += 1
        try:
            self._sink.put(lifecycle.internal_error(new_stamp(self._now(), self._observer), error, where))
        except Exception:
            self.counters.errors["record"] += 1

    def write(self, build: Callable[[Stamp], Record]) -> None:
        """Write a record about tokgate itself."""
        try:
            self._sink.put(build(new_stamp(self._now(), self._observer)))
        except Exception as error:
            self.failed("record", error)


def _notable(ruling: Ruling) -> bool:
    return ruling.decision.verdict is not Verdict.ALLOW or ruling.decision.exemption is not None


def _fallback(snapshot: Snapshot, sighting: Sighting) -> Decision:
    """`policy.fallback`; should even that raise, `on_error` holds for everything: no banned name may slip through."""
    try:
        return core.fallback(snapshot, sighting.value)
    except Exception:
        if snapshot.settings.on_error is OnError.ALLOW:
            return Decision(Verdict.ALLOW, Reason.INTERNAL_ERROR)
        return Decision(Verdict.BLOCK, Reason.INTERNAL_ERROR, response=Response.REFUSE)
