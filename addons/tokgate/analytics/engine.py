"""DuckDB over the files of a log, closed to everything else: read-only, no other file, no network, bounded memory."""

import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, Final

import duckdb

from tokgate.analytics.columns import COLUMNS, records
from tokgate.analytics.sql import MACROS, Engine, LogError, QueryResult, Row, conditions, literal
from tokgate.blocklog.atomic_file import zstd
from tokgate.blocklog.paths import PACKED
from tokgate.blocklog.read.reader import Filter, Junk, Line, declared_foreign, read

MEMORY: Final = "1GB"
"""What DuckDB may keep in memory; beyond that it uses a temporary folder."""
BATCH: Final = 2048
UNCLEAR: Final = frozenset("*?[")
"""Characters of a file's name that DuckDB reads as a glob pattern."""
_UNREADABLE_READ: Final = "unreadable_read"
"""A sequence that counts how often a query of `events` read a line that holds no record."""
_UNION: Final = " UNION ALL "
CLOSED: Final = (
    "SET autoinstall_known_extensions = false",
    "SET autoload_known_extensions = false",
    "SET allow_community_extensions = false",
    "SET python_enable_replacements = false",  # a query can't reach the variables of this program
    "SET enable_external_access = false",
    "SET lock_configuration = true",
)

type Begun = tuple[duckdb.DuckDBPyConnection, list[Row]]
"""A query that runs, and its first rows."""


@dataclass(frozen=True, slots=True)
class LogSource:
    """One file: `path` is opened, `shown` is the name that messages use."""

    path: Path
    shown: str


