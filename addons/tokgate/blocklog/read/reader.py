"""Reads logs line by line in constant memory: rotated, compressed, torn, or still being written.

A line that is no record is reported in its place, and reading goes on.
"""

import gzip
import hashlib
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from io import BufferedReader
from ipaddress import ip_network
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from whenever import Instant

from tokgate.blocklog.compression import zstd
from tokgate.blocklog.paths import PACKED
from tokgate.blocklog.records.chain import Head
from tokgate.blocklog.records.log_state import Foreign, Torn
from tokgate.blocklog.records.record import Record, decode, instant_of, is_alias, text_at, value_at
from tokgate.policy.values.hostname import parse_address
from tokgate.policy.values.prefix_table import IPNetwork, within

MAX_LINE: Final = 1 << 20
"""Longest line that is read as a record, in octets; the writer's lines are far shorter."""
UNREADABLE: Final = (OSError, EOFError, zlib.error, zstd.ZstdError)
"""What reading a file raises that is damaged, or was cut short while it was compressed."""


@dataclass(frozen=True, slots=True)
class Line:
    """A record and its position; `number` counts lines from 1."""

    file: str
    number: int
    record: Record
    raw: bytes


@dataclass(frozen=True, slots=True)
class Junk:
    """A line of `size` octets that holds no record, and why not; `size` 0 if the rest of the file is unreadable."""

    file: str
    number: int
    size: int
    problem: str

    def __str__(self) -> str:
        return f"{self.file}:{self.number}: {self.problem} ({self.size} bytes)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which records are wanted; a field that is None accepts all. `[since, until)` is half-open.

    `client` is a network, or an alias (a pseudonym) as in the log. `name` also accepts subdomains. `user` is as in the
    log.
    """

    since: Instant | None = None
    until: Instant | None = None
    client: IPNetwork | str | None = None
    user: str | None = None
    name: str | None = None
    ban: str | None = None
    action: str | None = None
    verdict: str | None = None
    network: str | None = None

    def accepts(self, record: Record) -> bool:
        """Whether a record meets every condition."""
        own = value_at(record, "tokgate")
        return (
            self._in_time(record)
            and self._of_client(record)
            and (self.user is None or value_at(record, "user", "name") == self.user)
            and self._of_name(record)
            and (self.ban is None or value_at(own, "ban") == self.ban)
            and (self.action is None or value_at(record, "event", "action") == self.action)
            and (self.verdict is None or value_at(own, "verdict") == self.verdict)
            and (self.network is None or value_at(own, "network") == self.network)
        )

    def _in_time(self, record: Record) -> bool:
        if self.since is None and self.until is None:
            return True
        at = instant_of(record)
        if at is None:
            return False
        return (self.since is None or at >= self.since) and (self.until is None or at < self.until)

    def _of_client(self, record: Record) -> bool:
        if self.client is None:
            return True
        shown = text_at(record, "source", "ip") or text_at(record, "source", "address") or ""
        if isinstance(self.client, str):
            return shown == self.client
        try:  # a log may name prefixes: a prefix matches if it lies within the wanted one
            return within(client_network(shown), self.client)
        except ValueError:  # an alias
            return False

    def _of_name(self, record: Record) -> bool:
        if self.name is None:
            return True
        name = value_at(record, "destination", "domain")
        return isinstance(name, str) and (name == self.name or name.endswith("." + self.name))


def client_network(text: str) -> IPNetwork:
    """An address or CIDR as a network. Raises ValueError."""
    address = parse_address(text)
    return ip_network(address if address is not None else text, strict=False)


def client_filter(text: str) -> IPNetwork | str:
    """`Filter.client` from what a person types: an address, a CIDR, or a pseudonym. Raises ValueError."""
    return text if is_alias(text) else client_network(text)


def read(paths: Iterable[Path], opener: Callable[[Path], BinaryIO] | None = None) -> Iterator[Line | Junk]:
    """All lines of files in the order given, opened by `open_log`. Raises OSError if one can't be opened."""
    for path in paths:
        if path.suffix in PACKED and not path.stat().st_size:  # Python reads an empty .gz as one of nothing
            yield Junk(str(path), 1, 0, "the rest can't be read: the file is empty")
            continue
        with (opener or open_log)(path) as stream:
            yield from _lines(stream, str(path))


