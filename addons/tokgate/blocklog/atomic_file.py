"""Replaces a file atomically: its path leads to the old content or the new one, also after a power failure.

`zstd` is Zstandard, which the standard library has from Python 3.14 on.
"""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path, mode: int, *, shared: bool = False) -> Iterator[Path]:
    """Yield a draft to write to, made with `mode` less the umask. At the end it is synced and renamed to `path`.

    An exception leaves `path` unchanged and removes the draft. A symbolic link at `path` is replaced, not followed.
    A killed process's draft is removed, unless `shared`, for paths that several processes may replace at once.
    Raises OSError.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.new" if shared else f".{path.name}.new")
    draft.unlink(missing_ok=True)
    draft.touch(mode, exist_ok=False)  # never through a link that somebody else put there
    try:
        yield draft
        sync(draft)
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync(path.parent)


def replace_file(path: Path, content: bytes, mode: int) -> None:
    """Replace a file by `content`, as `replacing` does. Makes its folder, with mode 0750. Raises OSError."""
    path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
    with replacing(path, mode) as draft:
        draft.write_bytes(content)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """A context with a folder's lock, for one process at a time. It is released if the process dies. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def take_rights(draft: Path, of: os.stat_result) -> None:
    """Give a draft the permissions of another file, and its owner if this process is root. Raises OSError."""
    draft.chmod(of.st_mode & 0o777)
    if os.geteuid() == 0:
        os.chown(draft, of.st_uid, of.st_gid)


def sync(path: Path) -> None:
    """Sync a file's content, or a folder's entries, to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["zstd"]
