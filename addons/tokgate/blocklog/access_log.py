"""The file of who looked into the log: several processes append to it, and the log's writer rotates it.

It is evidence as well: a record of the log has each rotated file's digest, and names it when its time is over.
"""

import errno
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from whenever import Instant

from tokgate.blocklog.atomic_file import replacing, take_rights
from tokgate.blocklog.paths import archive_name

FILE_MODE: Final = 0o640
PATIENCE: Final = 5.0
"""Seconds for which a line waits for another process that is at the file."""
_LOOK_EVERY: Final = 0.02


def append(path: Path, line: bytes) -> None:
    """Append a line, also while the file is rotated. Raises OSError, and leaves no part of the line then."""
    with _locked(path, os.O_CREAT, PATIENCE) as descriptor:
        found = os.fstat(descriptor)
        size = found.st_size
        if not size and found.st_uid == found.st_gid == 0 and found.st_nlink == 1:
            owner = path.parent.stat()  # who writes the log: else that one can't rotate what root has made
            os.fchown(descriptor, owner.st_uid, owner.st_gid)
        if os.write(descriptor, line) != len(line):
            os.ftruncate(descriptor, size)  # else the next line would go on in this one
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def rotate(path: Path, at: Instant) -> dict[str, Any] | None:
    """Begin a new file with the same rights; None if there is none, or if nobody has looked. Raises OSError.

    Returns the old one's new name (`file`), its `lines`, and `sha256` over what is in it.
    """
    try:
        with _locked(path, 0, 1.0) as descriptor:
            found = os.fstat(descriptor)
            if not found.st_size:
                return None
            with path.open("rb") as stream:
                lines = sum(1 for _ in stream)
                stream.seek(0)
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            target = archive_name(path, at)
            with replacing(path, FILE_MODE) as draft:
                take_rights(draft, found)
                if draft.stat().st_gid != found.st_gid:  # those who wrote the old one may write this
                    os.chown(draft, -1, found.st_gid)
                    draft.chmod(found.st_mode & 0o777)
                os.link(path, target)  # the path leads to a file at each instant: some may not make one
    except FileNotFoundError:
        return None
    return {"file": target.name, "lines": lines, "sha256": digest}


@contextmanager
def _locked(path: Path, flags: int, patience: float) -> Iterator[int]:
    """The file at the path, which nobody else appends to or rotates meanwhile. Raises OSError."""
    give_up = time.monotonic() + patience
    while (descriptor := _try_lock(path, flags)) is None:
        if time.monotonic() >= give_up:
            raise BlockingIOError(errno.EWOULDBLOCK, "another process is at the file", str(path))
        time.sleep(_LOOK_EVERY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _try_lock(path: Path, flags: int) -> int | None:
    """The locked file at the path; None if another process is at it, or has just rotated it. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW | flags, FILE_MODE)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.stat()):
            return descriptor
    except (BlockingIOError, FileNotFoundError):
        pass
    except BaseException:
        os.close(descriptor)
        raise
    os.close(descriptor)
    return None
