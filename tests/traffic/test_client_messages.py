"""First bytes as values: what somebody can still open, and what nobody can any more.

What may follow a client's first words: what has to wait for the answer, and what is made of it.
"""

import time
import tracemalloc

import pytest

from labs.hello_builder import hello_for
from tokgate.evasion import hello as build
from tokgate.traffic.client_messages import (
    AfterHello,
    AfterProxyRequest,
    AfterUnreadLine,
    FirstBytesReader,
    SecondHelloReader,
    after,
)
from tokgate.traffic.seen import FirstBytes, Hello, OtherBytes, ProxyConnect, Unreadable
from tokgate.wire.http_detection import LinePart, UnreadLine
from tokgate.wire.proxy_request import MAX_HEAD


@pytest.mark.parametrize("before", [b"", b"\r\n"])
def test_the_longest_head_of_a_connect(before: bytes) -> None:
    """As long as a proxy takes it is waited for; beyond that it can't be read, and is not waited for in vain."""
    begun = (b"CONNECT www.example.org:443 HTTP/1.1\r\nX: ").ljust(MAX_HEAD, b"x")
    reader = FirstBytesReader()
    assert reader.feed(before + begun) is None
    assert reader.feed(b"x") == Unreadable(http=True)


@pytest.mark.parametrize(
    "begun",
    [
        build.records(b"\1\0\xf0\0" + bytes(3_000), size=1),
        b"GET /" + b"a" * 60_000,
        b"GET" + b"\t" * 60_000,
        b"CONNECT www.example.org:443 HTTP/1.1\r\nX: " + b"x" * 60_000,
    ],
    ids=["records", "target", "blanks", "connect"],
)
def test_the_cost_of_an_octet_is_constant(begun: bytes) -> None:
    """A client that sends all of it octet by octet costs as much for each at the end as at the beginning."""
    costs = []
    for data in (begun[: len(begun) // 10], begun):
        runs = []
        for _ in range(3):
            reader, started = FirstBytesReader(), time.process_time()
            assert not any(reader.feed(bytes((octet,))) for octet in data)
            runs.append((time.process_time() - started) / len(data))
        costs.append(min(runs))
    assert costs[1] < 4 * costs[0]


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


PLAIN = hello_for("www.Example.net")
EARLY = hello_for("www.example.net", (build.EARLY_DATA, b""))
DATA = b"\x17\3\3\0\4data"
CHANGE = b"\x14\3\3\0\1\1"
ALERT = b"\x15\3\3\0\2\2\x2f"
CONNECT = b"CONNECT www.example.net:443 HTTP/1.1\r\nHost: a\r\n\r\n"


def said(data: bytes) -> FirstBytes:
    seen = FirstBytesReader().feed(data)
    assert seen is not None
    return seen


@pytest.mark.parametrize(
    ("data", "watched"),
    [
        (PLAIN, AfterHello("www.example.net", False, b"")),
        (PLAIN + b"no record", None),
        (PLAIN + PLAIN, AfterHello("www.example.net", False, b"", PLAIN)),
        (PLAIN + DATA, AfterHello("www.example.net", False, b"", DATA)),
        (PLAIN + DATA[:1], AfterHello("www.example.net", False, b"", DATA[:1])),
        (EARLY, AfterHello("www.example.net", True, b"")),
        (EARLY + CHANGE + DATA, AfterHello("www.example.net", True, b"")),
        (EARLY + DATA[:3], AfterHello("www.example.net", True, DATA[:3])),
        (EARLY + DATA + PLAIN, AfterHello("www.example.net", True, b"", DATA + PLAIN)),
        (build.records(PLAIN[5:], 30) + CHANGE, AfterHello("www.example.net", False, b"", CHANGE)),
        (build.records(build.hello()), AfterHello("", False, b"")),
        (CONNECT, AfterProxyRequest(b"")),
        (CONNECT + PLAIN, AfterProxyRequest(PLAIN)),
        (b"SSH-2.0-client\r\n", None),
        (b"\x13BitTorrent", AfterUnreadLine(UnreadLine(LinePart.OTHER, b"rrent", 11))),
        (b"EHLO x\r\n", AfterUnreadLine(UnreadLine(LinePart.FIELDS, b""))),
    ],
)
def test_what_to_watch_for(data: bytes, watched: object) -> None:
    """Only what can't be a second hello goes on with the first words; a second one behind them never does."""
    assert after(said(data), data) == watched


def test_connections_to_one_name_share_what_is_watched_for() -> None:
    """Ten thousand connections to a site take the memory of one name."""
    assert after(said(PLAIN), PLAIN) is after(said(PLAIN), PLAIN)


@pytest.mark.parametrize("data", [PLAIN + CHANGE[:3], PLAIN + PLAIN[:40], EARLY + DATA[:3]])
@pytest.mark.parametrize("said_next", [b"", b"\0", b"no record"])
def test_the_middle_of_a_record_waits(data: bytes, said_next: bytes) -> None:
    """A second hello of which a part came with the first is one whatever its next octets are: it must not go on."""
    watched = after(said(data), data)
    assert watched is not None
    assert watched.waits(said_next)


def test_the_rest_of_early_data() -> None:
    """A record that was passed on in part is not passed on again, and the hello behind it is found."""
    reader = AfterHello("", early_data=True, begun=DATA[:6]).reader()
    seen = reader.feed(DATA[6:] + PLAIN)
    assert isinstance(seen, Hello)
    assert reader.received == DATA[6:] + PLAIN
    half = SecondHelloReader("", DATA[:6], early_data=True)
    assert half.feed(DATA[6:8]) is None
    assert half.ended() == Unreadable()
    assert half.received == DATA[6:8]
    assert SecondHelloReader("", DATA[:6], early_data=True).ended() == OtherBytes(more=True)


@pytest.mark.parametrize("said", [b"", ALERT, CHANGE + ALERT])
def test_who_goes_without_a_second_hello(said: bytes) -> None:
    """A client that gives up, or is content, has hidden nothing; half of a hello can't be read."""
    for half in (b"", PLAIN[:1], PLAIN[:-1], build.records(PLAIN[5:], 30)[:70]):
        reader = SecondHelloReader("www.example.net", b"", early_data=False)
        assert reader.feed(said + half) is None
        assert reader.ended() == (Unreadable() if half else OtherBytes(more=True))
        assert reader.received == said + half


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        (CONNECT, ProxyConnect("www.example.net", named="a")),
        (b"\r\n" + CONNECT + b"more", ProxyConnect("www.example.net", b"more", "a")),
        (b"CONNECT www.example.net HTTP/1.1\r\nHost: a\r\n\r\n", Unreadable(http=True)),
        (b"CONNECT 0x7f.1:443 HTTP/1.1\r\nHost: a\r\n\r\n", Unreadable(http=True)),
    ],
)
def test_requests_to_another_proxy(data: bytes, seen: FirstBytes) -> None:
    """A CONNECT among first words shows its host once its head is whole; one that names none can't be read."""
    reader = FirstBytesReader()
    answers = [reader.feed(data[i : i + 1]) for i in range(len(data) - data.endswith(b"more") * 4)]
    assert answers[-1] in (seen, ProxyConnect("www.example.net", named="a"))
    assert not any(answers[:-1])
    assert said(data) == seen


