"""Builds the values of `policy/` from checked sections, with their positions."""

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

from whenever import Time

from tokgate.config.format.bans import BanModel
from tokgate.config.format.networks import NetworkModel
from tokgate.config.format.services import ServiceModel
from tokgate.config.format.test_model import EXPECTED, PolicyTest, TestModel
from tokgate.config.format.values import built
from tokgate.config.sections import NameList, PolicyEntry, Sections
from tokgate.config.yaml.nodes import plain
from tokgate.policy.bans import TRANSLATED, Ban, Exemption, Lifted, Translation
from tokgate.policy.membership import Clients, Identity
from tokgate.policy.networks import Device, Network, linked
from tokgate.policy.schedule import Edge, resolve
from tokgate.policy.services import Catalogue, NamePattern, PatternKind, Service
from tokgate.policy.settings import Settings
from tokgate.policy.snapshot import Policy
from tokgate.policy.stores import StoreListing
from tokgate.policy.values import Origin


def policy(sections: Sections, networks: Mapping[str, Network], catalogue: Catalogue | None = None) -> Policy:
    """The policy that valid sections state, with these networks of theirs. Raises ValueError for an invalid entry."""
    named: tuple[tuple[str, Mapping[str, PolicyEntry[Any]]], ...] = (
        ("services", sections.services),
        ("networks", sections.networks),
        ("bans", sections.bans),
        ("exemptions", sections.exemptions),
    )
    stated: dict[str, dict[str, Any]] = {
        kind: {name: plain(entry.node) for name, entry in entries.items()} for kind, entries in named
    }
    version = _version(sections, stated)
    for name, kind, _ in _name_lists(sections):  # the names in place of the files
        listed = sections.patterns(sections.services[name], kind)
        stated["services"][name]["names"][kind.value] = [value for value, _, _ in listed]
    return Policy(
        services={name: service(entry, _model(entry), sections) for name, entry in sections.services.items()},
        networks=networks,
        bans={name: ban(entry, _model(entry)) for name, entry in sections.bans.items()},
        exemptions={
            name: Exemption(name=name, origin=_origin(entry), **_model(entry).values())
            for name, entry in sections.exemptions.items()
        },
        settings=Settings(**{name: built(value) for name, value in sections.settings.items()}),
        version=version,
        lifted=tuple(Lifted(origin=_origin(entry), **_model(entry).values()) for entry in sections.lifted),
        stated=stated | {"settings": sections.stated_settings},
        catalogue=catalogue,
    )


def _version(sections: Sections, stated: Mapping[str, Mapping[str, Any]]) -> str:
    """The policy's version: 12 hexadecimal digits of SHA-256 over its content, inventories included.

    Comments, order, formatting and the split into files make no difference.
    """
    content: dict[str, Any] = {**stated}
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
    return Service(
        entry.name,
        model.title or entry.name,
        tuple(patterns.values()),
        built(model.addresses),
        stores,
        _origin(entry),
        model.description,
        built(model.source),
    )


def networks(sections: Sections) -> dict[str, Network]:
    """All networks that are valid, and made of valid ones. There must be no cycle."""
    valid = {e.name: _network(e, e.model, sections) for e in sections.networks.values() if e.model is not None}
    while broken := [n for n, each in valid.items() if not valid.keys() >= {*each.networks, *each.except_networks}]:
        for name in broken:
            del valid[name]
    return linked(valid)


def _network(entry: PolicyEntry[NetworkModel], model: NetworkModel, sections: Sections) -> Network:
    """A network, with the devices that it selects from its inventory, but without the networks that it names."""
    values = model.values()
    excepted = values.pop("excepted")
    return Network(
        name=entry.name,
        origin=_origin(entry),
        except_cidrs=tuple(each for each in excepted if not isinstance(each, str)),
        except_networks=tuple(each for each in excepted if isinstance(each, str)),
        **values | {"timezone": sections.zone(entry), "devices": sections.devices(entry)},
    )


def ban(entry: PolicyEntry[BanModel], model: BanModel) -> Ban:
    """A ban; `last_day` becomes `expires` at the midnight that ends the day."""
    values = model.values()
    last_day = values.pop("last_day")
    if last_day is not None:
        values["expires"] = last_day.add(days=1).at(Time.MIN)
    given = {key: values[key] for key in TRANSLATED if isinstance(values[key], dict)}
    values |= {key: next(iter(texts.values())) for key, texts in given.items()}
    translations = tuple(Translation(key, *each) for key, texts in given.items() for each in texts.items())
    on_all = not values["services"]
    return Ban(name=entry.name, origin=_origin(entry), translations=translations, on_all=on_all, **values)


def build_tests(sections: Sections, networks: Iterable[Network]) -> tuple[PolicyTest, ...]:
    """The tests of valid sections; wall times are read in the zone of the narrowest network that holds the client."""
    stated = [(entry, entry.model) for entry in sections.tests if entry.model is not None]
    if not stated:
        return ()
    known = {network.name: network for network in networks}
    if all(model.device is None for _, model in stated):  # an inventory may have very many devices: tests use few
        clients = {model.client for _, model in stated}
        for name, network in known.items():
            used = (each for each in network.devices if any(p.network_address in clients for p in each.addresses))
            known[name] = replace(network, devices=tuple(used))
    found = Clients(known.values(), {}, Settings())
    return tuple(_test(entry, model, known, found) for entry, model in stated)


def _test(
    entry: PolicyEntry[TestModel], model: TestModel, networks: Mapping[str, Network], clients: Clients
) -> PolicyTest:
    host = model.host if model.host is not None else urlsplit(model.url or "").hostname or ""
    identity = Identity(model.user, frozenset(model.groups), model.device, model.interface) or None
    narrowest = next(iter(clients.membership(str(model.client), identity).networks), None)
    zone = "UTC" if narrowest is None else networks[narrowest].timezone
    stated = {key: getattr(model, key) for key in EXPECTED}
    return PolicyTest(
        entry.text("client") or "",
        host,
        model.url,
        resolve(model.at, zone, Edge.START),
        model.expect,
        entry.source.origin(entry.place),
        identity,
        model.transport,
        nameless=model.sni is not None,
        ech_outer=model.ech is not None,
        expected=MappingProxyType({key: value for key, value in stated.items() if value is not None}),
    )


def written_inventory(devices: Iterable[Device]) -> str:
    """Devices as an inventory, a CSV file."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(("name", "address", "mac", "owner", "paid_by"))
    for each in devices:
        addresses = " ".join(str(prefix.network_address) for prefix in each.addresses)
        rows.writerow((each.name, addresses, " ".join(each.hardware), each.owner, "+".join(each.paid_by)))
    return out.getvalue()
