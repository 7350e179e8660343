"""Verifies the files of a log together: the chain, and Parquet files against the lines that they were made from."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, Self

from tokgate.analytics.sources import every_file, open_lines_of
from tokgate.analytics.sql import LogError
from tokgate.blocklog.integrity.chain_state import Finding, FindingCode
from tokgate.blocklog.integrity.trusted_keys import ExternalCheckpoint, checkpoints_in
from tokgate.blocklog.integrity.verify import Verifier
from tokgate.blocklog.paths import PARQUET, compacted, successions_path_for
from tokgate.blocklog.read.reader import MAX_LINE, UNREADABLE, OpenLog, open_log
from tokgate.cli.exits import need
from tokgate.config.extras import Extra

_TICK: Final = 1000
"""Checkpoints after which progress is told: a tenth of a second."""


class CurrentLog:
    """The current log file, kept open: verifying takes a while, in which it may be rotated.

    A context manager. Without such a file it holds nothing.
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
        """All files of the log; the current file once, under the name that it had when it was opened."""
        if self._stream is None:
            return every_file(self.log)
        current = os.fstat(self._stream.fileno())
        found = [
            path for path in every_file(self.log) if path != self.log and not os.path.samestat(path.stat(), current)
        ]
        return [*found, self.log]

    def open(self, path: Path) -> BinaryIO:
        """Open a log file for reading, the current one by its descriptor. Raises OSError."""
        if self._stream is None or path != self.log:
            return open_log(path)
        return Path(f"/proc/self/fd/{self._stream.fileno()}").open("rb")


def opener_of(files: Iterable[Path], current: CurrentLog | None = None) -> OpenLog:
    """How to open these files, Parquet too; the log that is being written as `current` has it."""
    return with_parquet(files, open_log if current is None else current.open)


def with_parquet(files: Iterable[Path], opener: OpenLog) -> OpenLog:
    """An opener that opens Parquet files, too, as the lines that are in them."""
    if not any(path.suffix == PARQUET for path in files):
        return opener
    need(Extra.REVIEW)
    return lambda path: open_lines_of(path) if path.suffix == PARQUET else opener(path)


class Examination:
    """Verifies files. If a file and its Parquet are both given, the file is verified and the Parquet compared to it."""

    def __init__(
        self,
        files: Sequence[Path],
        trusted: Sequence[str] = (),
        kept: Iterable[ExternalCheckpoint] = (),
        *,
        whole: bool = False,
        opener: OpenLog = open_log,
    ) -> None:
        """The arguments are those of `Verifier`."""
        self._made_of: Final = {made: path for path in files if path.suffix != PARQUET and (made := compacted(path))}
        self._compact: Final = [path for path in files if path.suffix == PARQUET]
        self._written: Final = [path for path in files if path not in self._made_of]
        self._tick: Callable[[int], None] = lambda _: None
        beside = self._successions(dict.fromkeys(map(successions_path_for, files)))
        self.verifier: Final = Verifier(trusted, kept, with_parquet(files, opener), whole=whole, successions=beside)

    def findings(self, tick: Callable[[int], None] = lambda _: None) -> Iterator[Finding]:
        """All findings. `tick` is called now and then with the number of lines read. Raises OSError."""
        self._tick = tick
        yield from self.verifier.run(self._written, tick)
        for parquet in self._compact:
            yield from _of_parquet(parquet, self._made_of.get(parquet))

    def _successions(self, paths: Iterable[Path]) -> Iterator[ExternalCheckpoint]:
        """The checkpoints in files of them, which count as lines for progress only."""
        for path in paths:
            if path.is_file():
                with path.open(encoding="utf-8", errors="replace") as text:
                    lines = iter(partial(text.readline, MAX_LINE), "")  # who can write there can write without an end
                    for number, one in enumerate(checkpoints_in(lines, str(path)), 1):
                        if number % _TICK == 0:
                            self._tick(self.verifier.lines + number)
                        yield one


def _of_parquet(parquet: Path, source: Path | None) -> Iterator[Finding]:
    """Compare a Parquet file with its own lines, and those with the file that it was made from."""
    from tokgate.analytics.compact import first_differing_line, first_wrong_column

    try:
        with suppress(*UNREADABLE):  # a damaged source, which the chain has told
            if source is not None and (number := first_differing_line(parquet, source)) is not None:
                yield Finding(str(parquet), number, FindingCode.COLUMNS, f"this line is another than in {source}")
        if (found := first_wrong_column(parquet)) is not None:
            number, column = found
            what = f"the column {column!r} says something else than the line, and reports are made of columns"
            yield Finding(str(parquet), number, FindingCode.COLUMNS, what)
    except LogError as error:
        if source is not None:  # else the chain has told it
            yield Finding(str(parquet), 1, FindingCode.UNREADABLE, str(error))