def test_behind_a_hello() -> None:
    """A record that a server may take for another hello waits until the server has asked for one, and is then read."""
    first = said(PLAIN)
    watched = after(first, PLAIN)
    assert isinstance(first, Hello)
    assert watched is not None
    assert (watched.waits(b"\x16"), watched.waits(b"G")) == (True, False)
    assert [watched.asked(answer) for answer in (b"", b"\x16\3\3", b"220 ")] == [None, None, False]
    assert watched.reader().feed(PLAIN) == Hello(first.hello, retry_of="www.example.net", openable=False)


def test_behind_a_request_to_another_proxy() -> None:
    """All waits for the proxy's answer, whatever that is; nobody opens what then comes."""
    watched = after(said(CONNECT), CONNECT)
    assert watched is not None
    assert (watched.waits(b""), watched.waits(b"x"), watched.asked(b""), watched.asked(b"H")) == (
        False,
        True,
        False,
        True,
    )
    assert watched.reader().feed(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") == Unreadable(http=True)
    assert watched.reader().feed(b"SSH-2.0-client\r\n") == OtherBytes()


def test_a_line_that_becomes_a_request() -> None:
    """Each piece is told by itself, and is counted with the first; nothing waits for an answer that can't come."""
    watched = after(said(b"GE[T "), b"GE[T ")
    assert isinstance(watched, AfterUnreadLine)
    assert (watched.waits(b"/"), watched.waits(b""), watched.asked(b"")) == (True, False, None)
    assert watched.asked(b"220 ") is False
    reader = watched.reader()
    more = reader.feed(b"/ HTT")
    assert reader.received == b"/ HTT"
    assert isinstance(more, OtherBytes)
    assert more.more
    again = after(more, b"/ HTT")
    assert isinstance(again, AfterUnreadLine)
    assert again.reader().feed(b"P/1.1\r\n") == Unreadable(http=True)
    assert again.reader().feed(b"x\r\n") == again.reader().ended() == OtherBytes(more=True)
