"""IPv6 addresses that stand for IPv4 addresses, as the RFCs write them, and those that don't."""

from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokgate.policy.values.embedded_ipv4 import NAT64_LENGTHS, embedded_ipv4


@pytest.mark.parametrize(
    ("address", "meant"),
    [
        ("64:ff9b::192.0.2.33", ["192.0.2.33"]),
        ("64:ff9b:1::192.0.2.33", []),
        ("2002:c000:221::1", ["192.0.2.33"]),
        ("2001:0:4136:e378:8000:63bf:3fff:fdd2", ["192.0.2.45"]),
        ("::192.0.2.33", ["192.0.2.33"]),
        ("::ffff:192.0.2.33", ["192.0.2.33"]),
        ("::ffff:0:192.0.2.33", ["192.0.2.33"]),
        ("::", []),
        ("::1", []),
        ("2001:db8::c000:221", []),
        ("64:ff9b:0:1::c000:221", []),
        ("192.0.2.33", []),
    ],
)
def test_addresses_that_stand_for_others(address: str, meant: list[str]) -> None:
    """A ban on an IPv4 address holds for each way to write it into an IPv6 address, and for no other address."""
    assert [str(each) for each in embedded_ipv4(ip_address(address))] == meant


@pytest.mark.parametrize(
    ("prefix", "address"),
    [
        ("2001:db8::/32", "2001:db8:c000:221::"),
        ("2001:db8:100::/40", "2001:db8:1c0:2:21::"),
        ("2001:db8:122::/48", "2001:db8:122:c000:2:2100::"),
        ("2001:db8:122:300::/56", "2001:db8:122:3c0:0:221::"),
        ("2001:db8:122:344::/64", "2001:db8:122:344:c0:2:2100::"),
        ("2001:db8:122:344::/96", "2001:db8:122:344::192.0.2.33"),
    ],
)
def test_the_table_of_rfc_6052(prefix: str, address: str) -> None:
    """The text representations of RFC 6052 §2.4: each length puts the address elsewhere."""
    assert IPv6Network(prefix).prefixlen in NAT64_LENGTHS
    assert embedded_ipv4(IPv6Address(address), [IPv6Network(prefix)]) == (IPv4Address("192.0.2.33"),)
    assert embedded_ipv4(IPv6Address(address)) == ()


@given(st.ip_addresses(v=4), st.sampled_from(NAT64_LENGTHS), st.binary(min_size=16, max_size=16))
def test_what_a_translator_writes_is_read(address: IPv4Address, length: int, noise: bytes) -> None:
    """Whatever stands before and behind it, the address that was put in comes out."""
    octets = bytearray(b"\x20\x01\x0d\xb8" + noise[4:])
    free = [index for index in range(length // 8, 16) if index != 8 or length == 96]
    for index, value in zip(free, address.packed, strict=False):
        octets[index] = value
    found = IPv6Address(bytes(octets))
    assert embedded_ipv4(found, [IPv6Network((found, length), strict=False)]) == (address,)
