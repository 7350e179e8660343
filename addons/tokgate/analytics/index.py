"""A log's columns in DuckDB's memory, updated as files grow, rotate and are removed. A query takes milliseconds.

Each file is read once, and then what is appended to it. Every method blocks, and any thread may call it.
"""

import errno
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from time import monotonic, time
from typing import Any, BinaryIO, Final, Self

import duckdb

from tokgate.analytics.columns import DIGEST, Numbered, rows_of, table
from tokgate.analytics.engine import MEMORY, LogSource, connect, cut_short, error_text, literal_path, rescue
from tokgate.analytics.sql import LogError, Row, literal
from tokgate.blocklog.integrity.evidence import prove
from tokgate.blocklog.integrity.verify import Verifier
from tokgate.blocklog.paths import PACKED, whole_log
from tokgate.blocklog.read.reader import UNREADABLE, Junk, Line, declared_foreign, find, lines_with
from tokgate.blocklog.records.record import text_at


@dataclass(frozen=True, slots=True)
class IndexState:
    """The progress of the index. `version` changes with its content; `waiting` counts files that are not read yet."""

    version: int
    files: int
    waiting: int
    damage: tuple[Junk, ...]


BATCH_BYTES: Final = 512 << 20
"""Most octets of complete files that are read in one batch: meanwhile files that grow wait."""
_SETTLED_SECONDS: Final = 10
_HEAD: Final = 512
_UNPACKED: Final = 8
"""The assumed compression ratio."""

type FileId = tuple[int, int]
"""Device and inode: the same under any name, and reused once the file is removed."""


def packed(path: Path) -> bool:
    """Whether the file is compressed, so that nothing is ever appended to it."""
    return path.suffix in PACKED


@dataclass(frozen=True, slots=True)
class LogFile:
    """A file of the log, with its state when it was looked up."""

    path: Path
    stat: os.stat_result

    @property
    def identity(self) -> FileId:
        """Device and inode, by which a file is known again when it was renamed."""
        return self.stat.st_dev, self.stat.st_ino

    def is_at_its_path(self) -> bool:
        """Whether the path still leads to this file, and nothing was written to it."""
        try:
            now = self.path.stat()
        except OSError:
            return False
        return (now.st_dev, now.st_ino, now.st_size) == (*self.identity, self.stat.st_size)

    def open(self) -> BinaryIO:
        """Open this file. Raises OSError; FileNotFoundError also if its path leads to another file by now."""
        stream = self.path.open("rb")
        now = os.fstat(stream.fileno())
        if (now.st_dev, now.st_ino) != self.identity:
            stream.close()
            raise FileNotFoundError(errno.ENOENT, "another file has its name", str(self.path))
        return stream

    def settled(self, now: float) -> bool:
        """Whether nothing writes to it any more at `now` (seconds since the epoch), so that it can be read in place."""
        return packed(self.path) or (self.stat.st_mtime < now - _SETTLED_SECONDS and not self.path.is_symlink())


@dataclass(slots=True)
class IndexedFile:
    """A file in the index: its number in the table, the octets read of it, and its state at that time."""

    number: int
    path: Path
    read: int = 0
    damage: Junk | None = None
    _modified: int = 0
    _head: bytes = b""
    """The file's first octets: a new file may get the inode of a removed one."""

    @classmethod
    def unreadable(cls, file: LogFile, problem: str) -> Self:
        """A file that can't be read, until it changes. No row of the table has the number 0."""
        size, modified = file.stat.st_size, file.stat.st_mtime_ns
        return cls(0, file.path, size, Junk(str(file.path), 0, 0, problem), modified)

    def keep(self, file: LogFile) -> None:
        """Store the file's state after `read` octets were indexed. Raises OSError."""
        self.path, self._head = file.path, _head(file.path, self.read)
        # An incomplete last line must be read again, even if the file doesn't change.
        self._modified = file.stat.st_mtime_ns if self.read == file.stat.st_size else 0

    def is_unchanged(self, file: LogFile) -> bool:
        """Whether the file has not changed since it was read."""
        return file.stat.st_size == self.read and file.stat.st_mtime_ns == self._modified

    def has_grown(self, file: LogFile) -> bool:
        """Whether it is the same file with octets appended: neither truncated nor replaced. Raises OSError."""
        same = not packed(file.path) and file.stat.st_size >= self.read
        return same and _head(file.path, len(self._head)) == self._head


