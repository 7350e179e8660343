"""The authority of the block page can't forge what no ban names, and its names are those that pages are shown for."""

import pytest
from cryptography import x509
from whenever import Instant

from labs.builders import ban, service, snapshot
from tokgate.block_page.constrained_authority import (
    believes_addresses,
    make_issuing,
    make_root,
    page_names,
    permitted,
)
from tokgate.policy.decision import Response

NOW = Instant.from_utc(2026, 1, 1)
NAMES = ("clips.example.org", "static.example.net")


def test_both_carry_the_constraint() -> None:
    """A stolen gateway key is worth the banned names alone, on every device: not the root's constraint only counts."""
    root = make_root(NAMES, "Example Council", NOW, 730)
    issuing = make_issuing(root, NAMES, NOW, 365)
    for made in (root, issuing):
        constraints = made.certificate.extensions.get_extension_for_class(x509.NameConstraints)
        assert constraints.critical
        assert permitted(made.certificate) == NAMES
        assert not believes_addresses(made.certificate)
    assert issuing.certificate.issuer == root.certificate.subject
    issuing.certificate.verify_directly_issued_by(root.certificate)
    lengths = [
        each.certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
        for each in (root, issuing)
    ]
    assert lengths == [1, 0]


def test_the_issuing_one_ends_with_the_root() -> None:
    """No certificate outlives what it hangs on."""
    root = make_root(NAMES, "Example Council", NOW, 30)
    issuing = make_issuing(root, NAMES, NOW, 365)
    assert (
        issuing.certificate.not_valid_after_utc
        == root.certificate.not_valid_after_utc
        == NOW.add(hours=720).to_stdlib()
    )


def test_addresses_only_where_asked_for() -> None:
    """Plain mitmdump writes addresses into its certificates; what is below such a root is believed for them as well."""
    root = make_root(NAMES, "Example Council", NOW, 30, addresses=True)
    issuing = make_issuing(root, NAMES, NOW, 30)
    assert believes_addresses(root.certificate)
    assert believes_addresses(issuing.certificate)
    assert permitted(issuing.certificate) == NAMES


def test_a_long_organisation_fits() -> None:
    """A ministry's full name makes a certificate that devices take."""
    root = make_root(NAMES, "Ministry of " + "x" * 100, NOW, 30)
    assert all(len(str(part.value)) <= 64 for part in root.certificate.subject)


def test_a_name_that_no_certificate_holds() -> None:
    """It is an error, and not a certificate without it."""
    with pytest.raises(ValueError, match="A-label"):
        make_root(["münchen.example"], "Example Council", NOW, 30)


def test_names_are_those_of_pages() -> None:
    """Of services that a ban shows its page for, once, without what another covers; not of other bans, not patterns."""
    shown = service(
        "shown", "suffix:clips.example.org", "exact:a.clips.example.org", "exact:b.example.net", "label:clips"
    )
    other = service("other", "suffix:other.example")
    policy = snapshot(
        ban("page", services=("shown",), response=Response.PAGE),
        ban("refuse", services=("other",)),
        services=(shown, other),
    ).policy
    assert page_names(policy) == ("b.example.net", "clips.example.org")