def parse_line(raw: bytes, file: str, number: int) -> Line | Junk:
    """The record of a line; Junk without a newline, or if it is no JSON object. `number` counts from 1."""
    try:
        return Line(file, number, decode(raw), raw.rstrip(b"\n"))
    except ValueError as error:
        if not raw.endswith(b"\n"):
            return Junk(file, number, len(raw), "the last line is torn")
        return Junk(file, number, len(raw), f"not a record: {error}")


@dataclass(frozen=True, slots=True)
class Rotated:
    """A rotated file: its last record, what is torn after it or was put there, and its size in octets, decompressed."""

    name: str
    lines: int
    size: int
    last: Record
    torn: Torn | None
    foreign: Foreign | None = None


def as_rotated(path: Path, owns: Callable[[bytes], Head | None] | None = None) -> Rotated | None:
    """Read a rotated file; None if its last complete line is no record. Raises UNREADABLE.

    With `owns`, its last record is the one with the highest number of those that it knows, if there is one.
    """
    lines, size, latest, rest, owned = 0, 0, b"", _Rest(), 0
    with open_log(path) as stream:
        for raw in stream:
            lines, size = lines + 1, size + len(raw)
            head = None if owns is None else owns(raw)
            if (head is not None and head.sequence > owned) or (not owned and raw.endswith(b"\n")):
                latest, rest, owned = raw, _Rest(lines), 0 if head is None else head.sequence
            else:
                rest.add(raw)
    try:
        last = decode(latest)
    except ValueError:
        return None
    if rest.lines > 1 or rest.ended:
        return Rotated(path.name, lines, size, last, None, rest.foreign(path.name))
    torn = Torn(rest.size, rest.digest.hexdigest()) if rest.lines else None
    return Rotated(path.name, lines, size, last, torn)


@dataclass(slots=True)
class _Rest:
    """The lines of a file after its last record, which is line `after`."""

    after: int = 0
    lines: int = 0
    size: int = 0
    ended: bool = False
    digest: Any = field(default_factory=hashlib.sha256)

    def add(self, raw: bytes) -> None:
        """Add the next line."""
        if self.ended:
            self.digest.update(b"\n")
        self.ended = raw.endswith(b"\n")
        self.size += len(raw)
        self.lines += 1
        self.digest.update(raw.removesuffix(b"\n"))

    def foreign(self, file: str) -> Foreign:
        """The lines so far as one finding: another program wrote them."""
        size = self.size - self.ended
        return Foreign(file, self.after + 1, self.lines, size, self.digest.hexdigest(), running=False)


def open_log(path: Path) -> BufferedReader:
    """Open a log file for reading, decompressed by its suffix. Raises OSError; reading raises UNREADABLE."""
    if path.suffix == ".gz":
        return cast(BufferedReader, gzip.open(path, "rb"))
    if path.suffix == ".zst":
        return cast(BufferedReader, zstd.open(path, "rb"))
    return path.open("rb")


def _lines(stream: BinaryIO, file: str) -> Iterator[Line | Junk]:
    number = 0
    try:
        while raw := stream.readline(MAX_LINE):
            number += 1
            if len(raw) < MAX_LINE or raw.endswith(b"\n"):
                yield parse_line(raw, file, number)
                continue
            size = len(raw)
            while raw and not raw.endswith(b"\n"):
                raw = stream.readline(MAX_LINE)
                size += len(raw)
            yield Junk(file, number, size, f"longer than {MAX_LINE} bytes")
    except UNREADABLE as error:
        yield Junk(file, number + 1, 0, f"the rest can't be read: {error}")
