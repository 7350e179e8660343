"""Sets of prefixes, against counting addresses one by one."""

from ipaddress import IPv4Address, IPv4Network, ip_network

from hypothesis import given
from hypothesis import strategies as st

from tokgate.policy.values.prefix_cover import Cover


def prefix(address: int, length: int) -> IPv4Network:
    """A prefix within 192.0.2.0/28."""
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
    """All of IPv4 covers nothing of IPv6."""
    cover = Cover([ip_network("0.0.0.0/0")])
    assert cover.holds(ip_network("255.255.255.255/32"))
    assert not cover.meets(ip_network("::/0"))
