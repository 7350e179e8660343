"""Creates and ends overrides, each a YAML file, which is tried with the whole policy before it is written."""

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import yaml
from whenever import Instant

from tokgate.blocklog.atomic_file import sync
from tokgate.cli.account import you
from tokgate.cli.arguments import common_zone
from tokgate.cli.exits import CommandError, Exit
from tokgate.cli.output_file import locked, replace_policy_file
from tokgate.cli.policy_source import open_policy
from tokgate.cli.terminal import narrate, visible, wants_color
from tokgate.config.diagnostics import Code, Diagnostic, render
from tokgate.config.loader import load
from tokgate.config.yaml.suggestions import did_you_mean, listed
from tokgate.policy.analysis.terms import outlasts
from tokgate.policy.bans import Ban, Exemption, Overrides
from tokgate.policy.schedule import Edge, Moment, add_duration, resolve
from tokgate.policy.snapshot import Policy
from tokgate.policy.values.prefixes import Cover, IPNetwork
from tokgate.policy.values.text import both, local

FOLDER: Final = "overrides"
"""The folder of overrides, in that of the policies."""
_SCHEMA_LINE: Final = "# yaml-language-server: $schema=../../schema/policy.schema.json"
_BAN_PART: Final = 44
"""Characters of the ban's name in that of an override: names have 64 at most."""


def add(policies: Path, options: argparse.Namespace) -> Exit:
    """Create an override and print its name."""
    _need_folder(policies)
    with locked(policies):
        now = Instant.now().round("second", mode="floor")
        policy = open_policy(policies, now)
        ban = _ban(policy, options.ban)
        clients, zone = _clients(policy, ban, options)
        until = _until(policy, options, now, zone)
        network = None if options.network is None else policy.networks[options.network]
        override = Exemption(
            name=_name(policy, policies, options, now),
            ban=ban.name,
            clients=clients,
            users=tuple(options.user or ()) if network is None else network.users,
            groups=tuple(options.group or ()) if network is None else network.groups,
            devices=tuple(options.device or ()),
            interfaces=tuple(options.interface or ()) if network is None else network.interfaces,
            starts=now,
            until=until,
            reason=options.reason,
            ticket=options.ticket,
            by=options.by or you(),
            override=True,
        )
        path = policies / FOLDER / f"{override.name}.yaml"
        said = _encoded(override, zone, [_entry("Made", now, override.by or "", zone)])
        doubts = _try_out(policies, path, said, now)
        if not path.parent.exists():
            path.parent.mkdir()
            path.parent.chmod(0o755)  # whatever the mask: tokgate may run as another user
        replace_policy_file(path, said)
    sys.stdout.write(f"{override.name}\n")
    for each in doubts:
        _show(each)
    whom = options.network or listed(override.whom)
    narrate(f"tokgate: {visible(ban.name)} does not hold for {visible(whom)} until {both(until, zone)}")
    narrate(f"tokgate: written to {visible(str(path))}; to end it earlier: tokgate override end {override.name}")
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
            narrate(f"tokgate: {visible(name)} ended {both(ends, zone)}: nothing to do")
            return Exit.DONE
        history = _history(path, override)
        if starts > now:
            path.unlink()
            sync(path.parent)
            narrate(f"tokgate: {visible(name)} had not begun: {visible(str(path))} is removed")
            return Exit.DONE
        who, over = by or you(), max(now, starts.add(seconds=1))  # one ended in its first second has had that second
        ended = replace(override, until=over, ended_by=who)
        said = _encoded(ended, zone, [*history, _entry("Ended", over, who, zone)])
        _try_out(policies, path, said, now)
        replace_policy_file(path, said)
    narrate(f"tokgate: {visible(name)} ended {both(over, zone)}: {visible(override.ban)} holds again")
    return Exit.DONE


def _need_folder(policies: Path) -> None:
    if policies.exists() and not policies.is_dir():
        raise CommandError(f"{visible(str(policies))} is a file: overrides need a folder of policies", Exit.USAGE)
    if not policies.exists():
        raise CommandError(f"{visible(str(policies))}: no such folder", Exit.FINDINGS)


def _ban(policy: Policy, name: str) -> Ban:
    ban = policy.bans.get(name)
    if ban is None:
        raise CommandError(f"unknown ban `{visible(name)}`{did_you_mean(name, policy.bans)}", Exit.USAGE)
    if ban.overrides is Overrides.FORBIDDEN:
        raise CommandError(f"the ban `{name}` forbids overrides ({ban.origin})", Exit.FINDINGS)
    return ban


