"""What is said on standard error when the proxy is ready: where it listens, what it enforces, how to try it."""

from collections.abc import Iterable, Iterator, Sequence

from mitmproxy.proxy import mode_specs
from mitmproxy.utils import human
from whenever import Instant

from tokgate.policy.decision import Phase
from tokgate.policy.services import PatternKind
from tokgate.policy.snapshot import Snapshot, Track

MAX_BANS = 20


def announcement(
    snapshot: Snapshot, listening: Iterable[tuple[mode_specs.ProxyMode, Sequence[tuple[str, int]]]], at: Instant
) -> Iterator[str]:
    """The lines."""
    proxy, scheme, carries = None, "http", False
    for mode, addresses in listening:
        shown = " and ".join(dict.fromkeys(human.format_address(address[:2]) for address in addresses))
        yield f"{mode.type_name}: listening on {shown}" if shown else f"{mode.type_name}: started"
        carries |= not isinstance(mode, mode_specs.DnsMode)
        if isinstance(mode, mode_specs.RegularMode | mode_specs.Socks5Mode) and addresses and proxy is None:
            proxy = _dialled(addresses[0])
            scheme = "http" if isinstance(mode, mode_specs.RegularMode) else "socks5h"
    policy = snapshot.policy
    yield f"policy {snapshot.version}: {len(policy.bans)} bans, {len(policy.networks)} networks"
    active = [track for track in snapshot.tracks if in_force(track, at)]
    for track in active[:MAX_BANS]:
        phase, networks = track.schedule.standing(at).phase, ", ".join(track.networks)
        yield f"  {phase}: {track.ban.title} [{track.ban.name}] for {networks}"
    if len(active) > MAX_BANS:
        yield f"  and {len(active) - MAX_BANS} more: tokgate timeline"
    if not active:
        yield "  no ban is in force now: tokgate timeline shows the next"
    here = snapshot.membership(proxy.rpartition(":")[0].strip("[]")).networks if proxy is not None else None
    tracks = [track for track in active if here is None or not here.keys().isdisjoint(track.networks)]
    name = min((found for track in tracks for found in _names(snapshot, track)), default=None)
    if name is not None and carries:
        through = f"-x {scheme}://{proxy} " if proxy is not None else ""
        yield f"try it: curl -v {through}https://{name[-1]}/"


def in_force(track: Track, at: Instant) -> bool:
    """Whether a ban does anything now."""
    standing = track.schedule.standing(at)
    return standing.idle is None and standing.phase is not Phase.EXPIRED


def _names(snapshot: Snapshot, track: Track) -> Iterator[tuple[bool, int, int, str]]:
    """Names to try a ban with; the least is the one that people know: called like the service, and listed first."""
    for service in track.ban.services:
        for number, pattern in enumerate(snapshot.policy.services[service].patterns):
            if pattern.kind in (PatternKind.SUFFIX, PatternKind.EXACT):
                labels = pattern.value.split(".")
                yield service not in labels, len(labels), number, pattern.value


def _dialled(address: Sequence[object]) -> str:
    host, port = str(address[0]), address[1]
    if host in ("", "0.0.0.0", "::"):
        host = "127.0.0.1"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
