"""Clients behind a load balancer, at a gate and beyond."""

import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from labs.running_lab import PATIENT, POLICY, Running, python_for, until
from tokgate.runtime.control_socket import ControlRequest, ask

BEHIND = POLICY | {
    "networks": {"behind": {"cidrs": ["198.51.100.0/24"]}},
    "bans": {"ban": POLICY["bans"]["ban"] | {"networks": ["behind"]}},
    "settings": {"load_balancers": ["127.0.0.1"]},
}
CLIENT = "198.51.100.7"
HEADER = b"PROXY TCP4 198.51.100.%d 192.0.2.1 40000 8080\r\n"


@pytest.fixture
def running(tmp_path: Path, check_lines: Callable[..., list[dict[str, Any]]]) -> Iterator[Running]:
    """One whose load balancer is 127.0.0.1."""
    started = Running(tmp_path, workers=1, python=python_for(tmp_path, PATIENT))
    until("an opener answers", started.refuses)
    started.write(BEHIND)
    assert (ask(started.confdir, ControlRequest.RELOAD) or {})["ok"]
    yield started
    started.close()
    check_lines(started.log)


def _asked(running: Running, *said: bytes, source: str = "127.0.0.1") -> bytes:
    """All that comes back; a reset ends it."""
    answer = b""
    with socket.socket() as sock, contextlib.suppress(ConnectionError):
        sock.settimeout(60)
        sock.bind((source, 0))
        sock.connect(("127.0.0.1", running.port))
        for piece in said:
            sock.sendall(piece)
        while b"\r\n\r\n" not in answer and (piece := sock.recv(65536)):
            answer += piece
    return answer


def _request(name: str, port: int = 443) -> bytes:
    return f"CONNECT {name}:{port} HTTP/1.1\r\nHost: {name}:{port}\r\n\r\n".encode()


def test_the_client_is_who_the_balancer_says(running: Running) -> None:
    """It is banned by its own address, in the gate, in the opener, and in the record; others aren't."""
    answer = _asked(running, HEADER % 7, _request("www.clips.example.org"))
    assert answer.startswith((b"HTTP/1.1 403 ", b"HTTP/1.1 451 "))
    until("its record names it", lambda: any(r.get("source", {}).get("ip") == CLIENT for r in running.records()))
    assert b" 502 " in _asked(running, HEADER % 7, _request("www.example.invalid"))


def test_only_from_a_balancer(running: Running) -> None:
    """Anybody else who says that it is another is told that this is no request; a balancer has to say it."""
    assert b" 400 " in _asked(running, HEADER % 7 + _request("www.example.org"), source="127.0.0.2")
    assert _asked(running, _request("www.example.org")) == b""
