"""The first line of an HTTP/1 request, told from everything else as early as can be."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokgate.wire.http_start import MAX_REQUEST_LINE, looks_like_http


@pytest.mark.parametrize(
    "line",
    [
        b"GET / HTTP/1.1\r\n",
        b"\r\n\r\nPOST /x HTTP/1.0\n",
        b"CONNECT a:443 HTTP/1.1\r\n",
        b"x-own http://a/ HTTP/1.1\r\n",
    ],
)
def test_requests(line: bytes) -> None:
    """True with the whole line, whatever follows; undecided at every shorter length."""
    assert looks_like_http(line) is looks_like_http(line + b"\x00rest") is True
    assert all(looks_like_http(line[:length]) is None for length in range(len(line) - 1))


@pytest.mark.parametrize(
    "data", [b"EHLO mail.example.org\r\n", b"SSH-2.0-x\r\n", b"\x16\x03\x01", b"\x00", b"GET /\r\n", b"a" * 33]
)
def test_everything_else(data: bytes) -> None:
    """Other protocols show themselves at once or with their first line."""
    assert looks_like_http(data) is False


def test_the_line_has_to_end() -> None:
    """An endless request line is none."""
    assert looks_like_http(b"GET /" + b"a" * MAX_REQUEST_LINE) is False


@given(st.binary(max_size=64), st.binary(max_size=16))
def test_an_answer_stays(data: bytes, more: bytes) -> None:
    """Once it is told, more bytes don't change it."""
    told = looks_like_http(data)
    if told is not None:
        assert looks_like_http(data + more) is told
