"""Each rule of the table does something: without it some packet ends elsewhere."""

import itertools
import socket
from collections.abc import Callable, Iterator
from fnmatch import fnmatch
from operator import ne
from pathlib import Path

import pytest
from whenever import Instant

from gateway import test_tcp_rules as tcp
from gateway import test_udp_rules as udp
from gateway.test_tcp_rules import UNKNOWN_TOO
from labs import netns
from labs.builders import at
from labs.packet_fates import GATE, REFUSED, Fates, Packet
from labs.ruleset_lab import BANNED, CLIENT, EGRESS, GATEWAY, ORIGIN, PORT, Lab, built, printed
from labs.ruleset_lab import POLICY as ONE_BAN
from tokgate.config.reload.holder import open_policy
from tokgate.gateway import nftables, udp_rules
from tokgate.gateway.policy_routes import commands
from tokgate.gateway.ruleset import Bypass, Redirect, TableOptions, Tproxy, ruleset_of

MARK = 0x51
OURS = {4: "192.0.2.51", 6: "2001:db8:c::51"}
"""A client whose packets bear the proxy's own mark when they come in."""
EXEMPT = {4: "192.0.2.9", 6: "2001:db8:c::9"}
UNKNOWN = {4: "10.9.9.9", 6: "2001:db8:99::9"}
FREE = {4: "10.8.8.8", 6: "2001:db8:88::8"}
"""In a network without a ban."""
HALL = {4: "198.51.100.200", 6: "2001:db8:9:1::200"}
"""In a network by its interface, of which half of the addresses are excepted."""
NO_HALL = Lab.GUEST
HERE_OFFICE = {4: "203.0.113.2", 6: "2001:db8:f::2"}
HERE_FREE = {4: "203.0.113.3", 6: "2001:db8:f::3"}
CANARY = {4: "198.18.116.6", 6: "fd74:6f6b:6761:7465::6"}
POLICY = """\
services:
  clips:
    names: {suffix: [clips.example.org]}
    addresses: [203.0.113.20, "2001:db8:f::20"]
networks:
  office: {cidrs: [192.0.2.0/24, "2001:db8:c::/64", 203.0.113.2, "2001:db8:f::2"]}
  hall: {interfaces: [guest0], except: [198.51.100.0/25, "2001:db8:9::/64"]}
  free: {cidrs: [10.8.8.8, "2001:db8:88::8", 203.0.113.3, "2001:db8:f::3"]}
bans:
  clips:
    {title: No clips, services: [clips], networks: [office, hall], starts: 2023-03-10T00:00, last_day: 2097-03-10}
exemptions:
  press: {ban: clips, clients: [192.0.2.9, "2001:db8:c::9"], until: 2097-03-01T00:00, reason: Press}
settings: {unknown_clients: block}
"""
HELLO = b"hello"
INITIAL = b"\xc3\x00\x00\x00\x01".ljust(1200, b"\0")
DRAFT = b"\xc3\xff\x00\x00\x1d".ljust(1200, b"\0")


type Maker = Callable[..., Packet]


def maker(version: int) -> Maker:
    """Packets by who sends them, and from where to where in each version."""

    def from_(
        role: str, source: dict[int, str], to: dict[int, str], port: int, said: bytes | None = None, mark: int = 0
    ) -> Packet:
        return Packet(role, source[version], to[version], port, said, mark)

    return from_


