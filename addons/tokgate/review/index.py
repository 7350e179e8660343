"""A log's columns in DuckDB's memory, kept in step with files that grow, rotate and go: asking takes milliseconds.

Each file is read once, and then what is appended to it. Every method blocks, and may be called by any thread.
"""

import shutil
import tempfile
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, time
from typing import Any, Final

import duckdb

from tokgate.blocklog.reader import Junk, Line
from tokgate.review.conditions import MACROS
from tokgate.review.engine import CLOSED, MEMORY, UNCLEAR, rescue, words_of
from tokgate.review.held import Held, Identity, There, portion
from tokgate.review.intake import Numbered, rows_of, table
from tokgate.review.lookup import line_in
from tokgate.review.sources import PARQUET, LogError, Source, whole_log
from tokgate.review.sql import Row, literal

QUERY_SECONDS: Final = 30.0
"""After so long a question is given up."""
_LOOK_AGAIN_SECONDS: Final = 0.5
_LOOSE_ROWS: Final = 100_000
"""After so many rows that came they are packed."""


class TooLong(LogError):
    """A question was given up after QUERY_SECONDS."""


@dataclass(frozen=True, slots=True)
class State:
    """How far the index is. `version` differs whenever what is held does; `waiting` files are not read yet."""

    version: int
    files: int
    waiting: int
    damage: tuple[Junk, ...]


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
        self._held: Final[dict[Identity, Held]] = {}
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
        for identity in self._held.keys() - {file.identity for file in there}:
            self._drop(identity)
        for file in there:
            if file.identity in self._held:
                self._held[file.identity].path = file.path
        new = [file for file in reversed(there) if not self._has(file)]
        now = list(portion(new))
        self._read(now)
        damage = tuple(held.damage for held in self._held.values() if held.damage is not None)
        return State(self._state.version + self._changed, len(there), len(new) - len(now), damage)

    def _there(self) -> Iterator[There]:
        """The files of the log now, oldest first."""
        for path in whole_log(self._named, rotated=self._rotated):
            with suppress(FileNotFoundError):  # renamed or removed just now
                yield There(path, path.stat())

    def _has(self, file: There) -> bool:
        held = self._held.get(file.identity)
        return held is not None and held.is_as(file)

    def _drop(self, identity: Identity) -> None:
        self._connection.execute("DELETE FROM lines WHERE file = ?", [self._held.pop(identity).number])
        self._changed = True

    def _read(self, files: Iterable[There]) -> None:
        """Read what nobody writes to any more as a whole, several together; of others what was appended."""
        whole: list[Numbered] = []
        for file in files:
            try:
                whole += self._begin(file)
            except FileNotFoundError:  # renamed just now: it goes on under its other name next time
                continue
            except OSError as error:
                if file.identity in self._held:
                    self._drop(file.identity)
                self._held[file.identity] = Held.unreadable(file, error.strerror or str(error))
        if not whole:
            return
        try:
            self._insert(whole)
        except duckdb.Error:
            for path, number in whole:
                self._insert_or_rescue(path, number)

    def _begin(self, file: There) -> list[Numbered]:
        """Read what was appended to a file; or say that it is to be read as a whole. Raises OSError."""
        held = self._held.get(file.identity)
        if held is not None and not held.grew(file):
            self._drop(file.identity)
            held = None
        if held is None:
            self._numbers += 1
            held = self._held[file.identity] = Held(self._numbers, file.path)
        as_whole = held.read == 0 and file.settled(time())
        held.read += file.found.st_size if as_whole else self._append(file.path, held)
        held.keep(file)
        return [(file.path, held.number)] if as_whole else []

    def _append(self, path: Path, held: Held) -> int:
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
        except (duckdb.Error, OSError) as error:
            held.damage = Junk(str(held.path), 0, 0, str(error))
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
