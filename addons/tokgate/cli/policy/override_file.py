"""Makes and ends overrides: the YAML file of each, which is tried with the whole policy before it is written."""

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypedDict

import yaml
from whenever import Instant

from tokgate.blocklog.atomic_file import locked
from tokgate.cli.arguments import common_zone
from tokgate.cli.commands import CommandError, Exit
from tokgate.cli.output_file import replace_policy_file
from tokgate.cli.policy_source import open_policy
from tokgate.cli.terminal import narrate, visible, wants_color, you
from tokgate.config.diagnostics import Code, Diagnostic, did_you_mean, listed, render
from tokgate.config.loader import load
from tokgate.policy.analysis.terms import outlasts
from tokgate.policy.bans import Ban, Exemption, Overrides
from tokgate.policy.decision import Phase
from tokgate.policy.networks import Network
from tokgate.policy.schedule import Duration, Edge, Moment, add_duration, resolve
from tokgate.policy.snapshot import Policy, compile_policy
from tokgate.policy.values.prefixes import Cover, IPNetwork
from tokgate.policy.values.text import both, shown

FOLDER: Final = "overrides"
"""The folder of overrides, in that of the policies."""
_SCHEMA_LINE: Final = "# yaml-language-server: $schema=../../schema/policy.schema.json"
_BAN_PART: Final = 36
"""Characters of the ban's name in that of an override."""
_NAME: Final = 64
"""Characters of a name."""
_ALL: Final = "all-bans"
"""How the names of overrides from all bans begin."""
_IDLE: Final = (Phase.ANNOUNCED, Phase.EXPIRED)


class Whom(TypedDict):
    """For whom an override is."""

    clients: list[str]
    users: list[str]
    groups: list[str]
    devices: list[str]
    interfaces: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """An override to be made; its fields are the options of `add`. Without `ban` it is from all of them."""

    ban: str | None
    reason: str
    by: str | None
    ticket: str | None
    lasting: Duration | None
    until: Moment | None
    name: str | None = None
    network: str | None = None
    clients: Sequence[IPNetwork] = ()
    users: Sequence[str] = ()
    groups: Sequence[str] = ()
    devices: Sequence[str] = ()
    interfaces: Sequence[str] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """An override that was written: its exemptions, their end, and for whom as far as the options say so."""

    name: str
    path: Path
    overrides: list[Exemption]
    until: Instant
    zone: str
    whom: list[str]
    doubts: list[Diagnostic]
    forbidding: list[Ban]

    def narrate(self) -> None:
        """Say on standard error what holds now, and what not."""
        for doubt in self.doubts:
            _show(doubt)
        for override, whom in zip(self.overrides, self.whom, strict=True):
            end = both(self.until, self.zone)
            narrate(f"tokgate: {visible(override.ban)} does not hold for {visible(whom)} until {end}")
        ending = f"to end it earlier: tokgate override end {self.name}"
        narrate(f"tokgate: written to {visible(str(self.path))}; {ending}")
        for each in self.forbidding:
            narrate(f"tokgate: {visible(each.name)} forbids overrides ({each.origin}), and HOLDS")


def make_override(policies: Path, wanted: Wanted, at: Instant) -> Made:
    """Write an override, with the policies locked. Raises CommandError, OSError."""
    now = at.round("second", mode="floor")
    policy = open_policy(policies, now)
    network = _network(policy, wanted.network)
    ban = _ban(policy, wanted.ban)
    zone = _zone(policy, ban, network, wanted.clients)
    until = _until(policy, wanted, now, zone)
    bans = _all_bans(policy, network, now, until) if ban is None else [ban]
    forbidding = [each for each in bans if each.overrides is Overrides.FORBIDDEN]
    made_from = [each for each in bans if each not in forbidding]
    name = wanted.name or f"{(wanted.ban or _ALL)[:_BAN_PART]}-{now.format_iso(basic=True)}"
    free, more = name, 2
    while free in policy.exemptions or (policies / FOLDER / f"{free}.yaml").exists():
        free, more = f"{name}-{more}", more + 1
    name = free
    made = []
    for number, each in enumerate(made_from, 1):
        bare = Exemption(
            name=name if len(made_from) == 1 else f"{name[:_BAN_PART]}-{number}-{each.name}"[:_NAME],
            ban=each.name,
            starts=now,
            until=until,
            reason=wanted.reason,
            ticket=wanted.ticket,
            by=wanted.by or you(),
            override=True,
        )
        made.append(_for_whom(policy, bare, network, wanted))
    path = policies / FOLDER / f"{name}.yaml"
    said = _encoded(made, zone)
    doubts = _try_out(policies, path, said, now)
    if not path.parent.exists():
        path.parent.mkdir()
        path.parent.chmod(0o755)  # whatever the mask: tokgate may run as another user
    replace_policy_file(path, said)
    whom = [wanted.network or listed(each.whom if ban is not None else policy.bans[each.ban].networks) for each in made]
    return Made(
        name=name, path=path, overrides=made, until=until, zone=zone, whom=whom, doubts=doubts, forbidding=forbidding
    )


