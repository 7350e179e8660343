"""Builds the values of `policy/` from checked sections, with their positions. Called only if there is no error."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final

from whenever import Time

from tokgate.config.checks.sections import NameList, PolicyEntry, Sections
from tokgate.config.format.bans import EXEMPT_BY, BanModel, ExemptionModel, WindowModel
from tokgate.config.format.connection_settings import ProxyAuthModel, UpstreamModel
from tokgate.config.format.networks import NetworkModel
from tokgate.config.format.services import ServiceModel, SourceModel
from tokgate.config.yaml.nodes import plain
from tokgate.policy.bans import Ban, Exemption, Lifted
from tokgate.policy.networks import Network, linked
from tokgate.policy.schedule import Window
from tokgate.policy.services import Catalogue, NamePattern, PatternKind, Service, ServiceSource
from tokgate.policy.settings import (
    CanarySettings,
    Directory,
    DnsSettings,
    EgressSettings,
    GatewaySettings,
    LimitSettings,
    LogSettings,
    OverrideLimits,
    PacSettings,
    ProxyAuth,
    Settings,
    Upstream,
)
from tokgate.policy.snapshot import Policy
from tokgate.policy.stores import StoreListing
from tokgate.policy.values import Origin


def policy(sections: Sections, networks: Mapping[str, Network], catalogue: Catalogue | None = None) -> Policy:
    """The policy that valid sections state, with these networks of theirs. Raises ValueError for an invalid entry."""
    return Policy(
        services={name: service(entry, _model(entry), sections) for name, entry in sections.services.items()},
        networks=networks,
        bans={name: ban(entry, _model(entry)) for name, entry in sections.bans.items()},
        exemptions={name: exemption(entry, _model(entry)) for name, entry in sections.exemptions.items()},
        settings=settings(sections.settings),
        version=version(sections),
        lifted=tuple(
            Lifted(origin=_origin(entry), **dict(entry.model)) for entry in sections.lifted if entry.model is not None
        ),
        catalogue=catalogue,
    )


def version(sections: Sections) -> str:
    """The policy's version: 12 hexadecimal digits of SHA-256 over its content, inventories included.

    Comments, order, formatting and the split into files make no difference.
    """
    named: tuple[tuple[str, Mapping[str, PolicyEntry[Any]]], ...] = (
        ("services", sections.services),
        ("networks", sections.networks),
        ("bans", sections.bans),
        ("exemptions", sections.exemptions),
    )
    content: dict[str, Any] = {
        kind: {name: plain(entry.node) for name, entry in entries.items()} for kind, entries in named
    }
    if sections.inventories:
        content["inventories"] = {
            name: inventory.digest
            for name, entry in sections.networks.items()
            if (inventory := sections.inventory(entry)) is not None
        }
    if sections.name_lists:
        content["name_lists"] = sorted(
            {(name, kind.value, held.digest) for name, kind, held in _name_lists(sections) if held is not None}
        )
    if sections.lifted:
        content["lifted"] = [plain(entry.node) for entry in sections.lifted]
    content["settings"] = {name: str(value) for name, value in sections.settings.items()}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def _name_lists(sections: Sections) -> Iterator[tuple[str, PatternKind, NameList | None]]:
    for name, entry in sections.services.items():
        for kind in PatternKind if entry.model is not None else ():
            for file in _model(entry).names.files(kind):
                yield name, kind, sections.name_lists.get((entry.beside(file), kind))


def settings(stated: Mapping[str, Any]) -> Settings:
    return Settings(**{name: _SETTINGS[name](value) if name in _SETTINGS else value for name, value in stated.items()})


def upstream(model: UpstreamModel) -> Upstream:
    kind, host, port = model.proxy
    destinations, exclusions = _unique(model.destinations), _unique(model.exclusions)
    return Upstream(
        kind=kind,
        host=host,
        port=port,
        credentials=model.credentials,
        destinations=destinations,
        exclusions=exclusions,
    )


def proxy_auth(model: ProxyAuthModel) -> ProxyAuth:
    ldap = None if model.ldap is None else Directory(**model.ldap.model_dump())
    return ProxyAuth(htpasswd=model.htpasswd, groups=model.groups, ldap=ldap)


def _unique[T](values: Iterable[T]) -> tuple[T, ...]:
    return tuple(dict.fromkeys(values))


_SETTINGS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "dns": lambda model: DnsSettings(**dict(model)),
    "overrides": lambda model: OverrideLimits(longest=model.longest),
    "reminders": _unique,
    "nat64_prefixes": _unique,
    "log": lambda model: LogSettings(**dict(model) | {"checkpoint_to": _unique(model.checkpoint_to)}),
    "gateway": lambda model: GatewaySettings(
        **dict(model) | {"ports": _unique(model.ports), "canary": CanarySettings(**dict(model.canary))}
    ),
    "egress": lambda model: EgressSettings(addresses=_unique(model.addresses)),
    "limits": lambda model: LimitSettings(**dict(model)),
    "pac": lambda model: PacSettings(
        direct_names=_unique(model.direct_names), direct_addresses=_unique(model.direct_addresses)
    ),
    "load_balancers": _unique,
    "name_files": _unique,
    "proxy_auth": proxy_auth,
    "upstream": lambda models: tuple(upstream(model) for model in models),
}
"""What makes the value of a setting from its model; the others are values as they are."""


def _model[M: Any](entry: PolicyEntry[M]) -> M:
    if entry.model is None:
        raise ValueError(f"{entry.name} is not valid")
    return entry.model


def _origin(entry: PolicyEntry[Any]) -> Origin:
    return entry.source.origin(entry.place)


def service(entry: PolicyEntry[ServiceModel], model: ServiceModel, sections: Sections) -> Service:
    """A service, with the names of its files."""
    origin_of = entry.source.origin
    patterns: dict[tuple[PatternKind, str], NamePattern] = {}
    for kind in PatternKind:
        for value, source, place in sections.patterns(entry, kind):
            patterns.setdefault((kind, value), NamePattern(kind, value, source.origin(place)))
    stores = tuple(
        StoreListing(store, value, origin_of(place))
        for store in type(model.store).model_fields
        for value, (_, place) in zip(getattr(model.store, store), entry.items("store", store), strict=True)
    )
    title, addresses = model.title or entry.name, _unique(model.addresses)
    imported = None if model.source is None else service_source(model.source)
    origin, description = _origin(entry), model.description
    return Service(entry.name, title, tuple(patterns.values()), addresses, stores, origin, description, imported)


def service_source(model: SourceModel) -> ServiceSource:
    values = {("list" if key == "of" else key): value for key, value in dict(model).items()}
    day = None if model.date is None else model.date.format_iso()
    return ServiceSource(**values | {"date": day, "attributes": _unique(model.attributes)})


def network(entry: PolicyEntry[NetworkModel], model: NetworkModel, sections: Sections) -> Network:
    """A network, with the devices that it selects from its inventory, but without the networks that it names."""
    return Network(
        entry.name,
        _unique(model.cidrs),
        sections.zone(entry),
        _origin(entry),
        users=_unique(model.users),
        groups=_unique(model.groups),
        interfaces=_unique(model.interfaces),
        devices=sections.devices(entry),
        title=model.title,
        networks=_unique(model.networks),
        except_cidrs=_unique(each for each in model.excepted if not isinstance(each, str)),
        except_networks=_unique(each for each in model.excepted if isinstance(each, str)),
    )


def networks(sections: Sections) -> dict[str, Network]:
    """All networks that are valid, and made of valid ones. There must be no cycle."""
    valid = {e.name: network(e, e.model, sections) for e in sections.networks.values() if e.model is not None}
    while broken := [n for n, each in valid.items() if not valid.keys() >= {*each.networks, *each.except_networks}]:
        for name in broken:
            del valid[name]
    return linked(valid)


def ban(entry: PolicyEntry[BanModel], model: BanModel) -> Ban:
    """A ban; `last_day` becomes `expires` at the midnight that ends the day."""
    values = dict(model)
    last_day = values.pop("last_day")
    if last_day is not None:
        values["expires"] = last_day.add(days=1).at(Time.MIN)
    values |= {key: _unique(values[key]) for key in ("services", "networks")}
    values["windows"] = tuple(window(each) for each in model.windows)
    return Ban(name=entry.name, origin=_origin(entry), **values)


def window(model: WindowModel) -> Window:
    return Window(
        days=frozenset().union(*model.days),
        start=model.start,
        end=model.end,
        except_holidays=_unique(model.except_holidays),
    )


def exemption(entry: PolicyEntry[ExemptionModel], model: ExemptionModel) -> Exemption:
    who = {key: _unique(getattr(model, key)) for key in EXEMPT_BY}
    return Exemption(name=entry.name, origin=_origin(entry), **dict(model) | who)
