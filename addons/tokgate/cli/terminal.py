"""Terminal output: colours, messages on stderr, escaped text, and progress."""

import os
import sys
from time import monotonic
from typing import TYPE_CHECKING, Final, Self, TextIO

from tokgate.policy.values.visible_text import escaped

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


def wants_color(stream: TextIO) -> bool:
    """Whether to use colours: on a terminal, unless NO_COLOR is set (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def narrate(text: str) -> None:
    """Print a message on stderr; never data."""
    sys.stderr.write(f"{text}\n")


def shown(text: str) -> str:
    """Text from outside, with control and invisible characters escaped."""
    return escaped(text) or '""'


def progress_on_stderr(*, count: bool, size: bool = False) -> "Progress":
    """A progress display that is erased at its end.

    `count` if the total is unknown; `size` if bytes are counted.
    """
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = [TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()]
    if not count:
        columns.insert(2, DownloadColumn() if size else MofNCompleteColumn())
    # Redirecting, rich's default, would send the answers on stdout to the terminal.
    return Progress(
        *columns, console=Console(stderr=True), transient=True, redirect_stdout=False, redirect_stderr=False
    )


class Patience:
    """A callback for (done, total) that shows progress on a terminal if the work takes long.

    Without a total it shows a count beside a moving bar.
    """

    _SECONDS: Final = 0.5

    def __init__(self, what: str, *, size: bool = False) -> None:
        """`what` names the work in a word or two; with `size` the counts are bytes."""
        self._what: Final = what
        self._size: Final = size
        self._started: Final = monotonic()
        self._display: Progress | None = None
        self._task: TaskID | None = None

    def __call__(self, done: int, total: int | None) -> None:
        """Update the display."""
        if self._display is None:
            if monotonic() - self._started < self._SECONDS or not sys.stderr.isatty():
                return
            self._display = progress_on_stderr(count=total is None, size=self._size)
            self._display.start()
        if self._task is None:
            self._task = self._display.add_task(self._what, total=total)
        what = self._what if total is not None else f"{self._what}: {done:,}"
        self._display.update(self._task, description=what, completed=done, total=total)

    def __enter__(self) -> Self:
        """Start the clock."""
        return self

    def __exit__(self, *_: object) -> None:
        """Erase the display."""
        self.close()

    def close(self) -> None:
        """Erase the display before other output."""
        if self._display is not None:
            self._display.stop()
