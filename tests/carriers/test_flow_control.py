"""What is opened holds little of a side that sends more than the other takes over HTTP/2, and loses none of it."""

import socket
from collections import Counter

import h2.events
import pytest

from labs.carriers import OPENING, Lab, Mitmproxy, Way, talk_at
from labs.gate_lab import until
from labs.proxy_lab import ALLOWED, STORE, ban, policy
from tokgate.mitm.layers.http import HttpConnectionLayer
from tokgate.mitm.layers.http2 import STREAM_WINDOW

BODY = 8 << 20
"""Octets on the stream that the other side does not read, at first."""
MOST = 2 * STREAM_WINDOW
"""Octets that may have left the sender meanwhile: a window, what has been passed on, and what waits for more room."""
STALLED, OTHER = 1, 3
"""Streams: with that much, and a request that does not wait for it."""


pytestmark = pytest.mark.usefixtures("no_crash")


class End:
    """One end of HTTP/2, which takes note of what comes, and reads on stream STALLED only if it is to."""

    def __init__(self, sock: socket.socket, *, client_side: bool) -> None:
        self.sock, self.talk = sock, talk_at(client_side=client_side)
        self.came: Counter[int] = Counter()
        """Octets of bodies by stream."""
        self.asked: set[int] = set()
        self.ended: set[int] = set()
        self.reads = False
        self.talk.initiate_connection()
        self.talk.increment_flow_control_window(1 << 24)  # of the connection; a stream keeps the default of 65,535

    def ask(self, stream: int, method: str, host: str = ALLOWED) -> None:
        """Send the head of a request. One that posts goes on."""
        scheme = "http" if host == ALLOWED else "https"
        head = [(":method", method), (":scheme", scheme), (":authority", host), (":path", "/")]
        self.talk.send_headers(stream, head, end_stream=method == "GET")

    def send(self, stream: int, left: int) -> int:
        """Send as much of a body as the window takes, and its end; what is left."""
        talk = self.talk
        while left and (room := min(left, talk.local_flow_control_window(stream), talk.max_outbound_frame_size)):
            talk.send_data(stream, bytes(room))
            left -= room
        if not left:
            talk.end_stream(stream)
        return left

    def hear(self) -> bool:
        """Say what there is to say, and hear what comes next; False at the end."""
        if self.reads and self.came[STALLED] > self._read:
            self.talk.acknowledge_received_data(self.came[STALLED] - self._read, STALLED)
            self._read = self.came[STALLED]
        self.sock.sendall(self.talk.data_to_send())
        piece = self.sock.recv(1 << 16)
        for event in self.talk.receive_data(piece) if piece else ():
            match event:
                case h2.events.RequestReceived(stream_id=stream):
                    self.asked.add(stream)
                case h2.events.DataReceived(stream_id=stream, data=data):
                    self.came[stream] += len(data or b"")
                case h2.events.StreamEnded(stream_id=stream):
                    self.ended.add(stream)
        return bool(piece)

    _read = 0


@OPENING
def test_a_client_that_does_not_read(lab: Lab) -> None:
    """Its download waits at the origin, another one passes it, and once it reads all of it comes."""
    left = {STALLED: BODY, OTHER: 2}

    def serve(sock: socket.socket) -> None:
        end = End(sock, client_side=False)
        while end.hear():
            for stream in end.asked:
                end.talk.send_headers(stream, [(":status", "200")])
            begun.update(end.asked)
            end.asked.clear()
            for stream in [each for each in begun if left[each]]:
                left[stream] = end.send(stream, left[stream])

    begun: set[int] = set()
    port = lab.origin(serve).port
    with lab.reach(Way.REDIRECTED, port) as client:
        end = End(client.sock, client_side=True)
        end.ask(STALLED, "GET")
        while end.came[STALLED] < 65_535:
            assert end.hear()
        end.ask(OTHER, "GET")
        while OTHER not in end.ended:
            assert end.hear()
        sent, end.reads = BODY - left[STALLED], True
        while STALLED not in end.ended:
            assert end.hear()
    assert end.came == {STALLED: BODY, OTHER: 2}
    assert sent < MOST


