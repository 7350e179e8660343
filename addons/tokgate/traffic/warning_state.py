"""The state of clients under a ban that warns: who has continued, and who can't be shown the page.

All processes share one append-only file beside the log: an entry of one process is valid in all of them, and after a
restart. It names nobody: a line is a keyed digest of the client and the ban, and an end.
"""

import errno
import fcntl
import hmac
import logging
import os
import re
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from whenever import Instant, TimeDelta

from tokgate.blocklog.atomic_file import replace_file
from tokgate.blocklog.paths import warned_path_for
from tokgate.policy.analysis.terms import LONGEST
from tokgate.policy.membership import Identity, folded
from tokgate.policy.observation import Passed
from tokgate.policy.schedule import Duration, add_duration
from tokgate.policy.values.hostname import parse_address
from tokgate.wire.client_hello import ClientHello

logger = logging.getLogger(__name__)

PAGELESS_FOR: Final = TimeDelta(hours=12)
"""How long it is remembered that a client can't be shown a page: it may get the authority meanwhile."""
SLOTS: Final = 64
"""Kinds of software of one client that are told apart: the most lines that a client can cause in PAGELESS_FOR."""

_HEADER: Final = re.compile(rb"^tokgate-warned 1 ([0-9a-f]{64})$", re.MULTILINE)
_LINE: Final = re.compile(rb"([0-9a-f]{32}) ([0-9]{1,12})")
_AT_ONCE: Final = 1 << 20
_LONGEST_LINE: Final = 128
_PASSING: Final = frozenset({21, 41, 42, 44})
"""Extensions that come and go with the same software: padding, pre_shared_key, early_data, cookie."""


@dataclass(frozen=True, slots=True)
class Person:
    """Who is warned: a client's address, and the authenticated user, since several may share an address."""

    client: str
    user: str | None = None

    @classmethod
    def at(cls, client: str, identity: Identity | None) -> "Person":
        """The person at a client, as far as is known."""
        return cls(client, None if identity is None else identity.user)

    @property
    def text(self) -> str:
        """The person as stored: one text for all spellings of an address and a name."""
        address = parse_address(self.client)
        return f"{self.client if address is None else address}\0{folded(self.user or '')}"


class WarnedClients:
    """The clients that need no warning page; asked only for traffic under a ban that warns with one."""

    def __init__(self, descriptor: int | None = None) -> None:
        """`descriptor` is the shared file, as `open_beside` makes it; without one it is remembered here alone."""
        self.descriptor: Final = descriptor
        self._ends: dict[str, tuple[int, ...]] = {}
        self._read = 0
        self._last = b""
        """The octets before `_read`: with others in their place the file was emptied, and is another."""
        self._prune_at = 4096
        secret = _secret_in(b"" if descriptor is None else os.pread(descriptor, _AT_ONCE, 0))
        self._header: Final = _header(secret)
        self._clients: Final = hmac.digest(secret, b"clients", "sha256")
        self.token_key: Final = hmac.digest(secret, b"tokens", "sha256")
        """The key of the form's token, the same in all processes."""

    def passed(
        self, who: Person, ban: str, at: Instant, hello: ClientHello | None = None, *, longest: Duration | None = None
    ) -> Passed | None:
        """Why a client passes a ban's warning without the page; None if the page has to be shown.

        `longest`: for how long one may pass who continues under this ban.
        """
        self.catch_up()
        latest = at + LONGEST if longest is None else add_duration(at, longest, "UTC")
        if self._holds(self._continued(who, ban), at, latest):
            return Passed.CONTINUED
        if hello is not None and (hello.name is None or self._is_pageless(who.client, software(hello), at)):
            return Passed.NO_PAGE
        return None

    def continues(self, who: Person, ban: str, until: Instant) -> None:
        """Record that a client has continued past the warning of a ban. Raises OSError if the file can't be written."""
        self._remember(self._continued(who, ban), until)

    def has_no_page(self, client: str, software: bytes, at: Instant) -> None:
        """Record that a client's software can't be shown the page. Raises OSError if the file can't be written."""
        if not self._is_pageless(client, software, at):
            self._remember(self._pageless(client, software), at + PAGELESS_FOR)

    def catch_up(self) -> None:
        """Read what any process has added since."""
        if self.descriptor is None:
            return
        try:
            while (data := os.pread(self.descriptor, _AT_ONCE, self._read - len(self._last))) != self._last:
                if not data.startswith(self._last):  # emptied, to show the page again
                    self._read, self._last, self._ends = 0, b"", {}
                    os.write(self.descriptor, self._header)
                    continue
                lines = data[self._last.rfind(b"\n") + 1 :].split(b"\n")[:-1]  # with what was unfinished before
                self._read += len(data) - len(self._last)
                self._last = data[-_LONGEST_LINE:]
                for digest, end in _entries(lines):
                    self._ends[digest] = _with(end, self._ends.get(digest, ()))
        except OSError as error:
            logger.warning("who has continued past a warning can't be read: %s", error)

    def _remember(self, digest: str, until: Instant) -> None:
        end = until.timestamp()
        self._ends[digest] = _with(end, self._ends.get(digest, ()))
        if self.descriptor is not None:
            line = _line(digest, end)
            if os.write(self.descriptor, line) != len(line):
                raise OSError(errno.ENOSPC, "who has continued past a warning could not be written whole")
            self.catch_up()  # else an emptied file could look like the one that was read

    def _is_pageless(self, client: str, software: bytes, at: Instant) -> bool:
        return self._holds(self._pageless(client, software), at, at + PAGELESS_FOR)

    def _holds(self, digest: str, at: Instant, latest: Instant) -> bool:
        now = at.timestamp()
        if len(self._ends) > self._prune_at:
            self._ends = {known: ends for known, ends in self._ends.items() if ends[0] > now}
            self._prune_at = 2 * len(self._ends) + 4096
        # A later end is of a clock that was ahead, or damage. An hour: of daylight saving.
        return any(now < end <= latest.timestamp() + 3600 for end in self._ends.get(digest, ()))

    def _continued(self, who: Person, ban: str) -> str:
        return self._digest("continued", who, ban.encode())

    def _pageless(self, client: str, software: bytes) -> str:
        slot = int.from_bytes(hmac.digest(self._clients, software, "sha256")) % SLOTS
        return self._digest("pageless", Person(client), str(slot).encode())

    def _digest(self, kind: str, who: Person, what: bytes) -> str:
        text = f"{kind}\0{who.text}\0".encode("utf-8", "backslashreplace") + what
        return hmac.digest(self._clients, text, "sha256")[:16].hex()


