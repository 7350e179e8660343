"""The hashes of the latest records, in a file beside the log, so that a writer knows its own lines after a crash.

A batch's hashes are written before its lines. Each line of the file has an HMAC-SHA-256 by a secret of the log's key,
so whoever can write the log can't pass off records as the writer's. After each checkpoint the file begins anew.
"""

import errno
import hashlib
import hmac
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tokgate.blocklog.atomic_file import replace_file
from tokgate.blocklog.records.chain import Head, is_hash, proper_hash, stated_head
from tokgate.blocklog.records.log_state import record_in

_MODE: Final = 0o600
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_HASH: Final = re.compile(rb'"hash": ?"([0-9a-f]{64})"')


@dataclass(slots=True)
class KnownRecords:
    """Records of one chain that the writer made: their hashes, each with the head before it."""

    before: dict[str, Head] = field(default_factory=dict)
    written: Head | None = None
    """The last that is in the log for certain, if nobody took it out."""

    def add(self, after: Head, hashes: Iterable[str]) -> None:
        """Records that follow `after`, one after the other."""
        for digest in hashes:
            self.before[digest] = after
            after = Head(after.chain, after.sequence + 1, digest)

    def owns(self, line: bytes) -> Head | None:
        """The head that a line is, if the writer made it; else None."""
        if not any(digest.decode() in self.before for digest in _HASH.findall(line)):
            return None
        record = record_in(line)
        head = None if record is None else stated_head(record)
        if record is None or head is None or (before := self.before.get(head.hash)) is None:
            return None
        return head if proper_hash(before.hash, record) == head.hash else None


class HeadJournal:
    """The file, opened for appending by `restart`. Methods raise OSError."""

    def __init__(self, path: Path, secret: Callable[[], bytes | None]) -> None:
        """`secret` gives what authenticates the lines; None: there is no journal."""
        self.path: Final = path
        self._secret: Final = secret
        self._boot: Final = _boot_id()
        self._fd: int | None = None

    def read(self) -> KnownRecords | None:
        """What an earlier run wrote; None if the file is gone, or not authentic."""
        known, durable = KnownRecords(), None
        for said in self._lines():
            after = Head(said["chain"], said["sequence"], said["hash"])
            known.add(after, said["next"])
            if not said["next"]:
                durable = after
            known.written = after if said["boot"] == self._boot else durable
        return known if known.before else None

    @property
    def is_open(self) -> bool:
        """Whether what is announced is appended to the file at the path."""
        return self._fd is not None

    def restart(self, base: Head, since: Sequence[str], head: Head) -> None:
        """Begin anew: `since` are the records after `base`, up to `head`, all of which are on the disk.

        After an OSError it is closed, unless the file at the path is the one that it had open.
        """
        secret = self._secret()
        if secret is None:
            return
        try:
            replace_file(self.path, self._line(secret, base, since) + self._line(secret, head, ()), _MODE)
        except OSError:
            if not self._is_at_its_path():
                self.close()
            raise
        self.close()
        self._fd = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW)

    def void(self) -> None:
        """Empty the closed file, on any disk: it lacks records that are in the log, which are not to be disowned."""
        with suppress(FileNotFoundError):
            os.close(os.open(self.path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK))

    def announce(self, after: Head, hashes: Sequence[str]) -> None:
        """Write which records come next, before they are written."""
        secret = self._secret()
        if self._fd is None or secret is None or not hashes:
            return
        line = self._line(secret, after, hashes)
        if os.write(self._fd, line) != len(line):
            raise OSError(errno.ENOSPC, "only part of a line was written", str(self.path))

    def sync(self) -> None:
        """Sync the file to the disk; before the log itself, which must not be ahead after a power failure."""
        if self._fd is not None:
            os.fdatasync(self._fd)

    def close(self) -> None:
        """Close the journal; nothing happens if it is closed."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _is_at_its_path(self) -> bool:
        try:
            return self._fd is not None and os.path.samestat(os.fstat(self._fd), self.path.lstat())
        except OSError:
            return False

    def _line(self, secret: bytes, after: Head, hashes: Sequence[str]) -> bytes:
        said = {"chain": after.chain, "sequence": after.sequence, "hash": after.hash, "boot": self._boot}
        text = json.dumps(said | {"next": list(hashes)}, separators=(",", ":"))
        return f"{_mac(secret, text)} {text}\n".encode()

    def _lines(self) -> Iterator[dict[str, Any]]:
        """The authentic lines, up to the first that isn't: one that a kill cut short."""
        secret = self._secret()
        if secret is None or not self.path.exists():
            return
        text = self.path.read_text("utf-8", "replace")
        for line in text.split("\n"):
            mac, _, said = line.partition(" ")
            if not is_hash(mac) or not hmac.compare_digest(mac, _mac(secret, said)):
                return
            yield json.loads(said)


def _mac(secret: bytes, text: str) -> str:
    return hmac.digest(secret, text.encode(), hashlib.sha256).hex()


def _boot_id() -> str:
    """A text that is another one after the machine was restarted."""
    with suppress(OSError):
        return _BOOT.read_text("ascii").strip()
    return ""
