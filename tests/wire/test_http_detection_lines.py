"""Lines that are no request by the book, and what must not come behind them: whole, in two parts, and by the octet."""

from collections.abc import Sequence

import pytest

from tokgate.wire.http_detection import MAX_LINE, UnreadLine, begin_unread_line, read_on

SERVED = [
    b"GE[T / HTTP/1.1\r\n",
    b"\0GET / HTTP/1.1\r\n",
    b"\xef\xbb\xbfGET / HTTP/1.1",
    b"\x16\3GET\t/\xa0HTTP/1.1\r\n",
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
]
UNSERVED = [
    b"HTTP/1.1 200 OK\r\n",
    b"[\r\n HTTP/1.1\r\n",
    b"EHLO x\r\nMAIL FROM:<a@example.org>",
    b"GET x\r\nGET y\r\n",
    b'CONNECT {"name": "a b"}\r\nPING\r\n',
    b"OPTIONS sip:example.org SIP/2.0\r\nVia: a",
    b"[x y\r\nHost: a",
    b"X\r\nHost: a",
    b"X y z\r\nHost: a",
    b"GET x\r\nK\xe9:",
    b"GET x\r\nz" + b" " * 17 + b":",
]


def told(pieces: Sequence[bytes]) -> UnreadLine | bool:
    """What is told of a line behind a space, in these pieces, and not before the last of them."""
    line = begin_unread_line(bytearray(b" " + pieces[0]), 1)
    for piece in pieces[1:]:
        if isinstance(line, bool):
            break
        line = read_on(line, piece)
    return line


def cuts(data: bytes) -> list[Sequence[bytes]]:
    """The line whole, in two parts and by the octet; one of two words ends before its first piece does."""
    start = data.find(b"\n") + 1 if b"\n" in data[:-1] else 1
    ends = sorted({start, len(data) // 2, len(data) - 1} - {0})
    parts: list[Sequence[bytes]] = [(data[:at], data[at:]) for at in ends if at >= start]
    return [(data,), *parts, (data[:start], *(data[at : at + 1] for at in range(start, len(data))))]


@pytest.mark.parametrize("data", SERVED, ids=lambda data: repr(data[:20]))
def test_what_some_server_serves(data: bytes) -> None:
    """It is told, wherever the line is cut."""
    assert [told(pieces) for pieces in cuts(data)] == [True] * len(cuts(data))


@pytest.mark.parametrize("data", UNSERVED, ids=lambda data: repr(data[:20]))
def test_what_none_serves(data: bytes) -> None:
    """Nothing is left to be told, wherever the line is cut."""
    assert [told(pieces) for pieces in cuts(data)] == [False] * len(cuts(data))


@pytest.mark.parametrize("data", [b"[", b"\x13BitTorrent protocol", b"EHLO x\r\n", b"X y\r\nHost", b"[ HTTP"])
def test_what_may_be_served_yet(data: bytes) -> None:
    """As long as the line may become one, little is kept of it."""
    line = told((data,))
    assert isinstance(line, UnreadLine)
    assert len(line.tail) <= 5


def test_the_longest_line() -> None:
    """Who has said as much without a version will not be read as HTTP."""
    assert begin_unread_line(bytearray(b"[" * MAX_LINE), 0) is False
