"""`tokgate service learn`: a service file of what a monitored ban on all services saw, to be edited."""

import argparse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import yaml
from whenever import Instant

from tokgate.blocklog.read.reader import Junk, open_log, read
from tokgate.blocklog.read.replay_query import alias_of, recorded
from tokgate.blocklog.records.record import EventAction, counted, text_at
from tokgate.cli.commands import CommandError, Exit
from tokgate.cli.configuration import default_log
from tokgate.cli.log.source import UnreadableLineReporter, files_of
from tokgate.cli.output_file import replace_policy_file
from tokgate.cli.terminal import Patience, narrate, print_lines, visible
from tokgate.config.diagnostics import did_you_mean
from tokgate.config.service_lists.selection import shared_host
from tokgate.policy.services import Service, ServiceIndex
from tokgate.policy.snapshot import Policy
from tokgate.policy.values.hostname import AddressLiteral, DomainName, Name, domain_parts, normalise, public_suffix
from tokgate.policy.values.text import utc

MAX_NAMES: Final = 100_000
"""Names and addresses of a file; more than these are told, and left out."""


@dataclass(slots=True)
class _Sight:
    """How often a name or an address was asked for, by which clients, and since when."""

    since: Instant
    count: int = 0
    clients: set[str] = field(default_factory=set)

    def add(self, other: "_Sight") -> None:
        self.since = min(self.since, other.since)
        self.count += other.count
        self.clients |= other.clients

    def __str__(self) -> str:
        return f"{counted(self.count, 'time')}, {counted(len(self.clients), 'client')}"


def learn(options: argparse.Namespace, policy: Policy, services: Iterable[Service]) -> int:
    """Read the would-blocks of the ban, and write a file of the names that no service of its `except` has yet."""
    ban = policy.bans.get(options.ban)
    if ban is None:
        hint = did_you_mean(options.ban, list(policy.bans))
        raise CommandError(f"there is no ban {visible(options.ban)}{hint}", Exit.USAGE)
    if not ban.on_all:
        raise CommandError(f"{ban.name} is not on all services: nothing is to be excepted", Exit.USAGE)
    name = options.name or f"{ban.name}-learned"
    if options.policies.is_file():
        raise CommandError(f"{visible(str(options.policies))} is one file: a service file needs a folder", Exit.USAGE)
    target: Path = options.policies / "services" / f"{name}.yaml"
    if target.exists() or name in policy.services:
        raise CommandError(f"there is a service {name} already: choose another --name", Exit.FINDINGS)
    files = files_of(options.log or [default_log()], rotated=True)
    unreadable = UnreadableLineReporter()
    names, addresses = _seen(files, ban.name, unreadable)
    unreadable.close()
    excepted = ServiceIndex(policy.services[each] for each in ban.excepted)
    for seen in (names, addresses):
        for each in [each for each in seen if excepted.match(str(each)).hits]:
            del seen[each]
    if not names and not addresses:
        raise CommandError(
            f"the log has no would-blocks of {ban.name} that its `except` lacks: it needs `action: monitor`, or "
            "`monitor_from`, and some traffic",
            Exit.FINDINGS,
        )
    target.parent.mkdir(exist_ok=True)
    replace_policy_file(target, "".join(_file(name, ban.name, ServiceIndex(services), names, addresses)).encode())
    taken = f"{counted(len(names), 'name')}, {counted(len(addresses), 'address')}"
    print_lines([f"{visible(str(target))}: {taken}"])
    narrate(f"tokgate: edit it, add {name} to the `except` of {ban.name}; `tokgate diff --log` shows what is refused")
    return Exit.FINDINGS if unreadable.count else Exit.DONE


