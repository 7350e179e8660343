"""Which octets are a host's name."""

from __future__ import annotations

import ipaddress
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokgate.wire.host_names import can_be_dialled, is_address, is_host_name, is_ipv6_address


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
    assert can_be_dialled(str(address).encode())


@pytest.mark.parametrize(
    "name", [b"example.org", b"EXAMPLE.org.", b"1.example", b"0x7f.example", b"::1", b"::ffff:192.0.2.1", b"192.0.2.1."]
)
def test_names_that_mean_one_thing(name: bytes) -> None:
    """Names and addresses about which no resolver has an idea of its own."""
    assert can_be_dialled(name)


@pytest.mark.parametrize(
    "name",
    [
        *(b"2130706433", b"127.1", b"127.0.1", b"0177.0.0.1", b"127.0.0.01", b"0x7f.0.0.1", b"0X7F000001", b"1.2.3.0x"),
        *(b"1.2.3.4.5", b"256.0.0.1", b"example.7", b"0x7f000001.", b"", b"a..b", b"localhost\0.example.org", b"a b"),
    ],
)
def test_names_that_a_resolver_reads_otherwise(name: bytes) -> None:
    """What inet_aton(3) takes for an address, what C takes for the end of a string, and what is no name at all."""
    assert not can_be_dialled(name)


@pytest.mark.parametrize(
    ("name", "address"),
    [
        *[(name, True) for name in ("192.0.2.1", "192.0.2.1.", "::1", "2001:db8::beef", "::ffff:192.0.2.1")],
        *[(name, False) for name in ("example.org", "example.org.", "host7", "node.example2", "1.example", "a")],
    ],
)
def test_which_names_are_addresses(name: str, address: bool) -> None:
    """A ban of an address range holds for what is one, and a ban of names for all else."""
    assert is_address(name) is address


@pytest.mark.parametrize(
    "name", [b"a" * 65_000, b"a." * 32_000, b"-" * 63 + b"." * 60_000, b":" * 65_000, b"a" * 63 + b"!"]
)
def test_hostile_length(name: bytes) -> None:
    """No input makes the pattern backtrack: the longest that a hello can carry is refused in no time."""
    started = time.process_time()
    assert not is_host_name(name)
    assert time.process_time() - started < 1
