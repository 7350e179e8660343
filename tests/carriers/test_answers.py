"""Answers of origins arrive as they would without a carrier: in HTTP/1, with its odds, and in HTTP/2."""

import contextlib
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

import h2.connection
import h2.events
import pytest
from h2.errors import ErrorCodes
from hyperframe.frame import GoAwayFrame

from labs.carriers import OPENING, Lab, Way, talk_at
from labs.gate_lab import exactly, read_head
from labs.proxy_lab import ALLOWED, STORE, ban, policy
from labs.raw_client import RawClient
from labs.waiting import DEADLINE, until

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET = f"GET / HTTP/1.1\r\nHost: {ALLOWED}\r\n\r\n".encode()


pytestmark = pytest.mark.usefixtures("no_crash")


def origin(lab: Lab, *answers: bytes) -> int:
    """Where each head of a request gets the next of these answers; after the last, the end."""

    def serve(sock: socket.socket) -> None:
        for answer in answers:
            read_head(sock)
            sock.sendall(answer)
        sock.recv(1 << 16)

    port: int = lab.origin(serve).port
    return port


@OPENING
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n" + OK,
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n" + OK,
        b"HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
    ],
    ids=["early-hints", "two-interim", "chunked-304", "304"],
)
def test_answers_of_several_parts_or_of_none(lab: Lab, answer: bytes) -> None:
    """1xx responses come before the answer, and the next answer begins where the one before ends."""
    port = origin(lab, answer, OK)
    with lab.reach(Way.REDIRECTED, port) as client:
        for expected in (answer, OK):
            client.send(GET)
            assert client.exactly(len(expected)) == expected


EXPECTING = f"POST / HTTP/1.1\r\nHost: {ALLOWED}\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n".encode()


@OPENING
def test_no_server_behind_an_interim_answer(lab: Lab) -> None:
    """A client that was told to continue hears as well that there is nobody to continue with."""
    port = origin(lab, b"HTTP/1.1 100 Continue\r\n\r\n")
    with lab.reach(Way.REDIRECTED, port) as client:
        client.send(EXPECTING + b"ok")
        interim, _, answer = client.to_end().partition(b"\r\n\r\n")
    assert interim.startswith(b"HTTP/1.1 100 ")
    assert answer.startswith(b"HTTP/1.1 502 ")