def packets(version: int, tproxy: bool) -> Iterator[tuple[Packet, str, str]]:
    """Packets, who gets each, and who where no gate listens."""
    quic, from_ = GATE if tproxy else REFUSED, maker(version)
    for role, source in (("client", CLIENT), ("guest", HALL)):
        yield from_(role, source, ORIGIN, 443), GATE, REFUSED
        yield from_(role, source, BANNED, 5228), GATE, REFUSED
        yield from_(role, source, ORIGIN, 22), "origin", "origin"
        yield from_(role, source, ORIGIN, 443, INITIAL), quic, REFUSED
        yield from_(role, source, ORIGIN, 443, HELLO), quic, REFUSED
        yield from_(role, source, ORIGIN, 5228, HELLO), "origin", "origin"
        yield from_(role, source, ORIGIN, 8443, INITIAL), REFUSED, REFUSED
        yield from_(role, source, ORIGIN, 8443, DRAFT), REFUSED, REFUSED
        yield from_(role, source, BANNED, 5228, HELLO), REFUSED, REFUSED
    yield from_("client", EXEMPT, BANNED, 5228, HELLO), "origin", "origin"
    yield from_("client", OURS, ORIGIN, 443), "origin", "origin"
    yield from_("client", OURS, BANNED, 5228, HELLO), "origin", "origin"
    if tproxy:
        yield from_("client", CLIENT, CANARY, 5228), GATE, REFUSED
    for role, source in (("client", UNKNOWN), ("guest", NO_HALL)):
        yield from_(role, source, ORIGIN, 22), GATE, REFUSED
        yield from_(role, source, ORIGIN, 5228, HELLO), REFUSED, REFUSED
        yield from_(role, source, GATEWAY, 22), "gateway", "gateway"
    for port in (22, 443):
        yield from_("client", FREE, ORIGIN, port), "origin", "origin"
        yield from_("client", FREE, ORIGIN, port, INITIAL), "origin", "origin"
        yield from_("client", FREE, BANNED, port, HELLO), "origin", "origin"
        yield from_("client", CLIENT, GATEWAY, port), "gateway", "gateway"
        yield from_("client", CLIENT, GATEWAY, port, INITIAL), "gateway", "gateway"
        yield from_("client", CLIENT, EGRESS, port), "origin", "origin"
        yield from_("client", CLIENT, EGRESS, port, INITIAL), "origin", "origin"
    for target in (CLIENT, FREE):
        yield from_("origin", ORIGIN, target, 22), "client", "client"
        yield from_("origin", BANNED, target, 5228, HELLO), "client", "client"
    for port in (PORT, 10443) if tproxy else (10443,):
        yield from_("client", CLIENT, GATEWAY, port), REFUSED, REFUSED


def own_packets(version: int, tproxy: bool) -> Iterator[tuple[Packet, str, str]]:
    """The same of this machine's own programs. Where no gate listens the kernel itself refuses what is redirected."""
    from_ = maker(version)
    for target, port in ((ORIGIN, 443), (BANNED, 5228), *([(CANARY, 5228)] if tproxy else [])):
        yield from_("gateway", HERE_OFFICE, target, port), GATE, REFUSED
        yield from_("gateway", EGRESS, target, port), GATE, REFUSED
        yield from_("gateway", HERE_FREE, target, port), "origin", "origin"
        yield from_("gateway", HERE_OFFICE, target, port, mark=MARK), "origin", "origin"
    for source in (HERE_OFFICE, EGRESS):
        yield from_("gateway", source, ORIGIN, 22), "origin", "origin"
        yield from_("gateway", source, GATEWAY, 443), "gateway", "gateway"
        yield from_("gateway", source, ORIGIN, 443, INITIAL), REFUSED, REFUSED
        if tproxy:
            yield from_("gateway", source, ORIGIN, 443, INITIAL, mark=udp_rules.CARRIES), "origin", "origin"
        yield from_("gateway", source, ORIGIN, 443, INITIAL, mark=MARK), "origin", "origin"
        yield from_("gateway", source, ORIGIN, 5228, HELLO), "origin", "origin"
    yield from_("gateway", HERE_OFFICE, BANNED, 5228, HELLO), REFUSED, REFUSED
    yield from_("gateway", HERE_FREE, ORIGIN, 443, INITIAL), "origin", "origin"


BESIDE = """
table inet beside
delete table inet beside
table inet beside {
    chain marks {
        type filter hook prerouting priority raw;
        ip saddr 192.0.2.51 meta mark set 0x51
        ip6 saddr 2001:db8:c::51 meta mark set 0x51
    }
    chain published {
        type nat hook prerouting priority dstnat;
        ip daddr 203.0.113.1 iifname client0 tcp dport { 22, 443 } dnat to 203.0.113.10
        ip daddr 203.0.113.1 iifname client0 udp dport { 22, 443 } dnat to 203.0.113.10
        ip6 daddr 2001:db8:f::1 iifname client0 tcp dport { 22, 443 } dnat to 2001:db8:f::10
        ip6 daddr 2001:db8:f::1 iifname client0 udp dport { 22, 443 } dnat to 2001:db8:f::10
    }
}
"""
"""Of the admin's own: a mark for packets that come by here once more, and a server that is published."""


@pytest.fixture(scope="module")
def lab(module_lab: Lab) -> Lab:
    """The namespaces, with all those addresses."""
    for namespace, device, via, *held in (
        (module_lab.client, "eth0", None, OURS, EXEMPT),
        (module_lab.client, "eth0", CLIENT, UNKNOWN, FREE),
        (module_lab.guest, "eth0", NO_HALL, HALL),
        (module_lab.gateway, "origin0", None, HERE_OFFICE, HERE_FREE),
        (module_lab.origin, "eth0", ORIGIN, CANARY),
    ):
        for version, address in itertools.chain(*(each.items() for each in held)):
            namespace.address(device, address)
            if via is not None:
                module_lab.gateway.run("ip", "route", "add", address, "via", via[version])
    module_lab.gateway.run("nft", "-f", "-", given=BESIDE)
    for command in commands(Tproxy().mark):
        module_lab.gateway.run(*command.split())
    return module_lab


