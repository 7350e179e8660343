"""The process that writes the log for all others: it reads records from the channel and passes them to the writer."""

import os
import select
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tokgate.blocklog.records.record import Observer, Record, text_at
from tokgate.blocklog.write.channel import receive
from tokgate.blocklog.write.checkpointer import LogOptions
from tokgate.blocklog.write.writer import LogWriter, WriterHealth

FINISH: Final = signal.SIGUSR1
"""Write what is there, and exit: another program writes from here on."""
REPORT_EVERY: Final = 1.0
"""Seconds."""
DEADLINE: Final = 5.0
"""Seconds for writing what is left at the end."""
REMEMBERED: Final = 20_000
"""Records among which one that comes twice is recognised: more than all backlogs and queues hold."""


def collect(
    sock: socket.socket,
    path: Path,
    observer: Observer,
    lifeline: int,
    options: LogOptions | None = None,
    *,
    report: Callable[[WriterHealth], None] = lambda health: None,
) -> int:
    """Write until all senders have closed, `lifeline` has ended, or FINISH came; returns the exit code.

    SIGHUP reopens the file. What is sent after FINISH is for the collector that comes next.
    `report` is called about once a second. Exit code 3: records were lost at the end.

    Raises:
        LogLocked: another process writes this file.

    """
    for number in (signal.SIGINT, signal.SIGTERM):  # it ends last, when all senders have ended
        signal.signal(number, signal.SIG_IGN)
    writer = LogWriter(path, observer, options)
    writer.start()
    signal.signal(signal.SIGHUP, lambda *_: writer.reopen())
    finished, finish = os.pipe()
    signal.signal(FINISH, lambda *_: os.write(finish, b"."))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (FINISH,))
    sock.setblocking(False)
    latest = _Latest()
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    ending = select.poll()
    for descriptor in (lifeline, finished):
        poller.register(descriptor, select.POLLIN)
        ending.register(descriptor, select.POLLIN)
    next_report = 0.0
    while True:
        if time.monotonic() >= next_report:
            report(writer.health())
            next_report = time.monotonic() + REPORT_EVERY
        poller.poll(1000)
        ends = bool(ending.poll(0))  # first: what was sent before is taken below
        if _take(sock, writer, latest) or ends:
            return 0 if writer.close(DEADLINE) else 3


class _Latest:
    """The ids of the latest records: one that a killed process had sent may be sent again from its backlog."""

    def __init__(self) -> None:
        self._order: Final[deque[str]] = deque()
        self._ids: Final[set[str]] = set()

    def is_new(self, record: Record) -> bool:
        """Whether a record did not come before; records without an id always are new."""
        known = text_at(record, "event", "id")
        if known is None:
            return True
        if known in self._ids:
            return False
        self._order.append(known)
        self._ids.add(known)
        if len(self._order) > REMEMBERED:
            self._ids.discard(self._order.popleft())
        return True


def _take(sock: socket.socket, writer: LogWriter, latest: _Latest) -> bool:
    """Pass all records that are there to the writer; whether all senders have closed."""
    while True:
        try:
            record = receive(sock)
        except BlockingIOError:
            return False
        except ValueError:  # our own processes send nothing but records
            continue
        if record is None:
            return True
        if latest.is_new(record):
            writer.put(record)
