"""Reads logs line by line in constant memory: rotated, compressed, torn, or still being written.

A line that is no record is reported in its place, and reading goes on. Files are sorted by the order in which they were
written; verifying decodes lines more strictly.
"""

import gzip
import json
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BufferedReader
from ipaddress import ip_network
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from whenever import Instant

from tokgate.blocklog.atomic_file import zstd
from tokgate.blocklog.paths import PACKED, bare_name, with_rotated
from tokgate.blocklog.records.chain import Head, stated_head
from tokgate.blocklog.records.record import Record, decode, instant_of, is_alias, text_at, value_at
from tokgate.policy.values.hostname import parse_address
from tokgate.policy.values.prefixes import IPNetwork, within

MAX_LINE: Final = 1 << 20
"""Longest line that is read as a record, in octets; the writer's lines are far shorter."""
_BLOCK: Final = 1 << 16
_DAMAGED: Final = (gzip.BadGzipFile, EOFError, zlib.error, zstd.ZstdError)
UNREADABLE: Final = (OSError, *_DAMAGED)
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


def parse_line(raw: bytes, file: str, number: int, size: int | None = None) -> Line | Junk:
    """The record of a line; Junk without a newline, or if it is no JSON object. `number` counts from 1.

    `size` is the line's, where `raw` is only the beginning of an overlong one.
    """
    if size is not None and (size > len(raw) or (size == MAX_LINE and not raw.endswith(b"\n"))):
        return Junk(file, number, size, f"longer than {MAX_LINE} bytes")
    try:
        return Line(file, number, decode(raw), raw.rstrip(b"\n"))
    except ValueError as error:
        if not raw.endswith(b"\n"):
            return Junk(file, number, len(raw), "the last line is torn")
        return Junk(file, number, len(raw), f"not a record: {error}")


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
        for raw, size, _ in _pieces(stream):
            number += 1
            yield parse_line(raw, file, number, size)
    except UNREADABLE as error:
        yield Junk(file, number + 1, 0, f"the rest can't be read: {error}")


def _pieces(stream: BinaryIO) -> Iterator[tuple[bytes, int, bool]]:
    """Each line, up to MAX_LINE octets of it, its whole size, and whether it ends with a newline."""
    while raw := stream.readline(MAX_LINE):
        size, ended = len(raw), raw.endswith(b"\n")
        while not ended and (more := stream.readline(_BLOCK)):
            size, ended = size + len(more), more.endswith(b"\n")
        yield raw, size, ended


LONGEST_LINE: Final = 64 << 20
"""Longest line that is read whole, in octets."""
_LOOK_FOR_FIRST: Final = 32
"""Lines of a file that are searched for its first record."""


type OpenLog = Callable[[Path], BinaryIO]
"""Opens a log file for reading, decompressed."""


def in_order(files: Iterable[Path], opener: OpenLog = open_log) -> list[Path]:
    """Files in the order in which they were written, by chain and record number; files without records come last."""
    begins: dict[str, str] = {}
    places: list[tuple[str, int, Path]] = []
    for path in files:
        found = first_record(path, opener)
        if found is None:
            places.append(("", 0, path))
            continue
        record, head = found
        at = text_at(record, "@timestamp") or ""
        begins[head.chain] = min(begins.get(head.chain, at), at)
        places.append((head.chain, head.sequence, path))
    return [path for _, _, path in sorted(places, key=lambda one: (one[0] == "", begins.get(one[0], ""), *one[:2]))]


def holds(path: Path, wanted: bytes, opener: OpenLog = open_log) -> bool:
    """Whether a file holds some octets, read without splitting it into lines. Raises OSError, UNREADABLE."""
    with opener(path) as stream:
        seen = b""
        while chunk := stream.read(_BLOCK):
            seen = seen[-len(wanted) :] + chunk  # of what is packed a chunk may be shorter than what is wanted
            if wanted in seen:
                return True
    return False


def lines_with(path: Path, wanted: Iterable[str], opener: OpenLog = open_log) -> Iterator[Line]:
    """The lines of a file that contain any of these texts; only they are parsed. Raises OSError, UNREADABLE."""
    octets = [text.encode() for text in wanted]
    with opener(path) as stream:
        for number, (raw, size, _) in enumerate(_pieces(stream), 1):
            if any(each in raw for each in octets):
                line = parse_line(raw, str(path), number, size)
                if isinstance(line, Line):
                    yield line


def find(files: Sequence[Path], event: str, opener: OpenLog = open_log) -> Line | None:
    """The record with that `event.id`, the last of them if files overlap; None if there is none.

    What can't be read of a file is passed over. Raises OSError.
    """
    for path in reversed(files):
        found: Line | None = None
        with suppress(*_DAMAGED):
            for line in lines_with(path, [event], opener):
                found = line if text_at(line.record, "event", "id") == event else found
        if found is not None:
            return found
    return None


