"""Reviews open connections when a ban begins, or when the policy or the clock changes, and cuts those now refused.

Nothing is scheduled for single connections. A decision holds between two transitions of the policy. When the wall clock
has left that span, or the policy has changed, all open connections are decided again, in short turns.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Protocol

from whenever import Instant

from tokgate.policy.analysis.timeline import transitions
from tokgate.policy.decide import decide
from tokgate.policy.decision import Signal, Verdict
from tokgate.policy.observation import Observation
from tokgate.policy.snapshot import Snapshot
from tokgate.traffic.enforcer import Enforcer, Ruling

TURN: Final = 0.002
"""Seconds that judging takes before others have their turn: what a live connection may wait for it."""
LONGEST: Final = 0.5
"""Seconds between two looks at clock and policy: how late a jump or a reload may be noticed."""

type Cut = tuple[Ruling, Observation]
"""The ruling by which a connection must end, and its observation for the log."""


class Carrier[T](Protocol):
    """What carries connections: a gate, or mitmproxy."""

    def open_now(self) -> Iterable[T]:
        """All open connections; it may change during the iteration."""

    def judge(self, one: T, snapshot: Snapshot, at: Instant) -> Cut | None:
        """Whether one, if it still lasts, would be refused if it were new."""

    def cut(self, one: T) -> None:
        """Reset one, on both sides."""


class StableSpan:
    """The span from the latest look to the policy's next transition, in which no decision changes."""

    __slots__ = ("_snapshot", "_start", "end")

    def __init__(self) -> None:
        self.end: Instant = Instant.MIN
        self._start: Instant = Instant.MAX
        self._snapshot: Snapshot | None = None

    def left(self, snapshot: Snapshot, at: Instant) -> bool:
        """Whether policy or instant are outside; if so the span is the one around them from now on."""
        if snapshot is self._snapshot and self._start <= at < self.end:
            return False
        self._snapshot, self._start = snapshot, at
        later = next(transitions(snapshot, at.add(nanoseconds=1), Instant.MAX), None)
        self.end = Instant.MAX if later is None else later.at
        return True


class LiveReview[T]:
    """Judges what a carrier has open whenever what was decided about it may not hold any more.

    `look` is to be called after the seconds that it returns, between two batches of events; and `close` at the end.
    """

    def __init__(
        self, enforcer: Enforcer, carrier: Carrier[T], *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """`monotonic` measures turns; the enforcer's wall clock says when they are due."""
        self.judged = 0
        self._enforcer: Final = enforcer
        self._carrier: Final = carrier
        self._monotonic: Final = monotonic
        self._span: Final = StableSpan()
        self._left: Iterator[T] = iter(())
        self._untold: Final[deque[Cut]] = deque()

    def look(self) -> float:
        """Take a turn, if anything is due; the seconds until the next call, 0.0 if there is more to do at once.

        Never raises: an exception would end the caller's loop, and banned connections would stay open.
        """
        try:
            return self._take_turn()
        except Exception as error:
            self._enforcer.failed("live", error)
            return LONGEST

    def _take_turn(self) -> float:
        snapshot, at = self._enforcer.snapshot, self._enforcer.now()
        if self._span.left(snapshot, at):
            self._left = iter(self._carrier.open_now())
        give_up = self._monotonic() + TURN
        for one in self._left:
            self._examine(one, snapshot, at)
            if self._monotonic() >= give_up:
                return 0.0
        while self._untold:  # after all cuts, since writing takes longer
            self._enforcer.cut(*self._untold.popleft())
            if self._monotonic() >= give_up:
                return 0.0
        return LONGEST if self._span.end == Instant.MAX else min(LONGEST, (self._span.end - at).total("seconds"))

    def examine(self, one: T) -> None:
        """Judge one that was let through elsewhere, by another policy or at another time."""
        self._examine(one, self._enforcer.snapshot, self._enforcer.now())

    def close(self) -> None:
        """Write all records of cut connections that are still due."""
        while self._untold:
            self._enforcer.cut(*self._untold.popleft())

    def _examine(self, one: T, snapshot: Snapshot, at: Instant) -> None:
        self.judged += 1
        try:
            found = self._carrier.judge(one, snapshot, at)
        except Exception as error:  # as at its beginning: what can't be decided doesn't pass
            self._enforcer.failed("live", error)
            self._carrier.cut(one)
            return
        if found is not None:
            self._untold.append(found)
            self._carrier.cut(one)


def passes(snapshot: Snapshot, client: str, name: str, address: str, at: Instant, signal: Signal = Signal.SNI) -> bool:
    """The quick way for nearly all: neither the name nor the address of a plain connection is blocked."""
    return (
        decide(snapshot, client, name, at, signal).verdict is not Verdict.BLOCK
        and decide(snapshot, client, address, at, Signal.ADDRESS).verdict is not Verdict.BLOCK
    )
