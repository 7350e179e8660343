"""When the guard takes a connection for HTTP, and when it still has to wait."""

import pytest

from tokgate.proxy.guard import MAX_REQUEST_LINE, looks_like_http


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"GET / HTTP/1.1\r\n", True),
        (b"GET / HTTP/1.0\n", True),
        (b"\r\nGET / HTTP/1.1\r\n", True),
        (b"M-SEARCH * HTTP/1.1\r\n", True),
        (b"PRI * HTTP/2.0\r\n", True),
        (b"G", None),
        (b"GET", None),
        (b"GET / HTTP/1.", None),
        (b"GET / HTTP/1.1\r", None),
        (b"\r", None),
        (b"\r\n", None),
        (b"GET /" + b"a" * MAX_REQUEST_LINE, False),
        (b"SSH-2.0-OpenSSH_9.6\r\n", False),
        (b"EHLO client.example.org\r\n", False),
        (b"GET /\r\n", False),
        (b"\x00\x01", False),
        (b" GET / HTTP/1.1\r\n", False),
    ],
)
def test_looks_like_http(data: bytes, answer: bool | None) -> None:
    """A request line is HTTP, its beginning may become one, all else is not."""
    assert looks_like_http(data) is answer


def test_every_prefix_of_a_request_may_become_one() -> None:
    """No cut of a request line is taken for another protocol, nor for a whole one."""
    line = b"OPTIONS http://www.example.org/a?b=c HTTP/1.1\r\n"

    assert all(looks_like_http(line[:end]) is None for end in range(1, len(line)))
