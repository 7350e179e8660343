"""The kernel's part of a gateway as a whole: a table, policy routes and settings, loaded together or not at all.

And who loads it: one process of a network namespace, which hears what others change.
"""

import contextlib
import errno
import os
import re
import socket
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

from tokgate.gateway import GatewayError, checks, libnftables, sysctls
from tokgate.gateway.canary import links
from tokgate.gateway.libnftables import TableState, changing, differences, table_state
from tokgate.gateway.nft_sets import COUNTED
from tokgate.gateway.nftables import REPLACING, table
from tokgate.gateway.policy_routes import PolicyRoutes, listening, versions
from tokgate.gateway.ruleset import TABLE, Ruleset, TableOptions, Tproxy
from tokgate.gateway.sysctls import Sysctls
from tokgate.policy.observation import KernelRefusal

STATE_FILE: Final = "gateway.json"
"""In tokgate's folder: what settings were before."""
_NAME: Final = "\0tokgate-gateway"
_ASKING: Final = 4096
"""Who asks while it is held; who comes beyond learns that it is, and not by whom."""
_NETFILTER: Final = 12  # NETLINK_NETFILTER, linux/netlink.h
_NFTABLES: Final = 1 << 7 - 1  # NFNLGRP_NFTABLES, linux/netfilter/nfnetlink.h
_ROUTING: Final = 1 << 7 - 1 | 1 << 8 - 1 | 1 << 11 - 1 | 1 << 19 - 1
"""RTNLGRP_IPV4_ROUTE, IPV4_RULE, IPV6_ROUTE and IPV6_RULE, linux/rtnetlink.h."""


class HostProblems(GatewayError):
    """What on this machine keeps the gateway from working. Nothing was changed."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Differences:
    """How the kernel differs from what it should be, in sentences."""

    table: tuple[str, ...] = ()
    routes: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()
    listeners: tuple[str, ...] = ()
    conflicts: tuple[str, ...] = ()

    @property
    def repairable(self) -> tuple[str, ...]:
        """What loading it all again puts right; who listens is up to the gates, others' routes to them."""
        return self.table + self.routes + self.settings

    def __iter__(self) -> Iterator[str]:
        return chain(self.table, self.routes, self.settings, self.listeners, self.conflicts)


@dataclass(frozen=True, slots=True)
class Kernel:
    """Loads, compares and takes out. `state` is the file that keeps what settings were before.

    Methods raise GatewayError.
    """

    options: TableOptions
    state: Path

    def up(self, rules: Ruleset) -> Mapping[str, str]:
        """Load everything, or leave everything as it was; the settings that were changed, with their values before.

        Raises:
            HostProblems: it can't work here; nothing was touched.
            GatewayError: the kernel refused something; what was done before is undone.
        """
        found = checks.problems(rules)
        if found:
            raise HostProblems(found)
        with contextlib.ExitStack() as undo:
            if self.routes is not None:
                if self.routes.missing():
                    undo.callback(self.routes.remove)
                self.routes.add()
            if self.loaded() is None:
                undo.callback(libnftables.run, REPLACING)
            self.load(rules)
            changed = Sysctls(self.state).apply(self.settings)  # last: what is forwarded only now meets the rules
            undo.pop_all()
        return changed

    def repair(self, rules: Ruleset) -> None:
        """Put back what differs, on a host on which it was loaded before: also where that closes more than it did.

        The table's name was tokgate's: another's that took it since is replaced.
        """
        if self.routes is not None:
            self.routes.add()
        loaded = self.loaded()
        if loaded is not None and not loaded.ours:
            libnftables.run(REPLACING + table(rules))
        else:
            self.load(rules)
        Sysctls(self.state).apply(self.settings)

    def dropping(self) -> list[str]:
        """The chains of others that let nothing in for the gates, with what helps."""
        return checks.dropping(self.options)

    def load(self, rules: Ruleset) -> None:
        """Make the table what it should be, at once. Sets to which traffic adds keep their elements."""
        wanted, loaded = table(rules), self.loaded()
        if loaded is not None and not loaded.ours:
            raise GatewayError(f"table inet {TABLE} is somebody else's: nft delete table inet {TABLE}")
        with contextlib.ExitStack() as undo:
            if loaded is None:
                undo.callback(libnftables.run, REPLACING)
            try:
                for transaction in changing(TABLE, wanted, loaded or TableState()):
                    libnftables.run(transaction)
            except libnftables.NftError:
                # Older kernels take what leaves a set and comes back at once for twice the same.
                libnftables.run(REPLACING + wanted)
            undo.pop_all()

    def down(self) -> Mapping[str, str]:
        """Take everything out; the settings that were put back. What is not there is no error."""
        loaded = self.loaded()
        if loaded is not None:
            if not loaded.ours:
                raise GatewayError(f"table inet {TABLE} is not tokgate's: it stays, and so does all else")
            libnftables.run(f"delete table inet {TABLE}")
        if self.routes is not None:
            self.routes.remove()
            links.take_out()
        return Sysctls(self.state).restore()

    @property
    def routes(self) -> PolicyRoutes | None:
        """The policy routes; None if the table needs none."""
        forwarded = self.options.forwarded
        return PolicyRoutes(forwarded.mark) if isinstance(forwarded, Tproxy) else None

    @property
    def settings(self) -> Mapping[str, str]:
        """The settings that it needs of this host, with their values."""
        return sysctls.needed(versions(), tproxy=self.routes is not None)

    @property
    def limits(self) -> tuple[str, ...]:
        """What is worse here than it could be, and tokgate may not change, in sentences with what helps."""
        name, value = sysctls.EARLY_DEMUX, sysctls.read(sysctls.EARLY_DEMUX)
        if self.routes is None or name in self.settings or value == "0":
            return ()
        found = "can not be read here" if value is None else f"is {value}"
        effect = "so that a client's port is not forwarded for a minute after a gate ended its connection"
        return (f"{name} {found}, and this process may not change it, {effect}: sysctl -w {name}=0 on the machine",)

    def loaded(self) -> TableState | None:
        """The table as it is; None if there is none."""
        if TABLE not in libnftables.tables():
            return None
        return table_state(libnftables.ask(f"list table inet {TABLE}"))

    def refused(self) -> dict[str, int]:
        """The packets that the table refused so far, by kind; none without a table."""
        listed = libnftables.counters(TABLE) if TABLE in libnftables.tables() else []
        found = [each["counter"] for each in listed if "counter" in each]
        return {str(each["name"]).removeprefix(COUNTED): int(each["packets"]) for each in found}

    def wanted(self, rules: Ruleset) -> TableState:
        """The table as it would be loaded, in the kernel's own form: made asleep under another name, and gone again."""
        scratch = f"{TABLE}_{os.getpid()}"
        return table_state(libnftables.listed_once(f"table inet {scratch}", table(rules).partition("{\n")[2]))

    def differences(self, wanted: TableState) -> Differences:
        """How the kernel differs from what it should be."""
        return Differences(
            table=tuple(self._table(wanted)),
            routes=() if self.routes is None else tuple(self.routes.missing()),
            settings=tuple(f"{name} is {value}" for name, value in sysctls.wrong(self.settings).items()),
            listeners=tuple(self._not_listening()),
            conflicts=() if self.routes is None else tuple(self.routes.conflicts()),
        )

    def _table(self, wanted: TableState) -> Iterator[str]:
        loaded = self.loaded()
        if loaded is None:
            yield f"table inet {TABLE} is not loaded"
        elif not loaded.ours:
            yield f"table inet {TABLE} is somebody else's"
        else:
            yield from differences(wanted, loaded)

    def _not_listening(self) -> Iterator[str]:
        ways = [way.to for way in (self.options.forwarded, self.options.local) if way is not None]
        wanted = {port for each in ways for port in range(each.first, each.last + 1)}
        for version in versions():
            for port in sorted(wanted - listening(version)):
                yield f"IPv{version}: nothing listens at port {port}"


