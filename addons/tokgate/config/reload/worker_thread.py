"""A thread for the blocking work of an event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class WorkerThread:
    """One thread, which starts with the first work and stays.

    While the system allows none, the event loop does the work itself: it waits, and no policy stays out of force.
    """

    def __init__(self) -> None:
        """Nothing is started before `run`."""
        self._pool: ThreadPoolExecutor | None = None

    async def run[T](self, work: Callable[[], T]) -> T:
        """The result of `work`, which runs after what was given before."""
        pool = self._pool or ThreadPoolExecutor(1)
        try:
            done = asyncio.get_running_loop().run_in_executor(pool, work)
        except RuntimeError:  # EAGAIN of pthread_create(3)
            return work()
        self._pool = pool
        return await done
