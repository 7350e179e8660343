"""Records as the wire and the policy would give them, and files of them."""

import gzip
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from labs.builders import at, present
from labs.samples import SNAPSHOT, judged, seen, stamp
from tokgate.blocklog.atomic_file import zstd
from tokgate.blocklog.records.folding import Fold
from tokgate.blocklog.records.record import encode
from tokgate.blocklog.records.traffic import repeats_record, traffic_record
from tokgate.policy.decide import Judgement, Sighting, decide_unreadable
from tokgate.policy.decision import Reason, Signal
from tokgate.policy.observation import Endpoint, Stage
from tokgate.policy.snapshot import Snapshot

Record = dict[str, Any]

type WriteLog = Callable[..., Path]
"""Writes records to a file of the test."""


def refusal(client: str = "192.0.2.7", moment: str = "2023-03-10T11:00:00Z", stage: Stage = Stage.TLS) -> Record:
    """A refused attempt."""
    observation = seen(stage, client=Endpoint(client))
    return present(traffic_record(stamp(moment), observation, judged(observation, moment), SNAPSHOT))


def decided(policy: Snapshot, moment: str, client: str, *names: tuple[Signal, str]) -> Record:
    """What is logged of a client that showed these names, as a policy decides it."""
    observation = seen(Stage.HTTP if len(names) > 1 else Stage.TLS, *names, client=Endpoint(client, 51234))
    return present(traffic_record(stamp(moment), observation, judged(observation, moment, policy), policy))


def unreadable(client: str = "192.0.2.7", moment: str = "2023-03-10T11:00:00Z") -> Record:
    """An attempt that could not be read."""
    decision = present(decide_unreadable(SNAPSHOT, client, at(moment), Reason.UNREADABLE))
    judgement = Judgement(decision, Sighting(Signal.SNI, "www.example.net"), mismatch=False)
    return present(traffic_record(stamp(moment), seen(client=Endpoint(client)), judgement, SNAPSHOT))


def repeats(count: int, first: str, last: str, client: str = "192.0.2.7") -> Record:
    """A record that stands for `count` attempts."""
    observation = seen(client=Endpoint(client))
    fold, of = Fold((), None, 0.0, count, at(first), at(last)), "01862000-0000-7000-8000-000000000001"
    return present(repeats_record(stamp(last, 2), observation, judged(observation, last), SNAPSHOT, fold, of))


def write(path: Path, records: Iterable[Record | bytes]) -> None:
    """Records as lines, and bytes as they are; packed as the name says."""
    lines = b"".join(record if isinstance(record, bytes) else encode(record) for record in records)
    if path.suffix == ".gz":
        lines = gzip.compress(lines)
    elif path.suffix == ".zst":
        lines = zstd.compress(lines)
    path.write_bytes(lines)
