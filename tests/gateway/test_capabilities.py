"""Giving capabilities up, and passing them to the next program, as the kernel tells of it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tokgate.gateway import capabilities
from tokgate.gateway.capabilities import Capability

NET_ADMIN = 1 << Capability.NET_ADMIN


def told() -> dict[str, int]:
    """What the kernel says of the calling thread."""
    lines = [line.split() for line in Path("/proc/thread-self/status").read_text().splitlines()]
    return {line[0].rstrip(":"): int(line[1], 16) for line in lines if line[0].startswith("Cap")}


def told_after(work: Callable[[], object]) -> dict[str, int]:
    """The same after some work in a thread of its own, whose capabilities end with it."""

    def done() -> dict[str, int]:
        work()
        return told()

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(done).result()


def limit_to_net_admin() -> None:
    capabilities.limit_to({Capability.NET_ADMIN})


def test_what_is_held_is_what_the_kernel_says() -> None:
    """Else tokgate would try to become a user without the right to, and not start."""
    assert capabilities.held() == told()["CapPrm"]


def test_what_is_given_up_is_gone() -> None:
    """A gate that was taken over can't use what it no longer needs, nor can what it starts, be it root's."""
    before, after = told(), told_after(limit_to_net_admin)
    kept = before["CapPrm"] & NET_ADMIN
    assert [after[each] for each in ("CapPrm", "CapEff", "CapInh", "CapAmb")] == [kept, kept, 0, 0]
    may_bound = before["CapPrm"] >> Capability.SETPCAP & 1
    assert after["CapBnd"] == (before["CapBnd"] & NET_ADMIN if may_bound else before["CapBnd"])


def test_what_is_passed_on_outlives_an_exec() -> None:
    """An opener that marks its connections may, although it is another program than the gate that forked for it."""

    def passed_on() -> None:
        limit_to_net_admin()
        capabilities.pass_on()

    after = told_after(passed_on)
    assert [after[each] for each in ("CapPrm", "CapInh", "CapAmb")] == [capabilities.held() & NET_ADMIN] * 3


def test_nothing_is_taken_that_was_not_held() -> None:
    """Keeping what a process never had is no error: under systemd, tokgate starts with nothing."""

    def twice() -> None:
        capabilities.limit_to(())
        capabilities.limit_to({Capability.NET_ADMIN, Capability.NET_BIND_SERVICE})

    assert told_after(twice)["CapPrm"] == 0


def test_where_the_system_forbids_it_nothing_is_asked_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a systemd unit forbids capset: with nothing to give up or to pass on, tokgate starts all the same."""

    def forbidden(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    def start() -> None:
        capabilities.limit_to(())
        monkeypatch.setattr(capabilities, "_hold", forbidden)
        limit_to_net_admin()
        capabilities.limit_to(())
        capabilities.pass_on()

    assert told_after(start)["CapPrm"] == 0
