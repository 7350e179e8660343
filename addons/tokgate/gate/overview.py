"""What a policy enforces now, and how to try it, in lines for whoever starts tokgate."""

import socket
import sys
from collections.abc import Iterator

from whenever import Instant

from tokgate.blocklog.wording import counted
from tokgate.gate.accounts import AccountsError
from tokgate.gate.doorkeeper import accounts_of
from tokgate.policy.decision import Phase
from tokgate.policy.services import PatternKind
from tokgate.policy.snapshot import Policy, Snapshot, Track

MAX_BANS = 20


def overview(snapshot: Snapshot, at: Instant, proxy: str | None = None, *, names: bool = True) -> Iterator[str]:
    """The lines. `proxy` is the URL of an explicit proxy; without `names`, connections are not what is carried."""
    policy = snapshot.policy
    yield f"policy {snapshot.version}: {counted(len(policy.bans), 'ban')}, {counted(len(policy.networks), 'network')}"
    active = [track for track in snapshot.tracks if in_force(track, at)]
    for track in active[:MAX_BANS]:
        phase, networks = track.schedule.standing(at).phase, ", ".join(track.networks)
        yield f"  {phase}: {track.ban.title} [{track.ban.name}] for {networks}"
    if len(active) > MAX_BANS:
        yield f"  and {len(active) - MAX_BANS} more: tokgate timeline"
    if not active:
        yield "  no ban is in force now: tokgate timeline shows the next"
    yield from _signing_in(policy)
    yield from _no_such_interface(policy)
    here = None if proxy is None else snapshot.membership(_host(proxy)).networks
    tracks = [track for track in active if here is None or not here.keys().isdisjoint(track.networks)]
    name = min((found for track in tracks for found in _names(snapshot, track)), default=None)
    if name is not None and names:
        yield f"try it: curl -v {f'-x {proxy} ' if proxy is not None else ''}https://{name[-1]}/"


def _signing_in(policy: Policy) -> Iterator[str]:
    """Where users of an explicit proxy prove who they are, whether that can work, and whom networks name in vain."""
    stated = policy.settings.proxy_auth
    if stated is None:
        return
    where = stated.htpasswd if stated.ldap is None else stated.ldap.url
    yield f"users of an explicit proxy sign in by {where}"
    users = {user for network in policy.networks.values() for user in network.users}
    groups = {group for network in policy.networks.values() for group in network.groups}
    try:
        yield from (f"  {line}" for line in accounts_of(stated).lacks(users, groups))
    except AccountsError as error:
        yield f"  nobody can: {error}"


def _no_such_interface(policy: Policy) -> Iterator[str]:
    """Interfaces that networks name and this machine does not have: they may come yet, or be misspelt."""
    here = {name for _, name in socket.if_nameindex()}
    for network in policy.networks.values():
        for name in network.interfaces:
            if name not in here:
                yield f"no interface is called {name} here: network {network.name} holds nobody by it"


def in_force(track: Track, at: Instant) -> bool:
    """Whether a ban does anything now."""
    standing = track.schedule.standing(at)
    return standing.idle is None and standing.phase is not Phase.EXPIRED


def dialled(host: str, port: int) -> str:
    """Where a client on this machine dials a listener."""
    here = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{here}]:{port}" if ":" in here else f"{here}:{port}"


def _host(proxy: str) -> str:
    """The host of `http://host:port`."""
    return proxy.rpartition("//")[2].rpartition(":")[0].strip("[]")


def _names(snapshot: Snapshot, track: Track) -> Iterator[tuple[bool, int, int, str]]:
    """Names to try a ban with; the least is the one that people know: called like the service, and listed first."""
    for service in track.ban.services:
        for number, pattern in enumerate(snapshot.policy.services[service].patterns):
            if pattern.kind in (PatternKind.SUFFIX, PatternKind.EXACT):
                labels = pattern.value.split(".")
                yield service not in labels, len(labels), number, pattern.value


def say(line: str) -> None:
    """Tell whoever started tokgate; lines that are indented belong to the one before."""
    sys.stderr.write(f"{line}\n" if line.startswith(" ") else f"tokgate: {line}\n")
    sys.stderr.flush()