def table_of(folder: Path, options: TableOptions) -> str:
    """The table of the policy above."""
    (folder / "policy.yaml").write_text(POLICY)
    now = Instant.now()
    return nftables.table(ruleset_of(open_policy(folder, now).snapshot, now, options))


def rules_in(text: str) -> list[tuple[str, int]]:
    """The rules of a table, with their chains, and the numbers of their lines."""
    found, chain = [], ""
    for number, line in enumerate(text.splitlines()):
        words = line.split()
        if words[-1:] == ["{"]:
            chain = words[1] if words[0] == "chain" else ""
        elif chain and words and words[0] not in ("}", "#", "type"):
            found.append((f"{chain}: {line.strip()}", number))
    return found


WAYS = {
    "tproxy": TableOptions(forwarded=Tproxy(PORT), local=Redirect(), bypass=Bypass.by_mark(MARK)),
    "redirect": TableOptions(forwarded=Redirect(), local=Redirect(), bypass=Bypass.by_mark(MARK)),
}


SPARES_TIME = "packets that the rules behind it do not match"
NO_PACKET = {
    'made_by_tokgate: return comment "made by tokgate"': "nothing comes by; it says whose table this is",
    "icmp_redirects: meta l4proto tcp accept": SPARES_TIME,
    "quic_prerouting: meta l4proto != udp accept": SPARES_TIME,
    "quic_output: meta l4proto tcp accept": SPARES_TIME,
    "output_udp: meta l4proto != udp accept": SPARES_TIME,
    'strangers: iif "lo" return': "a canary without a namespace (e2e/test_gateway.py::test_the_canary_in_a_container)",
}
"""Rules of which no packet here tells, and why."""


def test_each_rule(lab: Lab, tmp_path: Path) -> None:
    """Packets end where they should; with any rule left out, some end elsewhere, here or in the test named below."""
    all_rules: set[str] = set()
    noticed: set[str] = set()
    for way, options in WAYS.items():
        text = table_of(tmp_path, options)
        lines, rules = text.splitlines(), rules_in(text)
        asked = [
            each for made in (packets, own_packets) for version in (4, 6) for each in made(version, way == "tproxy")
        ]
        all_rules |= dict(rules).keys()
        for gates in (True, False):
            sent, right = [packet for packet, _, _ in asked], [who if gates else closed for _, who, closed in asked]
            expected = [{each} for each in right]
            with Fates(lab, gates=gates) as fates:
                fates.load(text)
                fates.of(sent, expected)  # new sets are filled a moment after the rules are in force
                found = fates.of(sent, expected)
                assert [each for each in zip(sent, found, expected, strict=True) if each[1] not in each[2]] == []
                for rule, number in rules:
                    if rule in noticed | NO_PACKET.keys():
                        continue
                    fates.load("\n".join(lines[:number] + lines[number + 1 :]))
                    if all(any(map(ne, fates.of(sent, expected), right)) for _ in range(2)):
                        noticed.add(rule)
    left = all_rules - noticed - NO_PACKET.keys()
    assert {rule for rule in left if not any(fnmatch(rule, f"*: {pattern}") for pattern in LATER)} == set()


type Test = Callable[[Lab, Path, int], object]
FLOW = "ip*saddr . udp sport . ip*daddr . udp dport"
OF_ADDRESSES = "ip* daddr [@1f]* meta l4proto tcp"
"""Of banned services', or the canary's server's."""


def forgotten(gate_first: bool) -> Test:
    """A connection that conntrack has forgotten; its client is under no ban any more."""
    return lambda lab, folder, version: tcp.test_a_forgotten_connection_stays_with_its_gate(
        lab, folder, version, gate_first
    )


def from_before(settings: str) -> Test:
    """A connection between the ports of one that conntrack knew before the rules."""
    return lambda lab, folder, version: tcp.test_a_port_from_before(lab, folder, version, settings)


def narrow(lab: Lab, _: Path, version: int) -> None:
    """A router's word of a narrow way."""
    with tcp.behind(lab) as branch:
        tcp.test_a_narrow_way_to_the_client(lab, branch, version)


def stray(which: str) -> Test:
    """A packet of no connection."""
    return lambda lab, folder, version: tcp.test_stray_packets_stay_here(lab, folder, version, which)


