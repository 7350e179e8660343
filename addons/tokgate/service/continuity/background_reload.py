"""Reads a changed policy in a thread of lower priority than the gates, while the supervisor answers requests."""

import asyncio
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tokgate.config.reload.gc_tuning import freeze_objects
from tokgate.config.reload.holder import PolicyHolder, Reloaded
from tokgate.config.reload.quiescence import Fingerprint
from tokgate.policy.snapshot import Snapshot
from tokgate.service.child_programs import BEHIND_TRAFFIC


async def behind_traffic(
    holder: PolicyHolder,
    stable_state: Fingerprint,
    answers: Mapping[Any, Callable[[], None]],
    keep_alive: Callable[[], None],
) -> Reloaded | None:
    """Reload, and prepare memory for later forks, at a lower priority than the gates.

    Requests on the sockets are answered meanwhile, and `keep_alive` is called each second. No process is forked, since
    there are two threads.
    """

    async def live() -> None:
        while True:
            keep_alive()
            await asyncio.sleep(1.0)

    executor = ThreadPoolExecutor(1, initializer=lambda: os.setpriority(os.PRIO_PROCESS, 0, BEHIND_TRAFFIC))
    asyncio.get_running_loop().set_default_executor(executor)  # on Linux a priority is a thread's, and ends with it
    for descriptor, answer in answers.items():
        asyncio.get_running_loop().add_reader(descriptor, answer)
    living = asyncio.create_task(live())
    replaced = [holder.snapshot]
    reloaded = await holder.read_stable(stable_state)
    await asyncio.to_thread(_tidy, replaced)
    living.cancel()
    return reloaded


def _tidy(replaced: list[Snapshot]) -> None:
    """Free the replaced policy, in the low-priority thread: a million objects take a while."""
    replaced.clear()
    freeze_objects()
