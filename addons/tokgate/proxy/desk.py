"""How a process that carries traffic tells of itself: to people who ask, or, as one of several, to its supervisor."""
# mypy: disallow-untyped-calls=False

import asyncio
import contextlib
import json
import logging
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from mitmproxy import ctx
from whenever import Instant

from tokgate.config.reload import PolicyHolder, Reloaded
from tokgate.gate.counters import RECORDS_DROPPED
from tokgate.proxy.addon import Tokgate
from tokgate.proxy.control import PATIENCE, Control, Request, answer_line, progress_line
from tokgate.proxy.reloading import answer_of
from tokgate.proxy.state import Worker, state_of

logger = logging.getLogger(__name__)

EVERY: Final = 1.0
"""Seconds between two reports."""


class Desk:
    """An addon: answers `tokgate status` and `tokgate reload` where one process does everything."""

    name = "tokgate-desk"

    def __init__(self, tokgate: Tokgate, relayed: Callable[[], int] = lambda: 0) -> None:
        """`relayed`: how many connections a gate in this process carries past mitmproxy."""
        self._tokgate: Final = tokgate
        self._relayed: Final = relayed
        self._started: Final = time.monotonic()
        self._control: Control | None = None
        self._server: asyncio.Server | None = None

    async def running(self) -> None:
        """Listen in the folder of the keys."""
        if self._tokgate.holder is None:
            return
        self._control = Control(Path(ctx.options.confdir).expanduser())
        sock = self._control.open()
        if sock is not None:
            self._server = await asyncio.start_unix_server(self._serve, sock=sock)

    def done(self) -> None:
        """Stop."""
        if self._server is not None:
            self._server.close()
        if self._control is not None:
            self._control.close(remove=True)

    def state(self, holder: PolicyHolder) -> dict[str, Any]:
        """How it goes."""
        return state_of(holder, [self._worker(holder)], Instant.now(), self._tokgate.restart_needed())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError, TimeoutError, ValueError):
            request = Request.read(await asyncio.wait_for(reader.readline(), PATIENCE))
            holder = self._tokgate.holder
            if request is None or holder is None:
                return
            reloaded = None
            if request is Request.RELOAD:
                writer.write(progress_line("reading the policy"))
                reloaded = await holder.reload()
            if self._tokgate.log is None:  # it has ended meanwhile
                return
            if reloaded is None:
                answer = self.state(holder)
            else:
                answer = answer_of(holder, reloaded, [self._worker(holder)], self._tokgate.restart_needed())
            writer.write(answer_line(answer))
            await writer.drain()

    def _worker(self, holder: PolicyHolder) -> Worker:
        report = report_of(self._tokgate)
        report["connections"] += self._relayed()
        return Worker(
            name="proxy",
            pid=os.getpid(),
            seconds=time.monotonic() - self._started,
            version=holder.snapshot.version,
            report=report,
        )


class Reporter:
    """An addon: tells a supervisor how it is, each second, and at once which policy it has."""

    name = "tokgate-reporter"

    def __init__(self, sock: socket.socket, tokgate: Tokgate) -> None:
        """`sock` takes one report a datagram; one that finds no room is left out."""
        self._socket: Final = sock
        self._tokgate: Final = tokgate
        self._task: asyncio.Task[None] | None = None

    def running(self) -> None:
        """Begin."""
        if self._tokgate.holder is not None:
            self._tokgate.holder.subscribe(self._read)
            self._task = asyncio.get_running_loop().create_task(self._report_on())

    def done(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()

    def _read(self, _: Reloaded) -> None:
        self._report()

    async def _report_on(self) -> None:
        while True:
            self._report()
            await asyncio.sleep(EVERY)

    def _report(self) -> None:
        if self._tokgate.log is None:  # it has ended, while a policy was read, say
            return
        told = report_of(self._tokgate) | {"pid": os.getpid()}
        self._tokgate.counters.put(RECORDS_DROPPED, told["records_dropped"])
        report = json.dumps(told).encode()
        with contextlib.suppress(OSError):
            self._socket.send(report, socket.MSG_DONTWAIT)


def report_of(tokgate: Tokgate) -> dict[str, Any]:
    """What a process with mitmproxy in it says of itself; keys as in a gate's report."""
    health = tokgate.health()
    counters = health.counters
    return {
        "version": health.policy_version,
        "policy_error": health.policy_error,
        "connections": health.connections,
        "errors": dict(counters.errors),
        "last_error": counters.last_error,
        "loops": counters.loops,
        "timeouts": counters.timeouts,
        "cuts": counters.cuts,
        "records_dropped": health.log.dropped,
        "log_error": None if health.log.ok else health.log.last_error,
    }
