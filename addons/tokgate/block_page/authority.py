"""The block page's authority: its folder, authorities that are believed for the banned names alone, and their limits.

A root and what a gateway signs with below it both carry name constraints (RFC 5280 §4.2.1.10): a validator may ignore
one in a certificate that is trusted by hand, but not below it.
"""

import socket
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from whenever import Instant, hours

from tokgate.blocklog.atomic_file import replace_file
from tokgate.blocklog.integrity.checkpoint import KEY_MODE, PUBLIC_MODE
from tokgate.policy.bans import ALL, Ban
from tokgate.policy.services import PatternKind
from tokgate.policy.snapshot import Policy
from tokgate.policy.stores import STORES
from tokgate.policy.values import Origin

DEFAULT_CONFDIR: Final = Path("~/.tokgate")
AUTHORITY: Final = "mitmproxy-ca.pem"
"""The authority's key and certificates, where mitmproxy looks for them."""
_KEYS: Final = (AUTHORITY, "mitmproxy-ca.p12")
"""The files with the authority's private key. mitmproxy writes the second one for an authority that it creates."""
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_OWN_DAYS: Final = 3650
"""The validity of an authority that tokgate makes for itself."""
_MADE_AT_START: Final = "tokgate on "
"""How its common name begins."""
_LEEWAY: Final = hours(48)
"""How long before now an authority begins, for clients whose clock is slow."""
_USAGES: Final = (
    *("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
    *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
)
_SIGNS_CERTIFICATES: Final = x509.KeyUsage(**dict.fromkeys(_USAGES, False) | {"key_cert_sign": True, "crl_sign": True})
_SIGNS_SERVERS: Final = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH])
_ANY_ADDRESS: Final = [x509.IPAddress(IPv4Network("0.0.0.0/0")), x509.IPAddress(IPv6Network("::/0"))]
_LISTABLE: Final = (PatternKind.SUFFIX, PatternKind.EXACT)
_LONGEST_NAME: Final = 64  # ub-common-name and ub-organization-name of RFC 5280


# -- the folder


def secure_folder(folder: Path) -> None:
    """Create the folder if need be; remove all permissions of group and others from it and its keys. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for path in (folder, *(folder / name for name in _KEYS)):
        if path.exists() and (mode := stat.S_IMODE(path.stat().st_mode)) & _OTHERS:
            path.chmod(mode & ~_OTHERS)


def establish_authority(folder: Path, now: Instant) -> None:
    """Create an authority unless the folder has one: key and certificate, and the certificate alone for devices.

    mitmproxy would create one with an RSA key. It signs each handshake with the authority's key, and a P-256 signature
    costs a fraction of that. Raises OSError.
    """
    if (folder / AUTHORITY).exists():
        return
    key = ec.generate_private_key(ec.SECP256R1())
    name = _name("tokgate", f"{_MADE_AT_START}{socket.gethostname()}")
    builder = _builder(name, name, key, now, _OWN_DAYS, path_length=0)
    certificate = builder.add_extension(_SIGNS_SERVERS, critical=False).sign(key, hashes.SHA256())
    public = certificate.public_bytes(Encoding.PEM)
    replace_file(folder / "mitmproxy-ca-cert.pem", public, PUBLIC_MODE)
    replace_file(folder / "mitmproxy-ca-cert.cer", certificate.public_bytes(Encoding.DER), PUBLIC_MODE)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    replace_file(folder / AUTHORITY, private + public, KEY_MODE)  # last: with it, there is one


def made_at_start(authority: Path) -> bool:
    """Whether a PEM file holds what `establish_authority`, or mitmproxy itself, made: no device knows of it.

    Raises OSError and ValueError as `uncovered` does.
    """
    first, *others = x509.load_pem_x509_certificates(authority.read_bytes())
    names = [str(each.value) for each in first.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    own = any(name.startswith((_MADE_AT_START, "mitmproxy")) for name in names)
    return own and not others and first.subject == first.issuer


def opening_bans(policy: Policy) -> list[Ban]:
    """The bans that need an authority: those with a page, and those that open the stores."""
    return [ban for ban in policy.bans.values() if ban.response.shows_page or ban.inspect_stores]


# -- authorities with name constraints


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
    names = {pattern.value for service in services for pattern in service.patterns if pattern.kind in _LISTABLE}
    return tuple(sorted(name for name in names if not any(name.endswith(f".{other}") for other in names)))


def make_root(
    names: Sequence[str], organisation: str, now: Instant, days: int, *, addresses: bool = False
) -> CertifiedKey:
    """A root for these names and those below them; with `addresses` also for every address.

    Raises ValueError for a name that a certificate can't hold.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(organisation, _role(organisation, "network filter root", now))
    builder = _builder(subject, subject, key, now, days, path_length=1)
    builder = builder.add_extension(_constraints(names, addresses=addresses), critical=True)
    return CertifiedKey(key, builder.sign(key, hashes.SHA256()))


