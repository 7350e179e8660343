"""One client that sends much of what costs little stops nobody: resets, and frames that carry nothing, over HTTP/2."""

import asyncio
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from hpack import Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from labs.carriers import OPENING, Lab, Way
from labs.gate_lab import until
from labs.proxy_lab import BANNED
from tokgate.block_page import render
from tokgate.mitm import client_connection
from tokgate.mitm.layers import http2
from tokgate.mitm.layers.fair_turns import Turns
from tokgate.mitm.layers.http2 import AT_ONCE, FlowControl
from tokgate.traffic.limits import OpenerLimits

ATTACKER, VICTIM = "127.0.0.9", "127.0.0.10"
BEGIN = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize()
CALM = b"\0\0\0\x0b"
"""ENHANCE_YOUR_CALM (RFC 9113 §7)."""
MOST = int(OpenerLimits().resets)

pytestmark = pytest.mark.usefixtures("no_crash")


class Requests:
    """Requests of one connection for the banned name."""

    def __init__(self) -> None:
        self._encoder = Encoder()
        self.stream = -1

    def head(self, *flags: str) -> bytes:
        self.stream += 2
        fields = [(":method", "GET"), (":authority", BANNED), (":scheme", "http"), (":path", "/")]
        frame = HeadersFrame(self.stream, self._encoder.encode(fields))
        frame.flags |= {"END_HEADERS", *flags}
        return frame.serialize()

    def reset(self) -> bytes:
        """The last one is taken back."""
        return RstStreamFrame(self.stream, error_code=8).serialize()

    def taken_back(self, number: int) -> bytes:
        return b"".join(self.head("END_STREAM") + self.reset() for _ in range(number))


def connect(lab: Lab, source: str) -> socket.socket:
    sock = socket.socket()
    sock.bind((source, 0))
    sock.settimeout(60)
    sock.connect(lab.carrier.door(Way.REDIRECTED))
    return sock


def told(sock: socket.socket) -> bytes:
    """What comes until the other side ends the connection."""
    came = bytearray()
    try:
        while data := sock.recv(1 << 16):
            came += data
    except ConnectionResetError:
        pass
    return bytes(came)


def gets_a_page(lab: Lab, source: str = VICTIM) -> bool:
    with connect(lab, source) as sock:
        sock.sendall(f"GET / HTTP/1.1\r\nHost: {BANNED}\r\nConnection: close\r\n\r\n".encode())
        return b" 451 " in told(sock)[:20]


@OPENING
def test_streams_that_are_reset_at_once(lab: Lab) -> None:
    """Nobody hears of them, their connections are ended, and others get their pages meanwhile."""
    lab.start()
    with connect(lab, ATTACKER) as first, connect(lab, ATTACKER) as second:
        for sock in (first, second):
            sock.sendall(BEGIN + Requests().taken_back(2 * MOST))
        assert gets_a_page(lab)
        assert CALM in told(first)
        assert CALM in told(second)
    assert lab.carrier.counters.streams_dropped >= MOST
    assert len(lab.records.all) <= 1 + 2 * 2 * MOST // AT_ONCE + 2, "but of those at the end of what was read at once"


