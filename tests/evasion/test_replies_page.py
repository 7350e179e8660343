"""What the reader of pages counts as served: a page, as many of them as are wanted, or bytes that are no HTTP."""

import pytest

from tokgate.evasion.attempt import Result
from tokgate.evasion.replies import judge, read_page

OK, BAD, LEGAL = b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 400 x\r\n\r\n", b"HTTP/1.1 451 x\r\n\r\n"


@pytest.mark.parametrize(
    ("said", "wanted", "result"),
    [
        (OK, 1, Result.SERVED),
        (b"HTTP/1.1 404 Not Found\r\n\r\n", 1, Result.SERVED),
        (b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + OK, 1, Result.SERVED),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + LEGAL, 1, Result.REFUSED),
        (LEGAL, 1, Result.REFUSED),
        (BAD, 1, Result.REFUSED),
        (BAD + OK, 1, Result.SERVED),
        (OK, 2, Result.REFUSED),
        (OK + LEGAL, 2, Result.REFUSED),
        (OK + OK, 2, Result.SERVED),
        (b"a page of HTTP/0.9", 1, Result.SERVED),
        (b"\x15\x03\x03\0\2\2\x70", 1, Result.REFUSED),
    ],
)
def test_pages(said: bytes, wanted: int, result: Result) -> None:
    """A refusal of the gateway or of the server serves nobody, and of two requests the second is the one."""
    assert judge(said, wanted).result is result


def test_what_came_before_the_silence_counts() -> None:
    """A server that keeps the connection open has answered."""
    pieces = iter([OK])

    def receive() -> bytes:
        for piece in pieces:
            return piece
        raise TimeoutError

    assert read_page(receive).result is Result.SERVED
    assert read_page(receive).result is Result.SILENT
