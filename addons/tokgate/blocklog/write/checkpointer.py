"""Signs the log while it is written: the chain's head, its checkpoints, and the outlets that get them.

Used by the writer's thread only. A key that can't be read or made is reported, and the log is written without it.
Outlets are journald and syslog, where whoever can change the log can't change checkpoints too.
"""

import os
import re
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import uuid4

from tokgate.blocklog.integrity.checkpoint import Checkpoint, Signer, Tree, checkpoint_of, tree_root
from tokgate.blocklog.paths import heads_path_for, key_path_for, successions_path_for
from tokgate.blocklog.records.chain import Head, proper_hash, stated_head
from tokgate.blocklog.records.log_state import record_in
from tokgate.blocklog.records.record import value_at
from tokgate.blocklog.write.head_journal import HeadJournal, KnownRecords
from tokgate.policy.settings import ClientsShown, LogSettings

JOURNAL: Final = Path("/run/systemd/journal/socket")
DEV_LOG: Final = Path("/dev/log")
_DAEMON_INFO: Final = "<30>tokgate: "
"""Facility and severity (RFC 3164 §4.1.1), and the tag."""
_MODE: Final = 0o640
_SYSLOG: Final = re.compile(r"syslog(://.+)?")

type Outlet = Callable[[str], None]
"""Sends one line of text. Raises OSError."""


def outlet(target: str, *, journal: Path = JOURNAL, dev_log: Path = DEV_LOG) -> Outlet:
    """An outlet for `journald`, `syslog` (this machine's) or `syslog://host:port` (UDP). Raises ValueError."""
    if target == "journald":  # its native protocol (systemd, JOURNAL_NATIVE_PROTOCOL): a line for each field
        return lambda text: _send(f"MESSAGE={text}\nPRIORITY=5\nSYSLOG_IDENTIFIER=tokgate\n", str(journal))
    if not _SYSLOG.fullmatch(target):
        raise ValueError(f"{target!r} is not journald, syslog or syslog://host:port")
    if target == "syslog":
        return lambda text: _send(_DAEMON_INFO + text, str(dev_log))
    url = urlsplit(target)
    if not url.hostname or url.path.strip("/") or url.query or url.fragment or url.username:
        raise ValueError(f"{target!r} is not syslog://host:port")
    address = (url.hostname, url.port or 514)
    return lambda text: _send(_DAEMON_INFO + text, address)


def _send(text: str, address: str | tuple[str, int]) -> None:
    """Send a datagram to a socket of this machine, or to a host and port over UDP; never waits for a reader."""
    ends: list[Any] = [(socket.AF_UNIX, address)]
    if isinstance(address, tuple):
        ends = [(family, to) for family, *_, to in socket.getaddrinfo(*address, type=socket.SOCK_DGRAM)]
    family, to = ends[0]
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.sendto(text.encode(), to)