def _seen(
    files: Iterable[Path], ban: str, unreadable: UnreadableLineReporter
) -> tuple[dict[str, _Sight], dict[str, _Sight]]:
    """The names, and the addresses that were asked for without a name, of the ban's would-blocks."""
    found: tuple[dict[str, _Sight], dict[str, _Sight]] = ({}, {})
    done, left = 0, 0
    with Patience("reading the log", size=True) as show:
        for line in read(files, open_log):
            if isinstance(line, Junk):
                unreadable.tell(line)
                continue
            done += len(line.raw) + 1
            show(done, None)
            if text_at(line.record, "event", "action") != EventAction.WOULD_BLOCK:
                continue
            query = recorded(line, alias_of(line.record))
            if query is None or text_at(line.record, "rule", "id") != ban:
                continue
            hosts: set[Name] = {normalise(each.host or "") for each in query.sightings}
            names = {each.value for each in hosts if isinstance(each, DomainName)}
            others = {str(each) for each in hosts if isinstance(each, AddressLiteral)}
            for each in names or others:
                seen = found[not names]
                if each not in seen and len(seen) >= MAX_NAMES:
                    left += 1
                    continue
                seen.setdefault(each, _Sight(query.at)).add(_Sight(query.at, query.count, {query.client}))
    if left:
        narrate(f"tokgate: beyond {MAX_NAMES:,} names, {counted(left, 'record')} were left out")
    return found


_HEAD: Final = """\
# yaml-language-server: $schema=../../schema/policy.schema.json
#
# Made by `tokgate service learn` of {events} that {ban} would have refused, since {since}.
# To be edited: take out what nobody needs. Each name stands for itself alone; `suffix` instead of `exact` takes all
# names below it too, which on a shared host are strangers'.
version: 1
services:
  {name}:
    title: {name}
"""


def _file(
    name: str, ban: str, known: ServiceIndex, names: dict[str, _Sight], addresses: dict[str, _Sight]
) -> Iterator[str]:
    """The file: names under their registrable domains, then addresses, those most asked for first."""
    everything = [*names.values(), *addresses.values()]
    events, since = sum(each.count for each in everything), utc(min(each.since for each in everything))
    yield _HEAD.format(events=counted(events, "event"), ban=ban, since=since, name=name)
    domains: dict[str, dict[str, _Sight]] = {}
    for each, sight in names.items():
        domains.setdefault(domain_parts(each).registered_domain or each, {})[each] = sight
    totals = {domain: _total(sights.values()) for domain, sights in domains.items()}
    if names:
        yield "    names:\n      exact:\n"
    for domain in _most_first(totals):
        yield f"        # {domain}: {totals[domain]}\n"
        for each in _most_first(domains[domain]):
            yield f"        - {_line(each, domains[domain][each], totals[domain], known)}\n"
    if addresses:
        yield "    addresses:  # asked for without a name\n"
    for each in _most_first(addresses):
        yield f"      - {_line(each, addresses[each], addresses[each], known)}\n"


def _total(sights: Iterable[_Sight]) -> _Sight:
    total = _Sight(Instant.MAX)
    for each in sights:
        total.add(each)
    return total


def _most_first(sights: dict[str, _Sight]) -> list[str]:
    return sorted(sights, key=lambda each: (-sights[each].count, each))


def _line(host: str, seen: _Sight, domain: _Sight, known: ServiceIndex) -> str:
    """A host with what an editor has to know before it is left in; `domain` is what was seen of all its domain."""
    # YAML has to take it for a text: `on` and the like get quotes.
    said = [f"{yaml.safe_dump(host).splitlines()[0]}  # {seen}, since {utc(seen.since)}"]
    said += [f"belongs to {hit.service}" for hit in known.match(host).hits if not hit.front]
    parents = [host.split(".", depth)[-1] for depth in range(host.count(".") + 1)]
    shared = next((each for each in parents if shared_host(each) == each), None) or public_suffix(host, private=True)
    if shared is not None and shared != public_suffix(host):
        said.append(f"a shared host: below {shared} are many customers' names")
    if len(domain.clients) == 1:
        said.append("a stranger: one client alone asked for this domain")
    return "; ".join(said)
