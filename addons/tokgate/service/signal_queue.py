"""Signals as a queue, for a loop around poll(2): handlers note them, and the loop heeds them."""

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Final

from tokgate.service.continuity.replacement import ENDS


class SignalQueue:
    """Handles the signals that end tokgate, have it read its policy, or tell of a child."""

    def __init__(self) -> None:
        """None is handled before `listen`."""
        self.came: Final[list[int]] = []
        """Those that were not taken, in their order."""
        self._wake = -1

    def listen(self) -> None:
        """Handle them from now on. Raises OSError."""
        self._wake, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in (*ENDS, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, lambda number, _: self.came.append(number))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)

    def fileno(self) -> int:
        """A descriptor that is readable when a signal has come."""
        return self._wake

    def take(self) -> Iterator[int]:
        """Take those that came, one by one."""
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 4096)
        while self.came:
            yield self.came.pop(0)

    @property
    def ends(self) -> bool:
        """Whether one of them ends tokgate."""
        return not ENDS.isdisjoint(self.came)
