"""Verifies the files of a log together, while the log may go on."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, Self

from tokgate.blocklog.integrity.trusted_keys import ExternalCheckpoint, checkpoints_in
from tokgate.blocklog.integrity.verify import Verifier
from tokgate.blocklog.paths import every_file, successions_path_for
from tokgate.blocklog.read.reader import MAX_LINE, OpenLog, open_log


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


def verifier_of(
    files: Sequence[Path],
    trusted: Sequence[str] = (),
    kept: Iterable[ExternalCheckpoint] = (),
    *,
    whole: bool = False,
    opener: OpenLog = open_log,
    at_least: float = 0,
) -> Verifier:
    """A verifier for these files, with the checkpoints of keys that lie beside them. Arguments as for `Verifier`."""
    beside = _successions(dict.fromkeys(map(successions_path_for, files)))
    return Verifier(trusted, kept, opener, whole=whole, successions=beside, at_least=at_least)


def _successions(paths: Iterable[Path]) -> Iterator[ExternalCheckpoint]:
    for path in paths:
        if path.is_file():
            with path.open(encoding="utf-8", errors="replace") as text:
                lines = iter(partial(text.readline, MAX_LINE), "")  # who can write there can write without an end
                yield from checkpoints_in(lines, str(path))