class LogDatabase(Engine):
    """A log in DuckDB, read-only.

    The view `events` has the records that the filter accepts. The view `wanted` also has the lines that hold no record.
    """

    def __init__(
        self,
        files: Sequence[Path],
        wanted: Filter | None = None,
        *,
        memory: str = MEMORY,
        also_write: Sequence[Path] = (),
    ) -> None:
        """`also_write` names files that queries may write. Raises LogError or OSError if a file can't be read."""
        self._wanted: Final = wanted if wanted is not None else Filter()
        self._memory: Final = memory
        self._also_write: Final = also_write
        self._folder: Final = Path(tempfile.mkdtemp(prefix="tokgate-review-"))
        self.damage: list[Junk] = []
        self.foreign: Final = declared_foreign(files)
        """What no view has: hashes of records that the log declares as another program's; None: also those without."""
        try:
            self._sources = [self._source(path) for path in files]
            self._replace_damaged(lambda source: cut_short(source.path))
            self._connection = self._connect()
        except BaseException:
            self._remove()
            raise

    def close(self) -> None:
        """Close the connection and remove the temporary files."""
        try:
            self._connection.close()
        finally:
            self._remove()

    def shown(self, path: str) -> str:
        """The name by which the user knows a file of the column `file`."""
        return next((source.shown for source in self._sources if str(source.path) == path), path)

    def answer(self, sql: str, parameters: Mapping[str, Any] | None = None) -> QueryResult:
        """Run tokgate's own SQL with bound parameters. Raises LogError."""
        cursor, first = self._run(sql, parameters)
        described = cursor.description or []
        rows = self._rows(cursor, first)
        return QueryResult(tuple(entry[0] for entry in described), tuple(str(entry[1]) for entry in described), rows)

    def answer_query(self, sql: str) -> QueryResult:
        """Run a user's SQL. Raises LogError unless it is exactly one SELECT statement."""
        try:
            statements = duckdb.extract_statements(sql)
        except duckdb.Error as error:
            raise LogError(error_text(error)) from error
        if len(statements) != 1 or statements[0].type is not duckdb.StatementType.SELECT:
            raise LogError("a query is one SELECT over the view `events`")
        return self.answer(statements[0].query)

    def unreadable_counts(self) -> dict[str, int]:
        """How many lines of each file hold no record. Files are read again only if queries read such lines."""
        ((found,),) = self.ask(
            f"SELECT last_value IS NOT NULL FROM duckdb_sequences() WHERE sequence_name = '{_UNREADABLE_READ}'"
        )
        if not found:
            return {}
        counted = 'SELECT "file", count(*) FROM every_record WHERE NOT readable GROUP BY 1 ORDER BY 1'
        return dict(self.ask(counted))

    def unreadable(self, files: Iterable[str], limit: int) -> Iterator[Junk]:
        """The first `limit` lines of files that hold no record, with their positions."""
        found = (line for file in files for line in read([Path(file)]) if isinstance(line, Junk))
        for junk in islice(found, limit):
            yield Junk(self.shown(junk.file), junk.number, junk.size, junk.problem)

    def _source(self, path: Path) -> LogSource:
        with path.open("rb"):  # raises OSError if it is missing, a folder, or unreadable
            pass
        return LogSource(literal_path(path.absolute(), self._folder), str(path))

    def _connect(self) -> duckdb.DuckDBPyConnection:
        allowed = [str(source.path) for source in self._sources] + [str(path) for path in self._also_write]
        wanted = conditions(self._wanted)

        def prepare(connection: duckdb.DuckDBPyConnection) -> None:
            for name, value in wanted.said.items():
                connection.execute(f"SET VARIABLE {name} = ?", [value])
            accepted = wanted.where
            if self.foreign:
                connection.execute("SET VARIABLE foreign_hashes = ?", [[each for each in self.foreign if each]])
                unhashed = "false" if None in self.foreign else "true"
                accepted += f" AND coalesce(NOT list_contains(getvariable('foreign_hashes'), \"hash\"), {unhashed})"
            for statement in _views(self._sources, accepted):
                connection.execute(statement)

        return connect(
            self._memory,
            self._folder,
            f"allowed_paths = [{', '.join(map(literal, allowed))}]",
            "preserve_insertion_order = true",
            prepare=prepare,
        )

    def _run(self, sql: str, parameters: Mapping[str, Any] | None) -> Begun:
        """Up to the first rows: DuckDB meets a damaged file only while it makes them, mostly before the first one."""
        try:
            with interruptible():
                cursor = self._connection.execute(sql, parameters)
                return cursor, cursor.fetchmany(BATCH) if cursor.description else []
        except duckdb.IOException as error:  # damaged compressed files give way to what can be decompressed of them
            if not self._replace_damaged(lambda source: source.path.suffix in PACKED):
                raise LogError(error_text(error)) from error
            self._connection.close()
            self._connection = self._connect()
        except duckdb.Error as error:
            raise LogError(error_text(error)) from error
        return self._run(sql, parameters)

    def _rows(self, cursor: duckdb.DuckDBPyConnection, batch: list[Row]) -> Iterator[Row]:
        try:
            while batch:
                yield from batch
                with interruptible():
                    batch = cursor.fetchmany(BATCH)
        except duckdb.Error as error:
            raise LogError(error_text(error)) from error

    def _replace_damaged(self, is_suspect: Callable[[LogSource], bool]) -> bool:
        """Replace damaged files by what can be decompressed of them; whether there are any."""
        damaged = False
        for number, source in enumerate(self._sources):
            if not is_suspect(source):
                continue
            rescued = self._folder / f"rescued-{number}.ndjson"
            junk = rescue(source, rescued)
            if junk is None:
                rescued.unlink()
                continue
            damaged = True
            self.damage.append(junk)
            self._sources[number] = LogSource(rescued, source.shown)
        return damaged

    def _remove(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def connect(
    memory: str, folder: Path, *settings: str, prepare: Callable[[duckdb.DuckDBPyConnection], object]
) -> duckdb.DuckDBPyConnection:
    """DuckDB with MACROS, closed to all files but those that `settings` allow and `folder`, after `prepare`.

    Raises LogError.
    """
    connection = duckdb.connect(config={"autoinstall_known_extensions": "false"})
    own = (
        *("TimeZone = 'UTC'", f"memory_limit = {literal(memory)}", f"temp_directory = {literal(str(folder))}"),
        "scheduler_process_partial = true",  # else Ctrl-C waits for what its threads have begun, to the query's end
    )
    try:
        with interruptible():
            for setting in (*own, *settings):
                connection.execute(f"SET {setting}")
            for macro in MACROS:
                connection.execute(macro)
            prepare(connection)
            for statement in CLOSED:
                connection.execute(statement)
    except duckdb.Error as error:
        connection.close()
        raise LogError(error_text(error)) from error
    return connection


def literal_path(path: Path, folder: Path) -> Path:
    """The absolute path, or a symbolic link to it in `folder` where DuckDB would read it as a pattern."""
    if not UNCLEAR & set(str(path)):
        return path
    link = folder / f"{abs(hash(path)):x}{path.suffix}"
    if not link.is_symlink():
        link.symlink_to(path)
    return link


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt for Ctrl-C in the main thread, which DuckDB reports as a RuntimeError."""
    try:
        yield
    except RuntimeError as error:
        if str(error) != "Query interrupted":
            raise
        raise KeyboardInterrupt from error


def cut_short(path: Path) -> bool:
    """Whether a compressed file is empty, or a `.zst` ends within a frame: DuckDB reads what there is and says nothing.

    Only the sizes of a frame's blocks are read. False for a file that can't be opened, which reading it tells.
    """
    at, size = 0, -1
    with suppress(OSError, zstd.ZstdError):
        size = path.stat().st_size if path.suffix in PACKED else -1
        if size > 0 and path.suffix == ".zst":
            with path.open("rb") as stream, mmap(stream.fileno(), 0, access=ACCESS_READ) as content:
                while at < size:
                    with memoryview(content) as whole, whole[at:] as frame:
                        at += zstd.get_frame_size(frame)
    return size == 0 or (path.suffix == ".zst" and at < size)


def rescue(source: LogSource, target: Path) -> Junk | None:
    """Write what can be decompressed of a damaged file to `target`; returns where it ends, None if it is whole."""
    damage = None
    with target.open("wb") as stream:
        for line in read([source.path]):
            if isinstance(line, Line):
                stream.write(line.raw + b"\n")
            elif line.size:
                stream.write(b"?\n")  # still unreadable, and the lines after it keep their numbers
            else:
                damage = Junk(source.shown, line.number, 0, line.problem)
    return damage


def _views(sources: Sequence[LogSource], wanted: str) -> Iterator[str]:
    texts = list(records(source.path for source in sources))
    names = ", ".join(f'"{column.name}"' for column in COLUMNS)
    # A line that holds no record advances the sequence, for `unreadable_counts`. DuckDB pushes no condition of a query
    # below a sample, not even one of 100 %, so no condition removes such lines first.
    noticed = f"CASE WHEN readable THEN {wanted} ELSE nextval('{_UNREADABLE_READ}') IS NULL END"
    whole = "USING SAMPLE 100% (system)"
    events = [f'SELECT {names}, "file" FROM (FROM ({part}) WHERE {noticed}) {whole}' for part in texts]
    yield f"CREATE TEMP SEQUENCE {_UNREADABLE_READ}"
    yield f"CREATE TEMP VIEW every_record AS {_UNION.join(texts)}"
    yield f"CREATE TEMP VIEW wanted AS SELECT * FROM every_record WHERE NOT readable OR ({wanted})"
    yield f"CREATE TEMP VIEW events AS {_UNION.join(events)}"


def error_text(error: duckdb.Error) -> str:
    """DuckDB's message without the excerpt of the query."""
    return str(error).split("\n\nLINE ")[0].strip()
