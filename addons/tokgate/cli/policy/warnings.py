"""Warnings about a valid policy: what ends soon, what has no effect, who may leave a ban's networks.

Also which bans a running tokgate holds, and for which names devices don't believe the block page.
"""

import linecache
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from ipaddress import IPv4Network
from itertools import groupby
from pathlib import Path
from typing import Final, TypedDict

from whenever import Instant

from tokgate.cli.commands import CommandError, Exit
from tokgate.cli.terminal import visible
from tokgate.config.diagnostics import Code, Diagnostic, Level, listed
from tokgate.config.reload.holder import held_at_start
from tokgate.gateway.ruleset import current
from tokgate.policy.analysis.timeline import near_from
from tokgate.policy.bans import Ban, OnExpiry
from tokgate.policy.decision import Phase
from tokgate.policy.networks import Network, with_parts
from tokgate.policy.settings import UnknownClients
from tokgate.policy.snapshot import Policy, Snapshot, Track
from tokgate.policy.values import Origin
from tokgate.policy.values.prefixes import Cover, IPNetwork
from tokgate.policy.values.text import both, local, utc
from tokgate.runtime.control_socket import NAME
from tokgate.runtime.held_file import HeldFile
from tokgate.service.privileges import confdir_of_running

_NOWHERE: Final = Origin("policy", 1, 1)


class EndingOutput(TypedDict):
    """A ban, or an exemption from it, that ends soon."""

    ban: str
    exemption: str | None
    networks: list[str]
    ends: str
    local: str
    zone: str
    on_expiry: OnExpiry


def endings(snapshot: Snapshot, now: Instant) -> list[EndingOutput]:
    """The bans that end within the longest of `settings.reminders`, the next first."""
    found: dict[tuple[str, str, Instant], EndingOutput] = {}

    def is_near(ends: Instant, zone: str) -> bool:
        begins = near_from(snapshot, ends, zone)
        return begins is not None and begins <= now < ends

    def ending(track: Track, ends: Instant, exemption: str | None = None) -> EndingOutput:
        return {
            "ban": track.ban.name,
            "exemption": exemption,
            "networks": list(track.networks),
            "ends": utc(ends),
            "local": local(ends, track.zone),
            "zone": track.zone,
            "on_expiry": track.ban.on_expiry,
        }

    for track in snapshot.tracks:
        ends = track.schedule.ends
        if ends is not None and not track.extended_by and is_near(ends, track.zone):
            found[track.ban.name, track.zone, ends] = ending(track, ends)
        for name, hole in track.exemptions.items():
            outlived = ends is not None and ends <= hole.end and track.ban.on_expiry is OnExpiry.LAPSE
            silent = outlived or snapshot.policy.exemptions[name].override
            if hole.start <= now and is_near(hole.end, track.zone) and not silent:
                found.setdefault((track.ban.name, name, hole.end), ending(track, hole.end, name))
    return [found[key] for key in sorted(found, key=lambda key: key[2])]


def outlook(snapshot: Snapshot, found: Iterable[EndingOutput]) -> Iterator[Diagnostic]:
    """Warnings of what ends soon or has ended, with their positions in the files."""
    for ending in found:
        ban, when = snapshot.bans[ending["ban"]], both(Instant(ending["ends"]), ending["zone"])
        if ending["exemption"] is None:
            after = "is then held until somebody decides" if ban.on_expiry is OnExpiry.HOLD else "then lapses"
            text = f"the ban `{ban.name}` ends {when} for {', '.join(ending['networks'])}, and {after}"
            yield warning(Code.BAN_ENDS, text, ban.origin, ban.name)
        else:
            exemption = snapshot.policy.exemptions[ending["exemption"]]
            text = f"the exemption `{exemption.name}` from `{ban.name}` ends {when}: {exemption.reason}"
            yield warning(Code.EXEMPTION_ENDS, text, exemption.origin, exemption.name)
    if snapshot.settings.unknown_clients is UnknownClients.BLOCK:
        return
    named = with_parts((name for ban in snapshot.bans.values() for name in ban.networks), snapshot.policy.networks)
    for network in (each for name, each in snapshot.policy.networks.items() if snapshot.bans and name not in named):
        text = f"no ban names the network `{network.name}`: nothing is decided about its clients"
        yield warning(Code.UNUSED_NETWORK, text, network.origin, network.name)
    if narrow := list(one_family(snapshot)):
        (ban, held), *others = narrow
        rest = listed([other.name for other, _ in others[:3]]) + (" and more" if len(others) > 3 else "")  # noqa: PLR2004
        also = f"; of one family alone are also {rest}" if others else ""
        text = (
            f"no network of the ban `{ban.name}` has an IPv{10 - held} address: what its clients ask for over "
            f"IPv{10 - held} passes (`settings.unknown_clients: block` refuses it){also}"
        )
        yield warning(Code.ONE_FAMILY, text, ban.origin, ban.name)


def one_family(snapshot: Snapshot) -> Iterator[tuple[Ban, int]]:
    """Bans whose clients are given by addresses of one family alone, with its version."""
    for ban in snapshot.bans.values():
        networks = [snapshot.policy.networks[name] for name in ban.networks]
        versions = {prefix.version for network in networks for prefix in network.prefixes}
        by_identity = any(
            n.users or n.groups or n.interfaces or n.devices for network in networks for n in network.parts
        )
        if len(versions) == 1 and not by_identity:
            yield ban, versions.pop()


