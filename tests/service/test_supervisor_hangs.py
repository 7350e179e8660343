"""Processes that are there and do nothing: health is red, they are killed, and others take their place."""

import os
import signal
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from labs.running_lab import Scraped, until

STOPPED = (("opener-0", "gate-0"), ("gate-0", "gate-1"), ("collector-0",))


def _has_others(running: Scraped, before: dict[str, int]) -> bool:
    """Whether other processes have the places of those before."""
    now = {worker["name"]: worker["pid"] for worker in running.workers()}
    return all(now.get(name, pid) != pid for name, pid in before.items())


def test_what_was_stopped_is_replaced(tmp_path: Path, check_lines: Callable[..., list[dict[str, Any]]]) -> None:
    """Status and health say so within seconds; it is killed with a record, and all is well again."""
    with closing(Scraped(tmp_path, workers=2)) as running:
        until("all have reported", lambda: all(worker["report"] for worker in running.workers()))
        for stopped in STOPPED:
            until("it is well", lambda: running.problems() == [])
            assert running.passes()
            before = {each["name"]: each["pid"] for each in running.workers() if each["name"] in stopped}
            for pid in before.values():
                os.kill(pid, signal.SIGSTOP)
            for said in (f"{name} has not reported" for name in stopped):
                until("health names it", lambda: any(said in each for each in running.problems()))  # noqa: B023
            role = stopped[0].partition("-")[0]
            assert running.metric("workers", role=role, state="serving") == 0
            assert running.metric("healthy") == 0
            assert running.metric("log_writable") == (stopped != ("collector-0",))
            until("others have their places", partial(_has_others, running, before))
        until("it is well in the end", lambda: running.problems() == [])
        assert running.passes()
    told = [record["message"] for record in check_lines(running.log) if "hung" in record["message"]]
    assert len(told) == sum(map(len, STOPPED))