def end_override(options: argparse.Namespace) -> Exit:
    """End an override now. Its file is kept."""
    policies, name = options.policies, options.name
    with policies_locked(policies):
        now = Instant.now().round("second", mode="floor")
        policy, path = open_policy(policies, now), policies / FOLDER / f"{name}.yaml"
        known = _overrides(policy, name, path)
        zone = common_zone(policy.networks[each] for each in policy.bans[known[0].ban].networks)
        starts = known[0].starts
        begins = Instant.MIN if starts is None else resolve(starts, zone, Edge.START)
        ends = resolve(known[0].until, zone, Edge.END)
        if ends <= now:
            narrate(f"tokgate: {visible(name)} ended {both(ends, zone)}: nothing to do")
            return Exit.DONE
        if begins > now:
            raise CommandError(f"{visible(name)} has not begun: delete {visible(str(path))}", Exit.FINDINGS)
        who, over = options.by or you(), max(now, begins.add(seconds=1))  # ended in its first second, it has had that
        ended = [replace(each, until=over, ended_by=who) for each in known]
        said = _encoded(ended, zone)
        _try_out(policies, path, said, now)
        replace_policy_file(path, said)
    holds = f"{', '.join(each.ban for each in known)} hold{'s' if len(known) == 1 else ''} again"
    narrate(f"tokgate: {visible(name)} ended {both(over, zone)}: {visible(holds)}")
    return Exit.DONE


def whom_of(exemption: Exemption) -> Whom:
    return shown(Whom, exemption, clients=[str(client) for client in exemption.clients])


def policies_locked(policies: Path) -> AbstractContextManager[None]:
    """One command at a time makes and ends overrides. Raises CommandError, OSError."""
    if not policies.is_dir():
        raise CommandError(f"{visible(str(policies))} is no folder: overrides need a folder of policies", Exit.USAGE)
    return locked(policies)


def _ban(policy: Policy, name: str | None) -> Ban | None:
    if name is None:
        return None
    ban = policy.bans.get(name)
    if ban is None:
        raise CommandError(f"unknown ban `{visible(name)}`{did_you_mean(name, policy.bans)}", Exit.USAGE)
    if ban.overrides is Overrides.FORBIDDEN:
        raise CommandError(f"the ban `{name}` forbids overrides ({ban.origin})", Exit.FINDINGS)
    return ban


def _network(policy: Policy, name: str | None) -> Network | None:
    if name is None:
        return None
    network = policy.networks.get(name)
    if network is None:
        raise CommandError(f"unknown network `{visible(name)}`{did_you_mean(name, policy.networks)}", Exit.USAGE)
    if len(network.parts) > 1 and not network.by_address:
        message = f"`{network.name}` is made of networks that name more than addresses: name one of them"
        raise CommandError(message, Exit.FINDINGS)
    return network


def _all_bans(policy: Policy, network: Network | None, now: Instant, until: Instant) -> list[Ban]:
    """The bans that are in force between two instants for somebody, or for a client of the network."""
    found = {
        track.ban.name: track.ban
        for track in compile_policy(policy).tracks
        if any(change.at < until and change.phase not in _IDLE for change in track.schedule.changes)
        and track.schedule.state_at(now).phase is not Phase.EXPIRED
        and (network is None or network.name in track.networks or any(_met(policy, track.ban, network.prefixes)))
    }
    if all(ban.overrides is Overrides.FORBIDDEN for ban in found.values()):
        why = "all bans forbid overrides" if found else "no ban is in force, or will be by then"
        raise CommandError(f"{why}: nothing was written", Exit.FINDINGS)
    return list(found.values())


def _met(policy: Policy, ban: Ban, prefixes: Iterable[IPNetwork]) -> Iterator[IPNetwork]:
    """Those of some prefixes that may hold a client of the ban."""
    networks = [policy.networks[name] for name in ban.networks]
    covered = Cover(prefix for network in networks for prefix in network.prefixes)
    certain = all(network.by_address for network in networks)  # else a client may be in one of them by other attributes
    yield from (prefix for prefix in prefixes if not certain or covered.meets(prefix))


def _for_whom(policy: Policy, bare: Exemption, network: Network | None, wanted: Wanted) -> Exemption:
    """The exemption for the clients that are named. Raises CommandError."""
    ban = policy.bans[bare.ban]
    if network is None and wanted.ban is not None:
        clients = tuple(dict.fromkeys(wanted.clients))
        covered = Cover(prefix for name in ban.networks for prefix in policy.networks[name].prefixes)
        certain = all(policy.networks[name].by_address for name in ban.networks)
        for client in clients if certain else ():
            if not covered.holds(client):
                part = "not wholly in" if covered.meets(client) else "in none of"
                message = f"`{client}` is {part} the networks of the ban `{ban.name}`: {listed(ban.networks)}"
                raise CommandError(message, Exit.FINDINGS)
        return replace(
            bare,
            clients=clients,
            users=tuple(wanted.users),
            groups=tuple(wanted.groups),
            devices=tuple(wanted.devices),
            interfaces=tuple(wanted.interfaces),
        )
    if network is not None and wanted.ban is not None and network.name not in ban.networks:
        message = f"the ban `{ban.name}` does not concern the network `{network.name}`, but {listed(ban.networks)}"
        raise CommandError(message, Exit.FINDINGS)
    whole = [policy.networks[name] for name in ban.networks] if network is None else [network]
    parts = [part for each in whole for part in each.parts]
    devices = [device for part in parts for device in part.devices if device.name or device.hardware]
    return replace(
        bare,
        clients=tuple(dict.fromkeys(_met(policy, ban, (prefix for each in whole for prefix in each.prefixes)))),
        users=tuple(dict.fromkeys(user for part in parts for user in part.users)),
        groups=tuple(dict.fromkeys(group for part in parts for group in part.groups)),
        devices=tuple(dict.fromkeys(map(str, devices))),
        interfaces=tuple(dict.fromkeys(name for part in parts for name in part.interfaces)),
    )


