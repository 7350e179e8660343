"""By which parent proxy a destination is reached: the first whose destinations hold it and whose exclusions don't."""

from ipaddress import ip_network

import pytest

from tokgate.policy.settings import Upstream, upstream_for

INNER = Upstream(
    host="inner.example.org",
    port=1080,
    destinations=("intranet.example", ip_network("192.0.2.0/24"), ip_network("2001:db8:2::/48")),
)
OUTER = Upstream(
    host="outer.example.org",
    port=3128,
    exclusions=("direct.example", ip_network("198.51.100.0/24")),
)


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        (("www.example.org",), OUTER),
        (("203.0.113.1", "www.example.org"), OUTER),
        (("intranet.example",), INNER),
        (("WIKI.intranet.example.",), INNER),
        (("notintranet.example",), OUTER),
        (("192.0.2.9", None), INNER),
        (("2001:db8:2::9", None), INNER),
        (("203.0.113.1", "wiki.intranet.example"), INNER),
        (("direct.example",), None),
        (("203.0.113.1", "www.direct.example"), None),
        (("198.51.100.7", "www.example.org"), None),
        (("::ffff:198.51.100.7",), None),
    ],
)
def test_the_first_that_carries_it(hosts: tuple[str | None, ...], expected: Upstream | None) -> None:
    """By any name or address that is known, whatever its spelling; what is excluded everywhere goes directly."""
    assert upstream_for((INNER, OUTER), hosts) is expected
