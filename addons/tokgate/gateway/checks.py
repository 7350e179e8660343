"""What on this machine keeps a gateway from working, found before anything is changed."""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tokgate.gateway import GatewayError, capabilities, libnftables, sysctls
from tokgate.gateway.capabilities import Capability
from tokgate.gateway.libnftables import table_state
from tokgate.gateway.nftables import table
from tokgate.gateway.policy_routes import PolicyRoutes, loopback_is_up, versions
from tokgate.gateway.ruleset import TABLE, Ruleset, TableOptions, Tproxy

_SCRATCH: Final = "tokgate_check"
"""A table that is checked by the kernel and never made."""
_FAMILIES: Final = ("inet", "ip", "ip6")
_TCP: Final = 6
_NEW: Final = 8  # NF_CT_STATE_BIT(IP_CT_NEW), linux/netfilter/nf_conntrack_common.h
_KNOWN_PROTOCOLS: Final = ("tcp", "th", "ip", "ip6", "ether", "meta")
_LETS_IN: Final = ("accept", "jump", "goto", "queue")
_TURNS_AWAY: Final = ("drop", "reject")
_REJECT: Final = {"type": "target", "name": "REJECT"}
"""What turns away in a rule of iptables."""
_CONNTRACK: Final = {"type": "match", "name": "conntrack"}
"""`-m conntrack` and `-m state`, of which nftables' JSON has no more than the name."""
_STATES: Final = {"invalid": 1, "established": 2, "related": 4, "new": _NEW, "untracked": 64}
"""Bits of `ct state`, of the same header."""
_BESIDE: Final = ("counter", "log", *_TURNS_AWAY)
"""What does not keep a rule from acting; other statements may: limits, conditions of iptables that nft can't show."""


def problems(rules: Ruleset) -> list[str]:
    """Everything that keeps this ruleset from working, with what helps; empty where it can be loaded."""
    try:
        return list(_problems(rules))
    except GatewayError as error:
        return [str(error)]


def _problems(rules: Ruleset) -> Iterator[str]:
    if not capabilities.held() >> Capability.NET_ADMIN & 1:
        yield "CAP_NET_ADMIN is missing: run this as root, or give the capability"
        return
    if not loopback_is_up():
        yield "the loopback interface is down: ip link set lo up"
    if TABLE in libnftables.tables() and not table_state(libnftables.ask(f"list table inet {TABLE}")).ours:
        yield f"there is a table inet {TABLE} that tokgate did not make: nft delete table inet {TABLE}"
    yield from _refused_by_kernel(rules)
    if isinstance(rules.options.forwarded, Tproxy):
        for said in PolicyRoutes(rules.options.forwarded.mark).conflicts():
            yield f"{said}: take it out, or choose another mark with --route-mark"
    yield from _forwarding()
    yield from dropping(rules.options)


def _refused_by_kernel(rules: Ruleset) -> Iterator[str]:
    """Have the kernel check the whole table under another name, without making it."""
    try:
        libnftables.run(table(rules).replace(f"table inet {TABLE} ", f"table inet {_SCRATCH} ", 1), dry=True)
    except libnftables.NftError as error:
        said = str(error)
        for module in ("tproxy", "socket"):
            if module in said and isinstance(rules.options.forwarded, Tproxy):
                helps = f"modprobe nft_{module}, or use --redirect"
                yield f"this kernel can't do what TPROXY takes (nft_{module}): {helps}"
        yield f"the kernel refuses the table:\n{said}"


def _forwarding() -> Iterator[str]:
    for name in sysctls.wrong(sysctls.forwarding(versions())):
        if not sysctls.writable(name):
            yield f"{name} is off, and this process may not change it: sysctl -w {name}=1"
    folder = Path("/proc/sys/net/ipv6/conf")
    learned = [each.name for each in (sorted(folder.iterdir()) if folder.is_dir() else ()) if _loses_routes(each.name)]
    if learned and sysctls.wrong(sysctls.forwarding((6,))):
        yield (
            f"IPv6 forwarding is off, and with it on {', '.join(learned)} would lose the default route that it learned "
            f"from router advertisements: sysctl -w net.ipv6.conf.{learned[0]}.accept_ra=2 first"
        )


def _loses_routes(device: str) -> bool:
    """Whether it has a default route from a router, which it would no longer accept (ip-sysctl: accept_ra)."""
    accepts = Path("/proc/sys/net/ipv6/conf") / device / "accept_ra"
    if device in ("all", "default", "lo") or accepts.read_text().strip() != "1":
        return False
    routes = [line.split() for line in Path("/proc/thread-self/net/ipv6_route").read_text().splitlines()]
    flags = [int(words[-2], 16) for words in routes if words[-1] == device and words[:2] == ["0" * 32, "00"]]
    return any(each & 0x40000 for each in flags)  # RTF_ADDRCONF


# -- firewalls of others that would drop what is delivered to the gates
#
# Their rules are read as far as that is certain: what can't be told apart counts as letting the packets in.


