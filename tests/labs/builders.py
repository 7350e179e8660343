"""Small policies for tests, stated as plainly as YAML would."""

from ipaddress import ip_network
from pathlib import Path
from typing import Any

from whenever import Instant, PlainDateTime

from tokgate.config.diagnostics import render
from tokgate.config.loader import Loaded, load
from tokgate.policy.bans import Ban, Exemption
from tokgate.policy.networks import Network
from tokgate.policy.schedule import Duration
from tokgate.policy.services import NamePattern, PatternKind, Service
from tokgate.policy.settings import Settings
from tokgate.policy.snapshot import NOTHING, Policy, Snapshot, compile_policy
from tokgate.policy.stores import StoreListing

BRUSSELS = "Europe/Brussels"


def at(text: str) -> Instant:
    """An instant from RFC 3339 text."""
    return Instant.parse_iso(text)


def wall(text: str) -> PlainDateTime:
    """A wall time from ISO 8601 text."""
    return PlainDateTime.parse_iso(text)


def duration(text: str) -> Duration:
    """A duration from ISO 8601 text."""
    return Duration.parse_iso(text)


def service(name: str, *patterns: str, addresses: tuple[str, ...] = (), stores: tuple[str, ...] = ()) -> Service:
    """A service from patterns such as `suffix:example.org` and stores such as `apple/835599320`."""
    return Service(
        name,
        name.title(),
        tuple(NamePattern(PatternKind(kind), value) for kind, _, value in (p.partition(":") for p in patterns)),
        tuple(ip_network(a) for a in addresses),
        tuple(StoreListing(store, app) for store, _, app in (s.partition("/") for s in stores)),
    )


def network(name: str, *cidrs: str, zone: str = BRUSSELS) -> Network:
    """A network from CIDR texts."""
    return Network(name, tuple(ip_network(c) for c in cidrs), zone)


def ban(name: str = "ban", **stated: Any) -> Ban:
    """A ban of `clips` in `office` from 10 March 2023, unless stated otherwise."""
    defaults: dict[str, Any] = {
        "title": f"The {name}",
        "services": ("clips",),
        "networks": ("office",),
        "starts": wall("2023-03-10T00:00"),
    }
    return Ban(name=name, **(defaults | stated))


def exemption(name: str = "press", **stated: Any) -> Exemption:
    """An exemption from `ban` for one address until the end of March 2023, unless stated otherwise."""
    defaults: dict[str, Any] = {
        "ban": "ban",
        "clients": (ip_network("192.0.2.9/32"),),
        "until": wall("2023-03-31T18:00"),
        "reason": "Monitoring of public statements",
    }
    return Exemption(name=name, **(defaults | stated))


CLIPS = service(
    "clips",
    "suffix:clips.example.org",
    "exact:static.example.net",
    r"regex:^v[0-9]+-clips\.cdn\.example$",
    "label:clipsapp",
    addresses=("203.0.113.0/24", "2001:db8:c11::/48"),
    stores=("google-play/org.example.clips", "apple/835599320"),
)
OFFICE = network("office", "192.0.2.0/24", "2001:db8:1::/48")


def snapshot(
    *bans: Ban,
    services: tuple[Service, ...] = (CLIPS,),
    networks: tuple[Network, ...] = (OFFICE,),
    exemptions: tuple[Exemption, ...] = (),
    own: Policy = NOTHING,
    **settings: Any,
) -> Snapshot:
    """Compile a policy of these parts."""
    return compile_policy(
        own=own,
        policy=Policy(
            services={s.name: s for s in services},
            networks={n.name: n for n in networks},
            bans={b.name: b for b in bans},
            exemptions={e.name: e for e in exemptions},
            settings=Settings(**settings),
            version="test",
        ),
    )


def valid(loaded: Loaded) -> Policy:
    """The policy that was read; the diagnostics where there is none."""
    assert loaded.policy is not None, "\n".join(map(render, loaded.diagnostics))
    return loaded.policy


def present[T](value: T | None) -> T:
    """A value that has to be there."""
    assert value is not None
    return value


def policy_in(folder: Path, now: Instant | None = None) -> Policy:
    """The policy of files without errors."""
    return valid(load(folder, now or Instant.now()))
