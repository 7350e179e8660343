"""Everything that is measured of a running tokgate, as one JSON object, and the way on which it is asked for it.

Who asks is another process or thread, so that whoever carries or supervises traffic never waits for a scraper.
"""

import contextlib
import json
import os
import select
import socket
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from whenever import Instant

from tokgate.blocklog import health as log_health
from tokgate.config.reload import Reloaded
from tokgate.gate.counters import decisions_in, errors_in
from tokgate.gate.tally import Key

PATIENCE: Final = 5.0
"""Seconds in which whoever is asked has to answer."""

type Vitals = dict[str, Any]


@dataclass(slots=True)
class Reloads:
    """How often the policy was read again, and when last. Times are seconds since the epoch."""

    succeeded: int = 0
    failed: int = 0
    last_success: float | None = None
    last_failure: float | None = None

    def note(self, reloaded: Reloaded) -> None:
        """A policy was read."""
        at = reloaded.at.timestamp(unit="millisecond") / 1000
        if reloaded.ok:
            self.succeeded, self.last_success = self.succeeded + 1, at
        else:
            self.failed, self.last_failure = self.failed + 1, at


def vitals(
    state: Mapping[str, Any],
    *,
    version: str,
    started: Instant,
    counts: Mapping[Key, int],
    log: Mapping[str, Any] | None,
    reloads: Reloads,
    confdir: Path,
    restarts: Mapping[str, int] | None = None,
) -> Vitals:
    """`state` is what `tokgate status` tells; `counts` what a tally holds; `log` what `log_vitals` makes, if known."""
    return {
        **state,
        "tokgate": version,
        "started": started.timestamp(unit="millisecond") / 1000,
        "decisions": [[k.network, k.visibility, k.verdict, number] for k, number in decisions_in(counts).items()],
        "errors": errors_in(counts),
        "counts": {key[0]: number for key, number in counts.items() if len(key) == 1},
        "restarts": dict(restarts or {}),
        "log": log,
        "reloads": asdict(reloads),
        "confdir": str(confdir),
    }


def log_vitals(health: log_health.Health) -> dict[str, Any]:
    """How the log fares, as JSON."""
    since = health.failing_since
    return {
        "written": health.written,
        "dropped": health.dropped,
        "gap": health.gap,
        "errors": health.errors,
        "queued": health.queued,
        "rotations": health.rotations,
        "last_error": health.last_error,
        "failing_since": None if since is None else since.timestamp(unit="millisecond") / 1000,
    }


def problems(now: Vitals) -> list[str]:
    """What makes health red: enforcement goes on, but somebody has to look."""
    found = []
    if now["policy"]["error"]:
        found.append(f"the newest policy is not in force: {now['policy']['error']}")
    log = now["log"]
    if log is None:
        found.append("nothing writes the log")
    elif log["failing_since"] is not None:
        found.append(f"the log can't be written: {log['last_error']}")
    roles = {worker["name"].rpartition("-")[0] or worker["name"] for worker in now["workers"] if not worker["retired"]}
    if not roles & {"gate", "proxy"}:
        found.append("no gate serves")
    return found


class Asked:
    """The answering end. Nothing here waits: an answer is memory, and what is sent is only its descriptor."""

    def __init__(self, sock: socket.socket) -> None:
        """`sock` is one end of `channel`."""
        self._socket: Final = sock

    def fileno(self) -> int:
        """For select."""
        return self._socket.fileno()

    def answer(self, make: Callable[[], Vitals]) -> None:
        """Answer whoever has asked since."""
        asked = False
        with contextlib.suppress(BlockingIOError):
            while self._socket.recv(16, socket.MSG_DONTWAIT):
                asked = True
        if not asked:
            return
        memory = os.memfd_create("tokgate-vitals")
        with os.fdopen(memory, "wb") as file, contextlib.suppress(OSError):
            file.write(json.dumps(make()).encode())
            file.flush()
            socket.send_fds(self._socket, [b"!"], [memory], socket.MSG_DONTWAIT)


class Asking:
    """The end of the process that asks; its threads ask one after the other."""

    def __init__(self, sock: socket.socket) -> None:
        """`sock` is the other end."""
        self._socket: Final = sock
        self._lock: Final = threading.Lock()

    def ask(self) -> Vitals:
        """The vitals of now. Raises OSError (TimeoutError) if nobody answers."""
        with self._lock:
            self._forget()
            self._socket.send(b"?", socket.MSG_DONTWAIT)
            if not select.select([self._socket], [], [], PATIENCE)[0]:
                raise TimeoutError("the supervisor does not answer")
            _, (memory, *_), _, _ = socket.recv_fds(self._socket, 16, 1)
        with os.fdopen(memory, "rb") as file:
            file.seek(0)
            said: Vitals = json.load(file)
        return said

    def _forget(self) -> None:
        """Answers that came too late."""
        while select.select([self._socket], [], [], 0)[0]:
            _, descriptors, _, _ = socket.recv_fds(self._socket, 16, 1)
            if not descriptors:
                raise ConnectionError("the supervisor is gone")
            for descriptor in descriptors:
                os.close(descriptor)


def channel() -> tuple[Asking, Asked]:
    """Both ends, for a process and its supervisor; whoever is restarted finds the same channel."""
    asking, asked = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    return Asking(asking), Asked(asked)
