"""Kernel settings that a gateway needs: changed where they differ, said, and put back.

What they were is kept in a file, which outlives a crash. It holds for this start of the machine and this network
namespace only.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tokgate.gateway import GatewayError

_ROOT: Final = Path("/proc/sys")
FORWARDING: Final = {4: "net.ipv4.ip_forward", 6: "net.ipv6.conf.all.forwarding"}
EARLY_DEMUX: Final = "net.ipv4.tcp_early_demux"
"""Finds a packet's socket before its route, over IPv6 as well. What has a socket is never forwarded, and where TPROXY
brings clients to gates a connection that ended has one for a minute (TIME_WAIT), with the addresses of its client and
its server."""


def forwarding(versions: tuple[int, ...]) -> dict[str, str]:
    """The settings without which nothing is forwarded, with their values."""
    return {FORWARDING[version]: "1" for version in versions}


def needed(versions: tuple[int, ...], *, tproxy: bool) -> dict[str, str]:
    """The settings that a gateway needs, with their values; early demultiplexing only where it may be changed."""
    return forwarding(versions) | ({EARLY_DEMUX: "0"} if tproxy and writable(EARLY_DEMUX) else {})


def read(name: str) -> str | None:
    """The value of a setting; None if this kernel has none of that name."""
    try:
        return _path(name).read_text().strip()
    except OSError:
        return None


def writable(name: str) -> bool:
    """Whether this process may change it."""
    try:
        os.close(os.open(_path(name), os.O_WRONLY))
    except OSError:
        return False
    return True


def wrong(wanted: Mapping[str, str]) -> dict[str, str]:
    """The settings that differ from what is wanted, with the values that they have."""
    found = {name: read(name) for name in wanted}
    return {name: value for name, value in found.items() if value is not None and value != wanted[name]}


@dataclass(frozen=True, slots=True)
class Sysctls:
    """Changes settings, and remembers in `state` what they were."""

    state: Path

    def apply(self, wanted: Mapping[str, str]) -> dict[str, str]:
        """Change those that differ; what they were. Raises GatewayError, after putting all back."""
        before, known = wrong(wanted), self.remembered()
        found = {name: value for name in wanted if (value := read(name)) is not None}
        try:
            if found.keys() - known.keys():  # those of the first time: what is put right later was not so before
                self.state.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                self.state.write_text(json.dumps({"holds_for": _here(), "sysctls": found | known}) + "\n")
            for name in before:
                _path(name).write_text(wanted[name])
        except OSError as error:
            self.take_back(before)
            raise GatewayError(f"{error.filename}: {error.strerror}") from error
        return before

    def take_back(self, before: Mapping[str, str]) -> None:
        """Set what `apply` changed to what it returned, and no more. Raises GatewayError."""
        try:
            for name in wrong(before):
                _path(name).write_text(before[name])
            if not wrong(self.remembered()):
                self.state.unlink(missing_ok=True)
        except OSError as error:
            raise GatewayError(f"{error.filename}: {error.strerror}") from error

    def restore(self) -> dict[str, str]:
        """Put back what differs from before; the values as they are again. Raises GatewayError."""
        remembered = self.remembered()
        changed = {name: remembered[name] for name in wrong(remembered)}
        self.take_back(changed)
        return changed

    def remembered(self) -> dict[str, str]:
        """The settings as they were before the first change."""
        try:
            kept: dict[str, Any] = json.loads(self.state.read_text())
        except (OSError, ValueError):
            return {}
        return dict(kept["sysctls"]) if kept.get("holds_for") == _here() else {}


def _path(name: str) -> Path:
    return _ROOT / name.replace(".", "/")


def _here() -> list[str]:
    """This start of the machine, and this network namespace."""
    boot = (_ROOT / "kernel/random/boot_id").read_text().strip()
    return [boot, str(Path("/proc/thread-self/ns/net").stat().st_ino)]
