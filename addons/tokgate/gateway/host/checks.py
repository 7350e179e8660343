"""What on this machine keeps a gateway from working, found before anything is changed."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tokgate.gateway import libnftables
from tokgate.gateway.errors import GatewayError
from tokgate.gateway.host import sysctls
from tokgate.gateway.host.other_firewalls import dropping
from tokgate.gateway.nftables import OWNER, table
from tokgate.gateway.policy_routes import PolicyRoutes, loopback_is_up, versions
from tokgate.gateway.ruleset import Ruleset, Tproxy
from tokgate.gateway.table_state import table_state

_NET_ADMIN: Final = 12  # CAP_NET_ADMIN, linux/capability.h
_SCRATCH: Final = "tokgate_check"
"""A table that is checked by the kernel and never made."""


def problems(rules: Ruleset) -> list[str]:
    """Everything that keeps this ruleset from working, with what helps; empty where it can be loaded."""
    try:
        return list(_problems(rules))
    except GatewayError as error:
        return [str(error)]


def _problems(rules: Ruleset) -> Iterator[str]:
    if not may_administer():
        yield "CAP_NET_ADMIN is missing: run this as root, or give the capability"
        return
    if not loopback_is_up():
        yield "the loopback interface is down: ip link set lo up"
    name = rules.options.table
    if name in libnftables.tables() and not table_state(libnftables.ask(f"list table inet {name}")).ours:
        yield (
            f"there is a table inet {name} that tokgate did not make: nft delete table inet {name}, or choose another "
            "name with --table"
        )
    yield from _others(name)
    yield from _refused_by_kernel(rules)
    if isinstance(rules.options.forwarded, Tproxy):
        yield from _conflicts(PolicyRoutes(rules.options.forwarded.mark))
    yield from _forwarding()
    yield from dropping(rules.options)


def _others(name: str) -> Iterator[str]:
    """Tables of tokgate's under other names: of two that take the same clients, the later one alone would decide."""
    chains = [each["chain"] for each in libnftables.ask("list chains inet") if "chain" in each]
    for other in dict.fromkeys(each["table"] for each in chains if each["name"] == OWNER and each["table"] != name):
        with contextlib.suppress(libnftables.NftError):  # gone already
            if not table_state(libnftables.ask(f"list table inet {other}")).dormant:  # only compared with, by `check`
                yield (
                    f"tokgate has a table inet {other} here, which takes the same clients: `tokgate gateway down "
                    f"--table {other}`, with the other options of its `up`, takes it out"
                )


def _refused_by_kernel(rules: Ruleset) -> Iterator[str]:
    """Have the kernel check the whole table under another name, without making it."""
    try:
        libnftables.run(
            table(rules).replace(f"table inet {rules.options.table} ", f"table inet {_SCRATCH} ", 1), dry=True
        )
    except libnftables.NftError as error:
        said = str(error)
        for module in ("tproxy", "socket"):
            if module in said and isinstance(rules.options.forwarded, Tproxy):
                yield (
                    f"this kernel can't do what TPROXY takes (nft_{module}): modprobe nft_{module}, or use --redirect"
                )
        yield f"the kernel refuses the table:\n{said}"


def _conflicts(routes: PolicyRoutes) -> Iterator[str]:
    for said in routes.conflicts():
        yield f"{said}: take it out, or choose another mark with --route-mark"


def _forwarding() -> Iterator[str]:
    for name in sysctls.wrong(sysctls.forwarding(versions())):
        if not sysctls.writable(name):
            yield f"{name} is off, and this process may not change it: sysctl -w {name}=1"
    learned = [device for device in _devices() if _loses_routes(device)]
    if learned and sysctls.wrong(sysctls.forwarding((6,))):
        yield (
            f"IPv6 forwarding is off, and with it on {', '.join(learned)} would lose the default route that it learned "
            f"from router advertisements: sysctl -w net.ipv6.conf.{learned[0]}.accept_ra=2 first"
        )


def may_administer() -> bool:
    """Whether this process has CAP_NET_ADMIN (capabilities(7))."""
    for line in Path("/proc/thread-self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) >> _NET_ADMIN & 1)
    return False


def _devices() -> list[str]:
    folder = Path("/proc/sys/net/ipv6/conf")
    return sorted(each.name for each in folder.iterdir()) if folder.is_dir() else []


def _loses_routes(device: str) -> bool:
    """Whether it has a default route from a router, which it would no longer accept (ip-sysctl: accept_ra)."""
    if (
        device in ("all", "default", "lo")
        or (Path("/proc/sys/net/ipv6/conf") / device / "accept_ra").read_text().strip() != "1"
    ):
        return False
    return any(_learned(line, device) for line in Path("/proc/thread-self/net/ipv6_route").read_text().splitlines())


def _learned(line: str, device: str) -> bool:
    words = line.split()
    return words[-1] == device and words[:2] == ["0" * 32, "00"] and bool(int(words[-2], 16) & 0x40000)  # RTF_ADDRCONF
