"""The vitals: all measurements of a running tokgate as one JSON object, which are asked for on the control socket.

The process or thread that serves metrics asks, so that neither the supervisor nor a process that carries traffic waits
for an HTTP client.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from whenever import Instant

from tokgate.blocklog.write.writer import WriterHealth
from tokgate.runtime.control_socket import ControlRequest, ask
from tokgate.runtime.instance import Instance
from tokgate.service import last_state
from tokgate.service.status import Status
from tokgate.traffic.counters import Key, decisions_in, errors_in

PATIENCE: Final = 0.6
"""Seconds for an answer, since health is asked by programs that wait for one or two."""
TOLERATED: Final = 10.0
"""Seconds for which a supervisor may be silent without saying why, as on a busy machine."""

type Vitals = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Deaths:
    """The roles of processes that have to run; how many processes died, by name, and how many of them hung."""

    wanted: tuple[str, ...]
    restarts: dict[str, int]
    hangs: dict[str, int]


def vitals_of(
    instance: Instance,
    state: Status,
    *,
    log: Mapping[str, Any] | None,
    confdir: Path,
    deaths: Deaths,
) -> Vitals:
    """The vitals of an instance in this `state`, the answer to `tokgate status`.

    `log`, their `writer`, is the result of `log_vitals`, if known. Times are seconds since the epoch.
    """
    counts = instance.counts()
    return {
        **state,
        "tokgate": instance.version,
        "started": instance.started.timestamp(unit="millisecond") / 1000,
        "decisions": [[k.network, k.visibility, k.outcome, number] for k, number in decisions_in(counts).items()],
        "errors": errors_in(counts),
        "counts": {key[0]: number for key, number in counts.items() if len(key) == 1},
        "kinds": kinds_in(counts),
        **asdict(deaths),
        "writer": log,
        "reloads": asdict(instance.reloads),
        "confdir": str(confdir),
    }


def kinds_in(counts: Mapping[Key, int]) -> dict[str, dict[str, int]]:
    """What was counted by kind, such as errors of connecting, and the buckets of histograms."""
    found: dict[str, dict[str, int]] = {}
    for key, number in counts.items():
        if len(key) == 2:  # noqa: PLR2004
            found.setdefault(key[0], {})[key[1]] = number
    return found


def log_vitals(health: WriterHealth) -> dict[str, Any]:
    """The health of the log's writer, as JSON; times in seconds since the epoch."""
    told, since = asdict(health), health.failing_since
    del told["path"]
    return told | {"failing_since": None if since is None else since.timestamp(unit="millisecond") / 1000}


def role(worker: str) -> str:
    """The role in a worker's name: `gate` for `gate-0`."""
    return worker.rpartition("-")[0] or worker


def problems(now: Vitals) -> list[str]:
    """Why `/healthz` returns 503: enforcement continues, but an operator is needed."""
    log = now["writer"]
    found = []
    if log is not None and log["failing_since"] is not None:
        found.append(f"the log can't be written: {log['last_error']}")
    elif log is not None and log["tampered"] is not None:
        found.append(f"the log was changed by others: {log['tampered']}")
    unstated = [f"a ban that no file states any more is held: {name}" for name in now["policy"]["held"]]
    return [*now["problems"], *unstated, *found]


class Requester:
    """Asks the tokgate of a folder for its vitals, by the control socket. Several threads may.

    Where its supervisor does not answer, they are those of before, with what is known of it from outside: health says
    so at once where it was stopped or has died, and after TOLERATED seconds where it is silent and says of no work.
    """

    def __init__(self, folder: Path, log: Path) -> None:
        """`log` is its log, by which it is told from another one with the same folder."""
        self._folder: Final = folder
        self._log: Final = str(log.absolute())
        self._last: tuple[float, Vitals] | None = None

    def ask(self) -> Vitals:
        """The vitals. Blocks for at most PATIENCE seconds. Raises OSError where none are known."""
        why = "tokgate has ended"
        try:
            answer = ask(self._folder, ControlRequest.VITALS, longest=PATIENCE)
        except (TimeoutError, BlockingIOError, ConnectionError):
            answer, why = None, "the supervisor does not answer"
        if answer is None:
            known = last_state.known_in(self._folder)
            if known is None or self._last is None:
                raise ConnectionError(why)
            at, last = self._last
            problem = last_state.problem_of(known, Instant.now(), at + TOLERATED - time.monotonic())
            return last | {"problems": [*last["problems"], *([problem] if problem else [])]}
        if answer["log"] != self._log:
            raise ConnectionError(f"another tokgate answers in {self._folder}: give each its own --confdir")
        self._last = time.monotonic(), answer
        return answer
