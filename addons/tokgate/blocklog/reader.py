"""Reading logs back, line by line in constant memory: rotated, compressed, torn, or still being written.

A line that makes no sense is reported in its place and never ends the reading.
"""

import gzip
import hashlib
import re
import sys
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import BinaryIO, Final, cast

from whenever import Instant

from tokgate.blocklog.aliases import is_alias
from tokgate.blocklog.document import Record
from tokgate.blocklog.line import decode
from tokgate.blocklog.segment import Torn
from tokgate.policy.names import parse_address
from tokgate.policy.prefixes import IPNetwork

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAX_LINE: Final = 1 << 20
"""Longest line that is read as a record, in bytes; the writer's are far below."""


@dataclass(frozen=True, slots=True)
class Line:
    """A record and where it stands; `number` counts from 1."""

    file: str
    number: int
    record: Record
    raw: bytes


@dataclass(frozen=True, slots=True)
class Junk:
    """A line that holds no record, of `size` bytes, and why not."""

    file: str
    number: int
    size: int
    problem: str

    def __str__(self) -> str:
        return f"{self.file}:{self.number}: {self.problem} ({self.size} bytes)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which records are wanted; what is None accepts all. `[since, until)` is half-open; `name` includes subdomains.

    `client` is a network, or a word that stands for a client where the log doesn't name its address; `user` is as the
    log has it.
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
        try:  # of a log that names prefixes, those that are wholly within
            return client_network(shown).subnet_of(self.client)  # type: ignore[arg-type]
        except (ValueError, TypeError):  # no address, or of the other family
            return False

    def _of_name(self, record: Record) -> bool:
        if self.name is None:
            return True
        name = value_at(record, "destination", "domain")
        return isinstance(name, str) and (name == self.name or name.endswith("." + self.name))


def value_at(record: object, *path: str) -> object:
    """What stands at `path`, or None: records of other versions and other hands may lack or bend anything."""
    for key in path:
        if not isinstance(record, dict):
            return None
        record = record.get(key)
    return record


def text_at(record: object, *path: str) -> str | None:
    """As `value_at`, for text."""
    value = value_at(record, *path)
    return value if isinstance(value, str) else None


def instant_of(record: Record) -> Instant | None:
    """When a record was made; None if it doesn't say."""
    return instant_in(text_at(record, "@timestamp"))


def instant_in(text: str | None) -> Instant | None:
    """The instant that a text states; None if it states none."""
    try:
        return None if text is None else Instant.parse_iso(text)
    except ValueError:
        return None


def client_network(text: str) -> IPNetwork:
    """An address or CIDR as a network. Raises ValueError."""
    address = parse_address(text)
    return ip_network(address if address is not None else text, strict=False)


def client_filter(text: str) -> IPNetwork | str:
    """What a person types for `Filter.client`: an address, a CIDR, or a pseudonym. Raises ValueError."""
    return text if is_alias(text) else client_network(text)


def read(paths: Iterable[Path]) -> Iterator[Line | Junk]:
    """All lines of files in the order given, `.gz` and `.zst` unpacked. Raises OSError if one can't be opened."""
    for path in paths:
        with open_log(path) as stream:
            yield from _lines(stream, str(path))


def parse_line(raw: bytes, file: str, number: int) -> Line | Junk:
    """A line, with or without its newline."""
    try:
        return Line(file, number, decode(raw), raw.rstrip(b"\n"))
    except ValueError as error:
        if not raw.endswith(b"\n"):
            return Junk(file, number, len(raw), "the last line is torn")
        return Junk(file, number, len(raw), f"not a record: {error}")


def with_rotated(path: Path) -> list[Path]:
    """The files that were rotated away from `path`, oldest first, then `path` itself if it is there.

    Ours are `block-<instant>.ndjson`; logrotate's `block.ndjson.2.gz` and `block.ndjson-20230310` are found as well.
    """
    stem, suffix = re.escape(path.stem), re.escape(path.suffix)
    ours = re.compile(rf"{stem}-[0-9]{{8}}T[0-9.]+Z{suffix}(?:\.gz|\.zst)?")
    dated = re.compile(rf"{stem}{suffix}-[0-9]+(?:\.gz|\.zst)?")
    counted = re.compile(rf"{stem}{suffix}\.([0-9]+)(?:\.gz|\.zst)?")
    found: list[tuple[int, str]] = []
    for entry in path.parent.iterdir() if path.parent.is_dir() else ():
        number = counted.fullmatch(entry.name)
        if number is not None:
            found.append((-int(number[1]), entry.name))
        elif ours.fullmatch(entry.name) or dated.fullmatch(entry.name):
            found.append((-(1 << 62), entry.name))
    files = [path.with_name(name) for _, name in sorted(found)]
    return [*files, path] if path.exists() or not files else files


@dataclass(frozen=True, slots=True)
class Rotated:
    """A file that was rotated away: its last record, what is torn after that, the size that it unpacks to."""

    name: str
    lines: int
    size: int
    last: Record
    torn: Torn | None


def as_rotated(path: Path) -> Rotated | None:
    """What there is to say of a file that was rotated away; None if it holds no record. Raises OSError."""
    lines, size, latest, rest = 0, 0, b"", b""
    with open_log(path) as stream:
        for raw in stream:
            lines, size = lines + 1, size + len(raw)
            latest, rest = (raw, b"") if raw.endswith(b"\n") else (latest, raw)
    try:
        torn = Torn(len(rest), hashlib.sha256(rest).hexdigest()) if rest else None
        return Rotated(path.name, lines, size, decode(latest), torn)
    except ValueError:
        return None


def open_log(path: Path) -> BinaryIO:
    """The octets of a log file, unpacked. Raises OSError."""
    if path.suffix == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    if path.suffix == ".zst":
        return cast(BinaryIO, zstd.open(path, "rb"))
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
    except (OSError, EOFError, zlib.error, zstd.ZstdError) as error:  # a compressed file that was cut short or damaged
        yield Junk(file, number + 1, 0, f"the rest can't be read: {error}")
