"""Files that come to rest: when what an editor, a transfer or a volume has written can be taken as whole."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from tokgate.config.writers import being_written

SETTLE: Final = 0.1
"""Seconds for which files must rest before they are read: an editor may be half way through."""
SETTLE_LOSS: Final = 1.0
"""The same where a file is gone or has become empty: half a save looks like a ban that was lifted."""
RESTLESS: Final = 10.0
"""Seconds without rest after which it is said that the files keep changing; they are never read half written.

Also how long a file that rests is left alone because somebody has it open for writing.
"""
LOOK_AGAIN: Final = SETTLE / 2
"""Seconds between two looks at files that don't rest yet."""

_Status = tuple[int, int, int, int, int]
"""Device, inode, size, and the times of the last change of content and of status."""

Fingerprint = dict[Path, _Status]
"""What tells one state of the policy files from another without reading them."""


def statuses(paths: Iterable[Path]) -> Fingerprint:
    """The state of those files that are there."""
    state: Fingerprint = {}
    for each in paths:
        try:
            status = each.stat()
        except OSError:
            continue
        state[each] = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return state


class Settling:
    """Asked again and again whether the files rest. Nothing here waits: there is more to do meanwhile."""

    def __init__(self, look: Callable[[], Fingerprint], seen: Fingerprint, restless: Callable[[], None]) -> None:
        """`seen` is the state that was read last; `restless` is called once if the files don't come to rest."""
        self._look: Final = look
        self._seen: Final = seen
        self._restless: Final = restless
        self._state = look()
        self._start = self._since = time.monotonic()
        self._told = False

    def rested(self) -> Fingerprint | None:
        """The state in which the files rest; None while they don't. Costs a `stat` of each."""
        state, now = self._look(), time.monotonic()
        if state != self._state:
            self._state, self._since = state, now
        if self._rests(now - self._since):
            return state
        if now - self._start > RESTLESS and not self._told:
            self._told = True
            self._restless()
        return None

    def _rests(self, seconds: float) -> bool:
        """Whether files that have not changed for so long can be taken as whole."""
        if seconds < (SETTLE_LOSS if self._lost() else SETTLE):
            return False
        return seconds >= RESTLESS or not self._unfinished()

    def _unfinished(self) -> bool:
        """Whether somebody is still at a file that is another than was read."""
        return any(being_written(path) for path, status in self._state.items() if self._seen.get(path) != status)

    def _lost(self) -> bool:
        """Whether a file that had content is gone or empty."""
        state = self._state
        return any(status[2] and (path not in state or not state[path][2]) for path, status in self._seen.items())