@OPENING
def test_an_origin_that_does_not_read(lab: Lab) -> None:
    """An upload waits at the client, and once the origin reads, after another request, all of it comes."""
    origins: list[End] = []

    def serve(sock: socket.socket) -> None:
        end = End(sock, client_side=False)
        origins.append(end)
        while end.hear():
            end.reads = OTHER in end.asked
            for stream in end.ended:
                end.talk.send_headers(stream, [(":status", "200")], end_stream=True)
            end.ended.clear()

    port = lab.origin(serve).port
    with lab.reach(Way.REDIRECTED, port) as client:
        end, left = End(client.sock, client_side=True), BODY
        end.ask(STALLED, "POST")
        assert end.hear()  # the window of a stream
        left = end.send(STALLED, left)
        while left and end.talk.local_flow_control_window(STALLED):
            assert end.hear()
            left = end.send(STALLED, left)
        sent = BODY - left
        end.ask(OTHER, "GET")
        while {STALLED, OTHER} - end.ended:
            assert end.hear()
            left = end.send(STALLED, left) if left else 0
    assert [origin.came[STALLED] for origin in origins] == [BODY]
    assert sent < MOST


def holds(lab: Lab) -> bool:
    """Whether the carrier has stopped to read what somebody sends over HTTP/1."""
    assert isinstance(lab.carrier, Mitmproxy)
    return any(each.sockets.paused for each in lab.carrier.proxy.traffic.connections.all())


@OPENING
def test_a_client_that_does_not_read_from_http1(lab: Lab) -> None:
    """An origin of HTTP/1 waits for the client's window, and once the client reads all of it comes."""
    context = lab.authority.server(STORE)

    def serve(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as tls:
            while tls.recv(1 << 16)[-4:] != b"\r\n\r\n":
                pass
            tls.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n\r\n".encode() + bytes(BODY))
            tls.recv(1)

    port = lab.origin(serve).port
    lab.start(policy(ban(inspect_stores=True)))
    with lab.tls(lab.trusting("h2"), STORE, Way.REDIRECTED, port) as client:
        end = End(client.sock, client_side=True)
        end.ask(STALLED, "GET", STORE)
        while end.came[STALLED] < 65_535:
            assert end.hear()
        assert until(lambda: holds(lab))
        end.reads = True
        while STALLED not in end.ended:
            assert end.hear()
    assert end.came == {STALLED: BODY}


@OPENING
def test_an_origin_of_http2_that_does_not_read_from_http1(lab: Lab) -> None:
    """A client of HTTP/1, which it prefers, waits for the origin's window, and then all of it arrives."""
    context = lab.authority.server(STORE, alpn=("h2",))
    origins: list[End] = []

    def serve(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as tls:
            end = End(tls, client_side=False)
            origins.append(end)
            while end.came[STALLED] < 65_535:
                assert end.hear()
            end.reads = until(lambda: holds(lab))
            while STALLED not in end.ended:
                assert end.hear()
            end.talk.send_headers(STALLED, [(":status", "204")], end_stream=True)
            while end.hear():
                pass

    port = lab.origin(serve).port
    lab.start(policy(ban(inspect_stores=True)))
    with lab.tls(lab.trusting("http/1.1", "h2"), STORE, Way.REDIRECTED, port) as client:
        client.send(f"POST / HTTP/1.1\r\nHost: {STORE}\r\nContent-Length: {BODY}\r\n\r\n".encode(), bytes(BODY))
        assert client.reply().status == 204
    assert [end.came[STALLED] for end in origins] == [BODY]


@OPENING
def test_http1_on_both_sides_needs_none_of_it(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """There TCP sees to it, and nobody looks for windows."""
    monkeypatch.setattr(HttpConnectionLayer, "_open_windows", None)
    port = lab.web(tls=False).port
    assert lab.got(Way.REDIRECTED, port, ALLOWED).body == b"origin"