def _clients(policy: Policy, ban: Ban, options: argparse.Namespace) -> tuple[tuple[IPNetwork, ...], str]:
    """The clients that are exempt, and their time zone."""
    if options.network is not None:
        network = policy.networks.get(options.network)
        if network is None:
            hint = did_you_mean(options.network, ban.networks)
            raise CommandError(f"unknown network `{visible(options.network)}`{hint}", Exit.USAGE)
        if options.network not in ban.networks:
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
    wanted: tuple[IPNetwork, ...] = tuple(dict.fromkeys(options.client or ()))
    networks = [policy.networks[name] for name in ban.networks]
    covered = Cover(prefix for network in networks for prefix in network.prefixes)
    certain = all(network.by_address for network in networks)  # else a client may be in one of them by other attributes
    for client in wanted if certain else ():
        if not covered.holds(client):
            part = "not wholly in" if covered.meets(client) else "in none of"
            message = f"`{client}` is {part} the networks of the ban `{ban.name}`: {listed(ban.networks)}"
            raise CommandError(message, Exit.FINDINGS)
    near = [name for name in ban.networks if any(map(Cover(policy.networks[name].prefixes).meets, wanted))]
    return wanted, _zone(policy, near or ban.networks)


def _zone(policy: Policy, networks: "list[str] | tuple[str, ...]") -> str:
    """The time zone in which times are read and written; UTC for networks in several."""
    return common_zone(policy.networks[name] for name in networks)


def _until(policy: Policy, options: argparse.Namespace, now: Instant, zone: str) -> Instant:
    longest = policy.settings.overrides.longest
    try:
        if options.until is not None:
            until = resolve(options.until, zone, Edge.END)
        else:
            until = add_duration(now, options.lasting or longest, zone)
    except ValueError:
        raise CommandError("that is beyond the end of the calendar", Exit.USAGE) from None
    if until <= now:
        raise CommandError(f"it is past {both(until, zone)} already: it is {both(now, zone)}", Exit.USAGE)
    if outlasts(now, until, longest, zone):
        latest = both(add_duration(now, longest, zone), zone)
        allowed = f"an override lasts at most {longest.format_iso()} (`settings.overrides.longest`), until {latest} now"
        raise CommandError(f"{allowed}; for longer write an exemption, and have it reviewed", Exit.FINDINGS)
    return until


def _name(policy: Policy, policies: Path, options: argparse.Namespace, now: Instant) -> str:
    name: str | None = options.name
    if name is not None:
        known = policy.exemptions.get(name)
        if known is not None:
            raise CommandError(f"there is an exemption `{visible(name)}` already ({known.origin})", Exit.USAGE)
        if os.sep in name or name.startswith("."):
            raise CommandError(f"`{visible(name)}` can't be a name", Exit.USAGE)
        if (policies / FOLDER / f"{name}.yaml").exists():
            raise CommandError(f"there is a file for `{visible(name)}` already: choose another name", Exit.USAGE)
        return name
    made = f"{options.ban[:_BAN_PART]}-{now.format_iso(basic=True)}"
    name, number = made, 2
    while name in policy.exemptions or (policies / FOLDER / f"{name}.yaml").exists():
        name, number = f"{made}-{number}", number + 1
    return name


def _override(policy: Policy, name: str) -> Exemption:
    known = policy.exemptions.get(name)
    if known is None:
        names = [each.name for each in policy.exemptions.values() if each.override]
        raise CommandError(f"unknown override `{visible(name)}`{did_you_mean(name, names)}", Exit.USAGE)
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


def _encoded(override: Exemption, zone: str, history: Sequence[str]) -> bytes:
    """The content of the override's file, in UTF-8, with its history as comments."""
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
    document = {"version": 1, "exemptions": {override.name: stated}}
    body = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=1 << 20)
    return "\n".join((_SCHEMA_LINE, "#", *history, body)).encode()


def _written(moment: Moment | None, zone: str) -> str | None:
    """With its offset, so that it is the same instant in every network of the ban."""
    if isinstance(moment, Instant):
        return moment.to_tz(zone).to_fixed_offset().format_iso(unit="second")
    return None if moment is None else moment.format_iso()


def _entry(did: str, at: Instant, by: str, zone: str) -> str:
    """What was done to an override, when, by whom."""
    return f"# {did} by `tokgate override`: {local(at, zone)}, {by}"


def _history(path: Path, override: Exemption) -> list[str]:
    """The history in the file of an override. Raises CommandError if it holds anything else, or is another file."""
    where = override.origin
    if where is None or Path(where.file) != path:
        message = f"it stands in {where} and not in {visible(str(path))}: change its `until` there"
        raise CommandError(message, Exit.FINDINGS)
    text = path.read_text(encoding="utf-8-sig")
    said = yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506  (makes nothing but text, lists and mappings)
    if set(said) - {"version", "exemptions"} or set(said["exemptions"]) != {override.name}:
        message = f"{visible(str(path))} holds more than this override: change its `until` there ({where})"
        raise CommandError(message, Exit.FINDINGS)
    return [line for line in text.splitlines() if line.startswith("#") and line not in (_SCHEMA_LINE, "#")]
