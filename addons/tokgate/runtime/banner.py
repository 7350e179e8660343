"""Standard error: the lines at the start, which say what the policy enforces now, and what can't be written."""

import io
import socket
import sys
from collections.abc import Buffer, Iterable, Iterator

from whenever import Instant

from tokgate.accounts import AccountsError
from tokgate.accounts.auth_cache import accounts_of
from tokgate.blocklog.records.record import counted
from tokgate.policy.analysis.now import BanNow, now_of
from tokgate.policy.decision import Phase
from tokgate.policy.services import PatternKind
from tokgate.policy.snapshot import Policy, Snapshot
from tokgate.policy.values.text import readable_lines

MAX_BANS = 20


def overview(snapshot: Snapshot, at: Instant, proxy: str | None = None, *, names: bool = True) -> Iterator[str]:
    """The lines. `proxy` is the URL of an explicit proxy. Without `names` no command is suggested."""
    policy = snapshot.policy
    yield f"policy {snapshot.version}: {counted(len(policy.bans), 'ban')}, {counted(len(policy.networks), 'network')}"
    now = now_of(snapshot, at)
    yield from (f"  {each}" for each in now.sentences(MAX_BANS))
    if not now.in_force:
        yield f"  {now.summary}: tokgate timeline shows the next"
    yield from _signing_in(policy)
    here = {name for _, name in socket.if_nameindex()}
    for network in policy.networks.values():
        for missing in (name for name in network.interfaces if name not in here):  # misspelt, or not there yet
            yield f"no interface is called {missing} here: network {network.name} holds nobody by it"
    client = proxy and proxy.rpartition("//")[2].rpartition(":")[0].strip("[]")
    name = _best_known(snapshot, now.in_force, client)
    if name is not None and names:
        yield f"try it: curl -v {f'-x {proxy} ' if proxy is not None else ''}https://{name}/"


def _signing_in(policy: Policy) -> Iterator[str]:
    """The user accounts of an explicit proxy, and names in networks that the accounts lack."""
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


def best_known_name(snapshot: Snapshot, at: Instant, client: str, phase: Phase) -> str | None:
    """The name by which a client notices most readily that a ban in that phase holds for it; None without one."""
    return _best_known(snapshot, [each for each in now_of(snapshot, at).in_force if each.phase is phase], client)


def _best_known(snapshot: Snapshot, bans: Iterable[BanNow], client: str | None) -> str | None:
    """The best-known name of bans, for one client or for anybody."""
    own = None if client is None else snapshot.membership(client).networks.keys()
    found = [each for each in bans if own is None or not own.isdisjoint(each.networks)]
    return min((name for each in found for name in _names(snapshot, each)), default=("", "", "", None))[-1]


def dialled(host: str, port: int) -> str:
    """`HOST:PORT` of a listener for a client on this machine: loopback for a wildcard address."""
    here = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"[{here}]:{port}" if ":" in here else f"{here}:{port}"


def written(host: str, port: int) -> str:
    """`HOST:PORT` of a listener as it listens, on one address or on all."""
    return f"[{host}]:{port}" if ":" in host else f"{host or '0.0.0.0'}:{port}"


def _names(snapshot: Snapshot, ban: BanNow) -> Iterator[tuple[bool, int, int, str]]:
    """Hostnames that a ban covers, the best known as the least: named like the service, short, listed first."""
    for service in ban.ban.services:
        for number, pattern in enumerate(snapshot.policy.services[service].patterns):
            if pattern.kind in (PatternKind.SUFFIX, PatternKind.EXACT):
                labels = pattern.value.split(".")
                yield service not in labels, len(labels), number, pattern.value


def say(line: str) -> None:
    """Write a line to standard error, prefixed with `tokgate: ` unless it is indented."""
    line = readable_lines(line)
    sys.stderr.write(f"{line}\n" if line.startswith(" ") else f"tokgate: {line}\n")
    sys.stderr.flush()


class _Lossy(io.FileIO):
    """Drops what can't be written."""

    def write(self, data: Buffer, /) -> int:
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def drop_what_cannot_be_written() -> None:
    """Have `sys.stderr` raise no OSError from now on, and buffer nothing, unless something else has its place."""
    own = sys.stderr
    if own is sys.__stderr__ and own is not None:
        file = _Lossy(own.fileno(), "w", closefd=False)
        sys.stderr = io.TextIOWrapper(file, own.encoding, own.errors, write_through=True)