def make_issuing(root: CertifiedKey, names: Sequence[str], now: Instant, days: int) -> CertifiedKey:
    """What a gateway signs with, below a root; it ends with the root at the latest."""
    key = ec.generate_private_key(ec.SECP256R1())
    (organisation,) = root.certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    whose = str(organisation.value)
    subject = _name(whose, _role(whose, "network filter issuing", now))
    builder = _builder(subject, root.certificate.subject, key, now, days, path_length=0, root=root.certificate)
    identifier = root.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    builder = (
        builder.add_extension(_constraints(names, addresses=believes_addresses(root.certificate)), critical=True)
        .add_extension(_SIGNS_SERVERS, critical=False)
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


def _name(organisation: str, common_name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation[:_LONGEST_NAME]),
            x509.NameAttribute(NameOID.COMMON_NAME, common_name[:_LONGEST_NAME]),
        ]
    )


def _role(organisation: str, role: str, now: Instant) -> str:
    """A common name with the month, since devices list authorities by name, and the old beside the new for a while."""
    return f"{organisation[:30]} {role} {now.to_tz('UTC').date().format_iso()[:7]}"


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
    """An authority (RFC 5280 §4.2.1) that ends `days` from now, or with its root before that."""
    ends = now.add(hours=24 * days).to_stdlib()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .serial_number(x509.random_serial_number())
        .not_valid_before((now - _LEEWAY).to_stdlib())
        .not_valid_after(ends if root is None else min(ends, root.not_valid_after_utc))
        .public_key(key.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(_SIGNS_CERTIFICATES, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


# -- what of a policy is outside of an authority's constraints


@dataclass(frozen=True, slots=True)
class Uncovered:
    """A rule of a ban whose connections are to be opened, although the authority's constraints exclude its names."""

    ban: Ban
    service: str
    rule: str
    origin: Origin | None


def uncovered(policy: Policy, authority: Path) -> list[Uncovered]:
    """The rules that the authority of a PEM file can't sign certificates for, ordered by ban and service.

    Raises:
        OSError: the file can't be read.
        ValueError: it holds no certificate.
    """
    path = x509.load_pem_x509_certificates(authority.read_bytes())
    limits = [names for certificate in path if (names := permitted(certificate)) is not None]

    def covers(name: str) -> bool:
        return all(any(f".{name}".endswith(f".{each.lstrip('.')}") for each in names) for names in limits)

    found = list[Uncovered]()
    for ban in policy.bans.values() if limits else ():
        if ban.on_all and ban.response.shows_page:
            found.append(Uncovered(ban, ALL, ALL, ban.origin))
        for service in (policy.services[name] for name in ban.services):
            for pattern in service.patterns if ban.response.shows_page else ():
                if pattern.kind not in _LISTABLE or not covers(pattern.value):
                    found.append(Uncovered(ban, service.name, f"{pattern.kind}:{pattern.value}", pattern.origin))
            stores = {entry.store for entry in service.stores} if ban.inspect_stores else ()
            for front in sorted({front for store in stores for front in STORES[store].fronts}):
                if not covers(front):
                    found.append(Uncovered(ban, service.name, f"exact:{front}", service.origin))
    return found
