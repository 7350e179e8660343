"""Connections that were let through and may not go on: judged again when a ban begins, a policy or the clock changes.

Nothing is scheduled for any connection. What was decided holds between two transitions of the policy; when the wall
clock has left that span, however it came to, or the policy is another, all that is open is judged anew, in short turns.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final, Protocol

from whenever import Instant

from tokgate.blocklog.observation import Carried, Observation, Stage, Visibility
from tokgate.gate.admission import Shown, admit_again
from tokgate.gate.connection import CLOSED, GREETING, PARTING, Connection
from tokgate.gate.enforcer import Enforcer, Ruling
from tokgate.gate.sockets import octets, reset_on_close
from tokgate.policy.decide import Sighting, decide
from tokgate.policy.decision import Signal, Verdict
from tokgate.policy.snapshot import Snapshot
from tokgate.policy.timeline import Transition, transitions

if TYPE_CHECKING:
    from tokgate.gate.gate import Gate

TURN: Final = 0.002
"""Seconds that judging takes before others have their turn: what a live connection may wait for it."""
LONGEST: Final = 0.5
"""Seconds between two looks at clock and policy: how late a jump or a reload may be noticed."""
_MOST_PASSED: Final = 1000
"""Transitions passed over one by one; a clock that jumped over more has the next one looked up anew."""

type Cut = tuple[Ruling, Observation]
"""A connection that must end: by which ruling, and what there was to see of it."""


class Carrier[T](Protocol):
    """Whoever carries connections."""

    def open_now(self) -> Iterable[T]:
        """All that is open; more may come and go while this is gone through."""
        ...

    def judge(self, one: T, snapshot: Snapshot, at: Instant) -> Cut | None:
        """Whether one, if it still lasts, would be refused if it were new."""
        ...

    def cut(self, one: T) -> None:
        """Break one off, towards both sides."""
        ...


class Span:
    """From when it was last looked at to the next transition of the policy: over this, no decision changes."""

    __slots__ = ("_snapshot", "_start", "_upcoming", "end")

    def __init__(self) -> None:
        """Nothing is in it yet."""
        self.end: Instant = Instant.MIN
        self._start: Instant = Instant.MAX
        self._snapshot: Snapshot | None = None
        self._upcoming: Iterator[Transition] = iter(())

    def left(self, snapshot: Snapshot, at: Instant) -> bool:
        """Whether policy or instant are outside; if so the span is the one around them from now on."""
        if snapshot is self._snapshot and self._start <= at < self.end:
            return False
        anew = snapshot is not self._snapshot or at < self._start
        self._snapshot, self._start = snapshot, at
        later = None if anew else next((t for t in islice(self._upcoming, _MOST_PASSED) if t.at > at), None)
        if later is None:
            self._upcoming = transitions(snapshot, at.add(nanoseconds=1), Instant.MAX)
            later = next(self._upcoming, None)
        self.end = Instant.MAX if later is None else later.at
        return True


class Review[T]:
    """Judges what a carrier has open whenever what was decided about it may not hold any more.

    Whoever has one calls `look` when it said to, between two batches of events; and `close` at the end.
    """

    def __init__(
        self, enforcer: Enforcer, carrier: Carrier[T], *, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        """`monotonic` measures turns; the enforcer's wall clock says when they are due."""
        self.judged = 0
        self._enforcer: Final = enforcer
        self._carrier: Final = carrier
        self._monotonic: Final = monotonic
        self._span: Final = Span()
        self._left: Iterator[T] = iter(())
        self._untold: Final[deque[Cut]] = deque()

    def look(self) -> float:
        """Take a turn, if anything is due; the seconds until the next call, 0.0 if there is more to do at once.

        Never raises: whoever calls it would call no more, and nothing would end any more when it becomes banned.
        """
        try:
            return self._take_turn()
        except Exception as error:
            self._enforcer.failed("live", error)
            return LONGEST

    def _take_turn(self) -> float:
        enforcer = self._enforcer
        snapshot, at = enforcer.snapshot, enforcer.now()
        if self._span.left(snapshot, at):
            self._left = iter(self._carrier.open_now())
        give_up = self._monotonic() + TURN
        for one in self._left:
            self._examine(one, snapshot, at)
            if self._monotonic() >= give_up:
                return 0.0
        while self._untold:  # later than cutting, which is quicker: nothing goes on for the sake of its record
            self._tell()
            if self._monotonic() >= give_up:
                return 0.0
        return LONGEST if self._span.end == Instant.MAX else min(LONGEST, (self._span.end - at).total("seconds"))

    def examine(self, one: T) -> None:
        """Judge one that was let through elsewhere, by another policy or at another time."""
        self._examine(one, self._enforcer.snapshot, self._enforcer.now())

    def close(self) -> None:
        """Write the records that are due."""
        while self._untold:
            self._tell()

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

    def _tell(self) -> None:
        self._enforcer.cut(*self._untold.popleft())


