"""Tests that stand in the policy files: what must be decided for whom and when. They call the one `decide`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from whenever import Instant

from tokgate.config.models import TestModel
from tokgate.config.sections import Entry, Sections
from tokgate.policy.decide import decide
from tokgate.policy.decision import Decision, Signal, Verdict
from tokgate.policy.identity import Identity, IdentityIndex, narrowest_first
from tokgate.policy.names import IPAddress
from tokgate.policy.networks import Network
from tokgate.policy.origin import Origin
from tokgate.policy.prefixes import Held, PrefixTable
from tokgate.policy.schedule import Edge, resolve
from tokgate.policy.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class PolicyTest:
    """One entry under `tests:`; with a `url` it is the URL that is decided."""

    client: str
    host: str
    url: str | None
    at: Instant
    expect: Verdict
    origin: Origin
    identity: Identity | None = None


@dataclass(frozen=True, slots=True)
class TestResult:
    """What was decided, and whether that was expected."""

    __test__ = False

    test: PolicyTest
    decision: Decision
    passed: bool


def run_tests(snapshot: Snapshot, tests: Sequence[PolicyTest]) -> tuple[TestResult, ...]:
    """Decide each test, in order."""
    results = []
    for test in tests:
        if test.url is not None:
            decision = decide(snapshot, test.client, test.url, test.at, Signal.URL, test.identity)
        else:
            decision = decide(snapshot, test.client, test.host, test.at, identity=test.identity)
        results.append(TestResult(test, decision, decision.verdict is test.expect))
    return tuple(results)


def build_tests(sections: Sections, networks: Iterable[Network]) -> tuple[PolicyTest, ...]:
    """The tests of valid sections; wall times are read in the zone of the narrowest network that holds the client."""
    stated = [(entry, entry.model) for entry in sections.tests if entry.model is not None]
    zones = _Zones(networks, frozenset(model.client for _, model in stated)) if stated else None
    return tuple(_test(entry, model, zones) for entry, model in stated if zones is not None)


class _Zones:
    """The zones in which these clients live."""

    def __init__(self, networks: Iterable[Network], clients: frozenset[IPAddress]) -> None:
        self._networks: Final = {network.name: network for network in networks}
        prefixes = [(cidr, network) for network in self._networks.values() for cidr in network.cidrs]
        prefixes += [  # an inventory may have very many, tests are about few of them
            (prefix, network)
            for network in self._networks.values()
            for device in network.devices
            for prefix in device.addresses
            if prefix.network_address in clients
        ]
        self._table: Final = PrefixTable(prefixes, _by_length)
        self._index: Final = IdentityIndex(self._networks.values())

    def of(self, client: IPAddress, identity: Identity | None) -> str:
        """The zone of the narrowest network; UTC for clients of none."""
        found = () if identity is None else self._index.find(identity, client.max_prefixlen)
        name = next(iter(narrowest_first(self._table.find(client), found)), None)
        return "UTC" if name is None else self._networks[name].timezone


def _by_length(holders: tuple[Held[Network], ...]) -> dict[str, int]:
    lengths: dict[str, int] = {}
    for held in holders:
        lengths.setdefault(held.value.name, held.prefix.prefixlen)
    return lengths


def _test(entry: Entry[TestModel], model: TestModel, zones: _Zones) -> PolicyTest:
    host = model.host if model.host is not None else urlsplit(model.url or "").hostname or ""
    identity = Identity(model.user, frozenset(model.groups), model.device, model.interface) or None
    at = resolve(model.at, zones.of(model.client, identity), Edge.START)
    client = entry.text("client") or ""
    return PolicyTest(client, host, model.url, at, model.expect, entry.source.origin(entry.place), identity)
