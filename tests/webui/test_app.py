"""The server of the review page gives up clients that never finish asking, and no others."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

import pytest

from labs.gate_lab import read_all
from tokgate.runtime import http_server
from tokgate.webui import app as web

PATIENCE = 0.05
DEADLINE = 60.0

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
UNFINISHED = {
    "nothing": b"",
    "half a head": b"GET / HTTP/1.1\r\nHost:",
    "no body": b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n",
}


@pytest.fixture
def release() -> threading.Event:
    """Set when the application may end its answers."""
    return threading.Event()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Where it listens; clients may come, and ask, before it serves."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


@pytest.fixture
def start(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch, release: threading.Event
) -> Iterator[Callable[[], None]]:
    """Starts a server whose application takes the whole request, begins its answer, and ends it when it may."""
    monkeypatch.setattr(http_server, "PATIENCE", PATIENCE)

    async def app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        while not release.is_set():
            await send({"type": "http.response.body", "body": b"", "more_body": True})
            await asyncio.sleep(PATIENCE)
        await send({"type": "http.response.body", "body": b"ended"})

    running = web.server(app, lambda: None)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
    yield thread.start
    release.set()
    running.should_exit = True
    thread.join(DEADLINE)


def ask(listener: socket.socket, said: bytes) -> socket.socket:
    sock = socket.create_connection(listener.getsockname(), DEADLINE)
    sock.sendall(said)
    return sock


@pytest.mark.parametrize("said", UNFINISHED.values(), ids=UNFINISHED)
def test_who_does_not_ask_is_given_up(listener: socket.socket, start: Callable[[], None], said: bytes) -> None:
    """The connection ends, without an answer."""
    with ask(listener, said) as sock:
        start()
        assert sock.recv(100) == b""


def test_an_answer_may_take_its_time(
    listener: socket.socket, start: Callable[[], None], release: threading.Event
) -> None:
    """Once it has asked, a client is kept however long the answer takes: others are given up three times meanwhile."""
    with ask(listener, GET) as sock:
        start()
        for _ in range(3):
            with ask(listener, b"") as idle:
                assert idle.recv(100) == b""
        release.set()
        received = b""
        while b"ended" not in received:
            received += (piece := sock.recv(1000))
            assert piece, received
    assert received.startswith(b"HTTP/1.1 200 ")


def test_one_address_does_not_take_all_places(
    listener: socket.socket, start: Callable[[], None], release: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds of connections that never ask close each other, and not those of anybody else."""
    monkeypatch.setattr(http_server, "PATIENCE", DEADLINE)
    release.set()
    start()
    waiting = [ask(listener, b"GET / HTTP/1.1\r\n") for _ in range(700)]
    try:
        for source in ("127.0.0.2", "127.0.0.1"):
            with socket.create_connection(listener.getsockname(), DEADLINE, source_address=(source, 0)) as other:
                other.sendall(GET)
                assert other.recv(4096).startswith(b"HTTP/1.1 200")
        with contextlib.suppress(ConnectionResetError):  # what it had sent may be unread
            assert waiting[0].recv(1) == b""
    finally:
        for sock in waiting:
            sock.close()


def test_many_come_by_one_address_at_once(
    listener: socket.socket, start: Callable[[], None], release: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fifty people behind one address, each with two connections, are all answered."""
    monkeypatch.setattr(http_server, "PATIENCE", DEADLINE)
    release.set()
    start()
    waiting = [ask(listener, b"GET / HTTP/1.1\r\n") for _ in range(100)]
    for sock in waiting:
        with sock:
            sock.sendall(GET.removeprefix(b"GET / HTTP/1.1\r\n"))
            assert sock.recv(4096).startswith(b"HTTP/1.1 200")


def test_half_a_second_request_does_not_hold_a_connection(
    listener: socket.socket, start: Callable[[], None], release: threading.Event
) -> None:
    """Asked once and then never to an end: given up as if it were the first."""
    release.set()
    with ask(listener, GET + GET[:20]) as sock:
        start()
        heard = read_all(sock)
        assert (heard.count(b"200 OK"), b"ended" in heard) == (1, True)


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("size", [b"zz", b"-1", b"0x5"])
def test_a_body_without_sense(
    listener: socket.socket, capsys: pytest.CaptureFixture[str], size: bytes, begun: bool
) -> None:
    """A chunk size that is none ends its connection, also once the answer has begun, and says nothing on stderr."""

    async def app(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            if not begun:
                await receive()
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
            await receive()
            await send({"type": "http.response.body", "body": b"ok"})

    running = web.server(app, lambda: None)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listener]})
    thread.start()
    with ask(listener, b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n") as sock:
        came = sock.recv(9) if begun else b""
        sock.sendall(size + b"\r\n")
        assert (came + read_all(sock))[:13] == (b"HTTP/1.1 200 " if begun else b"HTTP/1.1 400 ")
    running.should_exit = True
    thread.join(DEADLINE)
    assert capsys.readouterr().err == ""