@dataclass(frozen=True, slots=True)
class Delivered:
    """The first packet of a connection as it comes to a gate; where it may be one of several, all of them."""

    mark: int
    ports: tuple[int, ...]

    def values(self, left: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """What an expression of nftables is for such a packet; None where that is unknown."""
        match left:
            case {"meta": {"key": "mark"}}:
                return (self.mark,)
            case {"meta": {"key": "l4proto"}} | {"payload": {"field": "protocol" | "nexthdr"}}:
                return (_TCP,)
            case {"ct": {"key": "state"}}:
                return (_NEW,)
            case {"payload": {"protocol": "tcp" | "th", "field": "dport"}}:
                return self.ports
            case {"payload": {"protocol": str(protocol)}} if protocol not in _KNOWN_PROTOCOLS:
                return ()
        return None


def dropping(options: TableOptions) -> list[str]:
    """The chains of other tables that let nothing in for the gates, with what helps."""
    way, found = options.forwarded, []
    if isinstance(way, Tproxy):
        packet, accept = Delivered(way.mark, (80, 443)), f"meta mark {way.mark:#x} accept"
    else:
        packet, accept = Delivered(0, tuple(range(way.to.first, way.to.last + 1))), f"tcp dport {way.to} accept"
    for each in libnftables.ask("list chains"):
        chain = each.get("chain", {})
        place = chain.get("family"), chain.get("table")
        if chain.get("hook") != "input" or place[0] not in _FAMILIES or place == ("inet", TABLE):
            continue
        named = f"{place[0]} {place[1]} {chain['name']}"
        rules = _read([each["rule"] for each in libnftables.ask(f"list chain {named}") if "rule" in each], named)
        if _drops(chain.get("policy") == "drop", rules, packet):
            where = f"chain {chain['name']} of table {place[0]} {place[1]}"
            found.append(f"{where} drops what is delivered to the gates: add `{accept}` there")
    return found


def _read(rules: list[Mapping[str, Any]], chain: str) -> list[list[Mapping[str, Any]]]:
    """The statements of rules, with what iptables says of a connection's state as nftables' own condition."""
    xt = any({"xt": _CONNTRACK} in rule["expr"] for rule in rules)
    texts = libnftables.rules_as_text(chain) if xt else {}
    return [
        [_state(texts.get(rule["handle"], "")) or each if each == {"xt": _CONNTRACK} else each for each in rule["expr"]]
        for rule in rules
    ]


def _state(text: str) -> Mapping[str, Any] | None:
    """The condition `ct state` in a rule of iptables; None where it is not all of it (`--ctstate RELATED,DNAT`)."""
    found = re.findall(r"ct (state|status) (! )?([a-z,]+)", text)
    if len(found) != 1 or found[0][0] != "state":
        return None
    _, unless, states = found[0]
    right = [_STATES[state] for state in states.split(",")]
    return {"match": {"op": "!=" if unless else "in", "left": {"ct": {"key": "state"}}, "right": right}}


def _drops(by_default: bool, rules: Iterable[Iterable[Mapping[str, Any]]], packet: Delivered) -> bool:
    """Whether no rule of a chain can let the packet in before one, or the chain's policy, turns it away."""
    for rule in rules:
        statements: list[Mapping[str, Any]] = [{"reject": None} if each.get("xt") == _REJECT else each for each in rule]
        conditions = [each["match"] for each in statements if "match" in each]
        if not all(_may_match(condition, packet) for condition in conditions):
            continue
        if any(word in each for each in statements for word in _LETS_IN) or _map_may_accept(statements, packet):
            return False
        certain = not conditions and all(word in _BESIDE for each in statements for word in each)
        if certain and any(word in each for each in statements for word in _TURNS_AWAY):
            return True
    return by_default


def _map_may_accept(statements: Iterable[Mapping[str, Any]], packet: Delivered) -> bool:
    """Whether a verdict map may let the packet in: its key is not known for this packet, or its verdict accepts it."""
    for each in statements:
        if "vmap" not in each:
            continue
        values, data = packet.values(each["vmap"]["key"]), each["vmap"]["data"]
        if values is None or not isinstance(data, dict):
            return True
        pairs = [(key, verdict) for key, verdict in data["set"] if any(_among(value, key) for value in values)]
        if any(word in verdict for _, verdict in pairs for word in _LETS_IN):
            return True
    return False


def _may_match(condition: Mapping[str, Any], packet: Delivered) -> bool:
    left, right = condition["left"], condition["right"]
    if left in ({"meta": {"key": "iif"}}, {"meta": {"key": "iifname"}}) and condition["op"] == "==":
        return bool(right != "lo")
    values = packet.values(left)
    if values is None or condition["op"] not in ("==", "in", "!=") or (isinstance(right, str) and right[:1] == "@"):
        return True
    return any(_among(value, right) is not (condition["op"] == "!=") for value in values)


def _among(value: Any, stated: Any) -> bool:
    """Whether a value is one of those that nftables states: a number, a list or set of them, a range."""
    match stated:
        case {"set": list(members)} | list(members):
            return any(_among(value, member) for member in members)
        case {"range": [first, last]}:
            return bool(first <= value <= last)
    return bool(value == stated)
