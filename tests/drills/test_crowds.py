"""Drills: clients that say nothing, servers that answer nothing, a directory that is away. Everybody else is served."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from labs.running_lab import POLICY, Scraped, until

CROWD = 200
"""Connections of a drill: many more than a gate serves at once, few enough for any limit of descriptors."""
HELLO = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"


@pytest.fixture(scope="module")
def started(
    tmp_path_factory: pytest.TempPathFactory, check_lines: Callable[..., list[dict[str, Any]]]
) -> Iterator[Scraped]:
    """One with metrics for all drills, each of which leaves it well."""
    made = Scraped(tmp_path_factory.mktemp("crowds"))
    until("an opener answers", made.refuses)
    yield made
    made.close()
    check_lines(made.log)


@pytest.fixture
def running(started: Scraped) -> Scraped:
    """The same, when all is well."""
    until("it is well", lambda: started.problems() == [])
    return started


@pytest.mark.parametrize("said", [b"", b"CONNECT www.exa", HELLO], ids=["nothing", "half a request", "half a hello"])
def test_clients_that_never_finish(running: Scraped, said: bytes) -> None:
    """Slowloris: those who begin and wait cost a descriptor each, and hold up nobody."""
    with ExitStack() as crowd:
        for _ in range(CROWD):
            slow = crowd.enter_context(socket.create_connection(("127.0.0.1", running.port), 30))
            slow.sendall(said)
        assert running.passes()
        assert running.refuses()
        assert running.problems() == []
    until("nothing is left of them", lambda: (running.metric("connections", role="gate", state="reading") or 0) == 0)


def test_servers_that_never_answer(running: Scraped) -> None:
    """Black holes: connections to a server that takes no SYN wait by themselves."""
    with socket.socket() as hole, ExitStack() as crowd:
        hole.bind(("127.0.0.1", 0))
        hole.listen(0)
        for _ in range(3):  # its backlog is full from here on: Linux drops what comes
            full = crowd.enter_context(socket.socket())
            full.setblocking(False)
            full.connect_ex(hole.getsockname())
        number = hole.getsockname()[1]
        for _ in range(CROWD):
            waiting = crowd.enter_context(socket.create_connection(("127.0.0.1", running.port), 30))
            waiting.sendall(f"CONNECT 127.0.0.1:{number} HTTP/1.1\r\nHost: 127.0.0.1:{number}\r\n\r\n".encode())
        assert running.passes()
        assert running.refuses()
        assert running.problems() == []


def test_a_directory_that_is_away(running: Scraped) -> None:
    """LDAP is down: nobody who has to sign in gets through, health says why, and all is well when it isn't needed."""
    directory = {"url": "ldap://127.0.0.1:1", "base": "dc=example,dc=org"}
    running.write(POLICY | {"settings": {"proxy_auth": {"ldap": directory}}})
    until("it has to be told who one is", lambda: " 407 " in _asks(running, b""))
    credentials = b"Proxy-Authorization: Basic YWxpY2U6c2VjcmV0\r\n"
    assert " 200 " not in _asks(running, credentials)
    until("health says so", lambda: any("users can't sign in" in said for said in running.problems()))
    running.write(POLICY)
    until("it is well", lambda: running.problems() == [])
    assert running.passes()


def _asks(running: Scraped, header: bytes) -> str:
    """The status line of the answer to a CONNECT with a header."""
    number = running.origin.getsockname()[1]
    with socket.create_connection(("127.0.0.1", running.port), 60) as asking:
        asking.settimeout(60)
        asking.sendall(
            f"CONNECT 127.0.0.1:{number} HTTP/1.1\r\nHost: 127.0.0.1:{number}\r\n".encode() + header + b"\r\n"
        )
        return asking.recv(4096).decode(errors="replace").partition("\r\n")[0]
