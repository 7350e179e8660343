"""The services that a ban can name: those of the policy, then those of the catalogue that it doesn't define."""

from dataclasses import dataclass
from pathlib import Path

from whenever import Instant

from tokgate.cli.exits import CommandError, Exit
from tokgate.cli.policy_source import open_policy
from tokgate.cli.terminal import visible
from tokgate.config.catalogue import catalogue_files
from tokgate.config.loader import load
from tokgate.config.yaml.suggestions import did_you_mean
from tokgate.policy.services import Service
from tokgate.policy.snapshot import Policy


@dataclass(frozen=True, slots=True)
class KnownService:
    """A service, the bans that name it, and whether the policy's own files define it."""

    service: Service
    bans: tuple[str, ...]
    from_catalogue: bool

    @property
    def where(self) -> str:
        """Its file and line; of the catalogue's its file there."""
        if self.from_catalogue:
            return f"catalogue/{self.service.name}.yaml"
        return str(self.service.origin)


def policy_if_any(path: Path) -> Policy | None:
    """The policy; None where there is none at the default place: the catalogue is all there is then."""
    if not path.exists() and path == Path("policies"):
        return None
    return open_policy(path, Instant.now())


def all_services(policy: Policy | None) -> dict[str, KnownService]:
    """All services by name, in order of their names."""
    known = {} if policy is None else {name: _of(policy, service) for name, service in policy.services.items()}
    for name in catalogue_files().keys() - known.keys():
        known[name] = KnownService(_shipped(name), (), from_catalogue=True)
    return dict(sorted(known.items()))


def find(policy: Policy | None, name: str) -> KnownService:
    """One service; a CommandError that suggests others if there is none of this name."""
    if policy is not None and name in policy.services:
        return _of(policy, policy.services[name])
    shipped = catalogue_files()
    if name not in shipped:
        known = [*shipped, *(() if policy is None else policy.services)]
        raise CommandError(f"there is no service {visible(name)}{did_you_mean(name, known)}", Exit.USAGE)
    return KnownService(_shipped(name), (), from_catalogue=True)


def _of(policy: Policy, service: Service) -> KnownService:
    bans = tuple(name for name, ban in policy.bans.items() if service.name in ban.services)
    taken = () if policy.catalogue is None else policy.catalogue.services
    return KnownService(service, bans, service.name in taken)


def _shipped(name: str) -> Service:
    policy = load(catalogue_files()[name], Instant.now()).policy
    if policy is None or name not in policy.services:
        raise CommandError(f"the catalogue's file of {name} is damaged: install tokgate again")
    return policy.services[name]
