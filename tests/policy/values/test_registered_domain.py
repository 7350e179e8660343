"""Names taken apart by the Public Suffix List, for the fields of the log."""

import pytest

from tokgate.policy.values.registered_domain import DomainParts, domain_parts


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("www.shop.example.co.uk", DomainParts("example.co.uk", "www.shop", "co.uk")),
        ("example.org", DomainParts("example.org", None, "org")),
        ("co.uk", DomainParts(None, None, "co.uk")),
        ("localhost", DomainParts(None, "localhost", None)),
    ],
)
def test_parts(name: str, parts: DomainParts) -> None:
    """Reports group names by what was registered; a public suffix alone belongs to nobody."""
    found = domain_parts(name)
    assert (found.registered_domain, found.top_level_domain) == (parts.registered_domain, parts.top_level_domain)
    assert parts.registered_domain is None or found.subdomain == parts.subdomain
