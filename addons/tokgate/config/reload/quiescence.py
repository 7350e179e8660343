"""Detects when files are stable: when an editor, a transfer or a volume update has finished writing them."""

import errno
import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

SETTLE: Final = 0.1
"""Seconds without a change after which files are stable."""
SETTLE_LOSS: Final = 1.0
"""`SETTLE` if a file was removed or emptied, since an unfinished save would lift bans."""
UNSTABLE_AFTER: Final = 10.0
"""Seconds after which files that keep changing are reported; they are not read until they are stable.

Also the longest time for which an unchanged file isn't read because it is open for writing.
"""
LOOK_AGAIN: Final = SETTLE / 2
"""Seconds between two comparisons of files that aren't stable."""

_Status = tuple[int, int, int, int, int]
"""Device, inode, size, and the times of the last change of content and of status."""

Fingerprint = dict[Path, _Status]
"""The state of files, for comparison without reading them."""


def statuses(paths: Iterable[Path]) -> Fingerprint:
    """The state of those files that exist."""
    state: Fingerprint = {}
    for each in paths:
        try:
            status = each.stat()
        except OSError:
            continue
        state[each] = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return state


class StabilityCheck:
    """Says whether files are stable, each time it is called. Nothing here waits."""

    def __init__(self, look: Callable[[], Fingerprint], seen: Fingerprint, on_unstable: Callable[[], None]) -> None:
        """`seen` is the state that was read last; `on_unstable` is called once if the files keep changing."""
        self._look: Final = look
        self._seen: Final = seen
        self._on_unstable: Final = on_unstable
        self._state = look()
        self._start = self._since = time.monotonic()
        self._told = False

    def stable_state(self) -> Fingerprint | None:
        """The state of the files if they are stable, else None; one `stat` for each file."""
        state, now = self._look(), time.monotonic()
        if state != self._state:
            self._state, self._since = state, now
        rested = now - self._since
        if rested >= (SETTLE_LOSS if self._lost() else SETTLE):
            changed = [path for path, status in state.items() if self._seen.get(path) != status]
            if rested >= UNSTABLE_AFTER or not any(map(being_written, changed)):
                return state
        if now - self._start > UNSTABLE_AFTER and not self._told:
            self._told = True
            self._on_unstable()
        return None

    def _lost(self) -> bool:
        """Whether a file that had content was removed or emptied."""
        state = self._state
        return any(status[2] and (path not in state or not state[path][2]) for path, status in self._seen.items())


def being_written(path: Path) -> bool:
    """Whether a file is open for writing on this machine; False where this is unknown.

    The kernel grants a read lease (fcntl(2)) only on a file that isn't open for writing: to the file's owner and root,
    on local file systems.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        # If the file is opened for writing now, the kernel signals this process: SIGURG is ignored by default.
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    finally:
        os.close(descriptor)
    return False
