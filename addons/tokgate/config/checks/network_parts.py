"""Checks of networks that are made of others or have exceptions."""

from collections.abc import Iterator

from tokgate.config import build
from tokgate.config.checks.sections import PolicyEntry, Sections
from tokgate.config.diagnostics import Code
from tokgate.config.format.networks import NetworkModel
from tokgate.config.yaml.did_you_mean import did_you_mean, listed
from tokgate.config.yaml.source import Report, TextSpan
from tokgate.policy.networks import Network
from tokgate.policy.values.prefix_cover import Cover

_Entry = PolicyEntry[NetworkModel]


def check(sections: Sections, report: Report) -> dict[str, Network]:
    """The networks that are valid, and made of valid ones; none if any is part of itself."""
    for entry in sections.networks.values():
        _names(entry, sections, report)
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


def references(entry: _Entry) -> Iterator[tuple[str, TextSpan]]:
    """The networks that a network names, with their places."""
    yield from entry.items("networks")
    if entry.model is not None:
        names = {each for each in entry.model.excepted if isinstance(each, str)}
        yield from ((word, place) for word, place in entry.items("except") if word in names)


def _names(entry: _Entry, sections: Sections, report: Report) -> None:
    for key in ("networks", "except"):
        seen: set[str] = set()
        for word, place in entry.items(key):
            if word in seen:
                report.warning(entry.source, place, Code.NAMED_TWICE, f"`{word}` is named twice")
            seen.add(word)
    for word, place in references(entry):
        if word not in sections.networks and sections.whole:
            hint = did_you_mean(word, [name for name in sections.networks if name != entry.name])
            report.error(entry.source, place, Code.UNKNOWN_NETWORK, f"unknown network `{word}`{hint}")


def _cycles(sections: Sections, report: Report) -> bool:
    """Report each reference by which a network holds or excepts itself; whether there are any."""
    named = {name: list(references(entry)) for name, entry in sections.networks.items()}
    done: set[str] = set()
    found = False
    for start in named:
        path: list[str] = []
        open_names: dict[str, Iterator[tuple[str, TextSpan]]] = {}
        stack = [] if start in done else [start]
        while stack:
            name = stack[-1]
            if name not in open_names:
                open_names[name] = iter(named[name])
                path.append(name)
            for word, place in open_names[name]:
                if word in open_names:
                    round_trip = " → ".join((*path[path.index(word) :], word))
                    entry = sections.networks[name]
                    message = f"the network `{word}` would be part of itself: {round_trip}"
                    report.error(entry.source, place, Code.NETWORK_CYCLE, message)
                    found = True
                elif word in named and word not in done:
                    stack.append(word)
                    break
            else:
                done.add(name)
                del open_names[name]
                path.pop()
                stack.pop()
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
