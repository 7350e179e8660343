"""Verifies the files of a log together, while the log may go on."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, Self

from tokgate.blocklog.integrity.chain_state import Finding
from tokgate.blocklog.integrity.trusted_keys import ExternalCheckpoint, checkpoints_in
from tokgate.blocklog.integrity.verify import Verifier
from tokgate.blocklog.paths import every_file, successions_path_for
from tokgate.blocklog.read.reader import MAX_LINE, OpenLog, open_log

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


class Examination:
    """Verifies files, and with them the checkpoints of keys that lie beside them."""

    def __init__(
        self,
        files: Sequence[Path],
        trusted: Sequence[str] = (),
        kept: Iterable[ExternalCheckpoint] = (),
        *,
        whole: bool = False,
        opener: OpenLog = open_log,
        at_least: float = 0,
    ) -> None:
        """The arguments are those of `Verifier`."""
        self._files: Final = files
        self._tick: Callable[[int], None] = lambda _: None
        beside = self._successions(dict.fromkeys(map(successions_path_for, files)))
        self.verifier: Final = Verifier(trusted, kept, opener, whole=whole, successions=beside, at_least=at_least)

    def findings(self, tick: Callable[[int], None] = lambda _: None) -> Iterator[Finding]:
        """All findings. `tick` is called now and then with the number of lines read. Raises OSError."""
        self._tick = tick
        yield from self.verifier.run(self._files, tick)

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
