"""Packets of each kind of client and server end where they should."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from whenever import Instant

from labs.packet_fates import GATE, REFUSED, Fates, Packet
from labs.ruleset_lab import BANNED, CLIENT, EGRESS, GATEWAY, INITIAL, ORIGIN, PORT, Lab
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


WAYS = {
    "tproxy": TableOptions(forwarded=Tproxy(PORT), local=Redirect(), bypass=Bypass.by_mark(MARK)),
    "redirect": TableOptions(forwarded=Redirect(), local=Redirect(), bypass=Bypass.by_mark(MARK)),
}


@pytest.mark.parametrize("gates", [True, False], ids=["gates listen", "no gate listens"])
@pytest.mark.parametrize("way", WAYS)
def test_who_gets_a_packet(lab: Lab, tmp_path: Path, way: str, gates: bool) -> None:
    """By either way to the gates, and as `on_crash` has it where none listens."""
    asked = [each for made in (packets, own_packets) for version in (4, 6) for each in made(version, way == "tproxy")]
    sent = [packet for packet, _, _ in asked]
    expected = [{who if gates else closed} for _, who, closed in asked]
    with Fates(lab, gates=gates) as fates:
        fates.load(table_of(tmp_path, WAYS[way]))
        fates.of(sent, expected)  # new sets are filled a moment after the rules are in force
        found = fates.of(sent, expected)
    assert [each for each in zip(sent, found, expected, strict=True) if each[1] not in each[2]] == []
