"""What no single entry can show: references between entries, patterns said twice, networks inside networks."""

from collections.abc import Collection
from typing import Any, Final

from tokgate.config.diagnostics import Code
from tokgate.config.models import CLIENTS_BY, NetworkModel, ServiceModel
from tokgate.config.sections import Entry, Sections
from tokgate.config.settings_models import ProxyAuthModel
from tokgate.config.source import Place, Report
from tokgate.config.suggest import did_you_mean, listed
from tokgate.policy.prefixes import IPNetwork

_COMPARISONS: Final = 200_000
"""How many words are compared in search of near misses: enough for any policy by hand, about a second or two."""


def check(sections: Sections, report: Report) -> None:
    """All checks that do not depend on time."""
    _references(sections, report)
    for network in sections.networks.values():
        if network.model is not None and not any(getattr(network.model, key) for key in CLIENTS_BY):
            message = f"the network `{network.name}` holds nobody: it needs one of {listed(CLIENTS_BY)}"
            report.error(network.source, network.place, Code.MISSING_KEY, message)
    _users(sections, report)
    for service in sections.services.values():
        if service.model is not None:
            _service(service, service.model, report)
    for ban in sections.bans.values():
        models = [sections.services[name].model for name, _ in ban.items("services") if name in sections.services]
        if models and all(model is not None and _is_empty(model) for model in models) and sections.whole:
            message = f"the ban `{ban.name}` can never apply: nothing belongs to any of its services"
            report.error(ban.source, ban.at("services"), Code.NEVER_APPLIES, message)
    _nested(sections, report)


def _is_empty(model: ServiceModel) -> bool:
    names, stores = model.names, model.store
    held = [getattr(part, key) for part in (names, stores) for key in type(part).model_fields]
    return not model.addresses and not any(held)


def _references(sections: Sections, report: Report) -> None:
    spent = 0

    def refer(entry: Entry[Any], word: str, place: Place, known: Collection[str], kind: str, code: Code) -> None:
        nonlocal spent
        if word in known or not sections.whole:  # what is missing may stand in the file that could not be read
            return
        spent += len(known)
        hint = did_you_mean(word, known) if spent <= _COMPARISONS else ""
        hint = hint or (f"; no {kind} is defined" if not known else "")
        report.error(entry.source, place, code, f"unknown {kind} `{word}`{hint}")

    for ban in sections.bans.values():
        for key, known, kind, code in (
            ("services", sections.services, "service", Code.UNKNOWN_SERVICE),
            ("networks", sections.networks, "network", Code.UNKNOWN_NETWORK),
        ):
            seen: set[str] = set()
            for word, place in ban.items(key):
                refer(ban, word, place, known, kind, code)
                if word in seen:
                    report.warning(ban.source, place, Code.NAMED_TWICE, f"the {kind} `{word}` is named twice")
                seen.add(word)
    for exemption in sections.exemptions.values():
        named = exemption.text("ban")
        if named is not None:
            refer(exemption, named, exemption.at("ban"), sections.bans, "ban", Code.UNKNOWN_BAN)


def _users(sections: Sections, report: Report) -> None:
    """Whether users can prove who they are where networks name them."""
    stated: ProxyAuthModel | None = sections.settings.get("proxy_auth")
    where = sections.setting_at("proxy_auth")
    if stated is not None and where is not None:
        source, place = where
        if (stated.htpasswd is None) == (stated.ldap is None):
            report.error(source, place, Code.BAD_VALUE, "`proxy_auth` has either `htpasswd` or `ldap`")
        elif stated.ldap is not None and stated.groups is not None:
            report.error(source, place, Code.BAD_VALUE, "`groups` belongs to `htpasswd`: a directory has its own")
        elif stated.ldap is not None and (stated.ldap.bind is None) != (stated.ldap.password is None):
            report.error(source, place, Code.BAD_VALUE, "`bind` and `password` of `ldap` go together")
    for entry in sections.networks.values():
        named = [key for key in ("users", "groups") if entry.model is not None and getattr(entry.model, key)]
        if named and stated is None and where is None:
            message = "nobody is known by name: `settings.proxy_auth` does not say how users prove who they are"
            report.warning(entry.source, entry.at(named[0]), Code.NO_PROXY_AUTH, message)
        elif "groups" in named and stated is not None and stated.ldap is None and stated.groups is None:
            message = "nobody is in a group: `settings.proxy_auth` has no `groups`"
            report.warning(entry.source, entry.at("groups"), Code.NO_PROXY_AUTH, message)


def _service(entry: Entry[ServiceModel], model: ServiceModel, report: Report) -> None:
    said: dict[tuple[str, str], Place] = {}

    def once(kind: str, value: str, place: Place) -> None:
        first = said.setdefault((kind, value), place)
        if first is not place:
            where = entry.source.origin(first)
            report.warning(entry.source, place, Code.DUPLICATE_PATTERN, f"`{value}` is there already; first at {where}")

    for kind in type(model.names).model_fields:
        for value, (_, place) in zip(getattr(model.names, kind), entry.items("names", kind), strict=True):
            once(kind, value, place)
    for address, (_, place) in zip(model.addresses, entry.items("addresses"), strict=True):
        once("address", str(address), place)
    for store in type(model.store).model_fields:
        for value, (_, place) in zip(getattr(model.store, store), entry.items("store", store), strict=True):
            once(store, value, place)
    if not said:
        message = f"the service `{entry.name}` has no names, addresses or store listings: nothing belongs to it"
        report.warning(entry.source, entry.place, Code.EMPTY_SERVICE, message)


_Stated = tuple[IPNetwork, Entry[NetworkModel], Place]


def _nested(sections: Sections, report: Report) -> None:
    """Prefixes inside others, by one sweep over all in order, with a stack of those that are open."""
    stated: list[_Stated] = [
        (cidr, entry, place)
        for entry in sections.networks.values()
        if entry.model is not None
        for cidr, (_, place) in zip(entry.model.cidrs, entry.items("cidrs"), strict=True)
    ]
    stated.sort(key=lambda each: (each[0].version, int(each[0].network_address), each[0].prefixlen))
    stack: list[_Stated] = []
    told: set[tuple[str, str]] = set()
    for inner in stated:
        cidr, entry, place = inner
        while stack and not _inside(cidr, stack[-1][0]):
            stack.pop()
        if stack and not stack[-1][0].prefixlen == 0 < cidr.prefixlen:  # that holds everybody, and is meant to
            outer, holder, _ = stack[-1]
            same = "the same prefix as" if outer == cidr else "inside"
            where = f"`{outer}`" if holder is entry else f"`{outer}` of the network `{holder.name}`"
            narrow = "" if holder is entry else "; of equally strict bans that of the narrower prefix is reported"
            if holder is entry or (entry.name, holder.name) not in told:
                report.warning(entry.source, place, Code.NESTED_NETWORK, f"`{cidr}` is {same} {where}{narrow}")
            told.add((entry.name, holder.name))
        stack.append(inner)


def _inside(inner: IPNetwork, outer: IPNetwork) -> bool:
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]