@OPENING
@pytest.mark.parametrize("first", [b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n"])
def test_servers_say_whether_they_want_a_body(lab: Lab, first: bytes) -> None:
    """An expectation arrives as it was sent, and nobody but the server says 100."""
    got = bytearray()

    def serve(sock: socket.socket) -> None:
        got.extend(read_head(sock))
        sock.sendall(first)
        if exactly(sock, 2) == b"ok":
            sock.sendall(OK)

    port = lab.origin(serve).port
    with lab.reach(Way.REDIRECTED, port) as client:
        client.send(EXPECTING)
        assert client.exactly(len(first)) == first
        if b" 100 " in first:
            client.send(b"ok")
            assert client.exactly(len(OK)) == OK
    assert got == EXPECTING


@OPENING
def test_no_interim_answers_in_http_1_0(lab: Lab) -> None:
    """A client of HTTP/1.0 would take them for the answer (RFC 9110 §15.2)."""
    port = origin(lab, b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK)
    with lab.reach(Way.REDIRECTED, port) as client:
        client.send(f"GET / HTTP/1.0\r\nHost: {ALLOWED}\r\n\r\n".encode())
        assert client.to_end() == OK


@OPENING
@pytest.mark.parametrize(
    ("fields", "body", "passed"),
    [
        (b"Content-Length: 2\r\nContent-Length: 2", b"ok", b"content-length: 2"),
        (b"Content-Length: 2, 2", b"ok", b"content-length: 2"),
        (b"Content-Length: 9\r\nTransfer-Encoding: chunked", b"2\r\nok\r\n0\r\n\r\n", b"transfer-encoding: chunked"),
        (b"Transfer-Encoding: identity\r\nContent-Length: 2", b"ok", b"content-length: 2"),
        (b"Content-Length : 2", b"ok", b"content-length: 2"),
    ],
    ids=["twice", "list", "chunked", "identity", "space"],
)
def test_heads_that_clients_read_alike(lab: Lab, fields: bytes, body: bytes, passed: bytes) -> None:
    """What browsers and other proxies accept is passed on in its one reading."""
    port = origin(lab, b"HTTP/1.1 200 OK\r\n" + fields + b"\r\n\r\n" + body, OK)
    with lab.reach(Way.REDIRECTED, port) as client:
        client.send(GET)
        expected = b"http/1.1 200 ok\r\n" + passed + b"\r\n\r\n" + body
        assert client.exactly(len(expected)).lower() == expected
        client.send(GET)
        assert client.exactly(len(OK)) == OK


@OPENING
@pytest.mark.parametrize("before", [b"", b"\r\n"], ids=["", "empty-line"])
@pytest.mark.parametrize("line", [b"HTTP/1.1 200 OK", b"http/1.1 200 OK", b"ICY 200 OK", b"HTTP/1.1 200"])
def test_status_lines_that_clients_take(lab: Lab, before: bytes, line: bytes) -> None:
    """A lower-case version, SHOUTcast's, none of a reason, and an empty line before it: passed on as HTTP has it."""
    port = origin(lab, before + line + b"\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")
    with lab.reach(Way.REDIRECTED, port) as client:
        client.send(GET)
        head, _, body = client.to_end().partition(b"\r\n")
    assert (head.rstrip(), body.endswith(b"\r\n\r\nok")) == (
        line.replace(b"ICY", b"HTTP/1.0").replace(b"http", b"HTTP"),
        True,
    )


@OPENING
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 300_000, "longer than 256 KiB"),
        (b"HTTP/1.1 200 yyy\r\nX: y", "came in part"),
        (b"220 yyy.example.org ESMTP " + b"z" * 300_000, "came in part"),
        (b"220 yyy.example.org\r\n\r\n", "Bad HTTP response line"),
        (b"<html><body>yyy</body></html>\n", "came in part"),
        (b"HTTP/1.1 200 OK\r\nyyy\r\n\r\n", "Invalid header line"),
        (b'HTTP/1.1 200 OK\r\nX\xff"yyy: 1\r\n\r\n', "invalid header name"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: yyy\r\n\r\n", "invalid content-length header"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nyyy", "invalid content-length header"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: 'yyy\r\n\r\n", "unknown transfer-encoding header"),
        (b"HTTP/1.1 204 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "unexpected HTTP transfer-encoding"),
        (b"", "closed"),
    ],
)
def test_answers_that_are_none(lab: Lab, answer: bytes, words: str) -> None:
    """The client is told in our words, with a reference, and nothing of what came is repeated."""

    def serve(sock: socket.socket) -> None:
        sock.recv(1 << 16)
        sock.sendall(answer)

    port = lab.origin(serve).port
    lab.start()
    for accept, kind in (("text/html", "<h1>"), ("application/json", '"status": 502'), ("text/plain", "Reference: ")):
        with lab.reach(Way.REDIRECTED, port) as client:
            client.send(f"GET / HTTP/1.1\r\nHost: {ALLOWED}\r\nAccept: {accept}\r\n\r\n".encode())
            page = client.to_end().decode()
        assert page.startswith("HTTP/1.1 502 ")
        assert kind in page
        assert words in page, page
        assert [word for word in ("mitmproxy", "yyy", "zzz", "chunked") if word in page] == []


@OPENING
def test_an_answer_before_the_end_of_the_request(lab: Lab) -> None:
    """A client that is refused an upload hears the whole refusal; where it goes on, so does the connection."""
    refusal = b"HTTP/1.1 413 Too Large\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nbig\r\n0\r\n\r\n"
    upload = b"a" * 5000

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(refusal)
        assert exactly(sock, len(upload)) == upload
        exactly(sock, len(GET))
        sock.sendall(OK)
        sock.recv(1)

    port = lab.origin(serve).port
    with lab.reach(Way.REDIRECTED, port) as client:
        client.send(f"POST / HTTP/1.1\r\nHost: {ALLOWED}\r\nContent-Length: {len(upload)}\r\n\r\n".encode(), b"aa")
        assert client.exactly(len(refusal)) == refusal
        client.send(upload[2:], GET)
        assert client.exactly(len(OK)) == OK


@OPENING
def test_an_answer_with_a_reset_behind_it(lab: Lab) -> None:
    """A server that refuses an upload and closes resets the connection: its answer arrives, as it would directly."""
    refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig"
    upload = f"POST / HTTP/1.1\r\nHost: {ALLOWED}\r\nContent-Length: {1 << 26}\r\n\r\n".encode()

    def serve(sock: socket.socket) -> None:
        got = b""
        while not got.endswith(b"\r\n\r\n"):
            got += exactly(sock, 1)
        sock.recv(1, socket.MSG_PEEK)
        sock.sendall(refusal)

    def go_on(client: RawClient) -> None:
        with contextlib.suppress(OSError):
            client.send(upload, *repeat(bytes(1 << 16), 1 << 10))

    port = lab.origin(serve).port
    for _ in range(5):  # the reset is noticed by reading, or by writing
        with ThreadPoolExecutor(1) as threads, lab.reach(Way.REDIRECTED, port) as client:
            threads.submit(go_on, client)
            assert client.exactly(len(refusal)) == refusal
            with contextlib.suppress(OSError):  # closed already
                client.sock.shutdown(socket.SHUT_RDWR)


@OPENING
def test_a_kept_connection_that_ends(lab: Lab) -> None:
    """A server that closes at a second request leaves the client one that it can ask again, and no 502."""

    def serve(sock: socket.socket) -> None:
        exactly(sock, len(GET))
        sock.sendall(OK)
        exactly(sock, len(GET))

    port = lab.origin(serve).port
    with lab.reach(Way.REDIRECTED, port) as client:
        client.send(GET)
        assert client.exactly(len(OK)) == OK
        client.send(GET)
        assert client.to_end() == b""


@OPENING
@pytest.mark.parametrize("empty", [b"\r\n", b"\n", b"\r\n\r\n\n"])
def test_empty_lines_before_a_request(lab: Lab, empty: bytes) -> None:
    """Old clients end a body with a line of their own: it belongs to nothing (RFC 9112 §2.2)."""
    port = origin(lab, OK, OK, OK)
    with lab.reach(Way.REDIRECTED, port) as client:
        client.send(GET)
        assert client.exactly(len(OK)) == OK
        client.send(empty + GET + empty + GET)
        assert client.exactly(2 * len(OK)) == 2 * OK


type Serve = Callable[[socket.socket, h2.connection.H2Connection, int], object]


def http2_origin(lab: Lab, serve: Serve, at_a_time: int = 100) -> tuple[int, list[int]]:
    """A server that calls `serve` with the stream of each request, and how many came on each of its connections."""
    came: list[int] = []

    def connection(sock: socket.socket) -> None:
        talk, which = talk_at(client_side=False), len(came)
        came.append(0)
        talk.local_settings.max_concurrent_streams = at_a_time
        talk.local_settings.acknowledge()  # or hyper-h2 doesn't send it
        talk.initiate_connection()
        sock.sendall(talk.data_to_send())
        while piece := sock.recv(1 << 16):
            for event in talk.receive_data(piece):
                if isinstance(event, h2.events.RequestReceived):
                    came[which] += 1
                    serve(sock, talk, event.stream_id)
            sock.sendall(talk.data_to_send())

    return lab.origin(connection).port, came


def leave(sock: socket.socket, talk: h2.connection.H2Connection, last: int) -> None:
    """GOAWAY without an error, after which hyper-h2 would say no more."""
    sock.sendall(talk.data_to_send() + GoAwayFrame(0, last_stream_id=last).serialize())


class Http2Client:
    """A client of HTTP/2: without TLS, or of an app store with it."""

    def __init__(self, sock: socket.socket, scheme: str = "http", host: str = ALLOWED) -> None:
        self.sock, self.talk, self.scheme, self.host = sock, talk_at(client_side=True), scheme, host
        self.got: dict[int, list[str]] = {}
        """What came on each stream: statuses, bodies, `end`, or the name of an error."""
        sock.settimeout(DEADLINE)
        self.talk.initiate_connection()

    def ask(self, *streams: int, body: bool = False, expects: bool = False) -> None:
        """Ask on streams; with `body` the request doesn't end. `expects`: a 100."""
        method = "POST" if body else "GET"
        for stream in streams:
            head = [(":method", method), (":scheme", self.scheme), (":authority", self.host), (":path", "/")]
            head += [("expect", "100-continue")] if expects else []
            self.talk.send_headers(stream, head, end_stream=not body)
        self.sock.sendall(self.talk.data_to_send())

    def until_over(self, *streams: int, last: tuple[str, ...] = ("end", *ErrorCodes.__members__)) -> list[list[str]]:
        """What has come on each of these streams by the `last` of the last."""
        while not all(self.got.get(stream, [""])[-1] in last for stream in streams):
            piece = self.sock.recv(1 << 16)
            assert piece, self.got
            for event in self.talk.receive_data(piece):
                self._note(event)
            self.sock.sendall(self.talk.data_to_send())
        return [self.got[stream] for stream in streams]

    def _note(self, event: h2.events.Event) -> None:
        match event:
            case (
                h2.events.ResponseReceived(stream_id=stream) | h2.events.InformationalResponseReceived(stream_id=stream)
            ):
                said = next(str(value) for name, value in event.headers if str(name) == ":status")
            case h2.events.DataReceived(stream_id=stream, data=data) if data:
                said = data.decode()
            case h2.events.StreamEnded(stream_id=stream):
                said = "end"
            case h2.events.StreamReset(stream_id=stream, error_code=code):
                said = ErrorCodes(code).name
            case _:
                return
        self.got.setdefault(stream, []).append(said)


def answered(talk: h2.connection.H2Connection, stream: int, status: str = "200") -> None:
    talk.send_headers(stream, [(":status", status)])
    talk.send_data(stream, b"ok", end_stream=True)


WHOLE = ["200", "ok", "end"]


@OPENING
def test_http2_interim_answers(lab: Lab) -> None:
    def serve(_: socket.socket, talk: h2.connection.H2Connection, stream: int) -> None:
        talk.send_headers(stream, [(":status", "103"), ("link", "</a>; rel=preload")])
        answered(talk, stream)

    port, _ = http2_origin(lab, serve)
    with lab.reach(Way.REDIRECTED, port) as raw:
        client = Http2Client(raw.sock)
        client.ask(1)
        assert client.until_over(1) == [["103", *WHOLE]]


REFUSED = ["413", "ok", "end", "NO_ERROR"]
"""An answer before the end of the request, and that the server wants no more of that (RFC 9113 §8.1)."""


@OPENING
def test_http2_answer_before_the_end_of_the_request(lab: Lab) -> None:
    """nginx answers an upload so: a client that isn't told goes on with it, and curl then fails."""

    def serve(_: socket.socket, talk: h2.connection.H2Connection, stream: int) -> None:
        answered(talk, stream, "413" if stream == 1 else "200")
        if stream == 1:
            talk.reset_stream(1, ErrorCodes.NO_ERROR)

    port, _ = http2_origin(lab, serve)
    with lab.reach(Way.REDIRECTED, port) as raw:
        client = Http2Client(raw.sock)
        client.ask(1, body=True)
        assert client.until_over(1, last=("NO_ERROR",)) == [REFUSED]
        client.ask(3)
        assert client.until_over(3) == [WHOLE]


@OPENING
@pytest.mark.parametrize(
    ("answer", "heard"),
    [
        (b"HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nok", REFUSED),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + OK, ["100", "103", *WHOLE, "NO_ERROR"]),
    ],
    ids=["refused", "interim"],
)
def test_http2_answers_of_an_http1_server(lab: Lab, answer: bytes, heard: list[str]) -> None:
    """What is no answer yet doesn't end the stream; a server that answers and leaves wants no more of a request."""
    context = lab.authority.server(STORE)

    def serve(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as tls:
            read_head(tls)
            tls.sendall(answer)

    origin = lab.origin(serve)
    lab.start(policy(ban(inspect_stores=True)))
    with lab.tls(lab.trusting("h2"), STORE, Way.REDIRECTED, origin.port) as raw:
        client = Http2Client(raw.sock, "https", STORE)
        client.ask(1, body=True)
        assert client.until_over(1, last=("NO_ERROR", "CANCEL")) == [heard]


@OPENING
@pytest.mark.parametrize("wanted", [True, False])
def test_http2_body_for_an_http1_server_that_stays(lab: Lab, wanted: bool) -> None:
    """A client that has asked for a 100 hears that there is none; with one its body goes on, behind the answer too."""
    context = lab.authority.server(STORE)
    body = b"4\r\nbody\r\n0\r\n\r\n"
    came: list[bytes] = []

    def serve(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as tls:
            got = b""
            while not got.endswith(b"\r\n\r\n"):
                got += tls.recv(1)
            tls.sendall(b"HTTP/1.1 100 Continue\r\n\r\n" + OK if wanted else OK)
            came.append(exactly(tls, len(body)))

    origin = lab.origin(serve)
    lab.start(policy(ban(inspect_stores=True)))
    with lab.tls(lab.trusting("h2"), STORE, Way.REDIRECTED, origin.port) as raw:
        client = Http2Client(raw.sock, "https", STORE)
        client.ask(1, body=True, expects=True)
        if wanted:
            assert client.until_over(1) == [["100", *WHOLE]]
            client.talk.send_data(1, b"body", end_stream=True)
            raw.send(client.talk.data_to_send())
        else:
            assert client.until_over(1, last=("NO_ERROR",)) == [[*WHOLE, "NO_ERROR"]]
        until("the server has heard all", lambda: came)
    assert came == [body if wanted else b""]


@OPENING
def test_http2_server_that_leaves(lab: Lab) -> None:
    """What it has taken up ends as usual, what it hasn't can be asked again, and further requests go to a new one."""
    waiting: list[int] = []

    def serve(sock: socket.socket, talk: h2.connection.H2Connection, stream: int) -> None:
        if len(came) > 1:
            answered(talk, stream)
            return
        waiting.append(stream)
        if len(waiting) == 3:
            talk.send_headers(1, [(":status", "200")])
            leave(sock, talk, 1)
            talk.send_data(1, b"ok", end_stream=True)

    port, came = http2_origin(lab, serve)
    with lab.reach(Way.REDIRECTED, port) as raw:
        client = Http2Client(raw.sock)
        client.ask(1, 3, 5)
        assert client.until_over(1, 3, 5) == [WHOLE, ["REFUSED_STREAM"], ["REFUSED_STREAM"]]
        client.ask(7)
        client.ask(9)
        assert client.until_over(7, 9) == [WHOLE, WHOLE]
    assert came == [3, 2]


@OPENING
def test_http2_requests_that_wait_for_a_server_that_leaves(lab: Lab) -> None:
    """What is more than a server takes at a time is not left waiting for it."""

    def serve(sock: socket.socket, talk: h2.connection.H2Connection, stream: int) -> None:
        if len(came) == 1 and stream == 3:
            leave(sock, talk, stream)
        if len(came) > 1 or stream <= 3:
            answered(talk, stream)

    port, came = http2_origin(lab, serve, at_a_time=1)
    with lab.reach(Way.REDIRECTED, port) as raw:
        client = Http2Client(raw.sock)
        client.ask(1)
        assert client.until_over(1) == [WHOLE]
        client.ask(3, 5, 7)
        first, *others = client.until_over(3, 5, 7)
    assert first == WHOLE
    assert all(other in (["REFUSED_STREAM"], WHOLE) for other in others)  # WHOLE: it came when the server had left


@OPENING
def test_http2_stream_that_is_refused(lab: Lab) -> None:
    """A client hears that its request was not taken up, and may ask again (RFC 9113 §8.7)."""

    def serve(sock: socket.socket, talk: h2.connection.H2Connection, stream: int) -> None:
        if stream == 1:
            talk.reset_stream(stream, ErrorCodes.REFUSED_STREAM)
        else:
            answered(talk, stream)

    port, _ = http2_origin(lab, serve)
    with lab.reach(Way.REDIRECTED, port) as raw:
        client = Http2Client(raw.sock)
        client.ask(1)
        assert client.until_over(1) == [["REFUSED_STREAM"]]
        client.ask(3)
        assert client.until_over(3) == [WHOLE]
