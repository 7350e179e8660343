"""The tests in policy files: traffic, and what the policy must decide about it. `traffic.policy_tests` runs them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

from whenever import Instant

from tokgate.config.checks.sections import PolicyEntry, Sections
from tokgate.config.format.test_model import TestModel, TestTransport
from tokgate.policy.decision import Verdict
from tokgate.policy.membership import Identity, IdentityIndex, narrowest_first
from tokgate.policy.networks import Composition, Network
from tokgate.policy.schedule import Edge, resolve
from tokgate.policy.values import Origin
from tokgate.policy.values.hostname import IPAddress
from tokgate.policy.values.prefixes import IPNetwork, PrefixEntry, PrefixTable

EXPECTED: Final = ("ban", "reason", "response", "status")
"""What a test may expect besides the verdict."""


@dataclass(frozen=True, slots=True)
class PolicyTest:
    """One entry under `tests:`. `host` is a name or an address, as it was written."""

    client: str
    host: str
    url: str | None
    at: Instant
    expect: Verdict
    origin: Origin
    identity: Identity | None = None
    transport: TestTransport = TestTransport.TCP
    nameless: bool = False
    """The ClientHello names no host."""
    ech_outer: bool = False
    """The ClientHello names an ECH provider alone."""
    expected: Mapping[str, str | int] = MappingProxyType({})
    """What else is expected: `ban`, `reason`, `response`, `status`."""


def build_tests(sections: Sections, networks: Iterable[Network]) -> tuple[PolicyTest, ...]:
    """The tests of valid sections; wall times are read in the zone of the narrowest network that holds the client."""
    stated = [(entry, entry.model) for entry in sections.tests if entry.model is not None]
    zones = _Zones(networks, frozenset(model.client for _, model in stated)) if stated else None
    return tuple(_test(entry, model, zones) for entry, model in stated if zones is not None)


class _Zones:
    """Finds the time zones of these clients."""

    def __init__(self, networks: Iterable[Network], clients: frozenset[IPAddress]) -> None:
        self._networks: Final = {network.name: network for network in networks}
        prefixes: list[tuple[IPNetwork, _Holder]] = [
            (cidr, (network.name, listed))
            for network in self._networks.values()
            for listed, cidrs in ((True, network.cidrs), (False, network.except_cidrs))
            for cidr in cidrs
        ]
        prefixes += [  # an inventory may have very many, of which tests use few
            (prefix, (network.name, True))
            for network in self._networks.values()
            for device in network.devices
            for prefix in device.addresses
            if prefix.network_address in clients
        ]
        self._table: Final = PrefixTable(prefixes, _by_length)
        self._index: Final = IdentityIndex(self._networks.values())
        self._composition: Final = Composition(self._networks.values())

    def of(self, client: IPAddress, identity: Identity | None) -> str:
        """The zone of the client's narrowest network; UTC if it is in none."""
        listed, excepted = self._table.find(client)
        found = () if identity is None else self._index.find(identity, client.max_prefixlen)
        held = self._composition.complete(narrowest_first(listed, found), excepted)
        name = next(iter(held), None)
        return "UTC" if name is None else self._networks[name].timezone


_Holder = tuple[str, bool]
"""A network, and whether it lists a prefix; else it excepts it."""


def _by_length(holders: tuple[PrefixEntry[_Holder], ...]) -> tuple[dict[str, int], frozenset[str]]:
    """The networks that list an address, with the longest prefix length, and those that except it."""
    lengths: dict[str, int] = {}
    for held in holders:
        if held.value[1]:
            lengths.setdefault(held.value[0], held.prefix.prefixlen)
    return lengths, frozenset(held.value[0] for held in holders if not held.value[1])


def _test(entry: PolicyEntry[TestModel], model: TestModel, zones: _Zones) -> PolicyTest:
    host = model.host if model.host is not None else urlsplit(model.url or "").hostname or ""
    identity = Identity(model.user, frozenset(model.groups), model.device, model.interface) or None
    at = resolve(model.at, zones.of(model.client, identity), Edge.START)
    stated = {key: getattr(model, key) for key in EXPECTED}
    return PolicyTest(
        entry.text("client") or "",
        host,
        model.url,
        at,
        model.expect,
        entry.source.origin(entry.place),
        identity,
        model.transport,
        nameless=model.sni is not None,
        ech_outer=model.ech is not None,
        expected=MappingProxyType({key: value for key, value in stated.items() if value is not None}),
    )
