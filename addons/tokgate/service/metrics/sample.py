"""The vitals: all measurements of a running tokgate as one JSON object, and the channel on which they are requested.

The process or thread that serves metrics requests them, so that neither the supervisor nor a process that carries
traffic waits for an HTTP client.
"""

import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from tokgate.blocklog.write.writer import WriterHealth
from tokgate.runtime.instance import Instance
from tokgate.service.children import readable
from tokgate.traffic.counters import Key, decisions_in, errors_in

PATIENCE: Final = 5.0
"""Seconds for an answer."""

type Vitals = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Deaths:
    """The roles of processes that have to run; how many processes died, by name, and how many of them hung."""

    wanted: tuple[str, ...]
    restarts: dict[str, int]
    hangs: dict[str, int]


def vitals_of(
    instance: Instance,
    state: Mapping[str, Any],
    *,
    log: Mapping[str, Any] | None,
    confdir: Path,
    deaths: Deaths,
) -> Vitals:
    """The vitals of an instance in this `state`, the answer to `tokgate status`.

    `log` is the result of `log_vitals`, if known. Times are seconds since the epoch.
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
        "log": log,
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
    since = health.failing_since
    return {
        "written": health.written,
        "dropped": health.dropped,
        "gap": health.gap,
        "errors": health.errors,
        "queued": health.queued,
        "rotations": health.rotations,
        "foreign": health.foreign,
        "tampered": health.tampered,
        "last_error": health.last_error,
        "failing_since": None if since is None else since.timestamp(unit="millisecond") / 1000,
    }


def role(worker: str) -> str:
    """The role in a worker's name: `gate` for `gate-0`."""
    return worker.rpartition("-")[0] or worker


def problems(now: Vitals) -> list[str]:
    """Why `/healthz` returns 503: enforcement continues, but an operator is needed."""
    log = now["log"]
    found = []
    if log is not None and log["failing_since"] is not None:
        found.append(f"the log can't be written: {log['last_error']}")
    elif log is not None and log["tampered"] is not None:
        found.append(f"the log was changed by others: {log['tampered']}")
    unstated = [f"a ban that no file states any more is held: {name}" for name in now["policy"]["held"]]
    return [*now["problems"], *unstated, *found]


class VitalsResponder:
    """The supervisor's end of the channel. Never blocks: the vitals are sent as the descriptor of a memory file."""

    def __init__(self, sock: socket.socket) -> None:
        """`sock` is one end of `channel`."""
        sock.setblocking(False)  # Python 3.13 does not pass the flags of send_fds and recv_fds on
        self._socket: Final = sock

    def fileno(self) -> int:
        """The socket's descriptor, so that `select` accepts this object."""
        return self._socket.fileno()

    def answer(self, make: Callable[[], Vitals]) -> None:
        """Answer the pending requests with one sample from `make`; without a request `make` is not called."""
        with contextlib.ExitStack() as callers:
            waiting = [callers.enter_context(each) for each in self._callers()]
            if not waiting:
                return
            with contextlib.suppress(OSError):  # short of descriptors or memory, too: who asked tells that
                memory = os.memfd_create("tokgate-vitals")
                with os.fdopen(memory, "wb") as file:
                    file.write(json.dumps(make()).encode())
                    file.flush()
                    for each in waiting:
                        with contextlib.suppress(OSError):  # it waits no more
                            socket.send_fds(each, [b"!"], [memory])

    def _callers(self) -> Iterator[socket.socket]:
        with contextlib.suppress(BlockingIOError):
            while True:
                asked, descriptors, _, _ = socket.recv_fds(self._socket, 16, 1)
                if not asked:
                    return
                yield from (socket.socket(fileno=each) for each in descriptors)


class VitalsRequester:
    """The requesting end. Threads and processes may share it: each request brings a socket of its own."""

    def __init__(self, sock: socket.socket) -> None:
        """`sock` is the other end."""
        sock.setblocking(False)
        self._socket: Final = sock

    def ask(self) -> Vitals:
        """Request the vitals. Blocks for at most PATIENCE seconds. Raises OSError (TimeoutError) without an answer."""
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with mine:
            with theirs:
                socket.send_fds(self._socket, [b"?"], [theirs.fileno()])
            if not readable([mine], PATIENCE):
                raise TimeoutError("the supervisor does not answer")
            _, descriptors, _, _ = socket.recv_fds(mine, 16, 1)
        if not descriptors:
            raise ConnectionError("the supervisor can't answer")
        with os.fdopen(descriptors[0], "rb") as file:  # others may have the same file, and its position
            said: Vitals = json.loads(os.pread(file.fileno(), os.fstat(file.fileno()).st_size, 0))
        return said


def channel() -> tuple[VitalsRequester, VitalsResponder]:
    """Both ends. A restarted process inherits the same channel."""
    requester, responder = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return VitalsRequester(requester), VitalsResponder(responder)
