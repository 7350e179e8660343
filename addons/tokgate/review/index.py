"""A log's columns in DuckDB's memory, kept in step with files that grow, rotate and go: asking takes milliseconds.

Each file is read once, and then what is appended to it. Every method blocks, and may be called by any thread.
"""

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, time
from typing import Any, Final

import duckdb

from tokgate.blocklog.reader import Junk, Line
from tokgate.review.conditions import MACROS
from tokgate.review.engine import CLOSED, MEMORY, UNCLEAR, rescue, words_of
from tokgate.review.intake import Numbered, packed, rows_of, table
from tokgate.review.lookup import line_in
from tokgate.review.sources import PARQUET, LogError, Source, whole_log
from tokgate.review.sql import Row, literal

QUERY_SECONDS: Final = 30.0
"""After so long a question is given up."""
BATCH_BYTES: Final = 512 << 20
"""Whole files are read together up to so many bytes; others have a turn in between."""
_SETTLED_SECONDS: Final = 10
"""A file that nobody wrote to for so long is read where it is; of another only what is complete."""
_LOOK_AGAIN_SECONDS: Final = 0.5
_HEAD: Final = 512
_LOOSE_ROWS: Final = 100_000
_UNPACKED: Final = 8
"""How much larger a packed file is taken to be."""


class TooLong(LogError):
    """A question was given up after QUERY_SECONDS."""


@dataclass(frozen=True, slots=True)
class State:
    """How far the index is. `version` differs whenever what is held does; `waiting` files are not read yet."""

    version: int
    files: int
    waiting: int
    damage: tuple[Junk, ...]


@dataclass(slots=True)
class _Held:
    """A file that is held: its number in the table, and up to where it was read, as it was then."""

    number: int
    path: Path
    read: int
    modified: int
    head: bytes = b""
    """How it begins: another file may come to have the identity of one that was removed."""
    damage: Junk | None = None


type _Identity = tuple[int, int]


