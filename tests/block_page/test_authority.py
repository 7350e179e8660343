"""The page's authority: read by its owner only, believed for what it signs, and no use to forge what no ban names."""

import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError
from mitmproxy.certs import CertStore
from whenever import Instant

from labs.builders import ban, service, snapshot
from tokgate.block_page.authority import (
    AUTHORITY,
    believes_addresses,
    establish_authority,
    make_issuing,
    make_root,
    page_names,
    permitted,
    secure_folder,
)
from tokgate.policy.decision import Response

NOW = Instant.from_utc(2026, 1, 1)
NAMES = ("clips.example.org", "static.example.net")
NAME = x509.DNSName("clips.example.org")


def test_keys_lose_their_readers(tmp_path: Path) -> None:
    """A folder and keys that others could read are closed to them; what is private stays as it is."""
    folder = tmp_path / "confdir"
    folder.mkdir(mode=0o755)
    key = folder / AUTHORITY
    key.write_text("key")
    key.chmod(0o644)

    secure_folder(folder)

    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(key.stat().st_mode) == 0o600


def test_an_authority_is_made_once(tmp_path: Path) -> None:
    """An authority that is there stays; only its owner reads the key, devices get the certificate in both forms."""
    establish_authority(tmp_path, Instant.now())
    made = (tmp_path / AUTHORITY).read_bytes()
    establish_authority(tmp_path, Instant.now())

    assert (tmp_path / AUTHORITY).read_bytes() == made
    assert stat.S_IMODE((tmp_path / AUTHORITY).stat().st_mode) == 0o600
    certificate = x509.load_pem_x509_certificate((tmp_path / "mitmproxy-ca-cert.pem").read_bytes())
    assert x509.load_der_x509_certificate((tmp_path / "mitmproxy-ca-cert.cer").read_bytes()) == certificate
    assert x509.load_pem_x509_certificates(made) == [certificate]


def test_mitmproxy_signs_with_it(tmp_path: Path) -> None:
    """Its certificates convince who trusts this authority, and nobody who trusts another."""
    for folder in ("ours", "another"):
        establish_authority(tmp_path / folder, Instant.now())
    leaf = CertStore.from_store(tmp_path / "ours", "mitmproxy", 2048).get_cert(NAME.value, [NAME])

    assert isinstance(leaf.privatekey, ec.EllipticCurvePrivateKey)
    assert _convinces(leaf.cert.to_cryptography(), tmp_path / "ours")
    assert not _convinces(leaf.cert.to_cryptography(), tmp_path / "another")


def _convinces(leaf: x509.Certificate, folder: Path) -> bool:
    root = x509.load_pem_x509_certificate((folder / "mitmproxy-ca-cert.pem").read_bytes())
    try:
        PolicyBuilder().store(Store([root])).build_server_verifier(NAME).verify(leaf, [])
    except VerificationError:
        return False
    return True


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
