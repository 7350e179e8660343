"""Follows a log while it is written: through rotation, removal, truncation and incomplete lines.

`poll` never waits; the caller waits between polls.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from tokgate.blocklog.paths import with_rotated
from tokgate.blocklog.read.reader import MAX_LINE, Junk, Line, parse_line

_CHUNK: Final = 1 << 16


class Follower:
    """Reads a file from its beginning, then what is appended. The file need not exist yet."""

    def __init__(self, path: Path) -> None:
        """Nothing is opened before the first poll."""
        self._path: Final = path
        self._stream: IO[bytes] | None = None
        self._identity: tuple[int, int]
        self._file: str
        self._number: int
        self._rest = bytearray()
        self._skipped: int
        """Octets of an overlong line that were discarded so far."""

    def poll(self) -> Iterator[Line | Junk]:
        """The lines since the last poll. Raises OSError."""
        if self._stream is None and not self._open(self._path):
            return
        yield from self._read()
        while (following := self._following()) is not None:
            yield from self._read()  # what was written before the file was replaced
            yield from self._end()
            self.close()
            if not self._open(following):
                return
            yield from self._read()

    def reads(self, path: Path) -> bool:
        """Whether this is the file that is open, under whatever name."""
        try:
            found = path.stat()
        except OSError:
            return False
        return self._stream is not None and (found.st_dev, found.st_ino) == self._identity

    def close(self) -> None:
        """Close the file; a later poll begins at the start of the path's file."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _open(self, path: Path) -> bool:
        try:
            self._stream = path.open("rb")
        except FileNotFoundError:
            return False
        found = os.fstat(self._stream.fileno())
        self._identity = (found.st_dev, found.st_ino)
        self._file, self._number = str(path), 0
        self._rest.clear()
        self._skipped = 0
        return True

    def _following(self) -> Path | None:
        """The file after the one that is open; None while that is still the one being written."""
        try:
            there = self._path.stat()
        except FileNotFoundError:
            return None  # the writer hasn't made the new file yet, and may still finish a line in the old one
        if (there.st_dev, there.st_ino) == self._identity:
            return None
        files = with_rotated(self._path)  # several rotations may have passed since the last poll
        for index, path in enumerate(files):
            try:
                found = path.stat()
            except FileNotFoundError:
                continue
            if (found.st_dev, found.st_ino) == self._identity and index + 1 < len(files):
                following = files[index + 1]
                return following if following.suffix not in (".gz", ".zst") else self._path
        return self._path

    def _read(self) -> Iterator[Line | Junk]:
        stream = self._stream
        if stream is None:
            return
        if os.fstat(stream.fileno()).st_size < stream.tell():  # cut short (copytruncate): what follows is new
            yield from self._end()
            stream.seek(0)
            self._number = 0
        while chunk := stream.read(_CHUNK):
            *ended, rest = chunk.split(b"\n")
            for part in ended:
                yield self._line(part)
            self._keep(rest)

    def _line(self, part: bytes) -> Line | Junk:
        self._keep(part)
        self._number += 1
        raw, size = bytes(self._rest) + b"\n", len(self._rest) + self._skipped + 1
        overlong = bool(self._skipped)
        self._rest.clear()
        self._skipped = 0
        if overlong:
            return Junk(self._file, self._number, size, f"longer than {MAX_LINE} bytes")
        return parse_line(raw, self._file, self._number)

    def _keep(self, part: bytes) -> None:
        self._rest += part
        if self._skipped or len(self._rest) > MAX_LINE:
            self._skipped += len(self._rest)
            self._rest.clear()

    def _end(self) -> Iterator[Junk]:
        """The incomplete last line of a file that is no longer written."""
        if self._rest or self._skipped:
            size = len(self._rest) + self._skipped
            yield Junk(self._file, self._number + 1, size, "the last line is torn")
        self._rest.clear()
        self._skipped = 0