def served_first(which: str) -> Test:
    """A connection of which conntrack hears the server first."""
    return lambda lab, folder, version: tcp.test_older_connections_in_which_servers_speak_are_reset(
        lab, folder, version, which
    )


def moment(which: str) -> Test:
    """A ban that blocks not yet, or not any more."""
    return lambda lab, folder, version: udp.test_the_kernel_reads_its_clock(lab, folder, version, which)


LATER: dict[str, Test] = {
    "ct state new,invalid socket transparent 1 *": forgotten(gate_first=False),
    "meta l4proto tcp socket transparent 1 *": from_before(UNKNOWN_TOO),
    "ip* saddr * socket transparent 1 *": from_before(""),
    "ct state new meta l4proto tcp tcp flags * fib saddr type != local *": forgotten(gate_first=True),
    "meta l4proto tcp ct label 116 tproxy to *": forgotten(gate_first=False),
    "meta l4proto { icmp, icmpv6 } socket transparent 1 *": narrow,
    "icmp*redirect counter drop": lambda lab, _, version: tcp.test_clients_are_told_of_no_shorter_way(lab, version),
    "tcp dport @ports ct state invalid counter drop": stray("web"),
    f"{OF_ADDRESSES} ct state invalid counter drop": stray("banned address"),
    "meta l4proto tcp ct state invalid counter drop": stray("unknown"),
    "tcp dport @ports ct label 117 *": served_first("web"),
    f"{OF_ADDRESSES} ct label 117 *": served_first("banned address"),
    "ct state new meta l4proto tcp tcp flags * ct label set 117": served_first("web"),
    "meta l4proto tcp ct label 116 counter *": tcp.test_a_gate_that_is_gone,
    f"@th,64,1 0 {FLOW} @quic? *": lambda lab, _, version: udp.test_a_flow_passes_while_it_is_in_its_set(lab, version),
    "@th,64,1 0 ct state != untracked counter drop": lambda lab, _, version: (
        udp.test_a_flow_that_leaves_its_set_is_not_refused(lab, version, answers=True)
    ),
    "meta mark 0x746f counter notrack accept": lambda lab, _, version: udp.test_refusals_are_not_tracked(lab, version),
    "meta mark 0x746? ?????? @quic*": lambda lab, _, version: udp.test_gates_open_and_end_flows(lab, version),
    "meta mark { 0x746d, 0x746e } counter drop": udp.test_a_set_without_room,
    "ct direction reply return": lambda lab, _, version: udp.test_clients_answer(lab, version),
    "meta time < * return": moment("not yet"),
    "meta time >= * return": moment("not any more"),
}
"""Rules for what follows a first packet, and the test that each has to fail without."""


@pytest.fixture(scope="module")
def plain() -> Iterator[Lab]:
    """The namespaces, with nothing loaded."""
    yield from built()


def loaded_by_tests(folder: Path) -> set[str]:
    """The rules of the tables that the tests above load."""
    found = set()
    for policy in (ONE_BAN, ONE_BAN + UNKNOWN_TOO):
        for stated, instant, _ in udp.MOMENTS.values():
            (folder / "policy.yaml").write_text(policy.replace("starts: 2023-03-10T00:00", stated))
            snapshot = open_policy(folder, at(instant)).snapshot
            text = nftables.table(ruleset_of(snapshot, at(instant), TableOptions(forwarded=Tproxy(PORT))))
            found |= {line.strip() for line in text.splitlines()}
    return found


def past(rule: str) -> bool:
    """Whether it is of a time at which it doesn't matter now: a beginning that is over, an end to come."""
    words = rule.split()
    return words[:2] == ["meta", "time"] and (int(words[3]) < Instant.now().timestamp()) is (words[2] == "<")


@pytest.mark.parametrize("pattern", LATER)
def test_each_rule_for_what_follows(plain: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pattern: str) -> None:
    """Without it the test named fails."""
    monkeypatch.setattr(netns, "SECONDS", 1.0)
    socket.setdefaulttimeout(1.0)  # of accepted ones
    rules = {rule for rule in loaded_by_tests(tmp_path) if fnmatch(rule, pattern)}
    rules = {rule for rule in rules if not any(address in rule for address in CANARY.values()) and not past(rule)}
    assert rules
    (tmp_path / "policy.yaml").write_text(ONE_BAN)
    try:
        for rule in rules:
            plain.reset()
            plain.without = rule
            plain.load(printed(tmp_path))
            with pytest.raises((AssertionError, OSError, pytest.fail.Exception)):
                LATER[pattern](plain, tmp_path, 6 if "ip6 " in rule or "icmpv6 type" in rule else 4)
    finally:
        plain.without = None
        socket.setdefaulttimeout(None)
