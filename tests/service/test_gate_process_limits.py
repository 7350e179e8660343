"""Gates at their limits, and what becomes of connections, in a running tokgate."""

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from labs.running_lab import POLICY, Scraped, until
from tokgate.runtime.control_socket import ControlRequest, ask

GATES, EACH = 2, 6


@pytest.fixture
def running(tmp_path: Path, check_lines: Callable[..., list[dict[str, Any]]]) -> Iterator[Scraped]:
    """One whose gates take few connections."""
    started = Scraped(tmp_path, ("--mode", "gate:explicit@127.0.0.1:0"), workers=GATES)
    started.write(POLICY | {"settings": {"limits": {"connections": EACH}}})
    assert (ask(started.confdir, ControlRequest.RELOAD) or {})["ok"]
    until("it is well", lambda: started.problems() == [])
    yield started
    started.close()
    check_lines(started.log)


def _tunnel(running: Scraped) -> socket.socket | None:
    try:
        status, sock = running.connect("127.0.0.1", running.origin.getsockname()[1])
    except ConnectionError:
        return None
    assert " 200 " in status
    return sock


def test_a_full_gate_leaves_clients_to_others(running: Scraped) -> None:
    """As many are served as all gates together may; then they are told, health is red, and room is used again."""
    with contextlib.ExitStack() as stack:
        held = []
        for _ in range(GATES * EACH):
            sock = _tunnel(running)
            assert sock is not None
            held.append(stack.enter_context(sock))
        assert _tunnel(running) is None
        until("health says so", lambda: any("at its limit of 6 connections" in each for each in running.problems()))
        for sock in held[:EACH]:
            sock.close()
        until("there is room again", running.passes)
    until("it is well", lambda: running.problems() == [])


def test_destinations_are_counted(running: Scraped) -> None:
    """Errors by kind, names that don't resolve, and times, each with a 0 before the first."""
    assert running.metric("connect_errors_total", kind="no-port") == 0
    assert running.metric("connect_seconds_count") == 0
    assert running.passes()
    until("the connection is measured", lambda: running.metric("connect_seconds_count") == 1)
    _, sock = running.connect("localhost", 1)
    sock.close()
    until("it is counted", lambda: (running.metric("connect_errors_total", kind="refused") or 0) >= 1)
    _, sock = running.connect("no-such-name.invalid", 443)
    sock.close()
    until("it is counted", lambda: sum(running.metric("dns_errors_total", kind=k) or 0 for k in KINDS) == 1)
    assert (running.metric("descriptors", worker="gate-0") or 0) > 10
    assert running.metric("descriptors_limit", worker="gate-0") is not None


KINDS = ("not-found", "unanswered", "other")


def test_from_the_addresses_of_the_policy(running: Scraped) -> None:
    """A changed pool is used by the next gates; an address that is not here is red."""
    running.write(POLICY | {"settings": {"egress": {"addresses": ["127.0.0.5"]}}})
    with socket.create_server(("127.0.0.1", 0)) as seen:
        seen.settimeout(60)

        def source() -> str:
            with contextlib.suppress(ConnectionError):
                running.connect("localhost", seen.getsockname()[1])[1].close()
            client, (host, _) = seen.accept()
            client.close()
            return str(host)

        until("it comes from there", lambda: source() == "127.0.0.5")
    running.write(POLICY | {"settings": {"egress": {"addresses": ["192.0.2.1"]}}})

    def red() -> bool:
        running.passes()
        return any("no-port" in problem for problem in running.problems())

    until("health is red", red)
    assert (running.metric("connect_errors_total", kind="no-port") or 0) >= 1
