"""Reads a changed policy in a thread of lower priority than the gates, while the supervisor answers requests."""

import math
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Final

from whenever import Instant

from tokgate.config.reload.gc_tuning import freeze_objects
from tokgate.config.reload.holder import PolicyHolder, Reloaded
from tokgate.config.reload.quiescence import LOOK_AGAIN, StabilityCheck
from tokgate.policy.snapshot import Snapshot
from tokgate.service.child_programs import BEHIND_TRAFFIC

_ANSWERS_EVERY: Final = 0.01
"""Seconds between two looks at requests, while a thread works."""


def in_thread[T](work: Callable[[], T], meanwhile: Callable[[], None], nice: int = 0) -> T:
    """Do work in a thread that is so much nicer, and call `meanwhile` often; here, where no thread can be started.

    No thread is left: processes fork. On Linux a priority is a thread's, and ends with it.
    """
    with ThreadPoolExecutor(1, initializer=os.nice, initargs=(nice,)) as executor:
        try:
            done = executor.submit(work)
        except RuntimeError:  # EAGAIN of pthread_create(3)
            return work()
        while not wait((done,), _ANSWERS_EVERY).done:
            meanwhile()
    return done.result()


class BackgroundReload:
    """Reads the policy again when its files have changed or somebody asks, once they are stable."""

    def __init__(self, holder: PolicyHolder, begins: Callable[[], None], meanwhile: Callable[[], None]) -> None:
        """`meanwhile` answers requests that have come, and is called often while the policy is read.

        `begins` is called before that: where processors are short answers may come late.
        """
        self.wanted = False
        """Whether somebody asks; to be set."""
        self._holder: Final = holder
        self._begins: Final = begins
        self._meanwhile: Final = meanwhile
        self._check: StabilityCheck | None = None

    def due(self) -> float:
        """Seconds until the next call of `look`."""
        return math.inf if self._check is None else LOOK_AGAIN

    def look(self) -> Reloaded | None:
        """The result, if the policy was read. Until its files are stable this returns at once: edits may take long.

        It is `wanted` again if a request came meanwhile, or if the files changed.
        """
        if self._check is None and (self.wanted or self._holder.changed()):
            self._check = self._holder.stability_check()
        stable_state = None if self._check is None else self._check.stable_state()
        if stable_state is None:
            return None
        self.wanted, self._check = False, None
        self._begins()
        read = in_thread(lambda: self._holder.read(stable_state), self._meanwhile, BEHIND_TRAFFIC)
        if read is None:
            self.wanted = True
            return None
        replaced = [self._holder.snapshot]
        reloaded = self._holder.exchange(read)
        in_thread(lambda: self._tidy(reloaded, replaced), self._meanwhile, BEHIND_TRAFFIC)
        return reloaded

    def _tidy(self, reloaded: Reloaded, replaced: list[Snapshot]) -> None:
        """Keep the policy for the next start, free the replaced one, and prepare memory for later forks."""
        if reloaded.ok:
            self._holder.keep(Instant.now())
        replaced.clear()  # a million objects take a while
        freeze_objects()