def next_batch(new: list[LogFile]) -> Iterator[LogFile]:
    """The first file, and those after it up to BATCH_BYTES."""
    size = 0
    for count, file in enumerate(new):
        size += file.stat.st_size * (_UNPACKED if packed(file.path) else 1)
        if count and size > BATCH_BYTES:
            return
        yield file


def _head(path: Path, size: int) -> bytes:
    with path.open("rb") as stream:
        return stream.read(min(size, _HEAD))


QUERY_SECONDS: Final = 30.0
"""A query is interrupted after so many seconds."""
_LOOK_AGAIN_SECONDS: Final = 0.5
_LOOSE_ROWS: Final = 100_000
"""New rows after which the table is compressed."""


MAX_RELATED: Final = 50
"""Most lines that belong to one."""


def _belongs(line: Line, of: Line) -> bool:
    connection = text_at(of.record, "tokgate", "connection")
    repeated = (text_at(line.record, "tokgate", "repeats", "of"), text_at(of.record, "tokgate", "repeats", "of"))
    return (
        (connection is not None and text_at(line.record, "tokgate", "connection") == connection)
        or repeated[0] == _event(of)
        or (repeated[1] is not None and repeated[1] in (_event(line), repeated[0]))
    )


def _event(line: Line) -> str | None:
    return text_at(line.record, "event", "id")


class QueryTimeout(LogError):
    """A query was interrupted after QUERY_SECONDS."""