def source_line(origin: Origin) -> str | None:
    """The line at a position; None if the file has changed since it was read."""
    linecache.checkcache(origin.file)
    return linecache.getline(origin.file, origin.line).rstrip("\r\n") or None


def warning(code: Code, text: str, origin: Origin | None, word: str) -> Diagnostic:
    """A warning about a word of the policy, with its line."""
    if origin is None:
        return Diagnostic(Level.WARNING, _NOWHERE, text, code)
    return Diagnostic(Level.WARNING, origin, text, code, source_line(origin), len(word))


_IPV6_LINK: Final = 64
"""Hosts make their addresses up within a /64 (RFC 4291 §2.5.1), new ones every day (RFC 8981)."""
_IPV4_LINK: Final = 24
"""How large a link usually is, where a network names its clients one by one; nothing says what it is."""


def free_addresses(snapshot: Snapshot, now: Instant) -> Iterator[Diagnostic]:
    """A warning for each network under a ban whose clients may take another address, and so leave the network."""
    if snapshot.settings.unknown_clients is UnknownClients.BLOCK:
        return
    covered = Cover(prefix for network in snapshot.policy.networks.values() for prefix in network.prefixes)
    under_ban = {name: track.ban for track in reversed(current(snapshot, now)) for name in track.networks}
    for network in snapshot.policy.networks.values():
        ban = under_ban.get(network.name)
        links = [] if ban is None else [link for link in _links(network) if not covered.holds(link)]
        if ban is not None and links:
            more = f" (and {len(links) - 1} more)" if len(links) > 1 else ""
            text = (
                f"clients of `{network.name}`, which is under the ban `{ban.name}`, may take another address of "
                f"{links[0]}{more}: some are in no network, and pass. A whole prefix or `interfaces` holds them; "
                "`settings.unknown_clients: block` refuses them"
            )
            yield warning(Code.FREE_ADDRESSES, text, network.origin, network.name)


def _links(network: Network) -> Iterator[IPNetwork]:
    """The links on which a network holds a part of the addresses, where nothing but addresses names its clients."""
    if network.by_address:
        links = (link for prefix in network.prefixes if (link := _link(prefix)) is not None)
        yield from (link for link, _ in groupby(sorted(links, key=lambda link: (link.version, link))))


def _link(prefix: IPNetwork) -> IPNetwork | None:
    if prefix.is_loopback or prefix.is_link_local:
        return None
    if isinstance(prefix, IPv4Network):
        return prefix.supernet(new_prefix=_IPV4_LINK) if prefix.prefixlen == prefix.max_prefixlen else None
    return prefix.supernet(new_prefix=_IPV6_LINK) if prefix.prefixlen > _IPV6_LINK else None


def held_bans(policy: Policy, policies: Path, now: Instant, confdir: Path | None = None) -> Iterator[Diagnostic]:
    """A warning for each ban that tokgate holds, or would hold at its next start, with this policy.

    None where tokgate's folder can't be read.
    """
    folder = confdir_of_running(NAME) if confdir is None else confdir.expanduser()
    if not os.access(folder, os.R_OK):
        return
    for name in (held := held_at_start(replace(policy, held=()), HeldFile.of(folder, policies), now)).held:
        text = (
            f"the ban `{name}` stays in force although these files no longer state it: say why under `lifted`, "
            f"or `tokgate reload --lift {name}`"
        )
        yield warning(Code.BAN_HELD, text, held.bans[name].origin, name)


def without_authority(snapshot: Snapshot, now: Instant, confdir: Path | None = None) -> Iterator[Diagnostic]:
    """A warning at the first ban, not over, whose pages devices reject, as no authority that they know is here.

    None where tokgate's folder isn't there, or can't be read: on another machine than that which shows the pages.
    """
    from tokgate.block_page.authority import AUTHORITY, made_at_start, opening_bans

    folder = confdir_of_running(NAME) if confdir is None else confdir.expanduser()
    lasting = {each.ban.name for each in snapshot.tracks if each.schedule.state_at(now).phase is not Phase.EXPIRED}
    bans = [ban for ban in opening_bans(snapshot.policy) if ban.name in lasting]
    if not bans or not os.access(folder, os.R_OK):
        return
    path = folder / AUTHORITY
    try:
        why = f"{path} is one that tokgate made at its start, which they don't know" if made_at_start(path) else None
    except FileNotFoundError:
        why = f"{folder} has no authority"
    except (OSError, ValueError):
        return  # `tokgate doctor` tells of it
    if why is not None:
        text = (
            f"devices reject the page of the ban `{bans[0].name}`: {why}; "
            f"`tokgate authority init --confdir {folder}` makes one that they can be given (certs/README.md)"
        )
        yield warning(Code.NO_AUTHORITY, text, bans[0].origin, bans[0].name)


def untrusted(policy: Policy, authority: Path) -> Iterator[Diagnostic]:
    """A warning for each pattern whose names would show a certificate warning instead of the page."""
    from tokgate.block_page.authority import uncovered

    try:
        found = uncovered(policy, authority)
    except (OSError, ValueError) as error:
        raise CommandError(f"{visible(str(authority))} can't be read as certificates: {error}", Exit.USAGE) from error
    for each in found:
        text = (
            f"under the ban `{each.ban.name}` `{each.rule}` of `{each.service}` shows a certificate warning in place "
            "of a page: its names are not among those that the authority may sign (certs/README.md)"
        )
        yield warning(Code.PAGE_UNTRUSTED, text, each.origin, each.rule.partition(":")[2])
