"""The table in a kernel does what `decide` says, whatever the policy; and the text that holds until tokgate runs."""

from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from whenever import Instant

from labs.builders import at, ban, exemption, network, service, snapshot
from labs.packet_fates import GATE, REFUSED, Fates, Packet
from labs.ruleset_lab import BANNED, CLIENT, INITIAL, ORIGIN, PORT, Lab
from tokgate.gateway.nftables import CLOSED_BOOT_RULES, OWNER, boot_rules, table
from tokgate.gateway.policy_routes import commands
from tokgate.gateway.ruleset import Redirect, TableOptions, Tproxy, ruleset_of
from tokgate.policy.bans import Action, Ban, OnExpiry
from tokgate.policy.decide import decide
from tokgate.policy.decision import Signal, Verdict
from tokgate.policy.settings import GatewaySettings, Passage, PortRange
from tokgate.policy.snapshot import Snapshot

SERVICES = {"clips": "clips.example.org", "forum": "forum.example.org"}
CLIPS = service("clips", f"suffix:{SERVICES['clips']}", addresses=("203.0.113.20", "2001:db8:f::20"))
FORUM = service("forum", f"suffix:{SERVICES['forum']}")
OFFICE = network("office", "192.0.2.0/24", "2001:db8:c::/48")
BRANCH = network("branch", "198.51.100.0/24", "2001:db8:9::/48")
NO_QUIC = (
    b"\x16\xfe\xfd\x00\x00\x00\x01".ljust(1200, b"\0"),  # DTLS
    b"\x43\x00\x00\x00\x01".ljust(1200, b"\0"),  # a short header
    b"\xc3\x00\x00\x00\x05".ljust(1200, b"\0"),  # a version that nobody has
    INITIAL[:1199],
)
QUIC = (
    INITIAL,
    b"\xd3\x6b\x33\x43\xcf".ljust(1200, b"\0"),  # version 2
    b"\x83\x00\x00\x00\x01".ljust(1200, b"\0"),  # its fixed bit greased
    b"\xc3\xff\x00\x00\x1d".ljust(1200, b"\0"),  # a draft
    b"\xc3Q050".ljust(1200, b"\0"),
)
AROUND = (-72, -1, 1, 72)
"""Hours from now at which something begins or ends."""
BEFORE: tuple[dict[str, int], ...] = (
    {},
    {"announced": -100},
    {"monitor_from": -100},
    {"monitor_from": -100, "warn_from": -90},
)
"""What a ban does before it begins, and when."""


@st.composite
def policies(draw: st.DrawFn, now: Instant) -> Snapshot:
    """Bans around now, with exemptions of the client."""

    def one(name: str) -> Ban:
        starts = draw(st.sampled_from(AROUND))
        ends = draw(st.sampled_from((None, *(each for each in AROUND if each > starts))))
        stated = draw(st.sampled_from(BEFORE))
        return ban(
            name,
            services=tuple(draw(st.sets(st.sampled_from(list(SERVICES)), min_size=1))),
            networks=tuple(draw(st.sets(st.sampled_from(("office", "branch")), min_size=1))),
            starts=now.add(hours=starts),
            expires=None if ends is None else now.add(hours=ends),
            on_expiry=draw(st.sampled_from(OnExpiry)),
            action=draw(st.sampled_from(Action)),
            **{key: now.add(hours=hours) for key, hours in stated.items()},
        )

    bans = [one(f"ban{number}") for number in range(draw(st.integers(1, 3)))]
    exempt = [
        exemption(
            each.name,
            ban=each.name,
            clients=tuple(ip_network(address) for address in CLIENT.values()),
            starts=now.add(hours=draw(st.sampled_from((-5, 2)))),
            until=now.add(hours=5),
        )
        for each in bans
        if draw(st.booleans())
    ]
    return snapshot(
        *bans,
        services=(CLIPS, FORUM),
        networks=(OFFICE, BRANCH),
        exemptions=tuple(exempt),
        gateway=GatewaySettings(
            ports=draw(st.sampled_from(((), (PortRange(5228, 5230),)))), on_crash=draw(st.sampled_from(Passage))
        ),
    )


@pytest.fixture(scope="module")
def lab(module_lab: Lab) -> Lab:
    """The namespaces, with the routes that marked packets need."""
    for command in commands(Tproxy().mark):
        module_lab.gateway.run(*command.split())
    return module_lab


def expected(policy: Snapshot, now: Instant, packet: Packet, *, tproxy: bool, gates: bool) -> set[str]:
    """Who may get a packet, by what `decide` says of its sender now and in the day that follows.

    To the gates comes who is exempt as well, and may come what goes to an address that is banned for others.
    """
    all_under = snapshot(*policy.bans.values(), services=(CLIPS, FORUM), networks=(OFFICE, BRANCH))

    def said(host: str, signal: Signal, hours: int) -> Verdict:
        return decide(all_under, packet.source, host, now.add(hours=hours), signal).verdict

    soon = {said(name, Signal.SNI, hours) for name in SERVICES.values() for hours in (0, 2)}
    address_soon = {said(packet.address, Signal.ADDRESS, hours) for hours in (0, 2)}
    acts = {said(name, Signal.SNI, 0) for name in SERVICES.values()} & {Verdict.WARN, Verdict.BLOCK}
    ports = (PortRange(443, 443), *policy.settings.gateway.ports)
    if soon == {Verdict.ALLOW}:
        return {"origin"}
    if packet.said is not None:
        if packet.port == 443:
            return {GATE if tproxy and gates else REFUSED}
        blocked = decide(policy, packet.source, packet.address, now, Signal.ADDRESS).verdict is Verdict.BLOCK
        return {REFUSED} if blocked or packet.said in QUIC else {"origin"}
    taken = GATE if gates else REFUSED if acts and policy.settings.gateway.on_crash is Passage.CLOSED else "origin"
    if any(each.first <= packet.port <= each.last for each in ports) or address_soon != {Verdict.ALLOW}:
        return {taken}
    return {taken, "origin"} if packet.address in BANNED.values() else {"origin"}


