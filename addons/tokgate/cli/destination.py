"""Where a command puts the file it makes: under its name when it is complete, readable as the log itself."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

MODE: Final = 0o640
"""As the log itself: what is made of it is about people."""


@contextmanager
def becoming(output: Path) -> Iterator[Path]:
    """A path to write to, which is named `output` at the end, or is gone if that isn't reached. Raises OSError.

    A device or a pipe is the path itself: putting a file in its place would take it away from everybody else.
    """
    target = output.resolve()  # of a link, what it leads to is meant
    if target.exists() and not target.is_file():
        yield target
        return
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    partial.touch(MODE, exist_ok=False)  # never through a link that somebody else put there
    try:
        yield partial
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
