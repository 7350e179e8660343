"""The services that a ban can name: those of the policy, then those of the catalogue that it doesn't define."""

from dataclasses import dataclass
from pathlib import Path

from whenever import Instant

from tokgate.cli.configuration import default_policies
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
        return f"catalogue/{self.service.name}.yaml" if self.from_catalogue else str(self.service.origin)


def policy_if_any(path: Path) -> Policy | None:
    """The policy; None where there is none at the default place: the catalogue is all there is then."""
    if not path.exists() and path == default_policies():
        return None
    return open_policy(path, Instant.now())


def find(policy: Policy | None, name: str) -> KnownService:
    """A service of the policy, else the catalogue's; a CommandError that suggests others if there is none."""
    if policy is not None and name in policy.services:
        bans = tuple(ban.name for ban in policy.bans.values() if name in ban.services)
        return KnownService(
            policy.services[name], bans, name in (policy.catalogue.services if policy.catalogue else ())
        )
    shipped = catalogue_files()
    if name not in shipped:
        known = [*shipped, *(() if policy is None else policy.services)]
        raise CommandError(f"there is no service {visible(name)}{did_you_mean(name, known)}", Exit.USAGE)
    its = load(shipped[name], Instant.now()).policy
    if its is None or name not in its.services:
        raise CommandError(f"the catalogue's file of {name} is damaged: install tokgate again")
    return KnownService(its.services[name], (), from_catalogue=True)


def all_services(policy: Policy | None) -> list[KnownService]:
    """The services that a ban can name, in the order of their names."""
    own = () if policy is None else policy.services
    return [find(policy, name) for name in sorted({*own, *catalogue_files()})]