def append_succession(path: Path, text: str) -> None:
    """Append a checkpoint that announced the next key as a line of its own, and sync it to the disk. Raises OSError."""
    flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
    with os.fdopen(os.open(path, flags, _MODE), "r+b", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        torn = size > 0 and os.pread(file.fileno(), 1, size - 1) != b"\n"  # a full disk or a crash left part of a line
        file.write(b"\n" * torn + text.encode() + b"\n")
        os.fsync(file.fileno())


@dataclass(frozen=True, slots=True, kw_only=True)
class LogOptions:
    """How a log is signed, names clients, and is deleted. `key` is the private key's file, by default beside the log.

    A checkpoint is due after `records` records or `seconds`. The key of pseudonyms changes every `pseudonym_days`;
    files are deleted after `retention_days`. At least `keep_free` octets of the disk are left free.
    """

    key: Path | None = None
    records: int = 1000
    seconds: float = 60.0
    forward_secure: bool = False
    outlets: tuple[Outlet, ...] = ()
    clients: ClientsShown = ClientsShown.PLAIN
    pseudonym_days: int = 30
    retention_days: int | None = None
    keep_free: int = 256 << 20


def log_options_of(settings: LogSettings) -> LogOptions:
    """The options that a policy's settings state. Raises ValueError for an unknown outlet."""
    return LogOptions(
        key=None if settings.key is None else Path(settings.key),
        forward_secure=settings.forward_security,
        outlets=tuple(outlet(target) for target in settings.checkpoint_to),
        clients=settings.clients,
        pseudonym_days=settings.pseudonym_days,
        retention_days=settings.retention_days,
        keep_free=settings.keep_free << 20,
    )


class Checkpointer:
    """The head of the chain that is being written, and its checkpoints."""

    def __init__(self, log: Path, options: LogOptions, trouble: Callable[[Exception], None]) -> None:
        """Nothing is read yet. `trouble` is called with each OSError."""
        self.head = Head(str(uuid4()))
        self.options: Final = options
        self.attested = 0
        """The sequence up to which no further checkpoint is needed."""
        self._key: Final = options.key or key_path_for(log)
        self._journal: Final = HeadJournal(heads_path_for(log), self._secret)
        self._successions: Final = successions_path_for(log)
        self._trouble: Final = trouble
        self._signer: Signer | None = None
        self._base = self.head
        self._since: list[str] = []  # hashes of all records after `_base`: from the last checkpoint's own record on
        self._unannounced = False
        """Whether the journal lacks records that are about to be written."""
        self._written: Final[list[Checkpoint]] = []

    @property
    def unattested(self) -> int:
        """How many records came after the last checkpoint."""
        return self.head.sequence - self.attested

    def known(self) -> KnownRecords:
        """The records since the last checkpoint that this run wrote, or took for its own."""
        known = KnownRecords(written=self.head)
        known.add(self._base, self._since)
        return known

    def known_on_disk(self) -> KnownRecords | None:
        """The records that an earlier run wrote with this key; None if nothing tells."""
        try:
            return self._journal.read() if self._key.exists() else None
        except OSError as error:
            self._trouble(error)
            return None

    def signed(self, line: bytes, after: Head | None = None) -> Head | None:
        """The head that a line is, if it is a checkpoint that this log's key or the one before it signed; else None.

        With `after` only a later one of the same chain.
        """
        record = record_in(line) if self._signer is not None and b'"log-checkpoint"' in line else None
        head = None if record is None else stated_head(record)
        if record is None or head is None:
            return None
        if after is not None and (head.chain != after.chain or head.sequence <= after.sequence):
            return None
        checkpoint = checkpoint_of(head.chain, value_at(record, "tokgate", "checkpoint"))
        if checkpoint is None or self._signer is None or checkpoint.head.sequence + 1 != head.sequence:
            return None
        ours = self._signer.public in (checkpoint.key, checkpoint.next_key) and checkpoint.genuine
        return head if ours and proper_hash(checkpoint.head.hash, record) == head.hash else None

    def resume_at(self, head: Head, known: KnownRecords, *, attested: bool) -> None:
        """Continue after a record that an earlier run wrote; `attested`: it is a checkpoint."""
        since: list[str] = []
        base = head
        while (before := known.before.get(base.hash)) is not None:
            since.append(base.hash)
            base = before
        self.head, self._base, self._since = head, base, since[::-1]
        self.attested = head.sequence if attested else 0

    def checkpoint(self, head: Head, at: str, coming: Sequence[tuple[Head, bool]] = ()) -> Checkpoint | None:
        """A signed checkpoint of a head; None without a usable key.

        `coming` are the records that aren't written yet, up to `head`, and whether each is a checkpoint.
        """
        try:
            signer = self._open_signer()
        except OSError as error:
            self._trouble(error)
            self.attested = head.sequence  # don't retry with every batch
            self._base, self._since = self.head, []
            return None
        first, leaves = self._base.sequence + 1, list(self._since)
        for each, is_checkpoint in coming:
            if is_checkpoint:
                first, leaves = each.sequence, []
            leaves.append(each.hash)
        tree = Tree(first, tree_root([bytes.fromhex(leaf) for leaf in leaves]).hex()) if leaves else None
        return signer.sign(head, at, tree)

    def announce(self, hashes: Sequence[str]) -> None:
        """Note the hashes of the records that are written next."""
        try:
            if not self._journal.is_open:
                self._restart_journal()
            self._journal.announce(self.head, hashes)
        except OSError as error:
            self._trouble(error)
            self._journal.close()  # it is begun anew with the next batch, or once these records are on the disk
            self._unannounced = True

    def wrote(self, head: Head, checkpoint: Checkpoint | None) -> None:
        """Note that a record was written completely, and with it a checkpoint, if it holds one."""
        if self._unannounced:
            self._unannounced = False
            self._attempt(self._journal.void)
        before, self.head = self.head, head
        if checkpoint is not None:
            self.attested = head.sequence
            self._written.append(checkpoint)
            self._base, self._since = before, []
        self._since.append(head.hash)

    def syncing(self) -> None:
        """To be called before the log is synced."""
        self._attempt(self._journal.sync)

    def synced(self) -> None:
        """Note that all that was written is on the disk: send its checkpoints, and replace keys that evolve."""
        due = bool(self._written) or not self._journal.is_open
        while self._written:
            checkpoint = self._written.pop(0)
            if checkpoint.next_key is not None:
                self._attempt(partial(self._succeed, checkpoint))
            for send in self.options.outlets:
                self._attempt(partial(send, checkpoint.message()))
        if due:
            self._attempt(self._restart_journal)

    def _succeed(self, checkpoint: Checkpoint) -> None:
        """Replace the key, once the checkpoint that announces the next one is kept as well; else it signs again."""
        append_succession(self._successions, checkpoint.message())
        if self._signer is not None:
            self._signer.used(checkpoint)

    def close(self) -> None:
        """Close the journal; the next record opens it again."""
        self._attempt(self._journal.close)

    def _open_signer(self) -> Signer:
        if self._signer is None:
            self._signer = Signer(self._key, evolving=self.options.forward_secure)
        return self._signer

    def _secret(self) -> bytes | None:
        """What authenticates the journal; None without a usable key, which the next checkpoint tells."""
        try:
            return self._open_signer().secret
        except OSError:
            return None

    def _restart_journal(self) -> None:
        self._journal.restart(self._base, self._since, self.head)
        self._unannounced = False

    def _attempt(self, act: Callable[[], None]) -> None:
        try:
            act()
        except OSError as error:
            self._trouble(error)
