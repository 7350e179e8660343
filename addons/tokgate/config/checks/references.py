"""Checks across entries: references, repeated patterns, networks made of others."""

from collections.abc import Collection, Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from typing import Any, Final

from tokgate.config import build
from tokgate.config.catalogue import catalogue_files
from tokgate.config.checks import reach
from tokgate.config.diagnostics import Code, did_you_mean, listed, near
from tokgate.config.format.bans import EXEMPT_BY
from tokgate.config.format.connection_settings import ProxyAuthModel
from tokgate.config.format.networks import CLIENTS_BY, NetworkModel
from tokgate.config.format.services import ServiceModel
from tokgate.config.sections import PolicyEntry, Sections
from tokgate.config.yaml.source import Report, Source, TextSpan
from tokgate.policy.networks import Network
from tokgate.policy.services import PatternKind
from tokgate.policy.values.prefixes import Cover

_COMPARISONS: Final = 200_000
"""Most words that are compared for suggestions: about a second or two."""


def check(sections: Sections, report: Report) -> None:
    """Run all checks that don't depend on time."""
    _references(sections, report)
    for lifted in sections.lifted:
        name = lifted.text("ban")
        if name in sections.bans:
            where = sections.bans[name].source.origin(sections.bans[name].place)
            message = f"the ban `{name}` is not lifted, since it is still stated: {where}"
            report.error(lifted.source, lifted.at("ban"), Code.NOT_LIFTED, message)
    _nobody(sections, report)
    _users(sections, report)
    for service in sections.services.values():
        if service.model is not None:
            _service(service, service.model, sections, report)
    for ban in sections.bans.values():
        if ban.model is not None and ban.model.services and ban.model.excepted:
            message = "`except` belongs to `services: all`: a ban that names its services excepts no others"
            report.error(ban.source, ban.at("except"), Code.BAD_VALUE, message)
        models = [sections.services[name].model for name, _ in ban.items("services") if name in sections.services]
        if models and all(model is not None and _is_empty(model) for model in models) and sections.whole:
            message = f"the ban `{ban.name}` can never apply: nothing belongs to any of its services"
            report.error(ban.source, ban.at("services"), Code.NEVER_APPLIES, message)
    reach.check_everybody(sections, report)


def _nobody(sections: Sections, report: Report) -> None:
    """Check that networks and exemptions list somebody."""
    kinds: tuple[tuple[Iterable[PolicyEntry[Any]], tuple[str, ...], str], ...] = (
        (sections.networks.values(), CLIENTS_BY, "the network `{}` holds nobody"),
        (sections.exemptions.values(), EXEMPT_BY, "the exemption `{}` exempts nobody"),
    )
    for entries, keys, problem in kinds:
        for entry in entries:
            if entry.model is not None and not any(getattr(entry.model, key) for key in keys):
                message = f"{problem.format(entry.name)}: it needs one of {listed(keys)}"
                report.error(entry.source, entry.place, Code.MISSING_KEY, message)


def _is_empty(model: ServiceModel) -> bool:
    names, stores = model.names, model.store
    held = [getattr(part, key) for part in (names, stores) for key in type(part).model_fields]
    return not model.addresses and not any(held)


def _references(sections: Sections, report: Report) -> None:
    spent = 0

    def refer(
        entry: PolicyEntry[Any], word: str, place: TextSpan, known: Collection[str], kind: str, code: Code
    ) -> None:
        nonlocal spent
        if word in known or not sections.whole:  # an unreadable file may define it
            return
        spent += len(known)
        if code is Code.UNKNOWN_SERVICE:
            meant = _service_meant(word, known) if spent <= _COMPARISONS else None
            hint = f"; did you mean `{meant}`?" if meant else "; neither the policy nor the catalogue has it"
        else:
            hint = did_you_mean(word, known) if spent <= _COMPARISONS else ""
            hint = hint or (f"; no {kind} is defined" if not known else "")
        report.error(entry.source, place, code, f"unknown {kind} `{word}`{hint}")

    for ban in sections.bans.values():
        for key, known, kind, code in (
            ("services", sections.services, "service", Code.UNKNOWN_SERVICE),
            ("except", sections.services, "service", Code.UNKNOWN_SERVICE),
            ("networks", sections.networks, "network", Code.UNKNOWN_NETWORK),
        ):
            seen: set[str] = set()
            for word, place in ban.items(key):
                refer(ban, word, place, known, kind, code)
                if word in seen:
                    report.warning(ban.source, place, Code.NAMED_TWICE, f"the {kind} `{word}` is named twice")
                seen.add(word)
    single: list[tuple[PolicyEntry[Any], str]] = [(ban, "extends") for ban in sections.bans.values()]
    single += [(entry, "ban") for entry in (*sections.exemptions.values(), *sections.tests)]
    for entry, key in single:
        named = entry.text(key)
        if named is not None:
            refer(entry, named, entry.at(key), sections.bans, "ban", Code.UNKNOWN_BAN)


def _service_meant(word: str, known: Collection[str]) -> str | None:
    """The service that was meant; one of the policy's own, about as long, before any of the catalogue's."""
    own = near(word, known)
    return own if own is not None and abs(len(own) - len(word)) <= 1 else near(word, [*known, *catalogue_files()])


