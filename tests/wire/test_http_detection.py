"""The first line of a connection: a request that all read alike, one that only some servers serve, or neither."""

import pytest

from tokgate.wire.http_detection import (
    MAX_EMPTY,
    MAX_LINE,
    PREFACE,
    HttpKind,
    HttpStartReader,
    begin_unread_line,
)

REQUEST, HTTP2, LENIENT, NONE = HttpKind.REQUEST, HttpKind.HTTP2, HttpKind.LENIENT, HttpKind.NONE


def kind_of(*pieces: bytes) -> HttpKind | None:
    """What it is told to be; a reader is asked no more once it has answered."""
    received = bytearray()
    start = HttpStartReader(received)
    for piece in pieces:
        received += piece
        kind = start.read()
        if kind is not None:
            return kind
    return None


def singly(data: bytes) -> list[bytes]:
    return [data[i : i + 1] for i in range(len(data))]


LINES = [
    (b"GET / HTTP/1.1\r\n", REQUEST),
    (b"\r\n\r\nPOST /x HTTP/1.0\n", REQUEST),
    (b"\nGET / HTTP/1.1\r\n", REQUEST),
    (b"\n" * MAX_EMPTY + b"GET / HTTP/1.1\r\n", REQUEST),
    (b"CONNECT a:443 HTTP/1.1\r\n", REQUEST),
    (b"x-own http://a/ HTTP/1.1\r\n", REQUEST),
    *((b"GET / HTTP/%b\r\n" % version, REQUEST) for version in (b"0.9", b"1.0", b"1.2", b"1.9", b"2.0", b"3.0")),
    *((b"%b / HTTP/1.1\r\n" % method, REQUEST) for method in (b"get", b"X!Y", b"G_T", b"!GET")),
    *((b"GET %b HTTP/1.1\r\n" % target, REQUEST) for target in (b"*", b"x", b"/\xff", b"http://www.example.org/")),
    (b"GET  /  HTTP/1.1\r\n", REQUEST),
    (b"GET /\0 HTTP/1.1\r\n", REQUEST),
    (b"OWN /\0 HTTP/1.1\r\n", NONE),
    (b"G" * 32 + b" / HTTP/1.1\r\n", REQUEST),
    (PREFACE, HTTP2),
    (b"PRI * HTTP/2.0\r\n\r\nXX", LENIENT),
    (b"\r\n" + PREFACE, LENIENT),
    (b"PRI * HTTP/1.1\r\n", LENIENT),
    (b"\rGET / HTTP/1.1\r\n", LENIENT),
    (b"\r\r\nGET / HTTP/1.1\r\n", LENIENT),
    (b"\n\rGET / HTTP/1.1\r\n", LENIENT),
    (b"\r\n" * (MAX_EMPTY // 2) + b"\n", LENIENT),
    (b" GET / HTTP/1.1\r\n", LENIENT),
    (b"\tGET / HTTP/1.1\r\n", LENIENT),
    (b"\xa0GET / HTTP/1.1\r\n", LENIENT),
    (b"GET\t/ HTTP/1.1\r\n", LENIENT),
    (b"GET /\tHTTP/1.1\r\n", LENIENT),
    *(
        (b"GET%b/%bHTTP/1.1\r\n" % (blank, blank), LENIENT)
        for blank in (b"\t", b"\x0b", b"\x0c", b"\x1c", b"\x85", b"\xa0")
    ),
    (b"\x0bGET / HTTP/1.1\r\n", LENIENT),
    (b"GET / HTTP/1.1\t\r\n", LENIENT),
    (b"GET / HTTP/1.1 \r\n", LENIENT),
    (b"GET / HTTP/1.1\r\r\n", LENIENT),
    (b"GET /\r HTTP/1.1\r\n", LENIENT),
    (b"GET / HTTP/1.10\r\n", LENIENT),
    (b"GET / HTTP/01.1\r\n", LENIENT),
    (b"GET / HTTP/1.01\r\n", LENIENT),
    (b"GET / RTSP/1.0\r\n", LENIENT),
    (b"SOURCE x ICE/1.0\r\n", LENIENT),
    (b"DESCRIBE rtsp://a/ RTSP/1.0\r\n", LENIENT),
    (b"DESCRIBE x RTSP/1.0\r\n", LENIENT),
    (b"GET /\r\n", LENIENT),
    (b"GET / \r\n", LENIENT),
    (b"GET http://www.example.org/\n", LENIENT),
    (b"POST /\r\n", LENIENT),
    (b"OPTIONS /\r\n", LENIENT),
    (b"OWN * FOO/1.0\r\n", LENIENT),
    (b"OWN x+y://a FOO/1.0\r\n", LENIENT),
    (b"GET http://www.example.org/HTTP/1.1\r\n", LENIENT),
    (b"GET HTTP/1.1\r\n", LENIENT),
    (b"OWN /\r\n", LENIENT),
    (b"OWN *\r\n", LENIENT),
    (b"OWN http://www.example.org/\r\n", LENIENT),
    (b"OWN a http/1.1\r\n", LENIENT),
    (b"G" * 33, LENIENT),
    (b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", LENIENT),
    (b"\r\n\r\n\0\r\nQUIT\n", LENIENT),
    (b"EHLO mail.example.org\r\n", NONE),
    (b"SSH-2.0-OpenSSH_9.2 Debian\r\n", NONE),
    (b"USER anonymous\r\n", NONE),
    (b"NICK someone\n", NONE),
    (b"get x\n", NONE),
    (b'CONNECT {"verbose": false}\r\n', NONE),
    (b"OPTIONS sip:example.org SIP/2.0\r\n", NONE),
    (b"INVITE sip:someone@example.org SIP/2.0\r\n", NONE),
    (b"* OK ready\r\n", NONE),
    (b"RFB 003.008\n", NONE),
    (b"HELP\n", NONE),
    (b"\x16\x03\x01", NONE),
    (b"\x00\x00", NONE),
    (b"\r\n\r\n\0\r\nX", NONE),
    (b"\x13BitTorrent protocol", NONE),
    (b'{"id":1}', NONE),
    (b"GET:", NONE),
    (b'"GET"', NONE),
    (b"\xffGET", NONE),
    (b"GET\0", NONE),
]


@pytest.mark.parametrize(("line", "kind"), LINES)
def test_lines(line: bytes, kind: HttpKind) -> None:
    """What a server might serve is never taken for another protocol's; nothing changes with how the line comes."""
    assert kind_of(line) is kind_of(line + b"Host: www.example.org\r\n\r\n") is kind
    assert kind_of(*singly(line)) is kind
    assert kind_of(line[:-1]) in (kind, None)


@pytest.mark.parametrize(("line", "kind"), [each for each in LINES if each[1] in (REQUEST, HTTP2)])
def test_a_request_is_told_by_its_last_octet(line: bytes, kind: HttpKind) -> None:
    """A request in pieces is waited for: it is not refused, and not passed on, before its line has ended."""
    assert all(kind_of(line[:length]) is None for length in range(len(line) - (1 if kind is HTTP2 else 2)))


def test_the_line_has_to_end() -> None:
    """An endless request line is refused under a ban: Go's server takes a megabyte of it."""
    endless = b"GET /" + b"a" * MAX_LINE
    assert kind_of(endless[: MAX_LINE - 1]) is None
    assert kind_of(endless[:MAX_LINE]) is kind_of(endless + b" HTTP/1.1\r\n") is LENIENT


def test_the_longest_line() -> None:
    """Who has said as much without a version will not be read as HTTP."""
    assert begin_unread_line(bytearray(b"[" * MAX_LINE), 0) is False
