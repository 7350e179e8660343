"""Headers of load balancers: whole, octet by octet, with what follows, and what is none."""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokgate.wire.proxy_protocol import SIGNATURE, ProxyHeader, read


def binary(command: int, family: int, addresses: bytes, size: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(addresses) if size is None else size) + addresses


V4 = socket.inet_aton("198.51.100.7") + socket.inet_aton("192.0.2.1") + struct.pack("!HH", 40000, 8080)
V6 = socket.inet_pton(socket.AF_INET6, "2001:db8::7") + bytes(16) + struct.pack("!HH", 40001, 8080)
CASES = {
    "v1 over IPv4": (b"PROXY TCP4 198.51.100.7 192.0.2.1 40000 8080\r\n", ("198.51.100.7", 40000)),
    "v1 with the highest port": (b"PROXY TCP4 198.51.100.7 192.0.2.1 65535 8080\r\n", ("198.51.100.7", 65535)),
    "v1 over IPv6": (b"PROXY TCP6 2001:db8:0::7 2001:db8::1 40001 8080\r\n", ("2001:db8::7", 40001)),
    "v1 unknown": (b"PROXY UNKNOWN\r\n", None),
    "v1 unknown with words": (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", None),
    "v2 over IPv4": (binary(0x21, 0x11, V4), ("198.51.100.7", 40000)),
    "v2 over IPv6": (binary(0x21, 0x21, V6), ("2001:db8::7", 40001)),
    "v2 with more behind": (binary(0x21, 0x11, V4 + b"\3\0\4abcd"), ("198.51.100.7", 40000)),
    "v2 with the most behind": (binary(0x21, 0x11, V4 + bytes(2048 - 12)), ("198.51.100.7", 40000)),
    "v2 for itself with addresses": (binary(0x20, 0x11, V4), None),
    "v2 for itself": (binary(0x20, 0x00, b""), None),
    "v2 over a Unix socket": (binary(0x21, 0x31, bytes(216)), None),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("rest", [b"", b"CONNECT www.example.org:443 HTTP/1.1\r\n"], ids=["alone", "followed"])
def test_a_header(case: str, rest: bytes) -> None:
    """The client's address, and where its own bytes begin; nothing is taken for a header before it is whole."""
    data, source = CASES[case]
    assert read(data + rest) == ProxyHeader(len(data), source)
    assert [read(data[:length]) for length in range(len(data))] == [None] * len(data)


@pytest.mark.parametrize(
    "data",
    [
        b"CONNECT www.example.org:443 HTTP/1.1\r\n",
        b"\x16\x03\x01",
        b"PROXY TCP4 2001:db8::7 192.0.2.1 1 2\r\n",
        b"PROXY TCP6 198.51.100.7 2001:db8::1 1 2\r\n",
        b"PROXY TCP4 198.51.100.7 192.0.2.1 70000 2\r\n",
        b"PROXY TCP4 198.51.100.7 192.0.2.1 1\r\n",
        b"PROXY TCP4 198.51.100 192.0.2.1 1 2\r\n",
        b"PROXY TCP4 " + b"1" * 96,
        binary(0x31, 0x11, V4),
        binary(0x22, 0x11, V4),
        binary(0x21, 0x11, V4[:-1]),
        binary(0x21, 0x11, V4, 2049),
    ],
)
def test_no_header(data: bytes) -> None:
    """A client that is taken for another by a malformed header would pass under its name."""
    with pytest.raises(ValueError, match=r"header|version|addresses|address|IPv"):
        read(data)


def test_the_longest_line() -> None:
    """107 octets, its end included (§2.1): nobody has to wait for more."""
    assert read(b"PROXY TCP4 " + b"1" * 95) is None
    assert read(b"PROXY UNKNOWN" + b" " * 92 + b"\r\n") == ProxyHeader(107, None)


@given(
    st.binary(max_size=64)
    | st.binary(max_size=64).map(SIGNATURE.__add__)
    | st.binary(max_size=64).map(b"PROXY ".__add__)
)
def test_anything(data: bytes) -> None:
    """A value, nothing yet, or ValueError; never beyond what came."""
    try:
        header = read(data)
    except ValueError:
        return
    assert header is None or 0 < header.length <= len(data)
