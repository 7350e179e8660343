"""What commands of `tokgate log` say on stderr of unreadable lines and missing logs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from tokgate.blocklog.paths import with_rotated
from tokgate.blocklog.read.reader import Junk
from tokgate.cli.exits import CommandError
from tokgate.cli.terminal import narrate, shown

MAX_JUNK_SHOWN: Final = 5


class UnreadableLineReporter:
    """Reports unreadable lines on stderr: the first few in full, then the number of the others."""

    def __init__(self) -> None:
        self.count = 0

    def tell(self, junk: Junk) -> None:
        self.count += 1
        if self.count <= MAX_JUNK_SHOWN:
            narrate(f"tokgate: {shown(str(junk))}")

    def close(self) -> None:
        if self.count > MAX_JUNK_SHOWN:
            narrate(f"tokgate: {self.count - MAX_JUNK_SHOWN} more lines could not be read")


def tell_of(junk: Sequence[Junk], unreadable: int) -> None:
    """Report unreadable lines on stderr: the first few with their positions, then the number of the others."""
    teller = UnreadableLineReporter()
    for line in junk:
        teller.tell(line)
    teller.count = max(teller.count, unreadable)
    teller.close()


def require(files: list[Path], *, rotated: bool = False) -> None:
    """Raise CommandError if a log does not exist."""
    for path in files:
        if not path.exists() and not (rotated and with_rotated(path) != [path]):
            raise CommandError(f"there is no log at {path}: name it with --log, or let `tokgate run` write it")
