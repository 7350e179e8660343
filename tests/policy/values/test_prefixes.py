"""Prefixes against the obvious scan over all of them, and against counting addresses; IPv4 inside IPv6."""

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, collapse_addresses, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokgate.policy.values.prefixes import NAT64_LENGTHS, Cover, PrefixEntry, PrefixTable, disjoint, embedded_ipv4


def test_equal_answers_are_shared() -> None:
    """Addresses that no prefix tells apart get the very same answer."""
    nested = PrefixTable([(ip_network("10.0.0.0/8"), "a"), (ip_network("10.9.0.0/16"), "b")], list)
    assert nested.find(ip_address("10.1.1.1")) is nested.find(ip_address("10.200.1.1"))


v4 = st.builds(lambda a, n: IPv4Network((a, n), strict=False), st.integers(0, 2**32 - 1), st.integers(0, 32))
v6 = st.builds(lambda a, n: IPv6Network((a, n), strict=False), st.integers(0, 2**128 - 1), st.integers(0, 128))
near_v4 = st.builds(lambda a, n: IPv4Network((a, n), strict=False), st.integers(0, 255), st.integers(22, 32))


@given(st.lists(near_v4 | v4 | v6, max_size=40), st.integers(0, 300) | st.integers(0, 2**32 - 1), st.randoms())
def test_agrees_with_a_scan(prefixes: list[IPv4Network | IPv6Network], number: int, random: object) -> None:
    """The same prefixes, narrowest first, as a scan over all of them finds."""

    def narrowest(held: tuple[PrefixEntry[str], ...]) -> list[str]:
        return [h.value for h in held]

    found: PrefixTable[str, list[str]] = PrefixTable([(p, str(p)) for p in prefixes], narrowest)
    probes = [ip_address(number), *(p.network_address for p in prefixes), *(p.broadcast_address for p in prefixes)]
    probes += [p.network_address - 1 for p in prefixes if int(p.network_address)]
    probes += [p.broadcast_address + 1 for p in prefixes if p.broadcast_address.packed.strip(b"\xff")]
    for probe in probes:
        expected = [p for p in prefixes if p.version == probe.version and probe in p]
        expected.sort(key=lambda p: -p.prefixlen)
        assert found.find(probe) == [str(p) for p in expected]


@given(st.lists(near_v4 | v4, max_size=40), st.lists(v6, max_size=10))
def test_as_few_as_can_be(old: list[IPv4Network], new: list[IPv6Network]) -> None:
    """Disjoint prefixes are those of the standard library."""
    assert disjoint([*new, *old]) == [*collapse_addresses(old), *collapse_addresses(new)]


def prefix(address: int, length: int) -> IPv4Network:
    return IPv4Network((int(IPv4Address("192.0.2.0")) + address, length), strict=False)


_PREFIXES = st.builds(prefix, st.integers(0, 15), st.integers(28, 32))


@given(st.lists(_PREFIXES, max_size=6), _PREFIXES)
def test_like_counting(prefixes: list[IPv4Network], asked: IPv4Network) -> None:
    """Nested, equal and adjoining prefixes make no difference."""
    covered = {address for each in prefixes for address in each}
    assert Cover(prefixes).holds(asked) == (set(asked) <= covered)
    assert Cover(prefixes).meets(asked) == bool(set(asked) & covered)
    assert bool(Cover(prefixes)) == bool(prefixes)


def test_families_are_apart() -> None:
    cover = Cover([ip_network("0.0.0.0/0")])
    assert cover.holds(ip_network("255.255.255.255/32"))
    assert not cover.meets(ip_network("::/0"))


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


@given(st.ip_addresses(v=4), st.sampled_from(NAT64_LENGTHS), st.binary(min_size=16, max_size=16))
def test_what_a_translator_writes_is_read(address: IPv4Address, length: int, noise: bytes) -> None:
    """Whatever stands before and behind it, the address that was put in comes out."""
    octets = bytearray(b"\x20\x01\x0d\xb8" + noise[4:])
    free = [index for index in range(length // 8, 16) if index != 8 or length == 96]
    for index, value in zip(free, address.packed, strict=False):
        octets[index] = value
    found = IPv6Address(bytes(octets))
    assert embedded_ipv4(found, [IPv6Network((found, length), strict=False)]) == (address,)
