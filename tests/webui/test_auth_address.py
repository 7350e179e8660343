"""Who is behind a proxy: as far as the proxy says it, and no word of the client's own."""

from ipaddress import ip_network

import pytest

from tokgate.webui.auth import client_address, site_of

PROXIES = [ip_network("127.0.0.1/32"), ip_network("192.0.2.0/28"), ip_network("2001:db8:f::/64")]


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("127.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("127.0.0.1", ["203.0.113.9, 198.51.100.7"], "198.51.100.7"),  # the left one is the client's own word
        ("127.0.0.1", ["203.0.113.9", "198.51.100.7"], "198.51.100.7"),
        ("127.0.0.1", ["198.51.100.7, 192.0.2.5"], "198.51.100.7"),  # two proxies of ours
        ("2001:db8:f::1", ["2001:db8:1::7"], "2001:db8:1::7"),
        ("127.0.0.1", ["[2001:db8:1::7]:4711"], "2001:db8:1::7"),
        ("127.0.0.1", ["198.51.100.7:4711"], "198.51.100.7"),
        ("127.0.0.1", ["::ffff:198.51.100.7"], "198.51.100.7"),
        ("127.0.0.1", ["192.0.2.5"], "192.0.2.5"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", [""], "127.0.0.1"),
        ("127.0.0.1", ["198.51.100.7, unknown"], "127.0.0.1"),
        ("127.0.0.1", ["198.51.100.7, unknown, 192.0.2.5"], "192.0.2.5"),
        ("192.0.2.16", ["198.51.100.7"], "192.0.2.16"),  # no proxy of ours
        ("198.51.100.7", ["203.0.113.9"], "198.51.100.7"),
        ("", ["198.51.100.7"], ""),
    ],
)
def test_the_client_behind_proxies(peer: str, forwarded: list[str], client: str) -> None:
    """Else an attacker counts as somebody new at each guess, or everybody as one."""
    assert client_address(peer, forwarded, PROXIES) == client


def test_a_site_of_ipv6_is_one() -> None:
    """Whoever has a /64 could guess from another address each time."""
    assert site_of("2001:db8:1::7") == site_of("2001:db8:1:0:ffff::1") != site_of("2001:db8:1:1::7")
    assert site_of("198.51.100.7") == "198.51.100.7"
