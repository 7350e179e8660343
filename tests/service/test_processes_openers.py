"""Openers on demand: one more while those that run are busy, one fewer later; nobody who is served notices."""

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from labs.running_lab import WITHOUT_BAN, Scraped, until
from labs.web_server import served, web_server
from tokgate.runtime.control_socket import ControlRequest, ask

SOURCE = "127.0.0.7"
DRIVER = """
import sys
from pathlib import Path
from tokgate.cli.main import main
from tokgate.service import process_health

real = process_health.OpenerCount.look

def look(count, shares, now):
    real(count, [float(Path("share").read_text())] * len(shares), now)

process_health.OpenerCount.look = look
process_health.BUSY_SECONDS = process_health.IDLE_SECONDS = 0.0
sys.exit(main(sys.argv[1:]))
"""
"""A tokgate whose openers are as busy as a file says, and which waits for no second look."""


class OnDemand(Scraped):
    """One with up to two openers."""

    def __init__(self, folder: Path) -> None:
        driver, python = folder / "driver.py", folder / "python"
        driver.write_text(DRIVER)
        python.write_text(f'#!/bin/sh\nshift 2\nexec "{sys.executable}" "{driver}" "$@"\n')  # instead of `-m tokgate`
        python.chmod(0o755)
        self._share = folder / "share"
        self.are_busy(0.5)
        mode = ("--mode", "gate:explicit@127.0.0.1:0", "--openers", "1-2")
        super().__init__(folder, mode, workers=1, python=str(python))
        until("it is well", lambda: self.problems() == [])

    def are_busy(self, share: float) -> None:
        """Have the supervisor believe that its openers have work for this share of time."""
        draft = self._share.with_suffix(".draft")
        draft.write_text(str(share))
        draft.rename(self._share)

    def openers(self) -> list[dict[str, Any]]:
        """What status tells of them, in the order of their names."""
        state = ask(self.confdir, ControlRequest.STATUS)
        workers = [] if state is None else state["workers"]
        return sorted((each for each in workers if "opener" in each["name"]), key=lambda each: str(each["name"]))

    def conditions(self) -> list[tuple[str, str]]:
        """Names and conditions."""
        return [(each["name"], each["condition"]) for each in self.openers()]

    def policy_version(self) -> str:
        """The version in force."""
        state = ask(self.confdir, ControlRequest.STATUS)
        assert state is not None
        return str(state["policy"]["version"])

    def serve(self, *names: str) -> bool:
        """Whether these openers serve, and no others are there."""
        return self.conditions() == [(name, "serving") for name in names]


@pytest.fixture
def running(tmp_path: Path, check_lines: Callable[..., list[dict[str, Any]]]) -> Iterator[OnDemand]:
    """A tokgate with one opener, which has something to do."""
    started = OnDemand(tmp_path)
    until("one serves", partial(started.serve, "opener-0"))
    yield started
    started.close()
    check_lines(started.log)
    assert "Traceback" not in started.narrated(), started.narrated()


def origin() -> AbstractContextManager[int]:
    """The port of a web server that tells from which address it is asked, and keeps connections open."""
    return served(web_server(str.encode, version="HTTP/1.1"))


def _get(client: HTTPConnection, port: int) -> str:
    client.request("GET", f"http://127.0.0.1:{port}/")
    return client.getresponse().read().decode()


def test_on_demand(running: OnDemand) -> None:
    """The second one has the policy in force and serves; retired, it ends with its last connection, and all is well."""
    running.write(WITHOUT_BAN | {"settings": {"egress": {"addresses": [SOURCE]}}})
    until("the policy is told", lambda: "is in force, it replaces" in running.narrated())
    running.are_busy(1.0)
    until("both serve", partial(running.serve, "opener-0", "opener-1"))
    first, second = running.openers()
    assert first["version"] == second["version"] == running.policy_version()
    running.are_busy(0.5)
    with origin() as port:
        client = HTTPConnection("127.0.0.1", running.port, timeout=60)
        os.kill(first["pid"], signal.SIGSTOP)  # else whoever is quicker takes it
        assert _get(client, port) == SOURCE
        os.kill(first["pid"], signal.SIGCONT)
        running.are_busy(0.0)
        until("the second one ends", lambda: running.conditions() == [("opener-0", "serving"), ("opener-1", "ending")])
        until("it is well", lambda: running.problems() == [])
        assert running.metric("workers", role="opener", state="ending") == 1
        assert _get(client, port) == SOURCE
        client.close()
    until("one is left", partial(running.serve, "opener-0"))
    assert running.problems() == []
    assert running.metric("restarts_total", role="opener") == 0
    assert running.passes()


def test_another_program_goes_on_with_as_many(running: OnDemand) -> None:
    """A new version doesn't begin with one while two are busy."""
    running.are_busy(1.0)
    until("both serve", partial(running.serve, "opener-0", "opener-1"))
    before = {each["pid"] for each in running.openers()}
    running.are_busy(0.5)
    answer = ask(running.confdir, ControlRequest.RESTART)
    assert answer is not None
    assert answer["ok"], answer
    until("the new ones serve", partial(running.serve, "opener-0", "opener-1"))
    until("the old ones end", lambda: not before & {each["pid"] for each in running.openers()})
    until("it is well", lambda: running.problems() == [])