@OPENING
def test_streams_that_are_reset_a_little_later(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a flood in small pieces few pages are made, and its client is ended on each connection that it makes."""
    slowly = OpenerLimits(resets_per_second=0.01)  # a busy machine takes seconds for each connection
    monkeypatch.setattr(client_connection, "OpenerLimits", lambda: slowly)
    lab.start()
    for _ in range(MOST // 100 + 1):
        with connect(lab, ATTACKER) as sock:
            asking = Requests()
            sock.sendall(BEGIN)
            for _ in range(2):
                heads = [(asking.head(), asking.reset()) for _ in range(60)]
                sock.sendall(b"".join(head for head, _ in heads))
                sock.sendall(b"".join(reset for _, reset in heads))
            sock.shutdown(socket.SHUT_WR)
            came = told(sock)
    assert CALM in came
    with connect(lab, ATTACKER) as sock:
        sock.sendall(BEGIN + Requests().taken_back(5))
        assert CALM in told(sock), "counted over all its connections"
    assert gets_a_page(lab)
    assert gets_a_page(lab, ATTACKER), "who asks for something is answered"


@OPENING
def test_a_browser_may_leave_a_page(lab: Lab) -> None:
    """What it no longer wants it resets, and it goes on with the same connection."""
    lab.start()
    with connect(lab, ATTACKER) as sock:
        asking = Requests()
        sock.sendall(BEGIN + asking.taken_back(100) + asking.head("END_STREAM"))
        came = bytearray()
        while BANNED.encode() not in came:
            came += sock.recv(1 << 16)
    assert CALM not in came


@OPENING
def test_nothing_is_made_for_a_stream_that_is_gone(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page is not made where its client has left while it waited for its turn."""
    lab.start()
    monkeypatch.setattr(http2, "AT_ONCE", 1)  # so that the reset is read after its request
    with connect(lab, ATTACKER) as sock:
        sock.sendall(BEGIN + Requests().taken_back(100))
        assert until(lambda: lab.carrier.counters.streams_dropped >= 90)
    assert gets_a_page(lab)
    assert len(lab.records.all) <= 11


def empty(kind: str) -> Iterator[bytes]:
    """Frames that a server has to read and that bring nothing, without end."""
    asking = Requests()
    yield BEGIN + asking.head()
    frames: dict[str, Frame] = {
        "ping": PingFrame(0, b"12345678"),
        "settings": SettingsFrame(0, {SettingsFrame.INITIAL_WINDOW_SIZE: 1}),
        "data": DataFrame(1, b""),
        "priority": PriorityFrame(1, depends_on=3),
        "window": WindowUpdateFrame(1, window_increment=1),
    }
    while True:
        yield frames[kind].serialize()


@OPENING
@pytest.mark.parametrize("kind", ["ping", "settings", "data", "priority", "window"])
def test_frames_that_bring_nothing(lab: Lab, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Few of them are read in a turn, however many have come, and what waits is not read from the client."""
    most, read = 0, 0
    receive = FlowControl.receive_data

    def counted(self: FlowControl, data: bytes) -> list[object]:
        nonlocal most, read
        most, read = max(most, len(data)), read + len(data)
        return list(receive(self, data))

    monkeypatch.setattr(FlowControl, "receive_data", counted)
    lab.start()
    frames = empty(kind)
    said = next(frames) + b"".join(next(frames) for _ in range(2000))
    with connect(lab, ATTACKER) as sock:
        sock.sendall(said)
        assert gets_a_page(lab)
        assert until(lambda: read >= len(said) // 2)
        if kind != "window":
            sock.sendall(b"".join(next(frames) for _ in range(1000)))
            assert CALM in told(sock)
            assert lab.carrier.counters.floods == 1
    assert gets_a_page(lab, ATTACKER), "who asks for something is answered"
    frame = len(next(frames))
    assert most <= len(BEGIN) + 100 + (AT_ONCE + 1) * frame


@OPENING
def test_requests_that_are_sent_ahead(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them waits for its client's turn, as if it had come by itself."""
    turns, turn = 0, Turns.turn

    async def taken(self: Turns, client: str, *, first: bool = False) -> None:
        nonlocal turns
        await turn(self, client, first=first)
        turns += client == ATTACKER

    monkeypatch.setattr(Turns, "turn", taken)
    lab.start()
    request = f"GET / HTTP/1.1\r\nHost: {BANNED}\r\n\r\n".encode()
    with connect(lab, ATTACKER) as sock:
        sock.sendall(request * 100 + request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert gets_a_page(lab)
        assert told(sock).count(b"HTTP/1.1 451 ") == 101
    assert turns >= 100


@OPENING
def test_a_head_in_pieces_without_end(lab: Lab) -> None:
    """A client that goes on with a head for ever is ended (CONTINUATION flood)."""
    lab.start()
    with connect(lab, ATTACKER) as sock:
        frame = HeadersFrame(1, Encoder().encode([(":method", "GET")]))
        piece = ContinuationFrame(1, b"").serialize()
        try:
            sock.sendall(BEGIN + frame.serialize() + piece * 5000)
        except OSError:  # ended before it has said all
            return
        assert gets_a_page(lab)
        assert told(sock)


@OPENING
def test_bodies_that_come_octet_by_octet(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a connection that waits for its turn no more is read: between two turns there would be a read for each."""
    reads, turns = 0, 0
    feed, turn = asyncio.StreamReader.feed_data, Turns.turn

    def counted(self: asyncio.StreamReader, data: bytes) -> None:
        nonlocal reads
        reads += 1
        feed(self, data)

    async def taken(self: Turns, client: str, *, first: bool = False) -> None:
        nonlocal turns
        await turn(self, client, first=first)
        turns += 1

    monkeypatch.setattr(asyncio.StreamReader, "feed_data", counted)
    monkeypatch.setattr(Turns, "turn", taken)
    lab.start()
    with ExitStack() as stack:
        socks = [stack.enter_context(connect(lab, ATTACKER)) for _ in range(20)]
        for sock in socks:
            sock.sendall(f"POST / HTTP/1.1\r\nHost: {BANNED}\r\nContent-Length: 60000\r\n\r\n".encode())
        for _ in range(200):
            for sock in socks:
                sock.sendall(b"x")
            time.sleep(0.001)
        assert gets_a_page(lab)
    assert turns > len(socks)
    assert reads <= turns + 3 * (len(socks) + 1), "each has one that waits, and its head, which a gate has read before"


@OPENING
def test_pages_that_say_the_same_are_made_once(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has the id of its own record all the same, and another host another page."""
    made, compose = 0, render.compose

    def counted(*given: Any, **how: Any) -> render.RenderedResponse:
        nonlocal made
        made += 1
        return compose(*given, **how)

    monkeypatch.setattr(render, "compose", counted)
    lab.start()
    pages = []
    for host, source in ((f"a.{BANNED}", VICTIM), (f"a.{BANNED}", ATTACKER), (f"b.{BANNED}", VICTIM)):
        with connect(lab, source) as sock:
            sock.sendall(f"GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            pages.append(told(sock).decode())
    events = [re.findall("Tokgate-Event: (.+)\r", page)[0] for page in pages]
    assert len(set(events)) == 3
    assert {record["event"]["id"] for record in lab.records.all} <= set(events)
    assert [page.count(event) for page, event in zip(pages, events, strict=True)] == [pages[0].count(events[0])] * 3
    assert pages[0].count(events[0]) > 1
    assert [f"{name}.{BANNED}" in page for name, page in zip("aab", pages, strict=True)] == [True] * 3
    assert pages[0].replace(events[0], "") == pages[1].replace(events[1], "")
    assert made <= 2
