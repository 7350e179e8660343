"""Lines that are no request by the book, and what must not come behind them: whole, in two parts, and by the octet."""

from collections.abc import Sequence
from itertools import pairwise

import pytest

from tokgate.wire.http_detection import MAX_LINE, LinePart, UnreadLine, begin_unread_line, read_on
from tokgate.wire.protocol_detection import Protocol, ProtocolDetector

SERVED = [
    b"GE[T / HTTP/1.1\r\n",
    b"\0GET / HTTP/1.1\r\n",
    b"\xef\xbb\xbfGET / HTTP/1.1",
    b"\7GET\t/\xa0HTTP/1.1\r\n",
    b"{" * 9000 + b" / HTTP/1.0\n",
    b"X #\r\nHost: a",
    b"GET\xa0x\x0b\n\r\n",
    b"connect x FOO/1.0\r\nHost: a",
    b"GET %2f FOO/1.0\n\n",
    b"X www.example.org  \n\n",
    b"EHLO x\r\nhost :",
    b"GET x\r\nK(:",
    b"GET x\r\n:",
    b"GET x\r\n ",
    b"GET x\r\nFrom ",
    b"GET x\r\n" + b"z" * 257,
    b"X /\0y\r\nHost: a",
    b"GET x\r\nfoo bar\r\nHost: a",
    b"GET x\r\nfoo bar\r\nX: y\r\nhOST \t :",
    b"GET x\r\nfoo bar\rHost:",
    b"POST %2f FOO/1.0\nfoo bar\nX: y\n\n",
    b"CONNECT x y\r\nfoo bar: z\r\n\r\r\n",
    b"GET x\r\n\r\r\n",
    b"X y\r\nfoo bar\r\nHost: a",
]
UNSERVED = [
    b"HTTP/1.1 200 OK\r\n",
    b"[\r\n HTTP/1.1\r\n",
    b"OPTIONS sip:example.org SIP/2.0\r\nVia: a",
    b"[x y\r\nHost: a",
    b"X\r\nHost: a",
    b"X y z\r\nHost: a",
    b"X \r\nHost: a",
]


UNDECIDED = [
    (b"[", LinePart.OTHER),
    (b"\x13BitTorrent protocol", LinePart.OTHER),
    (b"[ HTTP", LinePart.OTHER),
    (b"X \0y", LinePart.TARGET),
    (b"X \0y ", LinePart.AFTER_TARGET),
    (b"EHLO x\r\n", LinePart.FIELDS),
    (b"X y\r\nHost", LinePart.FIELDS),
    (b"EHLO x\r\nMAIL FROM:<a@example.org>\r\n\r\n", LinePart.REST),
    (b"X y\r\nz" + b" " * 17 + b":", LinePart.REST),
    (b"GET x\r\nGET y\r\n", LinePart.KNOWN_REST),
    (b'CONNECT {"name": "a b"}\r\nPING\r\n', LinePart.KNOWN_REST),
    (b"GET x\r\nK\xe9:\r\n\r\r", LinePart.KNOWN_REST),
    (b"GET x\r\nfoo bar\r\nHost" + b" " * 1000, LinePart.KNOWN_REST),
    (b"GET x\r\nfoo bar\r\nX-Host: a\r\nghost: b", LinePart.KNOWN_REST),
]


def told(pieces: Sequence[bytes]) -> UnreadLine | bool:
    """What is told of a head in these pieces."""
    first, line = ProtocolDetector(), None
    for piece in pieces:
        if line is None:
            kind = first.feed(piece)
            line = first.line
            if kind is not None and line is None:
                return kind is Protocol.LENIENT_HTTP
        elif isinstance(more := read_on(line, piece), bool):
            return more
        else:
            line = more
    assert line is not None
    return line


def cuts(data: bytes) -> list[Sequence[bytes]]:
    """The head whole, in two parts, and by the octet."""
    ends = sorted({1, data.find(b"\n") + 1, len(data) // 2, len(data) - 1} - {0})
    parts: list[Sequence[bytes]] = [(data[:at], data[at:]) for at in ends if at < len(data)]
    return [(data,), *parts, [data[at:end] for at, end in pairwise(range(len(data) + 1))]]


@pytest.mark.parametrize("data", SERVED, ids=lambda data: repr(data[:20]))
def test_what_some_server_serves(data: bytes) -> None:
    """It is told, wherever the head is cut."""
    assert [told(pieces) for pieces in cuts(data)] == [True] * len(cuts(data))


@pytest.mark.parametrize("data", UNSERVED, ids=lambda data: repr(data[:20]))
def test_what_none_serves(data: bytes) -> None:
    """Nothing is left to be told, wherever the head is cut."""
    assert [told(pieces) for pieces in cuts(data)] == [False] * len(cuts(data))


@pytest.mark.parametrize(("data", "part"), UNDECIDED, ids=lambda data: repr(data[:20]))
def test_what_may_be_served_yet(data: bytes, part: LinePart) -> None:
    """As long as the head may become a request, little is kept of it, and the same wherever it is cut."""
    line = told((data,))
    assert isinstance(line, UnreadLine)
    assert line.part is part
    assert len(line.unfinished) <= 6
    assert [told(pieces) for pieces in cuts(data)] == [line] * len(cuts(data))


def test_the_longest_line() -> None:
    """Who has said as much without a version will not be read as HTTP."""
    assert begin_unread_line(bytearray(b"[" * MAX_LINE), 0) is False
