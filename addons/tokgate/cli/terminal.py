"""What a terminal needs: whether to colour, narration on stderr, text made safe to show, and progress."""

import os
import re
import sys
from time import monotonic
from typing import TYPE_CHECKING, Final, Self, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""What a terminal would obey instead of show: control characters and bidirectional overrides."""


def wants_color(stream: TextIO) -> bool:
    """A terminal that did not ask for plain text (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def narrate(text: str) -> None:
    """Tell the person at the terminal; never data."""
    sys.stderr.write(f"{text}\n")


def shown(text: str) -> str:
    """A name from outside as it can be shown: visible, and without power over the terminal."""
    if not text:
        return '""'
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def progress_on_stderr(*, count: bool, size: bool = False) -> "Progress":
    """A progress display that leaves nothing behind.

    `count` when the total is unknown and a count is all there is; `size` when it is bytes that are counted.
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
    """A callback for (done, total) that shows itself on a terminal, once the work takes long enough to wonder.

    Where no total is known a bar that only moves stands beside the count.
    """

    _SECONDS: Final = 0.5

    def __init__(self, what: str, *, size: bool = False) -> None:
        """`what` is being done, in a word or two; with `size` it is bytes that are counted."""
        self._what: Final = what
        self._size: Final = size
        self._started: Final = monotonic()
        self._display: Progress | None = None
        self._task: TaskID | None = None

    def __call__(self, done: int, total: int | None) -> None:
        """Tell how far it has come."""
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
        """Take the display away."""
        self.close()

    def close(self) -> None:
        """Take the display away, before something else is printed."""
        if self._display is not None:
            self._display.stop()
