"""Which octets are a host's name."""

from __future__ import annotations

import ipaddress
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokgate.wire.host_name import is_host_name, is_ipv6_address


@given(name=st.binary(max_size=80) | st.from_regex(rb"[a-z.-]{0,80}", fullmatch=True))
def test_against_a_plain_reading(name: bytes) -> None:
    """The same answer as splitting at dots and looking at each label."""
    labels = name.removesuffix(b".").split(b".")
    allowed = set(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")
    plain = all(0 < len(label) <= 63 and set(label) <= allowed for label in labels)
    assert is_host_name(name) is (plain or is_ipv6_address(name))


@given(address=st.ip_addresses(v=6))
def test_ipv6(address: ipaddress.IPv6Address) -> None:
    """IPv6 addresses are recognised short and in full, and neither in brackets nor with a zone."""
    for text in (address.compressed, address.exploded.upper()):
        assert is_host_name(text.encode())
        assert not is_host_name(b"[%b]" % text.encode())
        assert not is_host_name(b"%b%%1" % text.encode())


@given(address=st.ip_addresses(v=4))
def test_ipv4(address: ipaddress.IPv4Address) -> None:
    """IPv4 addresses are host names by their octets; policy tells them apart."""
    assert is_host_name(str(address).encode())


@pytest.mark.parametrize(
    "name", [b"a" * 65_000, b"a." * 32_000, b"-" * 63 + b"." * 60_000, b":" * 65_000, b"a" * 63 + b"!"]
)
def test_hostile_length(name: bytes) -> None:
    """No input makes the pattern backtrack: the longest that a hello can carry is refused in no time."""
    started = time.process_time()
    assert not is_host_name(name)
    assert time.process_time() - started < 1
