"""What a parent proxy is told, and its answer: whole, octet by octet, and with the destination's words behind it."""

from collections.abc import Callable

import pytest

from tokgate.gate.egress.parents import (
    MAX_ANSWER,
    ConnectHandshake,
    ParentHandshake,
    ParentRefused,
    SocksHandshake,
)
from tokgate.wire.proxy_request import Credentials

ALICE = Credentials("alice", "open: sesame")
OK = b"HTTP/1.1 200 Connection established\r\nVia: proxy\r\n\r\n"
BOUND = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"


def converse(handshake: ParentHandshake, answers: bytes, step: int) -> tuple[bytes, bytes]:
    """All that is said to a proxy which answers in pieces of `step` octets, and what of its answers is left over."""
    said, pending = handshake.first, b""
    for start in range(0, len(answers), step):
        pending += answers[start : start + step]
        while (progress := handshake.read(pending)) is not None:
            pending = pending[progress.consumed :]
            said += progress.say
            if progress.done:
                return said, pending + answers[start + step :]
    raise AssertionError("it is not done")


@pytest.mark.parametrize("step", [1, 3, 1000])
@pytest.mark.parametrize(
    ("make", "answers", "said"),
    [
        (
            lambda: ConnectHandshake("www.example.org", 443, None),
            OK,
            b"CONNECT www.example.org:443 HTTP/1.1\r\nHost: www.example.org:443\r\n\r\n",
        ),
        (
            lambda: ConnectHandshake("2001:db8::7", 443, ALICE),
            b"HTTP/1.0 200\r\n\r\n",
            (
                b"CONNECT [2001:db8::7]:443 HTTP/1.1\r\nHost: [2001:db8::7]:443\r\n"
                b"Proxy-Authorization: Basic YWxpY2U6b3Blbjogc2VzYW1l\r\n\r\n"
            ),
        ),
        (
            lambda: SocksHandshake("www.example.org", 443, None),
            b"\x05\x00" + BOUND,
            b"\x05\x01\x00\x05\x01\x00\x03\x0fwww.example.org\x01\xbb",
        ),
        (
            lambda: SocksHandshake("192.0.2.7", 80, ALICE),
            b"\x05\x02\x01\x00\x05\x00\x00\x04" + bytes(18),
            b"\x05\x01\x02\x01\x05alice\x0copen: sesame\x05\x01\x00\x01\xc0\x00\x02\x07\x00\x50",
        ),
        (
            lambda: SocksHandshake("a" * 255, 80, Credentials("u", "p" * 255)),
            b"\x05\x02\x01\x00\x05\x00\x00\x01" + bytes(6),
            b"\x05\x01\x02\x01\x01u\xff" + b"p" * 255 + b"\x05\x01\x00\x03\xff" + b"a" * 255 + b"\x00\x50",
        ),
        (
            lambda: SocksHandshake("2001:db8::7", 80, None),
            b"\x05\x00\x05\x00\x00\x03\x04host\x00\x50",
            b"\x05\x01\x00\x05\x01\x00\x04" + bytes.fromhex("20010db8000000000000000000000007") + b"\x00\x50",
        ),
    ],
    ids=["connect", "connect-password", "socks", "socks-password", "socks-longest", "socks-v6"],
)
def test_a_way_is_given(make: Callable[[], ParentHandshake], answers: bytes, said: bytes, step: int) -> None:
    """However the answer comes, the same is said, and none of what the destination says behind it is lost."""
    assert converse(make(), answers + b"first words", step) == (said, b"first words")


@pytest.mark.parametrize(
    ("make", "answers", "why", "ours"),
    [
        (lambda: ConnectHandshake("a.example", 443, None), b"HTTP/1.1 403 Forbidden\r\n\r\n", "403 Forbidden", False),
        (lambda: ConnectHandshake("a.example", 443, None), b"HTTP/1.1 407 Sign in\r\n\r\n", "407 Sign in", True),
        (
            lambda: ConnectHandshake("a.example", 443, None),
            b"220 mail.example.org\r\n\r\n",
            "does not speak HTTP",
            True,
        ),
        *(
            (lambda: ConnectHandshake("a.example", 443, None), line + b"\r\n\r\n", "does not speak HTTP", True)
            for line in (b"", b"HTTP/1.1", b"HTTP/2.0 200 OK", b"ICY 200 OK", b"HTTP/1.1 OK 200")
        ),
        (lambda: ConnectHandshake("a.example", 443, None), b"x" * MAX_ANSWER, "has no end", True),
        (lambda: SocksHandshake("a.example", 443, None), b"\x05\xff", "no way of signing in", True),
        (lambda: SocksHandshake("a.example", 443, ALICE), b"\x05\x02\x01\x01", "credentials are wrong", True),
        (lambda: SocksHandshake("a.example", 443, None), b"\x05\x00\x05\x02\x00\x01" + bytes(6), "reply 2", False),
        (
            lambda: SocksHandshake("a.example", 443, None),
            b"\x05\x00\x05\x00\x00\x09" + bytes(6),
            "not speak SOCKS",
            True,
        ),
    ],
    ids=[
        "forbidden",
        "sign-in",
        "mail",
        "empty",
        "no-status",
        "http2",
        "icy",
        "words",
        "endless",
        "method",
        "password",
        "not-allowed",
        "address-type",
    ],
)
def test_no_way_is_given(make: Callable[[], ParentHandshake], answers: bytes, why: str, ours: bool) -> None:
    """A refusal and nonsense end it; what the configuration can mend is told from what the proxy forbids."""
    with pytest.raises(ParentRefused, match=why) as refused:
        converse(make(), answers, 1000)
    assert refused.value.ours is ours


@pytest.mark.parametrize(
    "credentials",
    [Credentials("u" * 256, "p"), Credentials("u", ""), Credentials("", "p"), Credentials("u", "p" * 256)],
)
def test_what_socks_cannot_say(credentials: Credentials) -> None:
    """It is an error at once, before anything is sent."""
    with pytest.raises(ParentRefused, match="1 to 255"):
        SocksHandshake("a.example", 443, credentials)
    with pytest.raises(ParentRefused, match="too long"):
        SocksHandshake("a" * 256, 443, None)


def test_a_short_refusal() -> None:
    """What a SOCKS proxy says of a failure is understood as soon as it is said, whatever address follows."""
    handshake = SocksHandshake("a.example", 443, None)
    handshake.read(b"\5\0")
    assert handshake.read(b"\5\5\0\1") is None
    with pytest.raises(ParentRefused, match="SOCKS reply 5"):
        handshake.read(b"\5\5\0\1\0")