def _users(sections: Sections, report: Report) -> None:
    """Check `proxy_auth`, and warn where networks name users that can't authenticate."""
    stated: ProxyAuthModel | None = sections.settings.get("proxy_auth")
    where = sections.settings_at.get("proxy_auth")
    if stated is not None and where is not None:
        source, place = where
        if (stated.htpasswd is None) == (stated.ldap is None):
            report.error(source, place, Code.BAD_VALUE, "`proxy_auth` has either `htpasswd` or `ldap`")
        elif stated.ldap is not None and stated.groups is not None:
            report.error(source, place, Code.BAD_VALUE, "`groups` belongs to `htpasswd`: a directory has its own")
        elif stated.ldap is not None and (stated.ldap.bind is None) != (stated.ldap.password is None):
            report.error(source, place, Code.BAD_VALUE, "`bind` and `password` of `ldap` go together")
    for entry in (*sections.networks.values(), *sections.exemptions.values()):
        named = [key for key in ("users", "groups") if entry.model is not None and getattr(entry.model, key)]
        if named and stated is None and where is None:
            message = "nobody is known by name: `settings.proxy_auth` does not say how users prove who they are"
            report.warning(entry.source, entry.at(named[0]), Code.NO_PROXY_AUTH, message)
        elif "groups" in named and stated is not None and stated.ldap is None and stated.groups is None:
            message = "nobody is in a group: `settings.proxy_auth` has no `groups`"
            report.warning(entry.source, entry.at("groups"), Code.NO_PROXY_AUTH, message)


def _service(entry: PolicyEntry[ServiceModel], model: ServiceModel, sections: Sections, report: Report) -> None:
    seen: dict[tuple[str, str], tuple[Source, TextSpan]] = {}

    def once(kind: str, value: str, source: Source, place: TextSpan) -> None:
        first_source, first = seen.setdefault((kind, value), (source, place))
        if first is not place:
            where = first_source.origin(first)
            report.warning(source, place, Code.DUPLICATE_PATTERN, f"`{value}` is there already; first at {where}")

    for kind in PatternKind:
        for value, source, place in sections.patterns(entry, kind):
            once(kind.value, value, source, place)
            reach.check_pattern(entry.name, kind, value, source, place, report)
    for address, (_, place) in zip(model.addresses, entry.items("addresses"), strict=True):
        once("address", str(address), entry.source, place)
    for store in type(model.store).model_fields:
        for value, (_, place) in zip(getattr(model.store, store), entry.items("store", store), strict=True):
            once(store, value, entry.source, place)
    if not seen and not any(model.names.files(kind) for kind in PatternKind):
        message = f"the service `{entry.name}` has no names, addresses or store listings: nothing belongs to it"
        report.warning(entry.source, entry.place, Code.EMPTY_SERVICE, message)


_Entry = PolicyEntry[NetworkModel]


def check_networks(sections: Sections, report: Report) -> dict[str, Network]:
    """The networks that are valid, and made of valid ones; none if any is part of itself."""
    for entry in sections.networks.values():
        _network_names(entry, sections, report)
    if _cycles(sections, report):
        return {}
    built = build.networks(sections)
    for name, network in built.items():
        entry = sections.networks[name]
        zones = sections.zones(name)
        if len(zones) > 1:
            message = (
                f"its networks are in several time zones ({listed(zones)}): say with `timezone` which one is meant"
            )
            report.error(entry.source, entry.at("networks"), Code.UNKNOWN_TIMEZONE, message)
        if network.except_cidrs or network.except_networks:
            _exceptions(entry, network, built, report)
    return built


def _named_networks(entry: _Entry) -> Iterator[tuple[str, TextSpan]]:
    """The networks that a network names, with their places."""
    yield from entry.items("networks")
    if entry.model is not None:
        names = {each for each in entry.model.excepted if isinstance(each, str)}
        yield from ((word, place) for word, place in entry.items("except") if word in names)


def _network_names(entry: _Entry, sections: Sections, report: Report) -> None:
    for key in ("networks", "except"):
        seen: set[str] = set()
        for word, place in entry.items(key):
            if word in seen:
                report.warning(entry.source, place, Code.NAMED_TWICE, f"`{word}` is named twice")
            seen.add(word)
    for word, place in _named_networks(entry):
        if word not in sections.networks and sections.whole:
            hint = did_you_mean(word, [name for name in sections.networks if name != entry.name])
            report.error(entry.source, place, Code.UNKNOWN_NETWORK, f"unknown network `{word}`{hint}")


def _cycles(sections: Sections, report: Report) -> bool:
    """Report a reference of each circle by which a network holds or excepts itself; whether there are any."""
    named = {name: dict(_named_networks(entry)) for name, entry in sections.networks.items()}
    found = False
    while True:
        try:
            TopologicalSorter(named).prepare()
        except CycleError as error:
            circle = error.args[1][::-1]
            name, word = circle[-2:]
            message = f"the network `{word}` would be part of itself: {' → '.join(circle)}"
            report.error(sections.networks[name].source, named[name].pop(word), Code.NETWORK_CYCLE, message)
            found = True
        else:
            return found


def _exceptions(entry: _Entry, network: Network, built: dict[str, Network], report: Report) -> None:
    """Report exceptions that take out nothing, and those that leave nobody."""
    if not all(part.by_address for part in network.members) or network.users or network.groups or network.interfaces:
        return
    if any(device.hardware for device in network.devices):
        return
    listed_here = Cover((*network.listed, *(prefix for each in network.members for prefix in each.prefixes)))
    for word, place in entry.items("except"):
        other = built.get(word)
        known = [each for each in network.except_cidrs if str(each) == word] if other is None else other.prefixes
        if (other is None or other.by_address) and known and not any(map(listed_here.meets, known)):
            message = f"`{word}` takes nothing out: no statement of the network `{entry.name}` lists any of it"
            report.warning(entry.source, place, Code.EXCEPT_OUTSIDE, message)
    if listed_here and not tuple(network.prefixes):
        message = f"the network `{entry.name}` holds nobody: `except` takes out all its clients"
        report.error(entry.source, entry.at("except"), Code.NEVER_APPLIES, message)
