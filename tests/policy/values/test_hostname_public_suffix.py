"""The Public Suffix List: what a name is registered under, without network, and loaded before the first connection."""

import pytest

from tokgate.policy.values import hostname as module
from tokgate.policy.values.hostname import DomainParts, domain_parts, load_suffix_list, public_suffix


@pytest.mark.parametrize(
    ("name", "registry", "private"),
    [
        ("www.example.co.uk", "co.uk", "co.uk"),
        ("co.uk", "co.uk", "co.uk"),
        ("clips.github.io", "io", "github.io"),
        ("www.city.kobe.jp", "kobe.jp", "kobe.jp"),  # an exception to *.kobe.jp
        ("www.shop.kobe.jp", "shop.kobe.jp", "shop.kobe.jp"),
        ("www.xn--55qx5d.cn", "xn--55qx5d.cn", "xn--55qx5d.cn"),
        ("printer.lan", None, None),
    ],
)
def test_suffixes(name: str, registry: str | None, private: str | None) -> None:
    """Of registries alone, and with those of providers; names in their canonical form, with A-labels."""
    assert public_suffix(name) == registry
    assert public_suffix(name, private=True) == private


def test_it_is_loaded_at_the_start() -> None:
    """The list that `load_suffix_list` loads is the one that names of traffic are looked up in."""
    module._suffix_list.cache_clear()
    load_suffix_list()
    public_suffix("www.example.org")
    assert module._suffix_list.cache_info().misses == 1


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
