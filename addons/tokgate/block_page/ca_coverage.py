"""Name constraints of the block page's authority (RFC 5280 §4.2.1.10), and policy rules outside of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from tokgate.policy.bans import Ban
from tokgate.policy.services import NamePattern, PatternKind
from tokgate.policy.snapshot import Policy
from tokgate.policy.stores import STORES
from tokgate.policy.values.source_position import Origin


@dataclass(frozen=True, slots=True)
class Reach:
    """The permitted names of an authority: those of each certificate with constraints on the path to the root."""

    permitted: tuple[tuple[str, ...], ...]

    def covers(self, name: str) -> bool:
        """Whether all constraints permit a name, and so all names below it."""
        return all(any(_below(name, each) for each in names) for names in self.permitted)

    @property
    def limited(self) -> bool:
        """Whether any certificate has constraints."""
        return bool(self.permitted)


@dataclass(frozen=True, slots=True)
class Uncovered:
    """A rule of a ban whose connections are to be opened, although the authority's constraints exclude its names."""

    ban: Ban
    service: str
    rule: str
    origin: Origin | None


def reach_of(path: Path) -> Reach:
    """Read the certificates in a PEM file; a private key in it is ignored.

    Raises:
        OSError: it can't be read.
        ValueError: it holds no certificate.
    """
    permitted: list[tuple[str, ...]] = []
    for certificate in x509.load_pem_x509_certificates(path.read_bytes()):
        try:
            constraints = certificate.extensions.get_extension_for_class(x509.NameConstraints).value
        except x509.ExtensionNotFound:
            continue
        subtrees = constraints.permitted_subtrees or ()
        names = tuple(each.value.lower().lstrip(".") for each in subtrees if isinstance(each, x509.DNSName))
        if names:
            permitted.append(names)
    return Reach(tuple(permitted))


def uncovered(policy: Policy, reach: Reach) -> Iterator[Uncovered]:
    """The rules that the authority can't sign certificates for, ordered by ban and service."""
    if not reach.limited:
        return
    for ban in policy.bans.values():
        for service in (policy.services[name] for name in ban.services):
            if ban.response.shows_page:
                for pattern in service.patterns:
                    if not _is_covered(pattern, reach):
                        yield Uncovered(ban, service.name, f"{pattern.kind}:{pattern.value}", pattern.origin)
            if ban.inspect_stores:
                fronts = {front for entry in service.stores for front in STORES[entry.store].fronts}
                for front in sorted(front for front in fronts if not reach.covers(front)):
                    yield Uncovered(ban, service.name, f"exact:{front}", service.origin)


def _is_covered(pattern: NamePattern, reach: Reach) -> bool:
    return pattern.kind in (PatternKind.SUFFIX, PatternKind.EXACT) and reach.covers(pattern.value)


def _below(name: str, permitted: str) -> bool:
    return name == permitted or name.endswith(f".{permitted}")
