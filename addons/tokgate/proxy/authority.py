"""What the authority of the block page may sign (X.509 name constraints), and what of a policy lies outside."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509

from tokgate.policy.bans import Ban
from tokgate.policy.decision import Response
from tokgate.policy.origin import Origin
from tokgate.policy.services import NamePattern, PatternKind
from tokgate.policy.snapshot import Policy
from tokgate.policy.stores import STORES


@dataclass(frozen=True, slots=True)
class Reach:
    """What an authority is believed for: for each certificate on the way to the root, the names that it permits."""

    permitted: tuple[tuple[str, ...], ...]

    def covers(self, name: str) -> bool:
        """Whether devices believe it for a name, and so for all names below it."""
        return all(any(_below(name, each) for each in names) for names in self.permitted)

    @property
    def limited(self) -> bool:
        """Whether there is anything that it is not believed for."""
        return bool(self.permitted)


@dataclass(frozen=True, slots=True)
class Uncovered:
    """Names under a ban for which devices don't believe the authority, although the ban has them opened."""

    ban: Ban
    service: str
    rule: str
    origin: Origin | None


def reach_of(path: Path) -> Reach:
    """Read the certificates in a PEM file; a key in it is passed over.

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
    """Whatever a certificate of this authority can't be had for: first by ban, then by service."""
    if not reach.limited:
        return
    for ban in policy.bans.values():
        for service in (policy.services[name] for name in ban.services):
            if ban.response is Response.PAGE:
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