class Index:
    """The table `lines`: the columns of KEPT, `file`, `readable`, and `n`, by which lines came while it was watched.

    Those of files that were complete when they were met have 0.
    """

    def __init__(self, named: Sequence[Path], *, rotated: bool = True, memory: str = MEMORY) -> None:
        """Nothing is read before the first `catch_up`. Files need not exist yet."""
        self._named: Final = [path.absolute() for path in named]
        self._rotated: Final = rotated
        self._lock: Final = threading.Lock()
        self._folder: Final = Path(tempfile.mkdtemp(prefix="tokgate-review-"))
        self._held: Final[dict[_Identity, _Held]] = {}
        self._numbers = 0
        self._lines = 0
        self._loose = 0
        self._changed = False
        self._state = State(0, 0, 0, ())
        self._looked = -_LOOK_AGAIN_SECONDS
        try:
            self._connection: Final = self._connect(memory)
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    def close(self) -> None:
        """Let go of everything."""
        with self._lock:
            self._connection.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def state(self) -> State:
        """As of the last `catch_up`."""
        return self._state

    @property
    def found(self) -> bool:
        """Whether there is any file to read."""
        return next(self._there(), None) is not None

    def catch_up(self, seconds: float) -> State:
        """Read what is new, newest files first, for about so long; what there is to read is looked up twice a second.

        Raises OSError, LogError.
        """
        until = monotonic() + seconds
        while True:
            with self._lock:
                if not self._state.waiting and monotonic() - self._looked < _LOOK_AGAIN_SECONDS:
                    return self._state
                self._looked = monotonic()
                try:
                    self._state = self._step()
                except duckdb.Error as error:
                    raise LogError(words_of(error)) from error
                if not self._state.waiting or monotonic() >= until:
                    return self._state

    def ask(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[Row]:
        """The rows of an answer to our own SQL over `lines`. Raises LogError."""
        with self._lock, self._within(QUERY_SECONDS):
            try:
                return self._connection.execute(sql, parameters or {}).fetchall()
            except duckdb.InterruptException as error:
                raise TooLong(f"given up after {QUERY_SECONDS:.0f} s: narrow the time or the filters") from error
            except duckdb.Error as error:
                raise LogError(words_of(error)) from error

    def line(self, event: str) -> Line | None:
        """The last line with that id, as it stands in its file. Raises OSError, LogError."""
        found = self.ask(
            "SELECT file FROM lines WHERE event_id = TRY_CAST($event AS UUID) ORDER BY rowid DESC LIMIT 1",
            {"event": event},
        )
        if not found:
            return None
        with self._lock:
            path = next((held.path for held in self._held.values() if held.number == found[0][0]), None)
        return None if path is None else line_in(path, event)

    @contextmanager
    def _within(self, seconds: float) -> Iterator[None]:
        timer = threading.Timer(seconds, self._connection.interrupt)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _connect(self, memory: str) -> duckdb.DuckDBPyConnection:
        connection = duckdb.connect(config={"autoinstall_known_extensions": "false"})
        parents = [parent for path in self._named for parent in (path.parent, path.parent.resolve())]
        folders = sorted({str(folder) for folder in (*parents, self._folder)})
        try:
            for statement in (
                "SET TimeZone = 'UTC'",
                f"SET memory_limit = {literal(memory)}",
                f"SET temp_directory = {literal(str(self._folder))}",
                f"SET allowed_directories = [{', '.join(literal(folder) for folder in folders)}]",
                "ATTACH ':memory:' AS held (COMPRESS)",
                *MACROS,
                "USE held",
                table("lines"),
                *CLOSED,
            ):
                connection.execute(statement)
        except duckdb.Error as error:
            connection.close()
            raise LogError(words_of(error)) from error
        return connection

    def _step(self) -> State:
        """Forget what is gone, and read one portion of what is new."""
        there = list(self._there())
        self._changed = False
        self._forget({identity for identity, _, _ in there})
        new = [(identity, path, found) for identity, path, found in reversed(there) if self._is_new(identity, found)]
        portion = list(_portion(new))
        if portion:
            self._read(portion)
        for identity, path, _ in there:
            if identity in self._held:
                self._held[identity].path = path
        damage = tuple(held.damage for held in self._held.values() if held.damage is not None)
        version = self._state.version + self._changed
        return State(version, len(there), len(new) - len(portion), damage)

    def _there(self) -> Iterator[tuple[_Identity, Path, os.stat_result]]:
        """The files of the log now, oldest first."""
        for path in whole_log(self._named, rotated=self._rotated):
            try:
                found = path.stat()
            except FileNotFoundError:
                continue
            yield (found.st_dev, found.st_ino), path, found

    def _is_new(self, identity: _Identity, found: os.stat_result) -> bool:
        held = self._held.get(identity)
        return held is None or found.st_size != held.read or found.st_mtime_ns != held.modified

    def _forget(self, there: set[_Identity]) -> None:
        for identity in [identity for identity in self._held if identity not in there]:
            self._drop(identity)

    def _drop(self, identity: _Identity) -> None:
        self._connection.execute("DELETE FROM lines WHERE file = ?", [self._held.pop(identity).number])
        self._changed = True

    def _read(self, portion: list[tuple[_Identity, Path, os.stat_result]]) -> None:
        """Read whole files, or of one that is written what was appended; several only where each is plain and whole."""
        whole: list[tuple[Path, int]] = []
        for identity, path, found in portion:
            if not path.exists():  # renamed just now: looked at under its other name next time
                continue
            held = self._held.get(identity)
            if held is not None and not _grew(held, path, found):
                self._drop(identity)
                held = None
            if held is None:
                self._numbers += 1
                held = self._held[identity] = _Held(self._numbers, path, 0, 0)
            held.modified = found.st_mtime_ns
            held.path = path
            if packed(path) or (held.read == 0 and _settled(found) and not path.is_symlink()):
                held.read, held.head = found.st_size, _head(path, found.st_size)
                whole.append((path, held.number))
            else:
                held.read += self._append(path, held)
                held.head = _head(path, held.read)
                if held.read != found.st_size:
                    held.modified = 0  # a line is half there: look again
        if not whole:
            return
        try:
            self._insert(whole)
        except duckdb.Error:
            for path, number in whole:
                self._insert_or_rescue(path, number)

    def _append(self, path: Path, held: _Held) -> int:
        """Read what is complete of what was appended; returns how many bytes that is."""
        part = self._folder / "appended.ndjson"
        taken = 0
        try:
            with path.open("rb") as source, part.open("wb") as target:
                source.seek(held.read)
                while chunk := source.read(1 << 20):
                    target.write(chunk)
                    last = chunk.rfind(b"\n")
                    if last >= 0:
                        taken = target.tell() - len(chunk) + last + 1
                target.truncate(taken)
            if taken:
                self._insert_or_rescue(part, held.number, came=True)
        finally:
            part.unlink(missing_ok=True)  # what is about people stays no longer than it must
        return taken

    def _insert_or_rescue(self, path: Path, number: int, *, came: bool = False) -> None:
        """A file by itself; if DuckDB can't read it, what can be read of it otherwise."""
        (held,) = (held for held in self._held.values() if held.number == number)
        try:
            self._insert([(path, number)], came=came)
            return
        except duckdb.Error as error:
            held.damage = Junk(str(held.path), 0, 0, words_of(error))
        if path.suffix == PARQUET:
            return
        rescued = self._folder / "rescued.ndjson"
        try:
            damage = rescue(Source(path, str(held.path)), rescued)
            self._insert([(rescued, number)], came=came)
            held.damage = damage
        except duckdb.Error as error:
            held.damage = Junk(str(held.path), 0, 0, words_of(error))
        finally:
            rescued.unlink(missing_ok=True)

    def _insert(self, files: list[Numbered], *, came: bool = False) -> None:
        """Read files whole, all of them or none; `came`: their lines are new. Raises duckdb.Error."""
        # A number for each row costs DuckDB its threads, so only those have one that somebody may be waiting for.
        number = f"{self._lines} + row_number() OVER ()" if came else "0"
        lines = 0
        self._connection.begin()
        try:
            for rows in rows_of([(self._clear(path), file) for path, file in files], self._columns):
                added = self._connection.execute(f"INSERT INTO lines SELECT {number}, * FROM ({rows})").fetchone()
                lines += added[0] if added else 0
            self._connection.commit()
        except duckdb.Error:
            self._connection.rollback()
            raise
        self._lines += lines
        self._loose += lines
        self._changed |= bool(lines)
        if self._loose > _LOOSE_ROWS:
            self._connection.execute("CHECKPOINT held")  # packs them: an eighth of the memory, a third of the time
            self._loose = 0

    def _columns(self, source: str) -> list[str]:
        return [row[0] for row in self._connection.execute(f"DESCRIBE SELECT * FROM {source}").fetchall()]

    def _clear(self, path: Path) -> Path:
        """A path that DuckDB takes for nothing but itself."""
        if not UNCLEAR & set(str(path)):
            return path
        link = self._folder / f"{abs(hash(path)):x}{path.suffix}"
        if not link.is_symlink():
            link.symlink_to(path)
        return link


def _grew(held: _Held, path: Path, found: os.stat_result) -> bool:
    """Whether this is the file that is held, with more at its end; not one that was cut short, or another one."""
    return not packed(path) and found.st_size >= held.read and _head(path, len(held.head)) == held.head


def _head(path: Path, size: int) -> bytes:
    with path.open("rb") as stream:
        return stream.read(min(size, _HEAD))


def _settled(found: os.stat_result) -> bool:
    """Whether nobody writes to a file any more."""
    return found.st_mtime < time() - _SETTLED_SECONDS


def _portion[T](new: list[tuple[T, Path, os.stat_result]]) -> Iterator[tuple[T, Path, os.stat_result]]:
    """The first file, and as many after it as may be read together."""
    size = 0
    for count, (identity, path, found) in enumerate(new):
        size += found.st_size * (_UNPACKED if packed(path) else 1)
        if count and size > BATCH_BYTES:
            return
        yield identity, path, found