class Index:
    """The table `lines`: the columns of KEPT, `file`, `readable`, and `n`, which numbers lines that were appended.

    `n` is 0 for lines of files that were complete when the index first read them.
    """

    def __init__(
        self,
        named: Sequence[Path],
        *,
        rotated: bool = True,
        memory: str = MEMORY,
        verifier_of: Callable[[Sequence[Path]], Verifier] = lambda _: Verifier(),
    ) -> None:
        """Nothing is read before the first `catch_up`. Files need not exist yet. `verifier_of` verifies proofs."""
        self._verifier_of: Final = verifier_of
        self._named: Final = [path.absolute() for path in named]
        self._rotated: Final = rotated
        self._lock: Final = threading.Lock()
        self._folder: Final = Path(tempfile.mkdtemp(prefix="tokgate-review-"))
        self._indexed: Final[dict[FileId, IndexedFile]] = {}
        self._numbers = 0
        self._lines = 0
        self._loose = 0
        self._changed = False
        self._declaring: list[Row] = []
        self._foreign: list[str | None] = []
        self._state = IndexState(0, 0, 0, ())
        self._looked = -_LOOK_AGAIN_SECONDS
        try:
            self._connection: Final = self._connect(memory)
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise

    def close(self) -> None:
        """Close the database and remove the temporary files."""
        with self._lock:
            self._connection.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def state(self) -> IndexState:
        """The state after the last `catch_up`."""
        return self._state

    @property
    def found(self) -> bool:
        """Whether any file of the log exists."""
        return next(self._log_files(), None) is not None

    def catch_up(self, seconds: float) -> IndexState:
        """Read what is new, newest files first, for about `seconds`. Files are looked up at most twice a second.

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
                    raise LogError(error_text(error)) from error
                if not self._state.waiting or monotonic() >= until:
                    return self._state

    def ask(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[Row]:
        """Run tokgate's own SQL over `lines`. Raises LogError, QueryTimeout."""
        with self._lock, self._within(QUERY_SECONDS):
            try:
                return self._connection.execute(sql, parameters or {}).fetchall()
            except duckdb.InterruptException as error:
                raise QueryTimeout(f"given up after {QUERY_SECONDS:.0f} s: narrow the time or the filters") from error
            except duckdb.Error as error:
                raise LogError(error_text(error)) from error

    def line(self, event: str) -> Line | None:
        """The last line with that `event.id`, as it stands in its file. Raises OSError, LogError."""
        found = self.ask(
            "SELECT file FROM lines WHERE event_id = TRY_CAST($event AS UUID) ORDER BY rowid DESC LIMIT 1",
            {"event": event},
        )
        if not found:
            return None
        with self._lock:
            path = next((indexed.path for indexed in self._indexed.values() if indexed.number == found[0][0]), None)
        return None if path is None else find([path], event)

    def prove(self, event: str) -> dict[str, Any]:
        """The proof of the record with that `event.id`. Raises NoProof, OSError, LogError."""
        files = [file.path for file in self._log_files()]
        try:
            return prove(event, files, self._verifier_of)
        except UNREADABLE as error:
            raise LogError(f"the log can't be read: {error}") from error

    def related(self, line: Line) -> list[Line]:
        """At most MAX_RELATED other lines of its file about its connection or its repeats, in order. Raises OSError."""
        paths = (("event", "id"), ("tokgate", "connection"), ("tokgate", "repeats", "of"))
        wanted = [key for path in paths if (key := text_at(line.record, *path))]
        found = lines_with(Path(line.file), wanted)
        return list(
            islice((each for each in found if _event(each) != _event(line) and _belongs(each, line)), MAX_RELATED)
        )

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
        parents = [parent for path in self._named for parent in (path.parent, path.parent.resolve())]
        folders = sorted({str(folder) for folder in (*parents, self._folder)})
        allowed = f"allowed_directories = [{', '.join(literal(folder) for folder in folders)}]"
        made = f"ATTACH ':memory:' AS indexed (COMPRESS); USE indexed; {table('lines')}"
        return connect(memory, self._folder, allowed, prepare=lambda connection: connection.execute(made))

    def _step(self) -> IndexState:
        """Drop files that are gone, and read one batch of what is new."""
        files = list(self._log_files())
        self._changed = False
        for identity in self._indexed.keys() - {file.identity for file in files}:
            self._drop(identity)
        for file in files:
            if file.identity in self._indexed:
                self._indexed[file.identity].path = file.path
        known = ((file, self._indexed.get(file.identity)) for file in reversed(files))
        new = [file for file, indexed in known if indexed is None or not indexed.is_unchanged(file)]
        now = list(next_batch(new))
        self._read(now)
        if self._changed:
            self._leave_out_foreign([file.path for file in files])
        damage = tuple(indexed.damage for indexed in self._indexed.values() if indexed.damage is not None)
        return IndexState(self._state.version + self._changed, len(files), len(new) - len(now), damage)

    def _leave_out_foreign(self, files: Iterable[Path]) -> None:
        """Drop what the log declares as another program's: by its hash, or because it has none."""
        found = "SELECT file, count(*) FROM lines WHERE action = 'log-foreign' GROUP BY 1 ORDER BY 1"
        if (declaring := self._connection.execute(found).fetchall()) != self._declaring:
            self._declaring, self._foreign = declaring, list(declared_foreign(files))
        if self._foreign:
            unhashed = " OR (readable AND digest IS NULL)" if None in self._foreign else ""
            self._connection.execute(
                f"DELETE FROM lines WHERE digest IN (SELECT {DIGEST} FROM (SELECT unnest(?) AS hash)){unhashed}",
                [[each for each in self._foreign if each is not None]],
            )

    def _log_files(self) -> Iterator[LogFile]:
        """The files of the log that exist now, oldest first."""
        for path in whole_log(self._named, rotated=self._rotated):
            with suppress(FileNotFoundError):  # renamed or removed just now
                yield LogFile(path, path.stat())

    def _drop(self, identity: FileId) -> None:
        self._connection.execute("DELETE FROM lines WHERE file = ?", [self._indexed.pop(identity).number])
        self._changed = True

    def _read(self, files: Iterable[LogFile]) -> None:
        """Read settled files whole, several together; of others what was appended."""
        whole: dict[LogFile, Numbered] = {}
        for file in files:
            try:
                if (begun := self._begin(file)) is not None:
                    whole[file] = begun
            except FileNotFoundError:  # renamed just now: found under its new name next time
                continue
            except OSError as error:
                if file.identity in self._indexed:
                    self._drop(file.identity)
                self._indexed[file.identity] = IndexedFile.unreadable(file, error.strerror or str(error))
        if whole:
            self._insert_whole(whole)

    def _insert_whole(self, whole: Mapping[LogFile, Numbered]) -> None:
        try:
            self._insert(list(whole.values()))
        except duckdb.Error:
            for path, number in whole.values():
                self._insert_or_rescue(path, number)
        for file in whole:
            if not file.is_at_its_path():  # rotated or written to meanwhile: read again next time
                self._drop(file.identity)

    def _begin(self, file: LogFile) -> Numbered | None:
        """Read what was appended to a file, or return it if it is to be read whole. Raises OSError."""
        indexed = self._indexed.get(file.identity)
        if indexed is not None and not indexed.has_grown(file):
            self._drop(file.identity)
            indexed = None
        if indexed is None:
            self._numbers += 1
            indexed = self._indexed[file.identity] = IndexedFile(self._numbers, file.path)
        as_whole = indexed.read == 0 and file.settled(time())
        indexed.read += file.stat.st_size if as_whole else self._append(file, indexed)
        indexed.keep(file)
        return (file.path, indexed.number) if as_whole else None

    def _append(self, file: LogFile, indexed: IndexedFile) -> int:
        """Read the complete lines that were appended; returns their octets. Raises OSError."""
        part = self._folder / "appended.ndjson"
        taken = 0
        try:
            with file.open() as source, part.open("wb") as target:
                source.seek(indexed.read)
                while chunk := source.read(1 << 20):
                    target.write(chunk)
                    last = chunk.rfind(b"\n")
                    if last >= 0:
                        taken = target.tell() - len(chunk) + last + 1
                target.truncate(taken)
            if taken:
                self._insert_or_rescue(part, indexed.number, came=True)
        finally:
            part.unlink(missing_ok=True)  # personal data is kept no longer than needed
        return taken

    def _insert_or_rescue(self, path: Path, number: int, *, came: bool = False) -> None:
        """Read one file; if DuckDB can't, what can be decompressed of it."""
        (indexed,) = (indexed for indexed in self._indexed.values() if indexed.number == number)
        try:
            self._insert([(path, number)], came=came)
            return
        except duckdb.Error as error:
            indexed.damage = Junk(str(indexed.path), 0, 0, error_text(error))
        rescued = self._folder / "rescued.ndjson"
        try:
            damage = rescue(LogSource(path, str(indexed.path)), rescued)
            self._insert([(rescued, number)], came=came)
            indexed.damage = damage
        except (duckdb.Error, OSError) as error:
            indexed.damage = Junk(str(indexed.path), 0, 0, str(error))
        finally:
            rescued.unlink(missing_ok=True)

    def _insert(self, files: list[Numbered], *, came: bool = False) -> None:
        """Read files in one transaction; `came`: their lines get numbers in `n`. Raises duckdb.Error."""
        if any(cut_short(path) for path, _ in files):  # DuckDB would read it as whole
            raise duckdb.IOException("the file was cut short")
        # Numbering rows makes DuckDB single-threaded, so only appended lines, which the live view shows, get a number.
        number = f"{self._lines} + row_number() OVER ()" if came else "0"
        lines = 0
        self._connection.begin()
        try:
            for rows in rows_of([(literal_path(path, self._folder), file) for path, file in files]):
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
            self._connection.execute("CHECKPOINT indexed")  # compresses: an eighth of the memory, a third of the time
            self._loose = 0
