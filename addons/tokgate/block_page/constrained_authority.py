"""An authority that is believed for the banned names alone (RFC 5280 §4.2.1.10): a root, and one below it for gateways.

Both carry the constraint: a validator may ignore one in a certificate that is trusted by hand, but not below it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from whenever import Instant

from tokgate.block_page.ca_folder import LEEWAY, SIGNS_CERTIFICATES
from tokgate.policy.services import PatternKind
from tokgate.policy.snapshot import Policy

_ANY_ADDRESS: Final = [x509.IPAddress(IPv4Network("0.0.0.0/0")), x509.IPAddress(IPv6Network("::/0"))]
_LONGEST_NAME: Final = 64  # ub-common-name and ub-organization-name of RFC 5280


@dataclass(frozen=True, slots=True)
class CertifiedKey:
    """A private key with its certificate."""

    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def page_names(policy: Policy) -> tuple[str, ...]:
    """The names that a policy's pages are shown for: those of services that a ban shows a page for, sorted.

    Without what another of them covers: a permitted name permits those below it. `label` and `regex` can't be listed.
    """
    bans = [ban for ban in policy.bans.values() if ban.response.shows_page]
    services = {policy.services[name] for ban in bans for name in ban.services}
    kinds = (PatternKind.SUFFIX, PatternKind.EXACT)
    names = {pattern.value for service in services for pattern in service.patterns if pattern.kind in kinds}
    return tuple(sorted(name for name in names if not any(name.endswith(f".{other}") for other in names)))


def make_root(
    names: Sequence[str], organisation: str, now: Instant, days: int, *, addresses: bool = False
) -> CertifiedKey:
    """A root for these names and those below them; with `addresses` also for every address.

    Raises ValueError for a name that a certificate can't hold.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(organisation, "network filter root", now)
    builder = _builder(subject, subject, key, now, days, path_length=1)
    builder = builder.add_extension(_constraints(names, addresses=addresses), critical=True)
    return CertifiedKey(key, builder.sign(key, hashes.SHA256()))


def make_issuing(root: CertifiedKey, names: Sequence[str], now: Instant, days: int) -> CertifiedKey:
    """What a gateway signs with, below a root; it ends with the root at the latest."""
    key = ec.generate_private_key(ec.SECP256R1())
    (organisation,) = root.certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    subject = _name(str(organisation.value), "network filter issuing", now)
    builder = _builder(subject, root.certificate.subject, key, now, days, path_length=0, root=root.certificate)
    identifier = root.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        builder.add_extension(_constraints(names, addresses=believes_addresses(root.certificate)), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
    )
    return CertifiedKey(key, builder.sign(root.key, hashes.SHA256()))


def permitted(certificate: x509.Certificate) -> tuple[str, ...] | None:
    """The names that a certificate is limited to; None if it is believed for any."""
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        return None
    names = (each.value.lower() for each in constraints.permitted_subtrees or () if isinstance(each, x509.DNSName))
    return tuple(names) or None


def believes_addresses(certificate: x509.Certificate) -> bool:
    """Whether a certificate with constraints leaves addresses out of them, and so is believed for any."""
    return not certificate.extensions.get_extension_for_class(x509.NameConstraints).value.excluded_subtrees


def pem(certificates: Iterable[x509.Certificate]) -> bytes:
    """The certificates in PEM, one after the other."""
    return b"".join(certificate.public_bytes(Encoding.PEM) for certificate in certificates)


def _name(organisation: str, role: str, now: Instant) -> x509.Name:
    """A subject with the month: devices list authorities by name, and hold an old one beside the new for a while."""
    month = now.to_tz("UTC").date().format_iso()[:7]
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation[:_LONGEST_NAME]),
            x509.NameAttribute(NameOID.COMMON_NAME, f"{organisation[:30]} {role} {month}"[:_LONGEST_NAME]),
        ]
    )


def _constraints(names: Sequence[str], *, addresses: bool) -> x509.NameConstraints:
    return x509.NameConstraints([x509.DNSName(name) for name in names], None if addresses else _ANY_ADDRESS)


def _builder(
    subject: x509.Name,
    issuer: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    now: Instant,
    days: int,
    *,
    path_length: int,
    root: x509.Certificate | None = None,
) -> x509.CertificateBuilder:
    ends = now.add(hours=24 * days).to_stdlib()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .serial_number(x509.random_serial_number())
        .not_valid_before((now - LEEWAY).to_stdlib())
        .not_valid_after(ends if root is None else min(ends, root.not_valid_after_utc))
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(SIGNS_CERTIFICATES, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )
