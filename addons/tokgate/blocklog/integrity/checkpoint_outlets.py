"""Sends checkpoints to journald or syslog, so that whoever can change the log can't change them too.

Sends datagrams, which never wait. Those that announced a key are also appended to a file beside the log.
"""

import logging
import os
import re
import socket
from collections.abc import Callable
from logging.handlers import SysLogHandler
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

JOURNAL: Final = Path("/run/systemd/journal/socket")
DEV_LOG: Final = Path("/dev/log")
_NOTICE: Final = 5
_MODE: Final = 0o640
_SYSLOG: Final = re.compile(r"syslog(://.+)?")

type Outlet = Callable[[str], None]
"""Sends one line of text. Raises OSError."""


def outlet(target: str, *, journal: Path = JOURNAL, dev_log: Path = DEV_LOG) -> Outlet:
    """An outlet for `journald`, `syslog` (this machine's) or `syslog://host:port` (UDP). Raises ValueError."""
    if target == "journald":
        return lambda text: _to_journal(text, journal)
    if not _SYSLOG.fullmatch(target):
        raise ValueError(f"{target!r} is not journald, syslog or syslog://host:port")
    if target == "syslog":
        return lambda text: _to_syslog(text, str(dev_log))
    url = urlsplit(target)
    if not url.hostname or url.path.strip("/") or url.query or url.fragment or url.username:
        raise ValueError(f"{target!r} is not syslog://host:port")
    address = (url.hostname, url.port or 514)
    return lambda text: _to_syslog(text, address)


def _to_journal(text: str, journal: Path) -> None:
    """One entry in journald's native protocol (systemd, JOURNAL_NATIVE_PROTOCOL): a line for each field.

    Text without newlines needs no escaping.
    """
    fields = {"MESSAGE": text, "PRIORITY": str(_NOTICE), "SYSLOG_IDENTIFIER": "tokgate"}
    datagram = "".join(f"{name}={value}\n" for name, value in fields.items()).encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(str(journal))
        sock.send(datagram)


class _Handler(SysLogHandler):
    """A SysLogHandler that raises errors."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  (logging's name)
        raise


def _to_syslog(text: str, address: str | tuple[str, int]) -> None:
    handler = _Handler(address, facility=SysLogHandler.LOG_DAEMON)
    try:
        handler.ident = "tokgate: "
        handler.append_nul = False
        handler.emit(logging.LogRecord("tokgate", logging.INFO, "", 0, text, (), None))
    finally:
        handler.close()


def append_succession(path: Path, text: str) -> None:
    """Append a checkpoint that announced the next key as a line of its own, and sync it to the disk. Raises OSError."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    with os.fdopen(os.open(path, flags, _MODE), "r+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        torn = size > 0 and os.pread(file.fileno(), 1, size - 1) != b"\n"  # a full disk or a crash left part of a line
        file.write(b"\n" * torn + text.encode() + b"\n")
        os.fsync(file.fileno())
