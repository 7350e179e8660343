"""The head of a CONNECT, read as it comes in pieces."""

import time

import pytest

from tokgate.wire.connect_request import MAX_HEAD, ConnectReader, ConnectRequest, ConnectRequestError

HEAD = b"CONNECT www.example.org:443 HTTP/1.1\r\nHost: www.example.org:443\r\nProxy-Authorization: Basic YTpi\r\n\r\n"


def test_a_head_whole_and_in_pieces() -> None:
    """Where it goes, who asks, and what came behind it, however the head is cut."""
    expected = ConnectRequest("www.example.org", 443, b"Basic YTpi", b"\x16\3")
    assert ConnectReader().feed(HEAD + b"\x16\3") == expected
    reader = ConnectReader()
    assert not any(reader.feed(HEAD[i : i + 1]) for i in range(len(HEAD) - 1))
    assert reader.feed(HEAD[-1:] + b"\x16\3") == expected


@pytest.mark.parametrize(
    ("host", "named"),
    [
        (b"WWW.example.org", ""),
        (b"www.example.org:80", ""),
        (b"clips.example.org:443", "clips.example.org"),
        (b"a b", ""),
        (b"", ""),
    ],
)
def test_another_host(host: bytes, named: str) -> None:
    """A field that names another host is told: some proxy might follow it."""
    request = ConnectReader().feed(b"CONNECT www.example.org:443 HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
    assert request is not None
    assert request.named == named


@pytest.mark.parametrize(
    "head",
    [
        b"CONNECT www.example.org HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT 0x7f.1:443 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT www.example.org:443 HTTP/1.1\r\nHost : a\r\n\r\n",
        b"GET www.example.org:443 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://www.example.org/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT\r\n\r\n",
        b"CONNECT a:443 HTTP/1.1\r\nX: " + b"x" * MAX_HEAD,
    ],
)
def test_what_is_no_connect(head: bytes) -> None:
    """A head that names no host and port, or has no end, gets no tunnel."""
    with pytest.raises(ConnectRequestError):
        ConnectReader().feed(head)


def test_the_cost_of_an_octet_is_constant() -> None:
    """A head in single octets costs as much for each octet at its end as at its beginning."""
    costs = []
    for length in (6_000, 60_000):
        runs = []
        for _ in range(3):
            reader = ConnectReader()
            started = time.process_time()
            reader.feed(HEAD[:-2] + b"X: ")
            for _ in range(length):
                reader.feed(b"x")
            runs.append((time.process_time() - started) / length)
        costs.append(min(runs))
    assert costs[1] < 4 * costs[0]