def software(hello: ClientHello) -> bytes:
    """A fingerprint of the software: what its ClientHellos offer to any server. Tells a browser from an app."""
    extensions = sorted(kind for kind in hello.extension_types if kind not in _PASSING)
    offers = (sorted(hello.versions), sorted(hello.ciphers), extensions, hello.signature_algorithms, hello.alpn)
    return repr([list(offer) for offer in offers]).encode()


def open_beside(log: Path, now: Instant) -> WarnedClients:
    """Open the file, without the lines that are over or damaged. One process does, before all others have it.

    Where there can be no file, memory takes its place: what it holds ends with the processes.
    """
    path = warned_path_for(log)
    try:
        replace_file(path, _compacted(path, now), 0o600)
        return WarnedClients(os.open(path, os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW))
    except OSError as error:
        logger.warning("who continues past a warning can't be kept in %s, a restart will forget it: %s", path, error)
    descriptor = os.memfd_create("tokgate-warned")
    fcntl.fcntl(descriptor, fcntl.F_SETFL, os.O_APPEND)
    os.write(descriptor, _header(_secret_in(b"")))
    return WarnedClients(descriptor)


def _compacted(path: Path, now: Instant) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return _header(_secret_in(b""))
    with os.fdopen(descriptor, "rb") as file:
        content = file.read()
    ends: dict[str, tuple[int, ...]] = {}
    for digest, end in _entries(content.split(b"\n")):
        if end > now.timestamp():
            ends[digest] = _with(end, ends.get(digest, ()))
    lines = (_line(digest, end) for digest, held in ends.items() for end in held)
    return _header(_secret_in(content)) + b"".join(lines)


def _with(end: int, known: tuple[int, ...]) -> tuple[int, ...]:
    """The ends of one entry, the latest first: it counts, unless a clock that was ahead has set it."""
    return (*(each for each in known if each > end), end)


def _entries(lines: Iterable[bytes]) -> Iterator[tuple[str, int]]:
    """The entries in lines; damaged lines are skipped."""
    for line in lines:
        found = _LINE.fullmatch(line)
        if found is not None:
            yield found[1].decode(), int(found[2])


def _secret_in(content: bytes) -> bytes:
    """The secret under which a file's lines were written; a new one, to which they mean nothing, if it has none."""
    found = _HEADER.search(content)
    return bytes.fromhex(found[1].decode()) if found is not None else secrets.token_bytes(32)


def _header(secret: bytes) -> bytes:
    return f"tokgate-warned 1 {secret.hex()}\n".encode()


def _line(digest: str, end: int) -> bytes:
    """A line by itself, also after one that was left unfinished."""
    return f"\n{digest} {end}\n".encode()
