"""The kernel's part of a gateway as a whole: a table, policy routes and settings, loaded together or not at all."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final

from tokgate.gateway import libnftables
from tokgate.gateway.canary import inside
from tokgate.gateway.errors import GatewayError
from tokgate.gateway.host import checks, sysctls
from tokgate.gateway.host.sysctls import Sysctls
from tokgate.gateway.nftables import table
from tokgate.gateway.policy_routes import PolicyRoutes, listening, versions
from tokgate.gateway.refusal_counters import packets
from tokgate.gateway.ruleset import Ruleset, TableOptions, Tproxy
from tokgate.gateway.table_state import TableState, changing, differences, table_state

STATE_FILE: Final = "gateway.json"
"""In tokgate's folder."""


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
            settings = Sysctls(self.state)
            changed = settings.apply(self.settings)
            if changed:
                undo.callback(settings.take_back, changed)
            if self.routes is not None:
                if self.routes.missing():
                    undo.callback(self.routes.remove)
                self.routes.add()
            self.load(rules)
            undo.pop_all()
        return changed

    def repair(self, rules: Ruleset) -> None:
        """Put back what differs, on a host on which it was loaded before: also where that closes more than it did."""
        Sysctls(self.state).apply(self.settings)
        if self.routes is not None:
            self.routes.add()
        self.load(rules)

    def load(self, rules: Ruleset) -> None:
        """Make the table what it should be, at once. Sets to which traffic adds keep their elements."""
        wanted, loaded, name = table(rules), self.loaded(), self.options.table
        if loaded is not None and not loaded.ours:
            theirs = f"table inet {name}"
            raise GatewayError(f"{theirs} is somebody else's: nft delete {theirs}, or choose another name with --table")
        before, nothing = loaded or TableState(), f"table inet {name}\ndelete table inet {name}\n"
        with contextlib.ExitStack() as undo:
            if loaded is None:
                undo.callback(libnftables.run, nothing)
            try:
                for transaction in changing(name, wanted, before):
                    libnftables.run(transaction)
            except libnftables.NftError:
                # Older kernels take what leaves a set and comes back at once for twice the same.
                libnftables.run(nothing + wanted)
            undo.pop_all()

    def down(self) -> Mapping[str, str]:
        """Take everything out; the settings that were put back. What is not there is no error."""
        loaded = self.loaded()
        if loaded is not None:
            if not loaded.ours:
                raise GatewayError(f"table inet {self.options.table} is not tokgate's: it stays, and so does all else")
            libnftables.run(f"delete table inet {self.options.table}")
        if self.routes is not None:
            self.routes.remove()
            inside.take_out()
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
        name = self.options.table
        if name not in libnftables.tables():
            return None
        return table_state(libnftables.ask(f"list table inet {name}"))

    def refused(self) -> dict[str, int]:
        """The packets that the table refused so far, by kind; none without a table."""
        if self.options.table not in libnftables.tables():
            return {}
        return packets(libnftables.counters(self.options.table))

    def wanted(self, rules: Ruleset) -> TableState:
        """The table as it would be loaded, in the kernel's own form: loaded asleep under another name, and removed."""
        scratch = f"{self.options.table}_{os.getpid()}"
        asleep = table(rules).replace("{\n", "{\n\tflags dormant\n", 1)
        asleep = asleep.replace(f"table inet {self.options.table} ", f"table inet {scratch} ", 1)
        libnftables.run(f"table inet {scratch}\ndelete table inet {scratch}\n{asleep}")
        try:
            return table_state(libnftables.ask(f"list table inet {scratch}"))
        finally:
            libnftables.run(f"delete table inet {scratch}")

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
            yield f"table inet {self.options.table} is not loaded"
        elif not loaded.ours:
            yield f"table inet {self.options.table} is somebody else's"
        else:
            yield from differences(wanted, loaded)

    def _not_listening(self) -> Iterator[str]:
        ranges = [each for way in (self.options.forwarded, self.options.local) if way is not None for each in way.ports]
        wanted = {port for each in ranges for port in range(each.first, each.last + 1)}
        for version in versions():
            for port in sorted(wanted - listening(version)):
                yield f"IPv{version}: nothing listens at port {port}"
