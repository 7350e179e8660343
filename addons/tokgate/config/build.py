"""Checked sections to the policy core's values, with their origins. Only called when there is no error."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from whenever import Time

from tokgate.config.models import BanModel, ExemptionModel, NetworkModel, ServiceModel, WindowModel
from tokgate.config.nodes import plain
from tokgate.config.sections import Entry, Sections
from tokgate.config.settings_models import ProxyAuthModel
from tokgate.policy.bans import (
    Ban,
    Directory,
    Exemption,
    LogSettings,
    Notify,
    OverrideLimits,
    ProxyAuth,
    Settings,
)
from tokgate.policy.networks import Network
from tokgate.policy.origin import Origin
from tokgate.policy.schedule import Moment, Window
from tokgate.policy.services import NamePattern, PatternKind, Service
from tokgate.policy.snapshot import Policy
from tokgate.policy.stores import StoreListing


def policy(sections: Sections) -> Policy:
    """The policy that valid sections state."""
    return Policy(
        services={name: service(entry, _model(entry)) for name, entry in sections.services.items()},
        networks={name: network(entry, _model(entry), sections) for name, entry in sections.networks.items()},
        bans={name: ban(entry, _model(entry)) for name, entry in sections.bans.items()},
        exemptions={name: exemption(entry, _model(entry)) for name, entry in sections.exemptions.items()},
        settings=settings(sections.settings),
        version=version(sections),
    )


def version(sections: Sections) -> str:
    """A short hash of what is said, inventories included.

    Comments, order, formatting and the split into files make no difference.
    """
    named: tuple[tuple[str, Mapping[str, Entry[Any]]], ...] = (
        ("services", sections.services),
        ("networks", sections.networks),
        ("bans", sections.bans),
        ("exemptions", sections.exemptions),
    )
    said: dict[str, Any] = {
        kind: {name: plain(entry.node) for name, entry in entries.items()} for kind, entries in named
    }
    if sections.inventories:
        said["inventories"] = {
            name: inventory.digest
            for name, entry in sections.networks.items()
            if (inventory := sections.inventory(entry)) is not None
        }
    said["settings"] = {name: str(value) for name, value in sections.settings.items()}
    canonical = json.dumps(said, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def settings(stated: Mapping[str, Any]) -> Settings:
    """The settings: models of keys with keys of their own become the core's values."""
    values = dict(stated)
    if "overrides" in values:
        values["overrides"] = OverrideLimits(longest=values["overrides"].longest)
    if "reminders" in values:
        values["reminders"] = tuple(dict.fromkeys(values["reminders"]))
    if "notify" in values:
        values["notify"] = Notify(webhook=values["notify"].webhook, command=tuple(values["notify"].command))
    if "log" in values:
        log = values["log"]
        values["log"] = LogSettings(
            clients=log.clients,
            pseudonym_days=log.pseudonym_days,
            retention_days=log.retention_days,
            checkpoint_to=tuple(dict.fromkeys(log.checkpoint_to)),
            key=log.key,
            forward_security=log.forward_security,
            near_misses=log.near_misses,
        )
    if "proxy_auth" in values:
        values["proxy_auth"] = proxy_auth(values["proxy_auth"])
    return Settings(**values)


def proxy_auth(model: ProxyAuthModel) -> ProxyAuth:
    """How users prove who they are."""
    ldap = None if model.ldap is None else Directory(**model.ldap.model_dump())
    return ProxyAuth(htpasswd=model.htpasswd, groups=model.groups, ldap=ldap)


def _model[M: Any](entry: Entry[M]) -> M:
    if entry.model is None:
        raise ValueError(f"{entry.name} is not valid")
    return entry.model


def _origin(entry: Entry[Any]) -> Origin:
    return entry.source.origin(entry.place)


def service(entry: Entry[ServiceModel], model: ServiceModel) -> Service:
    """A service; every pattern knows where it was written."""
    origin_of = entry.source.origin
    patterns: dict[tuple[PatternKind, str], NamePattern] = {}
    for kind in PatternKind:
        values: list[str] = getattr(model.names, kind.value)
        for value, (_, place) in zip(values, entry.items("names", kind.value), strict=True):
            patterns.setdefault((kind, value), NamePattern(kind, value, origin_of(place)))
    stores = tuple(
        StoreListing(store, value, origin_of(place))
        for store in type(model.store).model_fields
        for value, (_, place) in zip(getattr(model.store, store), entry.items("store", store), strict=True)
    )
    addresses = tuple(dict.fromkeys(model.addresses))
    return Service(entry.name, model.title or entry.name, tuple(patterns.values()), addresses, stores, _origin(entry))


def network(entry: Entry[NetworkModel], model: NetworkModel, sections: Sections) -> Network:
    """A network, with the devices that it means."""
    return Network(
        entry.name,
        tuple(dict.fromkeys(model.cidrs)),
        model.timezone,
        _origin(entry),
        users=tuple(dict.fromkeys(model.users)),
        groups=tuple(dict.fromkeys(model.groups)),
        interfaces=tuple(dict.fromkeys(model.interfaces)),
        devices=sections.devices(entry),
    )


def ban(entry: Entry[BanModel], model: BanModel) -> Ban:
    """A ban; a last day becomes the midnight that ends it."""
    expires: Moment | None = model.expires
    if model.last_day is not None:
        expires = model.last_day.add(days=1).at(Time.MIN)
    return Ban(
        name=entry.name,
        title=model.title,
        services=tuple(dict.fromkeys(model.services)),
        networks=tuple(dict.fromkeys(model.networks)),
        starts=model.starts,
        expires=expires,
        duration=model.duration,
        announced=model.announced,
        monitor_from=model.monitor_from,
        warn_from=model.warn_from,
        on_expiry=model.on_expiry,
        windows=tuple(window(each) for each in model.windows),
        action=model.action,
        response=model.response,
        continue_for=model.continue_for,
        inspect_stores=model.inspect_stores,
        overrides=model.overrides,
        authority=model.authority,
        basis=model.basis,
        reference=model.reference,
        contact=model.contact,
        description=model.description,
        origin=_origin(entry),
    )


def window(model: WindowModel) -> Window:
    """A window."""
    return Window(
        days=frozenset().union(*model.days),
        start=model.start,
        end=model.end,
        except_holidays=tuple(dict.fromkeys(model.except_holidays)),
    )


def exemption(entry: Entry[ExemptionModel], model: ExemptionModel) -> Exemption:
    """An exemption."""
    return Exemption(
        name=entry.name,
        ban=model.ban,
        clients=tuple(dict.fromkeys(model.clients)),
        until=model.until,
        reason=model.reason,
        starts=model.starts,
        ticket=model.ticket,
        by=model.by,
        ended_by=model.ended_by,
        override=model.override,
        origin=_origin(entry),
    )
