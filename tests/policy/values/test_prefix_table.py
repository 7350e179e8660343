"""The prefix table against the obvious scan over all prefixes."""

from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokgate.policy.values.prefix_table import PrefixEntry, PrefixTable


def table(*cidrs: str) -> PrefixTable[str, tuple[str, ...]]:
    """A table whose answer lists the prefixes found, narrowest first."""
    return PrefixTable([(ip_network(c), c) for c in cidrs], lambda held: tuple(h.value for h in held))


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("10.0.0.0", ("10.0.0.0/30", "10.0.0.0/8")),
        ("10.0.0.3", ("10.0.0.0/30", "10.0.0.0/8")),
        ("10.0.0.4", ("10.0.0.0/8",)),
        ("10.255.255.255", ("10.255.255.255/32", "10.0.0.0/8")),
        ("11.0.0.0", ()),
        ("9.255.255.255", ()),
        ("0.0.0.0", ()),
        ("255.255.255.255", ("255.255.255.255/32",)),
        ("2001:db8::1", ("2001:db8::/32",)),
        ("2001:db9::", ()),
        ("::", ()),
        ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", ()),
    ],
)
def test_edges(address: str, expected: tuple[str, ...]) -> None:
    """First and last addresses of nested prefixes, and their neighbours."""
    prefixes = table("10.0.0.0/8", "10.0.0.0/30", "10.255.255.255/32", "255.255.255.255/32", "2001:db8::/32")
    assert prefixes.find(ip_address(address)) == expected


def test_default_routes_and_repeats() -> None:
    """The whole space may be a prefix, and one prefix may hold two values."""
    prefixes = PrefixTable(
        [(ip_network("0.0.0.0/0"), "all"), (ip_network("192.0.2.0/24"), "a"), (ip_network("192.0.2.0/24"), "b")],
        lambda held: {h.value for h in held},
    )
    assert prefixes.find(ip_address("192.0.2.1")) == {"all", "a", "b"}
    assert prefixes.find(ip_address("198.51.100.1")) == {"all"}
    assert prefixes.find(ip_address("2001:db8::1")) == set()


def test_equal_answers_are_shared() -> None:
    """Addresses that no prefix tells apart get the very same answer."""
    prefixes = table("10.0.0.0/8", "10.9.0.0/16")
    assert prefixes.find(ip_address("10.1.1.1")) is prefixes.find(ip_address("10.200.1.1"))


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
    for probe in probes:
        expected = [p for p in prefixes if p.version == probe.version and probe in p]
        expected.sort(key=lambda p: -p.prefixlen)
        assert found.find(probe) == [str(p) for p in expected]