def _zone(policy: Policy, ban: Ban | None, network: Network | None, clients: Sequence[IPNetwork]) -> str:
    """The time zone of those who are exempt; UTC where they live in several."""
    if network is not None:
        return network.timezone
    names = list(policy.networks) if ban is None else list(ban.networks)
    near = [name for name in names if any(map(Cover(policy.networks[name].prefixes).meets, clients))]
    return common_zone(policy.networks[name] for name in near or names)


def _until(policy: Policy, wanted: Wanted, now: Instant, zone: str) -> Instant:
    longest = policy.settings.overrides.longest
    try:
        if wanted.until is not None:
            until = resolve(wanted.until, zone, Edge.END)
        else:
            until = add_duration(now, wanted.lasting or longest, zone)
    except ValueError:
        raise CommandError("that is beyond the end of the calendar", Exit.USAGE) from None
    if until <= now:
        raise CommandError(f"it is past {both(until, zone)} already: it is {both(now, zone)}", Exit.USAGE)
    if outlasts(now, until, longest, zone):
        latest = both(add_duration(now, longest, zone), zone)
        allowed = f"an override lasts at most {longest.format_iso()} (`settings.overrides.longest`), until {latest} now"
        raise CommandError(f"{allowed}; for longer write an exemption, and have it reviewed", Exit.FINDINGS)
    return until


def _overrides(policy: Policy, name: str, path: Path) -> list[Exemption]:
    """The overrides in a file that holds nothing else. Raises CommandError."""
    theirs = [e for e in policy.exemptions.values() if e.override and e.origin and Path(e.origin.file) == path]
    if theirs:
        said = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=yaml.BaseLoader)  # noqa: S506  (text, lists, mappings)
        if set(said) <= {"version", "exemptions"} and set(said["exemptions"]) == {each.name for each in theirs}:
            return theirs
        message = f"{visible(str(path))} holds more than this override: change its `until` there"
        raise CommandError(message, Exit.FINDINGS)
    known = policy.exemptions.get(name)
    if known is None:
        names = [each.name for each in policy.exemptions.values() if each.override]
        raise CommandError(f"unknown override `{visible(name)}`{did_you_mean(name, names)}", Exit.USAGE)
    raise CommandError(f"`{name}` is not of a file of its own: change its `until` in {known.origin}", Exit.FINDINGS)


def _try_out(policies: Path, path: Path, said: bytes, now: Instant) -> list[Diagnostic]:
    """Load the policy with the override: the warnings about it. Raises CommandError if it is invalid or idle."""
    loaded = load(policies, now, proposed={path: said})
    doubts = [each for each in loaded.warnings if each.origin.file == str(path)]
    ours = [each for each in doubts if each.code is Code.EXEMPTION_IDLE]
    if loaded.policy is not None and not ours:
        return doubts
    for diagnostic in loaded.errors or ours:
        _show(diagnostic)
    why = "is over, or has not begun by then: there is nothing to make an exception from"
    message = f"the ban {why}" if ours and not loaded.errors else "with this override the policy would not be valid"
    raise CommandError(f"{message}; nothing was written", Exit.FINDINGS)


def _show(diagnostic: Diagnostic) -> None:
    narrate(render(diagnostic, color=wants_color(sys.stderr)))


def _encoded(overrides: Sequence[Exemption], zone: str) -> bytes:
    stated: dict[str, dict[str, Any]] = {}
    for each in overrides:
        said = {
            "ban": each.ban,
            **whom_of(each),
            "starts": _written(each.starts, zone),
            "until": _written(each.until, zone),
            "reason": each.reason,
            "ticket": each.ticket,
            "by": each.by,
            "ended_by": each.ended_by,
            "override": True,
        }
        stated[each.name] = {key: value for key, value in said.items() if value not in (None, [])}
    document = {"version": 1, "exemptions": stated}
    body = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=1 << 20)
    return f"{_SCHEMA_LINE}\n{body}".encode()


def _written(moment: Moment | None, zone: str) -> str | None:
    """With its offset, so that it is the same instant in every network of the ban."""
    if isinstance(moment, Instant):
        return moment.to_tz(zone).to_fixed_offset().format_iso(unit="second")
    return None if moment is None else moment.format_iso()
