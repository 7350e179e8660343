"""The files of a log verified together: the chain, then what was compacted against the lines that it was made of."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, Final, Self

from tokgate.blocklog.kept import Kept
from tokgate.blocklog.reader import open_log
from tokgate.blocklog.verify import Code, Finding, Verifier
from tokgate.review.sources import PARQUET, LogError, compacted, every_file


class Held:
    """The file that is being written, held open: verifying takes a while, in which its name may come to mean another.

    A context manager. Without the file nothing is held.
    """

    def __init__(self, log: Path) -> None:
        self.log: Final = log
        self._open: Final = ExitStack()
        self._stream: BinaryIO | None = None

    def __enter__(self) -> Self:
        if self.log.is_file():
            self._stream = self._open.enter_context(self.log.open("rb"))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def files(self) -> list[Path]:
        """All files of the log. What is held is under its name of then, and not again under its new one."""
        if self._stream is None:
            return every_file(self.log)
        held = os.fstat(self._stream.fileno())
        found = [path for path in every_file(self.log) if path != self.log and not os.path.samestat(path.stat(), held)]
        return [*found, self.log]

    def open(self, path: Path) -> BinaryIO:
        """What a log file holds."""
        if self._stream is None or path != self.log:
            return open_log(path)
        return Path(f"/proc/self/fd/{self._stream.fileno()}").open("rb")


class Examination:
    """Verifies files. Where a file and its Parquet are both given, the file is read, and the Parquet compared to it."""

    def __init__(
        self,
        files: Sequence[Path],
        trusted: Sequence[str] = (),
        kept: Iterable[Kept] = (),
        *,
        whole: bool = False,
        opener: Callable[[Path], BinaryIO] = open_log,
    ) -> None:
        """As for `Verifier`."""
        self._made_of: Final = {made: path for path in files if path.suffix != PARQUET and (made := compacted(path))}
        self._compact: Final = [path for path in files if path.suffix == PARQUET]
        self._written: Final = [path for path in files if path not in self._made_of]
        self._plain: Final = opener
        self.verifier: Final = Verifier(trusted, kept, self._open, whole=whole)

    def findings(self, tick: Callable[[int], None] = lambda _: None) -> Iterator[Finding]:
        """Whatever is wrong. `tick` hears now and then how many lines were read. Raises OSError."""
        yield from self.verifier.run(self._written, tick)
        for parquet in self._compact:
            yield from _of_parquet(parquet, self._made_of.get(parquet))

    def _open(self, path: Path) -> BinaryIO:
        if path.suffix != PARQUET:
            return self._plain(path)
        from tokgate.review.compact import open_lines  # only Parquet has to wait for DuckDB

        return open_lines(path)


def _of_parquet(parquet: Path, source: Path | None) -> Iterator[Finding]:
    """Whether a compacted file says the same as its lines do, and its lines as the file that it was made of."""
    from tokgate.review.compact import column_unlike_its_line, line_unlike

    try:
        if source is not None and (number := line_unlike(parquet, source)) is not None:
            yield Finding(str(parquet), number, Code.COLUMNS, f"this line is another than in {source}")
        if (found := column_unlike_its_line(parquet)) is not None:
            number, column = found
            what = f"the column {column!r} says something else than the line, and reports are made of columns"
            yield Finding(str(parquet), number, Code.COLUMNS, what)
    except LogError as error:
        if source is not None:  # else the chain has told it
            yield Finding(str(parquet), 1, Code.UNREADABLE, str(error))