class RefusalTotals:
    """Sums that only grow, also where a counter begins anew because its table was lost."""

    def __init__(self, now: Mapping[str, int]) -> None:
        """Counting begins with the values that the kernel's counters have `now`."""
        self._seen = dict(now)
        self.totals: Final[dict[str, int]] = {kind.value: 0 for kind in KernelRefusal}

    def take(self, now: Mapping[str, int]) -> None:
        """Add what came since the last call."""
        for kind in self.totals:
            number, seen = now.get(kind, 0), self._seen.get(kind, 0)
            self.totals[kind] += number - seen if number >= seen else number
        self._seen = dict(now)


class Notifications:
    """Sockets that become readable when something was changed. What was is not read: the state itself is compared."""

    def __init__(self) -> None:
        """Raises OSError."""
        groups = ((_NETFILTER, _NFTABLES), (socket.NETLINK_ROUTE, _ROUTING))
        self.sockets: Final = [_subscribed(protocol, group) for protocol, group in groups]

    def drain(self) -> bool:
        """Discard what has come; whether anything has."""
        found = False
        for each in self.sockets:
            try:
                while each.recv(1 << 16):
                    found = True
            except BlockingIOError:
                pass
            except OSError:  # more than its buffer takes: that has come, too
                found = True
        return found

    def close(self) -> None:
        for each in self.sockets:
            each.close()


def _subscribed(protocol: int, groups: int) -> socket.socket:
    made = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC, protocol)
    made.bind((0, groups))
    return made


class GatewayLock:
    """Which process keeps the gateway of this network namespace: one alone, or two would undo each other's work.

    The lock is a listening socket with an abstract name. Each network namespace has names of its own, and a name is
    free as soon as its holder has died (unix(7)).
    """

    def __init__(self) -> None:
        self._socket: socket.socket | None = None

    def take(self) -> None:
        """Take it, and hold it until this process ends. Raises GatewayError, which says who has it."""
        if self._socket is not None:
            return
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            made.bind(_NAME)
            made.listen(_ASKING)
        except OSError as error:
            made.close()
            if error.errno != errno.EADDRINUSE:
                raise
            raise GatewayError(f"{holder() or 'another process'} keeps the gateway here: stop that first") from error
        self._socket = made

    def close(self) -> None:
        """Give it up. In a child this leaves it to the parent."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def holder() -> str | None:
    """The process that has the lock, with its unit where that can be seen; None where nobody has it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as asking:
        try:
            asking.connect(_NAME)
        except ConnectionRefusedError:
            return None
        except BlockingIOError:
            return "another process"
        pid, _, _ = struct.unpack("3i", asking.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return f"process {pid}{_unit(pid)}" if pid else "a process of another container"


def _unit(pid: int) -> str:
    """Its unit of systemd, or its container, in parentheses: the last part of its control group (cgroups(7))."""
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text()
    except OSError:  # it has ended, or is hidden (hidepid)
        return ""
    named = re.findall(r"/([^/\n]+\.(?:service|scope))$", groups, re.MULTILINE)
    return f" ({named[-1]})" if named else ""
