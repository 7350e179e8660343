"""Processes that are there and do nothing: health is red, they are killed, and others take their place."""

import os
import signal
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from labs.running_lab import Scraped, until


@pytest.fixture
def running(tmp_path: Path, check_lines: Callable[..., list[dict[str, Any]]]) -> Iterator[Scraped]:
    """One with metrics, all of which is well."""
    started = Scraped(tmp_path, workers=2)
    until("it is well", lambda: started.problems() == [])
    until("all have reported", lambda: all(worker["report"] for worker in _workers(started).values()))
    yield started
    started.close()
    check_lines(started.log)


def _workers(running: Scraped) -> dict[str, dict[str, Any]]:
    return {worker["name"]: worker for worker in running.workers()}


def _is_another(running: Scraped, name: str, pid: int) -> bool:
    worker = _workers(running).get(name)
    return worker is not None and worker["pid"] != pid


STOPPED = (("opener-0", "gate-0"), ("gate-0", "gate-1"), ("collector-0",))


def test_what_was_stopped_is_replaced(running: Scraped) -> None:
    """Status and health say so within seconds; it is killed with a record, and all is well again."""
    told = 0
    for stopped in STOPPED:
        before = {name: _workers(running)[name]["pid"] for name in stopped}
        for pid in before.values():
            os.kill(pid, signal.SIGSTOP)
        for name in stopped:
            until("health names it", partial(_named, running, f"{name} has not reported"))
        role = stopped[0].partition("-")[0]
        assert running.metric("workers", role=role, state="serving") == 0
        assert running.metric("healthy") == 0
        assert running.metric("log_writable") == (stopped != ("collector-0",))
        for name, pid in before.items():
            until("another has its place", partial(_is_another, running, name, pid))
        until("it is well", lambda: running.problems() == [])
        assert running.passes()
        told += len(stopped)
        until("each has its record", partial(_are_told, running, told))


def _are_told(running: Scraped, number: int) -> bool:
    return len(_hung(running)) == number


def _hung(running: Scraped) -> list[dict[str, Any]]:
    return [record for record in running.records() if "hung" in record["message"]]


def _named(running: Scraped, said: str) -> bool:
    return any(said in problem for problem in running.problems())
