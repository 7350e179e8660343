"""Creates and ends overrides, each a YAML file, which is tried with the whole policy before it is written."""

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Self

import yaml
from whenever import Instant

from tokgate.blocklog.atomic_file import sync
from tokgate.cli.account import you
from tokgate.cli.arguments import common_zone
from tokgate.cli.exits import CommandError, Exit
from tokgate.cli.output_file import locked, replace_policy_file
from tokgate.cli.policy_source import open_policy
from tokgate.cli.terminal import narrate, shown, wants_color
from tokgate.config.diagnostics import Code, Diagnostic, render
from tokgate.config.loader import load
from tokgate.config.yaml.suggestions import did_you_mean, listed
from tokgate.policy.analysis.terms import outlasts
from tokgate.policy.bans import Ban, Exemption, Overrides
from tokgate.policy.schedule import Duration, Edge, Moment, add_duration, resolve
from tokgate.policy.snapshot import Policy
from tokgate.policy.values.prefixes import Cover, IPNetwork
from tokgate.policy.values.text import both, local

FOLDER: Final = "overrides"
"""The folder of overrides, in that of the policies."""
_BAN_PART: Final = 44
"""Characters of the ban's name in that of an override: names have 64 at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OverrideRequest:
    """The arguments for an override: `lasting` or `until`, `network` or `clients`."""

    ban: str
    network: str | None
    clients: tuple[IPNetwork, ...]
    users: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    interfaces: tuple[str, ...] = ()
    lasting: Duration | None
    until: Moment | None
    reason: str
    ticket: str | None
    by: str | None
    name: str | None


@dataclass(frozen=True, slots=True)
class Change:
    """An entry of the history: what was done to an override, by whom, when."""

    did: str
    at: Instant
    by: str


@dataclass(frozen=True, slots=True)
class Text:
    """The content of the file. `history` is written as comments: lines of `Change`s, or lines that were read."""

    override: Exemption
    zone: str
    history: tuple[Change | str, ...]

    def encode(self) -> bytes:
        """The content of the file, in UTF-8."""
        override, zone = self.override, self.zone
        stated: dict[str, Any] = {
            "ban": override.ban,
            "clients": [str(client) for client in override.clients],
            "users": list(override.users),
            "groups": list(override.groups),
            "devices": list(override.devices),
            "interfaces": list(override.interfaces),
            "starts": _written(override.starts, zone),
            "until": _written(override.until, zone),
            "reason": override.reason,
            "ticket": override.ticket,
            "by": override.by,
            "ended_by": override.ended_by,
            "override": True,
        }
        stated = {key: value for key, value in stated.items() if value not in (None, [])}
        body = yaml.safe_dump(
            {"version": 1, "exemptions": {override.name: stated}}, sort_keys=False, allow_unicode=True, width=1 << 20
        )
        return "\n".join((_SCHEMA_LINE, "#", *map(self._comment, self.history), body)).encode()

    def _comment(self, change: Change | str) -> str:
        if isinstance(change, str):
            return change
        return f"# {change.did.capitalize()} by `tokgate override`: {local(change.at, self.zone)}, {change.by}"

    @classmethod
    def read(cls, path: Path, override: Exemption, zone: str) -> Self:
        """Read the file of an override. Raises CommandError if it holds anything else, or is another file."""
        where = override.origin
        if where is None or Path(where.file) != path:
            message = f"it stands in {where} and not in {shown(str(path))}: change its `until` there"
            raise CommandError(message, Exit.FINDINGS)
        text = path.read_text(encoding="utf-8-sig")
        said = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506  (makes nothing but text, lists and mappings)
        if set(said) - {"version", "exemptions"} or set(said["exemptions"]) != {override.name}:
            message = f"{shown(str(path))} holds more than this override: change its `until` there ({where})"
            raise CommandError(message, Exit.FINDINGS)
        comments = [line for line in text.splitlines() if line.startswith("#")]
        return cls(override, zone, tuple(line for line in comments if line not in (_SCHEMA_LINE, "#")))


def add(policies: Path, wanted: OverrideRequest) -> Exit:
    """Create an override and print its name."""
    _need_folder(policies)
    with locked(policies):
        now = Instant.now().round("second", mode="floor")
        policy = open_policy(policies, now)
        ban = _ban(policy, wanted.ban)
        clients, zone = _clients(policy, ban, wanted)
        until = _until(policy, wanted, now, zone)
        listing = wanted if wanted.network is None else policy.networks[wanted.network]
        override = Exemption(
            name=_name(policy, policies, wanted, now),
            ban=ban.name,
            clients=clients,
            users=listing.users,
            groups=listing.groups,
            devices=wanted.devices,
            interfaces=listing.interfaces,
            starts=now,
            until=until,
            reason=wanted.reason,
            ticket=wanted.ticket,
            by=wanted.by or you(),
            override=True,
        )
        path = policies / FOLDER / f"{override.name}.yaml"
        said = Text(override, zone, (Change("made", now, override.by or ""),)).encode()
        doubts = _try_out(policies, path, said, now)
        write(path, said)
    sys.stdout.write(f"{override.name}\n")
    for each in doubts:
        _show(each)
    whom = wanted.network or listed(override.whom)
    narrate(f"tokgate: {shown(ban.name)} does not hold for {shown(whom)} until {both(until, zone)}")
    narrate(f"tokgate: written to {shown(str(path))}; to end it earlier: tokgate override end {override.name}")
    return Exit.DONE


def end(policies: Path, name: str, by: str | None) -> Exit:
    """End an override now. Its file is kept."""
    _need_folder(policies)
    with locked(policies):
        now = Instant.now().round("second", mode="floor")
        policy = open_policy(policies, now)
        override = _override(policy, name)
        zone = _zone(policy, policy.bans[override.ban].networks)
        starts = Instant.MIN if override.starts is None else resolve(override.starts, zone, Edge.START)
        ends, path = resolve(override.until, zone, Edge.END), policies / FOLDER / f"{name}.yaml"
        if ends <= now:
            narrate(f"tokgate: {shown(name)} ended {both(ends, zone)}: nothing to do")
            return Exit.DONE
        earlier = Text.read(path, override, zone)
        if starts > now:
            remove(path)
            narrate(f"tokgate: {shown(name)} had not begun: {shown(str(path))} is removed")
            return Exit.DONE
        who, over = by or you(), max(now, starts.add(seconds=1))  # one ended in its first second has had that second
        ended = replace(override, until=over, ended_by=who)
        said = Text(ended, zone, (*earlier.history, Change("ended", over, who))).encode()
        _try_out(policies, path, said, now)
        write(path, said)
    narrate(f"tokgate: {shown(name)} ended {both(over, zone)}: {shown(override.ban)} holds again")
    return Exit.DONE


def _need_folder(policies: Path) -> None:
    if policies.exists() and not policies.is_dir():
        raise CommandError(f"{shown(str(policies))} is a file: overrides need a folder of policies", Exit.USAGE)
    if not policies.exists():
        raise CommandError(f"{shown(str(policies))}: no such folder", Exit.FINDINGS)


def _ban(policy: Policy, name: str) -> Ban:
    ban = policy.bans.get(name)
    if ban is None:
        raise CommandError(f"unknown ban `{shown(name)}`{did_you_mean(name, policy.bans)}", Exit.USAGE)
    if ban.overrides is Overrides.FORBIDDEN:
        raise CommandError(f"the ban `{name}` forbids overrides ({ban.origin})", Exit.FINDINGS)
    return ban


def _clients(policy: Policy, ban: Ban, wanted: OverrideRequest) -> tuple[tuple[IPNetwork, ...], str]:
    """The clients that are exempt, and their time zone."""
    if wanted.network is not None:
        network = policy.networks.get(wanted.network)
        if network is None:
            hint = did_you_mean(wanted.network, ban.networks)
            raise CommandError(f"unknown network `{shown(wanted.network)}`{hint}", Exit.USAGE)
        if wanted.network not in ban.networks:
            theirs = listed(ban.networks)
            message = f"the ban `{ban.name}` does not concern the network `{network.name}`, but {theirs}"
            raise CommandError(message, Exit.FINDINGS)
        if network.devices:
            message = f"`{network.name}` names devices of an inventory: name them one by one with --device"
            raise CommandError(message, Exit.FINDINGS)
        if len(network.parts) > 1 and not network.by_address:
            message = f"`{network.name}` is made of networks that name more than addresses: name one of them"
            raise CommandError(message, Exit.FINDINGS)
        return tuple(network.prefixes), network.timezone
    networks = [policy.networks[name] for name in ban.networks]
    covered = Cover(prefix for network in networks for prefix in network.prefixes)
    certain = all(network.by_address for network in networks)  # else a client may be in one of them by other attributes
    for client in wanted.clients if certain else ():
        if not covered.holds(client):
            part = "not wholly in" if covered.meets(client) else "in none of"
            message = f"`{client}` is {part} the networks of the ban `{ban.name}`: {listed(ban.networks)}"
            raise CommandError(message, Exit.FINDINGS)
    near = [name for name in ban.networks if any(map(Cover(policy.networks[name].prefixes).meets, wanted.clients))]
    return tuple(dict.fromkeys(wanted.clients)), _zone(policy, near or ban.networks)


def _zone(policy: Policy, networks: "list[str] | tuple[str, ...]") -> str:
    """The time zone in which times are read and written; UTC for networks in several."""
    return common_zone(policy.networks[name] for name in networks)


def _until(policy: Policy, wanted: OverrideRequest, now: Instant, zone: str) -> Instant:
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


def _name(policy: Policy, policies: Path, wanted: OverrideRequest, now: Instant) -> str:
    if wanted.name is not None:
        known = policy.exemptions.get(wanted.name)
        if known is not None:
            raise CommandError(f"there is an exemption `{shown(wanted.name)}` already ({known.origin})", Exit.USAGE)
        if os.sep in wanted.name or wanted.name.startswith("."):
            raise CommandError(f"`{shown(wanted.name)}` can't be a name", Exit.USAGE)
        if (policies / FOLDER / f"{wanted.name}.yaml").exists():
            raise CommandError(f"there is a file for `{shown(wanted.name)}` already: choose another name", Exit.USAGE)
        return wanted.name
    made = f"{wanted.ban[:_BAN_PART]}-{now.format_iso(basic=True)}"
    name, number = made, 2
    while name in policy.exemptions or (policies / FOLDER / f"{name}.yaml").exists():
        name, number = f"{made}-{number}", number + 1
    return name


def _override(policy: Policy, name: str) -> Exemption:
    known = policy.exemptions.get(name)
    if known is None:
        names = [each.name for each in policy.exemptions.values() if each.override]
        raise CommandError(f"unknown override `{shown(name)}`{did_you_mean(name, names)}", Exit.USAGE)
    if not known.override:
        message = f"`{name}` is no override but an exemption written by hand: change its `until` ({known.origin})"
        raise CommandError(message, Exit.FINDINGS)
    return known


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


_SCHEMA_LINE: Final = "# yaml-language-server: $schema=../../schema/policy.schema.json"


def _written(moment: Moment | None, zone: str) -> str | None:
    """With its offset, so that it is the same instant in every network of the ban."""
    if isinstance(moment, Instant):
        return moment.to_tz(zone).to_fixed_offset().format_iso(unit="second")
    return None if moment is None else moment.format_iso()


def write(path: Path, text: bytes) -> None:
    """Replace a file, and make its folder where it is missing. Raises OSError."""
    folder = path.parent
    if not folder.exists():
        folder.mkdir()
        folder.chmod(0o755)  # whatever the mask: tokgate may run as another user
    replace_policy_file(path, text)


def remove(path: Path) -> None:
    """Delete a file, and sync its folder. Raises OSError."""
    path.unlink()
    sync(path.parent)
