"""The process that writes the log for all others: it reads records from the channel and passes them to the writer."""

import math
import os
import select
import signal
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tokgate.blocklog.read.reader import latest_ids
from tokgate.blocklog.records.record import Observer, text_at
from tokgate.blocklog.write.channel import Backlog, receive
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


ORPHANED: Final = 5.0
"""Seconds for which it takes the last records of processes whose supervisor is gone."""


def collect(
    sock: socket.socket,
    path: Path,
    observer: Observer,
    lifeline: int,
    options: LogOptions | None = None,
    *,
    report: Callable[[WriterHealth], None] = lambda health: None,
    backlog: int | None = None,
) -> int:
    """Write until all senders have closed, or FINISH came; returns the exit code.

    Once `lifeline` has ended the senders have ORPHANED seconds left. What is sent after FINISH is for the collector
    that comes next. `report` is called about once a second. `backlog` keeps what isn't on the disk yet. Exit code 3:
    records were lost at the end.

    Raises:
        LogRefused: another process writes this file.

    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # it ends last, when all senders have ended
        signal.signal(number, signal.SIG_IGN)
    writer = LogWriter(path, observer, options)
    latest = OrderedDict.fromkeys(latest_ids(path, REMEMBERED))  # a killed collector may have written what it kept
    writer.start()
    finished, finish = os.pipe()
    signal.signal(FINISH, lambda *_: os.write(finish, b"."))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (FINISH,))
    sock.setblocking(False)
    kept, marked = Backlog(backlog), 0
    on_disk: threading.Event | None = None
    poller = select.poll()
    for descriptor in (sock.fileno(), lifeline, finished):
        poller.register(descriptor, select.POLLIN)
    next_report, give_up = 0.0, math.inf
    while True:
        now = time.monotonic()
        if now >= next_report:
            report(writer.health())
            next_report = now + REPORT_EVERY
            if on_disk is not None and on_disk.is_set():
                kept.sent(marked)
                on_disk = None
            if on_disk is None and len(kept):
                on_disk, marked = writer.mark(), len(kept)
        ready = {descriptor for descriptor, _ in poller.poll(1000)}
        if lifeline in ready:
            poller.unregister(lifeline)
            give_up = now + ORPHANED
        # After the look at `finished`: what was sent before is taken.
        if _take(sock, writer, latest, kept) or finished in ready or now >= give_up:
            whole = writer.close(DEADLINE)
            kept.sent(len(kept) if whole else 0)
            return 0 if whole else 3


def _take(sock: socket.socket, writer: LogWriter, latest: OrderedDict[str, None], kept: Backlog) -> bool:
    """Pass all records that are there to the writer; whether all senders have closed.

    `latest` are the ids of the latest: one that a killed process had sent may be sent again from its backlog.
    """
    while True:
        try:
            record = receive(sock, kept)
        except BlockingIOError:
            return False
        except ValueError:  # our own processes send nothing but records
            continue
        if record is None:
            return True
        known = text_at(record, "event", "id")
        if known in latest:
            continue
        if known is not None:
            latest[known] = None
            if len(latest) > REMEMBERED:
                latest.popitem(last=False)
        writer.put(record)