def packets(version: int) -> Iterator[Packet]:
    """Of both clients, to ports of the web and others, to addresses that are banned and others."""
    for role, source in (("client", CLIENT), ("guest", Lab.GUEST)):
        for to in (ORIGIN, BANNED):
            for port in (22, 443, 5228):
                yield Packet(role, source[version], to[version], port)
            for said in (b"hello", *QUIC, *NO_QUIC):
                yield Packet(role, source[version], to[version], 8443, said)
            yield Packet(role, source[version], to[version], 443, INITIAL)


PACKETS = (*packets(4), *packets(6))


@pytest.mark.parametrize(("tproxy", "gates"), [(True, True), (True, False), (False, True)])
def test_any_policy(lab: Lab, tproxy: bool, gates: bool) -> None:
    """What `decide` says of a client becomes of its packets; with nobody at the gates `on_crash` does."""
    options = TableOptions(forwarded=Tproxy(PORT) if tproxy else Redirect())
    with Fates(lab, gates=gates) as fates:

        @given(st.data())
        @settings(max_examples=20)
        def holds(data: st.DataObject) -> None:
            now = Instant.now()
            policy = data.draw(policies(now))
            fates.load(table(ruleset_of(policy, now, options)))
            wanted = [expected(policy, now, packet, tproxy=tproxy, gates=gates) for packet in PACKETS]
            for _ in range(2):  # new sets are filled a moment after the rules are in force
                found = fates.of(PACKETS, wanted)
                wrong = [each for each in zip(PACKETS, found, wanted, strict=True) if each[1] not in each[2]]
                if not wrong:
                    break
            assert wrong == []

        holds()


@given(st.data())
def test_a_table_holds_for_its_span(data: st.DataObject) -> None:
    """At any instant in it the same table is due, so that it need not be made again, and only then."""
    now = at("2023-06-01T00:00:00Z")
    policy = data.draw(policies(now))
    one, other = (now.add(hours=data.draw(st.integers(-120, 120))) for _ in range(2))
    made, again = (ruleset_of(policy, each, TableOptions()) for each in (one, other))
    assert (made == again) is (other in made.holds)


@given(st.data())
def test_what_the_kernel_hears(data: st.DataObject) -> None:
    """Whom a ban concerns now or within a day, on whom one acts, and whom it keeps from which addresses and when."""
    base = at("2023-06-01T00:00:00Z")
    policy = data.draw(policies(base))
    edges = [change.at for track in policy.tracks for change in track.schedule.changes if change.at > Instant.MIN]
    beside = st.sampled_from((-25, -24, -23, -1, 0, 1))
    now = data.draw(st.sampled_from(edges)).add(hours=data.draw(beside))
    rules = ruleset_of(policy, now, TableOptions())
    for where, client in ((OFFICE, "192.0.2.200"), (OFFICE, CLIENT[4]), (BRANCH, "198.51.100.200")):

        def said(host: str, signal: Signal, hours: int = 0, client: str = client) -> Verdict:
            return decide(policy, client, host, now.add(hours=hours), signal).verdict

        if client != CLIENT[4]:  # who may be exempt
            verdicts = [{said(name, Signal.SNI, hours) for name in SERVICES.values()} for hours in range(25)]
            assert (where in rules.clients) is any(each != {Verdict.ALLOW} for each in verdicts)
            assert (where in rules.under_ban) is bool(verdicts[0] & {Verdict.WARN, Verdict.BLOCK})
        for hours, address in product(range(25), ("203.0.113.20", "192.0.2.33")):
            then = now.add(hours=hours)  # the kernel reads its clock: this table still holds then, if no other one came
            refused = any(
                where in each.networks
                and then in each.blocks
                and any(ip_address(address) in prefix for prefix in each.addresses)
                and not any(ip_address(client) in prefix and then in span for prefix, span in each.exempt)
                for each in rules.address_bans
            )
            assert refused is (said(address, Signal.ADDRESS, hours) is Verdict.BLOCK)


def test_boot_rules() -> None:
    """The whole table, as one transaction with taking out what may be there."""
    rules = ruleset_of(snapshot(ban()), at("2023-06-01T12:00:00Z"), TableOptions())
    lines = boot_rules(rules).splitlines(keepends=True)
    assert lines[1:3] == ["table inet tokgate\n", "delete table inet tokgate\n"]
    assert "".join(lines[3:]) == table(rules)


@pytest.mark.parametrize("left_out", ["", "tcp dport { 80, 443 }", "udp dport 443"])
def test_closed_boot_rules(lab: Lab, left_out: str) -> None:
    """A table that tokgate knows for its own; without either rule something passes."""
    text = CLOSED_BOOT_RULES
    assert f"chain {OWNER} {{" in text
    text = "".join(line for line in text.splitlines(keepends=True) if not left_out or left_out not in line)
    sent = [each for each in PACKETS if each.port == 443]
    with Fates(lab) as fates:
        fates.load(text)
        passed = {each.said is not None for each, to in zip(sent, fates.of(sent), strict=True) if to == "origin"}
    assert passed == ({left_out.startswith("udp")} if left_out else set())
