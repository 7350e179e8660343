"""Policy routing that delivers marked packets to this machine, whatever they are addressed to: rules and routes.

Both are in a routing table of their own, whose number is the mark.
"""

import errno
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tokgate.config.extras import Extra, missing_extra
from tokgate.gateway import GatewayError

PRIORITY: Final = 746
"""Before the main table (32766) and what VPNs put there, after the local one (0)."""
_LOOPBACK: Final = 1
"""The index of `lo`, in every namespace."""
_ANYWHERE: Final = {4: "0.0.0.0/0", 6: "::/0"}
_FAMILIES: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_MAIN: Final = 254  # RT_TABLE_MAIN
_LOCAL: Final = 2  # RTN_LOCAL, linux/rtnetlink.h
_INVERT: Final = 2  # FIB_RULE_INVERT, linux/fib_rules.h
_WHOLE: Final = 0xFFFFFFFF


def commands(mark: int) -> Iterator[str]:
    """The rules and routes for a mark as commands of `ip`, one a line."""
    yield f"ip rule add iif lo fwmark {mark:#x} lookup main priority {PRIORITY - 1}"
    for option, anywhere in (("", _ANYWHERE[4]), ("-6 ", _ANYWHERE[6])):
        yield f"ip {option}rule add fwmark {mark:#x} lookup {mark} priority {PRIORITY}"
        yield f"ip {option}route replace local {anywhere} dev lo table {mark}"


def versions() -> tuple[int, ...]:
    """The versions of IP that this machine has."""
    disabled = Path("/proc/sys/net/ipv6/conf/lo/disable_ipv6")
    return (4, 6) if disabled.exists() and disabled.read_text().strip() == "0" else (4,)


@dataclass(frozen=True, slots=True)
class PolicyRoutes:
    """The rules and routes of one mark. Methods raise GatewayError where the kernel refuses, or pyroute2 is missing."""

    mark: int

    def conflicts(self) -> list[str]:
        """What others have set up, and would keep marked packets from being delivered here."""
        with _netlink() as netlink:
            return [said for version in versions() for said in self._conflicts(netlink, version)]

    def missing(self) -> list[str]:
        """The rules and routes that the kernel doesn't have, in sentences."""
        with _netlink() as netlink:
            return [said for version in versions() for said in self._missing(netlink, version)]

    def add(self) -> None:
        """Add the rules and routes that are missing."""
        with _netlink() as netlink:
            for version in versions():
                self._change(netlink, "add", version, errno.EEXIST)

    def remove(self) -> None:
        """Remove the rules and routes that are there."""
        with _netlink() as netlink:
            for version in versions():
                self._change(netlink, "del", version, errno.ENOENT, errno.ESRCH)

    def _change(self, netlink: Any, action: str, version: int, *expected: int) -> None:
        from pyroute2.netlink.exceptions import NetlinkError

        family = _FAMILIES[version]
        route = {"type": "local", "scope": "host", "dst": _ANYWHERE[version], "oif": _LOOPBACK, "table": self.mark}
        for change, stated in ((netlink.route, route), *((netlink.rule, rule) for rule in self._rules(version))):
            try:
                change(action, family=family, **stated)
            except NetlinkError as error:
                if error.code not in expected:
                    what = f"policy {'route' if change == netlink.route else 'rule'} of mark {self.mark:#x}"
                    raise GatewayError(f"IPv{version}: {what}: {error.args[1]}") from error

    def _missing(self, netlink: Any, version: int) -> Iterator[str]:
        family = _FAMILIES[version]
        rules = list(netlink.get_rules(family=family))
        for wanted in self._rules(version):
            if not any(_is(rule, wanted) for rule in rules):
                yield (
                    f"IPv{version}: the policy rule {wanted['priority']} that looks mark {self.mark:#x} up in table "
                    f"{wanted['table']} is missing"
                )
        if not any(_delivers(route) for route in netlink.get_routes(family=family, table=self.mark)):
            yield f"IPv{version}: the route of table {self.mark} that delivers packets here is missing"

    def _rules(self, version: int) -> list[dict[str, Any]]:
        """Ours, for a version of IP.

        The first keeps Linux from taking each packet for a forged one where net.ipv4.conf.all.src_valid_mark is set, as
        wg-quick does: it then looks up the sender with the packet's mark, and as if that came by `lo`.
        """
        deliver = {"fwmark": self.mark, "table": self.mark, "priority": PRIORITY}
        sender = {"iifname": "lo", "fwmark": self.mark, "table": _MAIN, "priority": PRIORITY - 1}
        return [sender, deliver] if version == 4 else [deliver]  # noqa: PLR2004  (IPv6 looks up no senders)

    def _conflicts(self, netlink: Any, version: int) -> Iterator[str]:
        for rule in netlink.get_rules(family=_FAMILIES[version]):
            if any(_is(rule, ours) for ours in self._rules(version)):
                continue
            priority, table = rule.get("priority") or 0, rule.get("table")
            if self._takes(rule, priority):
                yield f"the IPv{version} policy rule {priority} sends packets of mark {self.mark:#x} to table {table}"
            elif table == self.mark:
                yield f"the IPv{version} policy rule {priority} uses routing table {table} already"
        for route in netlink.get_routes(family=_FAMILIES[version], table=self.mark):
            if not _delivers(route):
                yield f"the IPv{version} routing table {self.mark} has routes of somebody else's"

    def _takes(self, rule: Any, priority: int) -> bool:
        """Whether a rule by marks takes our packets: one with the same mark at any place, another before ours."""
        mark, mask = rule.get("fwmark"), rule.get("fwmask") or _WHOLE
        if mark is None:
            return False
        if rule["flags"] & _INVERT:
            return self.mark & mask != mark and priority <= PRIORITY
        return bool(self.mark & mask == mark and (mask == _WHOLE or priority <= PRIORITY))


def _is(rule: Any, wanted: dict[str, Any]) -> bool:
    return (
        all(rule.get(key) == value for key, value in {"iifname": None, **wanted}.items())
        and rule.get("fwmask", _WHOLE) == _WHOLE
        and not rule["flags"] & _INVERT
    )


def _delivers(route: Any) -> bool:
    return bool(route["type"] == _LOCAL and route["dst_len"] == 0 and route.get("oif") == _LOOPBACK)


def _netlink(kind: str = "IPRoute") -> Any:
    """A socket of pyroute2's, by the name of its class."""
    try:
        import pyroute2  # slow
    except ImportError as error:
        raise GatewayError(missing_extra(Extra.GATEWAY) or str(error)) from error
    return getattr(pyroute2, kind)()


def loopback_is_up() -> bool:
    """Whether `lo` is up, to which packets for this machine are routed."""
    with _netlink() as netlink:
        (link,) = netlink.get_links(_LOOPBACK)
        return bool(link["flags"] & 1)  # IFF_UP, netdevice(7)


def listening(version: int) -> set[int]:
    """The TCP ports at which something listens over a version of IP."""
    listen = 1 << 10  # TCPF_LISTEN, net/tcp_states.h
    with _netlink("DiagSocket") as netlink:
        netlink.bind()
        found = netlink.get_sock_stats(family=_FAMILIES[version], states=listen)
        return {each["idiag_sport"] for each in found}