class GateConnections:
    """A gate's connections, to be judged again."""

    def __init__(self, gate: "Gate") -> None:
        self._gate: Final = gate

    def open_now(self) -> Iterator[Connection]:
        """All but those about which nothing is decided yet, or which are refused already."""
        table = self._gate.connections
        for descriptor in list(table):
            connection = table.get(descriptor)
            if connection is None or (descriptor == connection.server_fd and connection.client_fd in table):
                continue  # ended meanwhile, or met by its other descriptor
            yield connection

    def judge(self, one: Connection, snapshot: Snapshot, at: Instant) -> Cut | None:
        """Whether a connection that is like this one would be refused now."""
        state, shown, tunnel = one.state, one.shown, one.tunnel
        destination = one.destination
        if state is CLOSED or state is PARTING or destination is None or (state is GREETING and tunnel is None):
            return None
        identity = self._gate.identity(one)
        if (
            tunnel is None
            and identity is None
            and type(shown) is str
            and _passes(snapshot, one.peer, shown, destination[0], at)
        ):
            return None
        ruling, visibility = None, Visibility.ADDRESS
        names: tuple[Sighting, ...] = ()
        if tunnel is not None:
            names = self._gate.arrival(one).sightings
            ruling = self._gate.enforcer.judge(one.peer, names, identity)
        if shown is not None and (ruling is None or not ruling.blocks):
            admission = admit_again(self._gate.enforcer, self._gate.arrival(one), _in_full(shown))
            ruling, visibility, names = admission.ruling, admission.visibility, admission.names
        if ruling is None or not ruling.blocks:
            return None
        return ruling, self._observe(one, names, visibility)

    def cut(self, one: Connection) -> None:
        """Reset both sides, at once."""
        reset_on_close(one.client)
        if one.server is not None:
            reset_on_close(one.server)
        self._gate.close(one)
        self._gate.bury()

    def _observe(self, one: Connection, names: tuple[Sighting, ...], visibility: Visibility) -> Observation:
        arrival, moved = self._gate.arrival(one), octets(one.client)
        return Observation(
            client=arrival.client,
            destination=arrival.endpoint,
            stage=Stage.LIVE,
            visibility=visibility,
            names=names,
            connection=arrival.connection,
            carried=None if moved is None else Carried(*moved),
            identity=arrival.identity,
        )


def _passes(snapshot: Snapshot, client: str, name: str, address: str, at: Instant) -> bool:
    """The quick way for nearly all: neither the name nor the address of a plain connection is blocked."""
    return (
        decide(snapshot, client, name, at).verdict is not Verdict.BLOCK
        and decide(snapshot, client, address, at, Signal.ADDRESS).verdict is not Verdict.BLOCK
    )


def _in_full(shown: str | Shown) -> Shown:
    return Shown(visibility=Visibility.SNI, name=shown) if isinstance(shown, str) else shown
