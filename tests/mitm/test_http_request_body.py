"""Bodies are watched piece by piece: what is no request arrives whole, and what is one doesn't arrive at all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokgate.mitm.http_request import BodyStart

METHODS = st.sampled_from(["GET", "get", "DELETE", "POST", "PUT"])


def passed(method: str, pieces: list[bytes]) -> bytes | None:
    """What passes of a body in pieces, up to its end; None if it begins like a request."""
    start, got = BodyStart(method), b""
    for piece in [*filter(None, pieces), b""]:
        passing = start.feed(piece)
        if passing is None:
            return None
        got += passing
    return got


@given(METHODS, st.lists(st.binary(max_size=6), max_size=40))
def test_pieces_make_no_difference(method: str, pieces: list[bytes]) -> None:
    """A body in pieces passes as it would in one, octet for octet."""
    whole = b"".join(pieces)
    assert passed(method, pieces) == passed(method, [whole])
    assert passed(method, [whole]) in (None, whole)


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    "body",
    [
        b"GET / HTTP/1.1\r\nHost: www.clips.example.org\r\n\r\n",
        b"\r\n \t\0\x0bPOST\t/ HTTP/1.1\r\n",
        b"CONNECT www.clips.example.org:443 HTTP/1.1\r\n",
        b"OPTIONS * HTTP/1.1\r\n",
        b"GET   HTTP://www.clips.example.org/",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_requests(method: str, body: bytes, size: int) -> None:
    """A request is found behind whatever servers pass over, however it is cut."""
    assert passed(method, [body[at : at + size] for at in range(0, len(body), size)]) is None


def test_unknown_methods() -> None:
    """Any word may be a method where a body means nothing; elsewhere it is a text."""
    assert passed("GET", [b"BREW /pot HTTP/1.1\r\n"]) is None
    assert passed("POST", [b"BREW /pot HTTP/1.1\r\n"]) == b"BREW /pot HTTP/1.1\r\n"


@pytest.mark.parametrize(
    ("method", "piece"), [("POST", b"hello"), ("GET", b"{"), ("PUT", b"GET well soon"), ("GET", b"q=1")]
)
def test_nothing_is_held_for_long(method: str, piece: bytes) -> None:
    """Uploads pass as they come: a first piece that can't become a request doesn't wait for the second."""
    start = BodyStart(method)
    assert start.feed(piece) == piece


def test_what_is_held_is_bounded() -> None:
    """A target without an end doesn't fill the memory."""
    start = BodyStart("POST")
    got = b"".join(start.feed(b"GET" + b" " * 20) or b"" for _ in range(100))
    assert len(got) > 2000
