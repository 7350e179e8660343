"""Standard error of a program that outlives it: the disk may be full, and who reads a pipe may have ended."""

import io
import sys
from collections.abc import Buffer


class _Lossy(io.FileIO):
    """Drops what can't be written."""

    def write(self, data: Buffer, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def drop_what_cannot_be_written() -> None:
    """Have `sys.stderr` raise no OSError from now on, and buffer nothing, unless something else has its place."""
    own = sys.stderr
    if own is sys.__stderr__ and own is not None:
        file = _Lossy(own.fileno(), "w", closefd=False)
        sys.stderr = io.TextIOWrapper(file, own.encoding, own.errors, write_through=True)
