"""What is made of a server's octets: a certificate of the name counts as served, a page, or what is no HTTP."""

from collections.abc import Iterator

import pytest
import trustme
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificate

from tokgate.evasion.attempt import Result, Target
from tokgate.evasion.hello import record, vector
from tokgate.evasion.replies import certificate_names, covers, judge, read_answer, read_page

TARGET = Target("www.example.org", "192.0.2.1", 443)


class Heard:
    """A stream that gives what it is told to, and an error behind it if there is one."""

    def __init__(self, *pieces: bytes, error: OSError | None = None) -> None:
        self._pieces = iter(pieces)
        self._error = error

    def send(self, data: bytes) -> None:
        """Nobody listens."""

    def end(self) -> None:
        """Nobody notices."""

    def receive(self) -> bytes:
        piece = next(self._pieces, b"")
        if not piece and self._error is not None:
            raise self._error
        return piece


def certificate(*names: str) -> bytes:
    pem = trustme.CA().issue_cert(*names).cert_chain_pems[0].bytes()
    return load_pem_x509_certificate(pem).public_bytes(Encoding.DER)


def flight(*names: str) -> bytes:
    return record(b"\x0b" + vector(3, vector(3, vector(3, certificate(*names)))), version=0x0303)


@pytest.mark.parametrize(
    ("names", "served"),
    [
        (("www.example.org",), True),
        (("*.example.org",), True),
        (("example.org", "WWW.example.org"), True),
        (("example.org",), False),
        (("*.www.example.org",), False),
        (("www.example.org.example.net",), False),
    ],
)
def test_certificate(names: tuple[str, ...], served: bool) -> None:
    """A server is taken at its word, and for no more than it says."""
    answer = read_answer(Heard(flight(*names)), TARGET)
    assert answer.result is (Result.SERVED if served else Result.OTHER)


def octets(data: bytes) -> Iterator[bytes]:
    """One by one."""
    return (data[at : at + 1] for at in range(len(data)))


def test_it_may_come_octet_by_octet() -> None:
    """How a certificate is delivered doesn't matter."""
    assert read_answer(Heard(*octets(flight("www.example.org"))), TARGET).result is Result.SERVED


@pytest.mark.parametrize(
    ("heard", "result"),
    [
        (Heard(b"\x15\x03\x03\0\2\2\x70"), Result.REFUSED),
        (Heard(), Result.CLOSED),
        (Heard(b"\x16\x03"), Result.CLOSED),
        (Heard(error=TimeoutError()), Result.SILENT),
        (Heard(error=ConnectionResetError()), Result.CLOSED),
        (Heard(b"HTTP/1.1 400 Bad Request\r\n\r\n"), Result.OTHER),
        (Heard(record(b"\x0b" + vector(3, b"\0"))), Result.OTHER),
    ],
    ids=["alert", "end", "half a record", "silence", "reset", "http", "no certificate"],
)
def test_other_answers(heard: Heard, result: Result) -> None:
    """An alert is a refusal, an end is an end, and what isn't TLS comes from a server all the same."""
    assert read_answer(heard, TARGET).result is result


def test_names() -> None:
    """All names of a certificate are read; an address is none of them."""
    assert certificate_names(certificate("a.example.org", "192.0.2.1", "*.b.example.org")) == (
        "a.example.org",
        "*.b.example.org",
    )
    assert covers("*.example.org", "www.example.org.")


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
