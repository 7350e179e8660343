"""Who counts as one client: whoever can take as many addresses as it likes must not have as many shares."""

import pytest

from tokgate.traffic.limits import client_key


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::ffff", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::ffff", "2001:db8:1:3::/64"),
        ("::1", "::/64"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("fe80::1%eth0", "fe80::1"),
        ("no address: at all", "no address: at all"),
    ],
)
def test_a_host_is_counted_once_whatever_address_it_takes(address: str, key: str) -> None:
    """A host's temporary addresses share its limits, and its neighbours on the link by link-local address don't."""
    assert client_key(address) == key
