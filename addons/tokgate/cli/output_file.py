"""Writes the output file of a command: complete or not at all, with the permissions of the log."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tokgate.blocklog.atomic_file import replacing, take_rights

MODE: Final = 0o640
"""The mode of the log itself: its exports hold personal data, too."""


@contextmanager
def becoming(output: Path) -> Iterator[Path]:
    """A context with a path to write to. At its end the file is renamed to `output`; after an error it is deleted.

    Raises OSError. An existing file's permissions are kept. A device or a pipe is written directly: renaming would
    replace it.
    """
    target = output.resolve()  # the target of a symbolic link is replaced
    if output.exists() and not (target.is_file() and target.samefile(output)):  # /dev/stdout may be a deleted file
        yield output
        return
    before = target.stat() if target.exists() else None
    with replacing(target, MODE, shared=True) as draft:
        yield draft
        if before is not None:
            take_rights(draft, before)