def declared_foreign(files: Iterable[Path]) -> set[str | None]:
    """The hashes of records that `log-foreign` records of these files declare as others'; None: of some without a hash.

    A copy of a record that is in its place elsewhere in the file is left out. What can't be read declares nothing.
    """
    by_name, ranges = {bare_name(path.name): path for path in files}, dict[Path, list[range]]()
    for path in by_name.values():
        with suppress(*UNREADABLE):
            lines = read([path]) if holds(path, b'"log-foreign"') else ()
            continues = None
            for line in lines:
                if isinstance(line, Junk):
                    continue
                continues = continues or text_at(line.record, "tokgate", "continues", "file")
                said = value_at(line.record, "tokgate", "foreign")
                first, count = value_at(said, "line"), value_at(said, "lines")
                if isinstance(first, int) and isinstance(count, int):
                    before = continues is not None and text_at(said, "file") == continues
                    of = by_name.get(bare_name(str(continues))) if before else path
                    if of is not None:
                        ranges.setdefault(of, []).append(range(first, first + count))
    found: set[str | None] = set()
    for path, foreign in ranges.items():
        inside, outside = set[str | None](), set[str | None]([None])
        for line in read([path]):
            if not isinstance(line, Junk):
                of_others = any(line.number in each for each in foreign)
                digest = text_at(line.record, "event", "hash")
                if digest is None and of_others:
                    found.add(None)
                (inside if of_others else outside).add(digest)
        found |= inside - outside
    return found


_TAIL: Final = 32 << 20
"""Octets at a log's end in which the ids of its latest records are looked for."""
_ID: Final = re.compile(rb'"event":\{"id":"([0-9a-f-]{36})"')


def latest_ids(path: Path, most: int) -> list[str]:
    """The `event.id` of the latest records of a log, at most so many, those of the file before it included."""
    found: list[str] = []
    plain = [file for file in with_rotated(path) if file.suffix not in PACKED and file.is_file()]
    with suppress(OSError):
        for file in plain[-2:]:
            with file.open("rb") as stream:
                stream.seek(max(0, file.stat().st_size - _TAIL))
                found += [each.decode() for each in _ID.findall(stream.read(_TAIL))]
    return found[-most:]


def written_last(path: Path) -> Path | None:
    """The rotated file of `path` that was written last, by its records; None if that is unknown. Raises OSError.

    Its name may be earlier than others', if the clock went back.
    """
    known = [file for file in with_rotated(path) if file != path and first_record(file, open_log) is not None]
    return in_order(known)[-1] if known else None


def first_record(path: Path, opener: OpenLog) -> tuple[Record, Head] | None:
    """A file's first record, and its head; None if its first lines hold none. Raises OSError."""
    if path.is_dir():  # verifying reports it, as what can't be read below
        return None
    with opener(path) as stream:
        try:
            for _ in range(_LOOK_FOR_FIRST):
                record, _ = decode_strictly(stream.readline(MAX_LINE + 1))
                head = stated_head(record) if record is not None else None
                if record is not None and head is not None:
                    return record, head
        except (*UNREADABLE, ValueError):
            return None
    return None


def decode_strictly(raw: bytes) -> tuple[Record | None, str | None]:
    """The record of a line, and a key that occurs twice in one of its objects, which readers treat differently.

    No record if some reader would skip the line: another encoding than UTF-8, a byte order mark, too long a line.
    """
    repeated: list[str] = []

    def collect(pairs: list[tuple[str, Any]]) -> Record:
        collected = dict(pairs)
        if len(collected) != len(pairs):
            keys = [key for key, _ in pairs]
            repeated.append(next(key for key in keys if keys.count(key) > 1))
        return collected

    try:
        value = json.loads(raw.decode(), object_pairs_hook=collect) if len(raw) <= MAX_LINE else None
    except (ValueError, RecursionError):
        return None, None
    return (value, repeated[0] if repeated else None) if isinstance(value, dict) else (None, None)


class Follower:
    """Reads a file from its beginning, then what is appended. The file need not exist yet.

    Of several rotations between two polls only the last file is read: polls are less than a second apart.
    """

    def __init__(self, path: Path) -> None:
        """Nothing is opened before the first poll."""
        self._path: Final = path
        self._stream: BinaryIO | None = None
        self._begin = self._number = self._left = 0
        """Where the next line begins, how many came before it, and how many octets of it there are."""

    def poll(self) -> Iterator[Line | Junk]:
        """The lines since the last poll. Raises OSError."""
        yield from self._read()
        if self._is_replaced():
            yield from self._read()  # what was written before the file was replaced
            yield from self._end()
            self.close()
            yield from self._read()

    def reads(self, path: Path) -> bool:
        """Whether this is the file that is open, under whatever name."""
        try:
            return self._stream is not None and os.path.samestat(path.stat(), os.fstat(self._stream.fileno()))
        except OSError:
            return False

    def close(self) -> None:
        """Close the file; a later poll begins at the start of the path's file."""
        if self._stream is not None:
            self._stream.close()
        self._stream = None
        self._begin = self._number = self._left = 0

    def _is_replaced(self) -> bool:
        """Whether the path leads to another file than the one that is open.

        While there is none its writer hasn't made the new file yet, and may still finish a line in the old one.
        """
        return self._stream is not None and self._path.exists() and not self.reads(self._path)

    def _read(self) -> Iterator[Line | Junk]:
        if self._stream is None:
            with suppress(FileNotFoundError):
                self._stream = self._path.open("rb")
        if self._stream is None:
            return
        size = os.fstat(self._stream.fileno()).st_size
        if size < self._begin + self._left:  # cut short (copytruncate): what follows is new
            yield from self._end()
            self._begin = self._number = self._left = 0
        self._stream.seek(self._begin)
        for raw, size, ended in _pieces(self._stream):
            if not ended:
                self._left = size
                return
            self._begin, self._number, self._left = self._begin + size, self._number + 1, 0
            yield parse_line(raw, str(self._path), self._number, size)

    def _end(self) -> Iterator[Junk]:
        """The incomplete last line of a file that is no longer written."""
        if self._left:
            yield Junk(str(self._path), self._number + 1, self._left, "the last line is torn")
