"""The process that writes the log for all others: takes records from the channel and gives them to the one writer."""

import select
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tokgate.blocklog.channel import receive
from tokgate.blocklog.custody import Sealing
from tokgate.blocklog.health import Health
from tokgate.blocklog.stamp import Observer
from tokgate.blocklog.writer import LogWriter

REPORT_EVERY: Final = 1.0
"""Seconds."""
DEADLINE: Final = 5.0
"""Seconds at the end in which the disk may take what is left."""


def collect(
    sock: socket.socket,
    path: Path,
    observer: Observer,
    lifeline: int,
    sealing: Sealing | None = None,
    *,
    report: Callable[[Health], None] = lambda health: None,
) -> int:
    """Write until all senders have closed, or `lifeline` has ended; the exit code. SIGHUP reopens the file.

    `report` is told about once a second how the log fares.

    Raises:
        LogLocked: another process writes this file.

    """
    for number in (signal.SIGINT, signal.SIGTERM):  # it ends last, when nobody sends any more
        signal.signal(number, signal.SIG_IGN)
    writer = LogWriter(path, observer, sealing)
    writer.start()
    signal.signal(signal.SIGHUP, lambda *_: writer.reopen())
    sock.setblocking(False)
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    poller.register(lifeline, select.POLLIN)
    next_report = 0.0
    while True:
        if time.monotonic() >= next_report:
            report(writer.health())
            next_report = time.monotonic() + REPORT_EVERY
        poller.poll(1000)
        ended, orphaned = _take(sock, writer), bool(select.select([lifeline], [], [], 0)[0])
        if ended or orphaned:
            return 0 if writer.close(DEADLINE) else 3


def _take(sock: socket.socket, writer: LogWriter) -> bool:
    """Give everything that has come to the writer; whether all senders have gone."""
    while True:
        try:
            record = receive(sock)
        except BlockingIOError:
            return False
        except ValueError:  # our own processes send nothing but records
            continue
        if record is None:
            return True
        writer.put(record)
