"""First bytes as values: what somebody can still open, and what nobody can any more."""

import tracemalloc

import pytest

from labs import hello_builder as build
from tokgate.traffic import client_messages
from tokgate.traffic.client_messages import FirstBytesReader
from tokgate.traffic.seen import FirstBytes, Hello, HttpStart, OtherBytes, ProxyConnect, Unreadable
from tokgate.wire.proxy_request import MAX_HEAD

REQUEST = b"GET / HTTP/1.1\r\nHost: www.example.org\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "openable", "seen"),
    [
        (REQUEST, True, HttpStart(http2=False)),
        (REQUEST, False, Unreadable(http=True)),
        (b"GET\t/ HTTP/1.1\r\n\r\n", True, Unreadable(http=True)),
        (b"CONNECT a:443 HTTP/1.10\r\n", True, Unreadable(http=True)),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", True, HttpStart(http2=True)),
        (b"SSH-2.0-client\r\n", True, OtherBytes()),
        (b"SSH-2.0-client\r\n", False, OtherBytes()),
        (
            b"CONNECT a.example.org:443 HTTP/1.1\r\nHost: a.example.org\r\n\r\nrest",
            True,
            ProxyConnect("a.example.org", b"rest"),
        ),
    ],
    ids=[
        "request",
        "request_in_a_proxys_tunnel",
        "lenient_request",
        "lenient_connect",
        "http2",
        "ssh",
        "ssh_in_a_tunnel",
        "connect",
    ],
)
def test_what_they_are(data: bytes, openable: bool, seen: FirstBytes) -> None:
    """A request that nobody can answer with a page is refused to clients under a ban, and not carried unread."""
    assert FirstBytesReader(openable=openable).feed(data) == seen


def test_a_hello_says_whether_it_can_be_opened() -> None:
    """Behind a request to another proxy nobody can: it is refused instead of opened."""
    for openable in (True, False):
        seen = FirstBytesReader(openable=openable).feed(build.hello_for("www.example.org"))
        assert isinstance(seen, Hello)
        assert seen.openable is openable


@pytest.mark.parametrize("before", [b"", b"\r\n"])
def test_the_longest_head_of_a_connect(before: bytes) -> None:
    """As long as a proxy takes it is waited for; beyond that it can't be read, and is not waited for in vain."""
    begun = (b"CONNECT www.example.org:443 HTTP/1.1\r\nX: ").ljust(MAX_HEAD, b"x")
    reader = FirstBytesReader()
    assert reader.feed(before + begun) is None
    assert reader.feed(b"x") == Unreadable(http=True)


def test_the_head_of_a_connect_is_looked_through_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that sends it octet by octet costs no more than one that sends it whole."""
    looked = 0
    ends_head = client_messages._ends_head

    def counting(data: bytearray, at: int) -> object:
        nonlocal looked
        looked += len(data) - at
        return ends_head(data, at)

    monkeypatch.setattr(client_messages, "_ends_head", counting)
    reader = FirstBytesReader()
    for octet in b"CONNECT www.example.org:443 HTTP/1.1\r\nX: " + b"x" * 1000:
        assert reader.feed(bytes((octet,))) is None
    assert looked < 4 * len(reader.received)


@pytest.mark.parametrize(
    "begun",
    [
        b"\x16\3\1\x40\0\1\0\xf0\0\3\3" + bytes(16378) + (b"\x16\3\1\x40\0" + bytes(16384)) * 2,
        b"GET /" + b"x" * 60_000,
        b"CONNECT www.example.org:443 HTTP/1.1\r\nX: " + b"x" * 50_000,
    ],
    ids=["hello", "line", "connect"],
)
def test_they_are_kept_once(begun: bytes) -> None:
    """Four thousand clients that say 60 kB without an end cost what they have said, and no second copy of it."""
    reader = FirstBytesReader()
    tracemalloc.start()
    try:
        for at in range(0, len(begun), 1000):
            assert reader.feed(begun[at : at + 1000]) is None
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert reader.received == begun
    assert kept < 1.5 * len(begun)
