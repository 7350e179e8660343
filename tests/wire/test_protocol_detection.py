"""What a connection speaks, from its first bytes: which reader is asked, and what its answer means."""

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from labs import hello_builder as build
from tokgate.wire.client_hello import HelloProblem
from tokgate.wire.http_detection import MAX_LINE, PREFACE, UnreadLine, read_on
from tokgate.wire.protocol_detection import Protocol, ProtocolDetector

HELLO = build.hello_for("www.example.org")
ALERT = b"\x15\3\1\0\2\1\x70"


@pytest.mark.parametrize(
    ("data", "protocol"),
    [
        (HELLO, Protocol.TLS),
        (ALERT + HELLO, Protocol.TLS),
        (build.records(HELLO[5:], version=0x0200), Protocol.TLS),
        (b"\x16\3\1\0\4\2\0\0\0", Protocol.LENIENT_TLS),
        (ALERT + b"GET / HTTP/1.1\r\n", Protocol.LENIENT_TLS),
        (b"\x80\x2e\1\3\1\0\x15\0\0\0\x10" + b"c" * 37, Protocol.LENIENT_TLS),
        (b"GET / HTTP/1.1\r\n", Protocol.HTTP1),
        (PREFACE, Protocol.HTTP2),
        (b"GET /\r\n", Protocol.LENIENT_HTTP),
        (b"\x85GET / HTTP/1.1\r\n", Protocol.LENIENT_HTTP),
        (b"SSH-2.0-x\r\n", Protocol.UNKNOWN),
        (b"0032git-upload-pack /project.git\0host=example.org\0", Protocol.UNKNOWN),
        (b"\x16\xfe\xfd\0\0", Protocol.UNKNOWN),
        (b"\x80\0\1" + b"x" * 9, Protocol.UNKNOWN),
        (b"", None),
        (HELLO[:-1], None),
        (b"GET / HTTP/1.1", None),
        (b"\x80\0\1", None),
    ],
)
def test_protocols(data: bytes, protocol: Protocol | None) -> None:
    """Each is told alike in one piece and octet by octet, and every octet is kept for whoever serves the connection."""
    for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
        first, told = ProtocolDetector(), None
        while told is None and pieces:
            told = first.feed(pieces.pop(0))
        assert told is protocol
        assert first.received + b"".join(pieces) == data


def test_a_hello_among_other_records() -> None:
    """A hello is read behind what some servers ignore, and before early data."""
    first = ProtocolDetector()
    assert first.feed(ALERT + HELLO + b"early") is Protocol.TLS
    assert first.hello is not None
    assert first.hello.name == "www.example.org"
    assert first.received == ALERT + HELLO + b"early"


def test_why_there_is_no_hello() -> None:
    """The log says what is wrong with what begins like TLS."""
    first = ProtocolDetector()
    first.feed(b"\x16\3\1\0\4\2\0\0\0")
    assert first.problem is HelloProblem.NOT_CLIENT_HELLO


def test_which_lines_are_watched() -> None:
    """What follows an unknown line is read on as long as it may make a request of it, and no longer."""
    for said, watched in ((b"GET x\r\n", True), (b"SSH-2.0-x\r\n", False)):
        first = ProtocolDetector()
        assert first.feed(said) is Protocol.UNKNOWN
        assert (first.line is not None) is watched
    assert ProtocolDetector().feed(b"GE[T / HTTP/1.1\r\n") is Protocol.LENIENT_HTTP


def test_where_a_request_begins() -> None:
    """The opener gets the request without the empty lines before it."""
    first = ProtocolDetector()
    assert first.feed(b"\r\nGET / HTTP/1.1\r\n") is Protocol.HTTP1
    assert first.request_start == 2


@pytest.mark.parametrize(
    ("data", "protocol"),
    [
        (b"", Protocol.UNKNOWN),
        (HELLO[:-1], Protocol.LENIENT_TLS),
        (b"GET / HTTP/1.1", Protocol.LENIENT_HTTP),
        (b"USER", Protocol.UNKNOWN),
    ],
)
def test_the_end_of_the_stream(data: bytes, protocol: Protocol) -> None:
    """A client that ends its side early gets no further than one that says all of it."""
    first = ProtocolDetector()
    if data:
        assert first.feed(data) is None
    assert first.ended() is protocol


PARTS = [
    b"GET",
    b"X",
    b"CONNECT",
    b"%2f",
    b"www.example.org",
    b"/",
    b"*",
    b"http://",
    b"HTTP/1.1",
    b" HTTP/",
    b"FOO/1.0",
]
PARTS += [
    b" ",
    b"\t",
    b"\x0b",
    b"\xa0",
    b"\r",
    b"\n",
    b"\r\n",
    b"\0",
    b"[",
    b"Host",
    b"HoSt \t",
    b":",
    b"From ",
    b"foo bar",
]
PARTS += [b"G" * 31, b"z" * 257, b"PRI * HTTP/2.0", b"\r\n\r\n\0\r\nQUIT\n", b"PROXY", ALERT, b"\x16\3", HELLO[:60]]
HEADS = st.lists(st.one_of(st.sampled_from(PARTS), st.binary(min_size=1, max_size=2)), max_size=16).map(b"".join)


def verdict(pieces: Iterable[bytes]) -> tuple[Protocol | None, UnreadLine | None]:
    """What is told when all pieces have come, and what may change that yet."""
    first, told, line = ProtocolDetector(), None, None
    for piece in pieces:
        if told is None:
            told = first.feed(piece)
            line = first.line
        elif line is not None:
            more = read_on(line, piece)
            told, line = (Protocol.LENIENT_HTTP, None) if more is True else (told, more or None)
    return told, line


@settings(max_examples=1000)
@given(data=HEADS, cuts=st.lists(st.integers(1, 80), max_size=4))
@example(data=b"X /\0y\r\nHost: www.example.org\r\n\r\n", cuts=[])
@example(data=b"X \0 \t\r\nHost \t: www.example.org\r\n\r\n", cuts=[5])
@example(data=b"GET %2f FOO/1.0\r\nfoo bar\r\nhost \t \t: www.example.org\r\n\r\n", cuts=[30])
@example(data=b"CONNECT x y\r\nfoo bar\r\n\r\r\n", cuts=[26])
@example(data=b"get x\nfoo bar\rhost:", cuts=[14])
def test_an_answer_stays(data: bytes, cuts: list[int]) -> None:
    """The same octets are told alike in any pieces; once it is told, more of them change nothing."""
    whole = verdict([data])
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    assert verdict(data[a:b] for a, b in pairwise(edges)) == whole
    singly = [verdict([])]
    singly += [verdict(data[i : i + 1] for i in range(end)) for end in range(1, len(data) + 1) if len(data) < 200]
    assert len(data) >= 200 or singly[-1] == whole
    settled = [told for told, line in singly if told is not None and line is None]
    assert all(told is whole[0] for told in settled)


@pytest.mark.parametrize("data", [b"[" * (MAX_LINE - 3) + b" HTTP/1.1\r\n", b"X " + b"y" * MAX_LINE + b"\0"])
def test_a_line_of_64_kib(data: bytes) -> None:
    """So it is where nothing more is read of a line."""
    for size in (1, 1000, MAX_LINE - 1, MAX_LINE, MAX_LINE + 1):
        assert verdict(data[at : at + size] for at in range(0, len(data), size)) == verdict([data])
