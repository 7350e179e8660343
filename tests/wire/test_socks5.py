"""SOCKS 5 requests, whole, byte by byte, and wrong."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokgate.wire.socks5 import Reply, SocksError, SocksRequest, read_methods, read_request

CASES = [
    (b"\x05\x01\x00\x01\xc0\x00\x02\x01\x01\xbb", SocksRequest("192.0.2.1", 443, 10)),
    (b"\x05\x01\x00\x03\x0bexample.org\x00\x50", SocksRequest("example.org", 80, 18)),
    (b"\x05\x01\x00\x04\x20\x01\x0d\xb8" + bytes(11) + b"\x01\x01\xbb", SocksRequest("2001:db8::1", 443, 22)),
]


@pytest.mark.parametrize(("data", "request_"), CASES)
def test_requests(data: bytes, request_: SocksRequest) -> None:
    """Complete with anything behind it; incomplete at every shorter length."""
    assert read_request(data) == read_request(data + b"more") == request_
    assert all(read_request(data[:length]) is None for length in range(len(data)))


def test_methods() -> None:
    """The offer must hold the method without authentication; what the client sends after it is no part of it."""
    assert read_methods(b"\x05\x02\x02\x00rest") == 4
    assert read_methods(b"\x05\x02\x02\x00", password=True) == read_methods(b"\x05\x02\x00\x02") == 4
    assert read_methods(b"\x05") is read_methods(b"\x05\x02\x00") is read_methods(b"") is None
    for offer in (b"\x05\x01\x02", b"\x05\x01\x02\x00", b"\x05\x00", b"\x04\x01\x00"):
        with pytest.raises(SocksError, match=r"wants authentication|version"):
            read_methods(offer)
    with pytest.raises(SocksError, match="won't say who"):
        read_methods(b"\x05\x01\x00", password=True)


def test_another_version() -> None:
    """A client of SOCKS 4 is told so, instead of being sent to an address that is read from the wrong octets."""
    with pytest.raises(SocksError, match="version 5"):
        read_request(b"\x04\x01\x00\x01\xc0\x00\x02\x01\x01\xbb")


@pytest.mark.parametrize(
    "name",
    [
        b"localhost\0.example.org",
        b"\0example.org",
        b"\xffexample.org",
        b"2130706433",
        b"a b",
        "bücher.example".encode(),
        b"",
    ],
)
def test_names_that_are_none(name: bytes) -> None:
    """A name that the resolver would read in another way than policy is refused as a general failure."""
    with pytest.raises(SocksError) as caught:
        read_request(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + b"\x01\xbb")
    assert caught.value.reply == Reply.GENERAL_FAILURE.octets


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        (b"\x05\x02\x00\x01\xc0\x00\x02\x01\x01\xbb", b"\x05\x07"),  # BIND
        (b"\x05\x01\x00\x02\xc0\x00\x02\x01\x01\xbb", b"\x05\x08"),  # an address type of nobody's
        (b"\x05\x01\x00\x03\x03a b\x01\xbb", b"\x05\x01"),
    ],
)
def test_the_client_is_told_why(request_: bytes, reply: bytes) -> None:
    """In the numbers of RFC 1928 §6, of which clients make their messages."""
    with pytest.raises(SocksError) as caught:
        read_request(request_)
    assert caught.value.reply is not None
    assert caught.value.reply[:2] == reply


@pytest.mark.parametrize(
    ("reply", "number"),
    [("SUCCEEDED", 0), ("NOT_ALLOWED", 2), ("HOST_UNREACHABLE", 4)],
)
def test_replies(reply: str, number: int) -> None:
    """Version, reply, reserved, and an address of zeros (RFC 1928 §6)."""
    assert Reply[reply].octets == bytes([5, number, 0, 1]) + bytes(6)


@given(st.binary(max_size=40))
def test_garbage(data: bytes) -> None:
    """Any bytes are a request, incomplete, or an error."""
    for read in (read_methods, read_request):
        with contextlib.suppress(SocksError):
            read(b"\x05" + data)
