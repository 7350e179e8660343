"""What stands in for the log, the policy's holder and the wall clock, whatever is tested with them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from whenever import Instant

from tokgate.blocklog.records.record import Observer
from tokgate.policy.snapshot import Snapshot
from tokgate.traffic.enforcer import Enforcer, RecordSink

Record = dict[str, Any]


class Records:
    """A sink for records that checks each against the schema."""

    def __init__(self, check: Callable[[Record], Record]) -> None:
        self._check = check
        self.all: list[Record] = []

    def put(self, record: Record) -> bool:
        """Keep one."""
        self.all.append(self._check(record))
        return True

    @property
    def actions(self) -> list[str]:
        """What was done, in order."""
        return [record["event"]["action"] for record in self.all]


@dataclass
class Sink:
    """Keeps records as they are."""

    records: list[Record] = field(default_factory=list)

    def put(self, record: Record) -> bool:
        """Keep one."""
        self.records.append(record)
        return True


@dataclass
class Holder:
    """Holds a policy that a test may exchange, as PolicyHolder does."""

    snapshot: Snapshot


def enforcer_of(policy: Snapshot | Holder, sink: RecordSink | None = None, **options: Any) -> Enforcer:
    """One at a gateway of tests; its records go nowhere if no sink is given."""
    holder = policy if isinstance(policy, Holder) else Holder(policy)
    to = Sink() if sink is None else sink
    return Enforcer(holder, to, Observer(hostname="gateway.example.org", version="0"), **options)


class Clock:
    """A wall clock that stands until a test sets it."""

    def __init__(self, text: str) -> None:
        self.at = Instant.parse_iso(text)

    def __call__(self) -> Instant:
        """What it shows."""
        return self.at

    def set(self, text: str) -> None:
        """Jump, whichever way."""
        self.at = Instant.parse_iso(text)


class Monotonic:
    """A monotonic clock that stands until a test moves it."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now
        """Seconds."""

    def __call__(self) -> float:
        """What it shows."""
        return self.now
