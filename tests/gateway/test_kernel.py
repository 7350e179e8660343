"""Table, routes and settings in a kernel: all of it or nothing, compared with what should be, and taken out again."""

import contextlib
import dataclasses
import shutil
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from labs.builders import present
from labs.netns import FAMILY, wait_until
from labs.ruleset_lab import ORIGIN, Host, Lab
from tokgate.gateway import GatewayError, libnftables, policy_routes, sysctls
from tokgate.gateway.canary import links
from tokgate.gateway.kernel import HostProblems
from tokgate.gateway.libnftables import NftError, changing
from tokgate.gateway.ruleset import Redirect, Ruleset, TableOptions
from tokgate.policy.settings import CanarySettings, PortRange

BEFORE = {"net.ipv4.ip_forward": "0", "net.ipv6.conf.all.forwarding": "0", "net.ipv4.tcp_early_demux": "1"}
"""The settings of a new namespace."""
NOBODY_LISTENS = ("IPv4: nothing listens at port 8080", "IPv6: nothing listens at port 8080")


@pytest.fixture
def refuses(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has nftables refuse commands in which a text stands, also where it only tries them."""
    run = libnftables.run

    def refuse(text: str, why: str = "refused", *, tries: bool = True) -> None:
        def without(commands: str, *, dry: bool = False) -> None:
            if text in commands and (tries or not dry):
                raise NftError(why)
            run(commands, dry=dry)

        monkeypatch.setattr(libnftables, "run", without)

    return refuse


def test_up_and_down(host: Host) -> None:
    """A gateway that was tried and taken out leaves no rule behind that somebody else has to find."""
    before = host.shown()
    assert host.up() == BEFORE
    loaded = host.shown()
    assert "tproxy to :8080" in loaded[0]
    assert all("fwmark 0x746b lookup 29803" in said for said in loaded[1:3])
    assert host.down() == BEFORE
    assert host.shown() == before
    assert not host.kernel.state.exists()
    assert host.down() == {}  # what is out already is no error


def test_nobody_passes_before_the_rules(lab: Lab, tmp_path: Path) -> None:
    """Where nothing was forwarded before, what clients begin all the while is never forwarded past the rules."""
    host = Host(lab.gateway, tmp_path)
    seen = "table inet seen { chain input { type filter hook input priority 0; tcp dport 443 counter; }\n}"
    lab.origin.run("nft", seen)

    def begins() -> None:
        """Send SYNs until it is over, whatever becomes of them."""
        while not over.is_set():
            for version, address in ORIGIN.items():
                with socket.socket(FAMILY[version], socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as made:
                    made.connect_ex((address, 443))

    def packets() -> int:
        listed = lab.origin.run("nft", "list", "chain", "inet", "seen", "input").stdout
        return int(listed.partition("packets ")[2].split()[0])

    def refused() -> int:
        return lab.gateway.inside(host.kernel.refused)["tcp_past_gates"]

    over = threading.Event()
    client = threading.Thread(target=lab.client.inside, args=(begins,))
    with lab.without_forwarding():
        client.start()
        try:
            for _ in range(3):
                host.up()
                wait_until("clients meet the rules", lambda: refused() > 0)
                lab.gateway.sysctl("net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0")
                host.down()
        finally:
            over.set()
            client.join()
    assert packets() == 0
    with contextlib.suppress(OSError), lab.client.connect(ORIGIN[4], 443):
        pass
    assert packets() > 0
    lab.origin.run("nft", "delete table inet seen")


def test_down_after_a_crash(host: Host) -> None:
    """What a canary that asked from inside the machine left behind is taken out as well."""
    before = host.shown()
    for listener in host.namespace.inside(lambda: links.make_inside(CanarySettings(), (4, 6))):
        listener.close()
    assert host.shown() != before
    host.down()
    assert host.shown() == before


def test_what_was_put_right_is_not_what_was_before(host: Host) -> None:
    """Forwarding that the admin had on, and somebody switched off meanwhile, is on after tokgate's end."""
    forwarding = "net.ipv4.ip_forward"
    host.namespace.sysctl(f"{forwarding}=1")
    host.up()
    host.namespace.sysctl(f"{forwarding}=0")
    assert host.up() == {forwarding: "0"}
    assert host.down() == {name: BEFORE[name] for name in BEFORE if name != forwarding}
    assert host.namespace.inside(lambda: sysctls.read(forwarding)) == "1"


def test_up_again_that_fails(host: Host, refuses: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    """It leaves a gateway that works as it is: forwarding stays on, and what it was before the first time is known."""
    host.up()
    host.namespace.sysctl("net.ipv4.tcp_early_demux=1")
    loaded = host.shown()
    refuses("", tries=False)
    with pytest.raises(GatewayError, match="refused"):
        host.up()
    monkeypatch.undo()
    assert host.shown() == loaded
    assert host.down().keys() == {"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"}


def test_up_again_replaces_the_table_alone(host: Host) -> None:
    """A new policy changes sets and chains in place, and what settings were before is still known."""
    second = host.rules("192.0.2.0/25", "198.51.100.7")
    host.up(dataclasses.replace(host.rules(), strangers=True))
    assert host.up(second) == {}
    assert tuple(host.differences(second)) == NOBODY_LISTENS
    assert "known4" not in host.shown()[0]
    assert host.down() == BEFORE


def test_sets_of_traffic_keep_their_elements(host: Host) -> None:
    """An edit of the policy takes no flow out of the fast path: what traffic has put into a set stays."""
    text = "table inet tokgate {\n\tset flows {\n\t\ttype ipv4_addr; flags timeout,dynamic; timeout 1m;\n\t}\n}\n"
    host.up()
    host.nft(text)
    host.nft("add element inet tokgate flows { 203.0.113.9 }")
    loaded = present(host.namespace.inside(host.kernel.loaded))
    host.nft("\n".join(changing("tokgate", text.replace("type", "flags timeout,dynamic; type"), loaded)))
    assert "203.0.113.9" in host.shown()[0]


def test_rules_ask_no_empty_sets(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux fills a new set after its transaction's rules act, and so all known clients would be strangers at first."""
    plain = host.rules()
    strict = dataclasses.replace(plain, strangers=True)
    run, seen = libnftables.run, list[set[str]]()

    def watched(commands: str, *, dry: bool = False) -> None:
        if not dry and "hook prerouting" in commands:
            assert "delete set" not in commands
            loaded = host.kernel.loaded()
            seen.append(set() if loaded is None else {name for name, held in loaded.elements.items() if held})
        run(commands, dry=dry)

    def filled(wanted: Ruleset) -> set[str]:
        table = host.namespace.inside(lambda: host.kernel.wanted(wanted))
        return {name for name, held in table.elements.items() if held}

    with monkeypatch.context() as patched:
        patched.setattr(libnftables, "run", watched)
        host.up(plain)
        host.load(strict)
        host.load(plain)
    assert "known4" not in host.shown()[0]
    wanted = [filled(plain), filled(strict)]
    assert seen == [*wanted, wanted[1]]
    assert "known4" in wanted[1] - wanted[0]


def test_a_first_table_that_the_kernel_refuses(host: Host, refuses: Callable[..., None]) -> None:
    """Nothing of it stays, not even its sets."""
    refuses("tproxy to")
    with pytest.raises(NftError, match="refused"):
        host.load()
    assert host.namespace.inside(host.kernel.loaded) is None


DAMAGE = {
    "nft delete table inet tokgate": "table inet tokgate is not loaded",
    "nft flush chain inet tokgate to_gate": "chain to_gate lacks 5 rules and has 0 that it should not",
    "nft insert rule inet tokgate prerouting accept": "chain prerouting lacks 0 rules and has 1 that it should not",
    "nft add table inet tokgate { flags dormant; }": "the table is asleep (flags dormant): none of its rules acts",
    "nft flush set inet tokgate clients4": "set clients4 lacks 2 elements and has 0 that it should not",
    "nft add element inet tokgate ports { 22 }": "set ports lacks 0 elements and has 1 that it should not",
    "nft add chain inet tokgate more": "chain more is not tokgate's",
    "ip rule del priority 745": "IPv4: the policy rule 745 that looks mark 0x746b up in table 254 is missing",
    "ip rule del priority 746": "IPv4: the policy rule 746 that looks mark 0x746b up in table 29803 is missing",
    "ip -6 rule del priority 746": "IPv6: the policy rule 746 that looks mark 0x746b up in table 29803 is missing",
    "ip route flush table 29803": "IPv4: the route of table 29803 that delivers packets here is missing",
    "sysctl -qw net.ipv4.ip_forward=0": "net.ipv4.ip_forward is 0",
    "sysctl -qw net.ipv6.conf.all.forwarding=0": "net.ipv6.conf.all.forwarding is 0",
    "sysctl -qw net.ipv4.tcp_early_demux=1": "net.ipv4.tcp_early_demux is 1",
}


def test_a_flushed_table_is_ours(host: Host) -> None:
    """`nft flush table` leaves nothing but names: it is told as damage, and put right."""
    host.up()
    host.nft("flush table inet tokgate")
    assert "chain to_gate lacks 5 rules and has 0" in str(host.differences().table)
    host.repair()
    assert tuple(host.differences()) == NOBODY_LISTENS


@pytest.mark.parametrize("command", DAMAGE)
def test_damage_is_seen_and_repaired(host: Host, command: str) -> None:
    """Enforcement that somebody took out by accident shows at once, in words that say where, and comes back whole."""
    host.up()
    assert tuple(host.differences()) == NOBODY_LISTENS
    host.namespace.run(*command.split())
    assert tuple(host.differences()) == (DAMAGE[command], *NOBODY_LISTENS)
    host.repair()
    assert tuple(host.differences()) == NOBODY_LISTENS


def test_a_policy_route_that_came_later(host: Host) -> None:
    """A VPN that takes marked packets shows at once; it is its admin's, and loading it all again would not help."""
    host.up()
    host.namespace.run(*["ip", "rule", "add", "priority", "700", "fwmark", "0x746b", "lookup", "main"])
    found = host.differences()
    assert found.conflicts == ("the IPv4 policy rule 700 sends packets of mark 0x746b to table 254",)
    assert not found.repairable


def test_a_firewall_is_no_reason_to_stay_open(host: Host) -> None:
    """A firewall that flushed the table, and drops what comes to the gates, doesn't keep the table out."""
    host.up()
    host.nft(f"flush ruleset\n{firewall('drop', ())}")
    host.repair()
    assert "tproxy to :8080" in host.shown()[0]
    host.nft("flush ruleset\ntable inet tokgate {\nchain theirs { accept; }\n}\n")
    assert host.differences().table == ("table inet tokgate is somebody else's",)
    host.repair()
    assert tuple(host.differences()) == NOBODY_LISTENS


def test_whoever_listens_is_found(host: Host) -> None:
    """A gate that listens over one family only leaves the other without one."""
    host.up()
    with host.namespace.listen(4, 8080):
        assert tuple(host.differences()) == NOBODY_LISTENS[1:]


def test_redirection_needs_no_routes(host: Host) -> None:
    """Where TPROXY can't be used nothing of it is set up."""
    redirects = Host(host.namespace, host.folder, TableOptions(forwarded=Redirect()))
    redirects.up()
    assert "746b" not in host.shown()[1]
    assert len(redirects.differences().listeners) == 128


FOREIGN: dict[str, str | None] = {
    "nft add table inet tokgate": "a table inet tokgate that tokgate did not make",
    "nft add table inet tokgate; add chain inet tokgate owner": "a table inet tokgate that tokgate did not make",
    "ip rule add fwmark 0x746b lookup 5 priority 9000": "the IPv4 policy rule 9000 sends packets",
    "ip rule add fwmark 0x6b/0xff lookup 5 priority 9": "the IPv4 policy rule 9 sends packets of mark 0x746b",
    "ip -6 rule add not fwmark 7 lookup 5 priority 9": "the IPv6 policy rule 9 sends packets of mark 0x746b",
    "ip rule add from 192.0.2.9 lookup 29803": "uses routing table 29803 already",
    "ip route add blackhole 192.0.2.9 table 29803": "the IPv4 routing table 29803 has routes of somebody else's",
    "ip link set lo down": "the loopback interface is down",
    "ip rule add fwmark 7 lookup 5": None,
    "ip rule add from 192.0.2.9 lookup 5 priority 9": None,
    "ip rule add not fwmark 7 lookup 5": None,
}
"""What others have set up, and what is told of it; nothing of VPNs and second uplinks, whose rules ours come before."""


@pytest.mark.parametrize("command", FOREIGN)
def test_what_others_have_set_up(host: Host, command: str) -> None:
    """A host on which it can't work is told why before anything is changed, and stays as it is."""
    host.namespace.run(*command.split())
    before, said = host.shown(), FOREIGN[command]
    if said is None:
        host.up()
        return
    with pytest.raises(HostProblems) as told:
        host.up()
    found = [problem.partition(": ")[0] for problem in told.value.problems]  # before what helps
    assert any(said in each for each in found)
    assert host.shown() == before
    assert not host.kernel.state.exists()


MARKED = "add `meta mark 0x746b accept` there"
FIREWALLS: dict[str, tuple[tuple[str, ...], bool]] = {
    "drop": ((), True),
    "drop: usual rules of a host": (
        (
            "ct state established,related accept",
            "ct state vmap { invalid : drop, established : accept }",
            'iifname "lo" accept',
            "meta l4proto { icmp, ipv6-icmp } accept",
            "tcp dport { 22, 8080-8090 } accept",
            "udp dport 443 accept",
            "meta mark 7 accept",
        ),
        True,
    ),
    "drop: refuses before": (("counter reject", "accept"), True),
    "drop: by mark": (("meta mark 0x746b accept",), False),
    "drop: by not another mark": (("meta mark != 7 accept",), False),
    "drop: by interface": (('iifname "lan0" accept',), False),
    "drop: by client": (("ip saddr 192.0.2.0/24 accept",), False),
    "drop: by port": (("ct state new tcp dport { 22, 443 } accept",), False),
    "drop: by state": (("ct state vmap { invalid : drop, new : accept }",), False),
    "drop: elsewhere": (("jump more",), False),
    "drop: by a set": (("tcp dport @ours accept",), False),
    "drop: by a map": (("iifname vmap { lan0 : accept }",), False),
    "accept": (("tcp dport 22 drop",), False),
    "accept: ends by refusing": (("tcp dport 22 drop", "drop"), True),
}
"""What somebody else's chain does with what is left and its rules, and whether all that comes to the gates is lost."""


def firewall(policy: str, rules: tuple[str, ...]) -> str:
    """A table of somebody else's that filters what comes in."""
    held = "\n".join(rules)
    return (
        "table inet filter {\nset ours { type inet_service; }\nchain more { accept; }\n"
        f"chain input {{\ntype filter hook input priority filter; policy {policy};\n{held}\n}}\n}}\n"
    )


IPTABLES: dict[str, bool] = {
    "-P INPUT DROP; -A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT": True,
    "-P INPUT DROP; -A INPUT -m conntrack --ctstate RELATED -j ACCEPT": True,
    "-P INPUT DROP; -A INPUT -m conntrack --ctstate NEW,RELATED -j ACCEPT": False,
    "-P INPUT DROP; -A INPUT -m conntrack --ctstate DNAT,RELATED -j ACCEPT": False,
    "-P INPUT DROP; -A INPUT -m conntrack ! --ctstate NEW -j ACCEPT": True,
    "-P INPUT DROP; -A INPUT -m conntrack ! --ctstate INVALID -j ACCEPT": False,
    "-P INPUT DROP; -A INPUT -m mark --mark 0x746b -j ACCEPT": False,
    "-A INPUT -m conntrack --ctstate INVALID -j DROP": False,
    "-A INPUT -m limit --limit 5/s -j DROP": False,
    "-A INPUT -m conntrack --ctstate INVALID -j REJECT": False,
    "-A INPUT -j REJECT": True,
}
"""Commands of iptables, and whether all that comes to the gates is lost; much of them JSON doesn't show."""


@pytest.mark.parametrize("named", [*FIREWALLS, *IPTABLES])
def test_firewalls(host: Host, named: str) -> None:
    """Clients would have no web at all, and nobody would know why: it is told with the rule that helps.

    The rule with which most firewalls of iptables begin lets in answers alone; one with a limit drops not everything.
    """
    if named in FIREWALLS:
        chain, (held, drops) = "chain input of table inet filter", FIREWALLS[named]
        host.nft(firewall(named.partition(":")[0], held))
    elif shutil.which("iptables-nft") is None:
        pytest.skip("needs iptables-nft")
    else:
        chain, drops = "chain INPUT of table ip filter", IPTABLES[named]
        for command in named.split("; "):
            host.namespace.run("iptables-nft", *command.split())
    before = host.shown()
    if not drops:
        assert host.up()
        return
    with pytest.raises(HostProblems, match=f"{chain} drops what is delivered.*{MARKED}"):
        host.up()
    assert host.shown() == before


def test_a_firewall_and_redirection(host: Host) -> None:
    """Redirected packets bear no mark, and have the gate's port."""
    redirects = Host(host.namespace, host.folder, TableOptions(forwarded=Redirect(PortRange(8080, 8080))))
    host.nft(firewall("drop", ("meta mark 0x746b accept",)))
    with pytest.raises(HostProblems, match="add `tcp dport 8080 accept` there"):
        redirects.up()
    host.nft("add rule inet filter input tcp dport 8080 accept")
    redirects.up()


def test_a_foreign_table_stays(host: Host) -> None:
    """`down` deletes nobody else's table."""
    host.nft("add table inet tokgate")
    with pytest.raises(GatewayError, match="not tokgate's"):
        host.down()
    assert "table inet tokgate" in host.shown()[0]


@pytest.mark.parametrize("fails", ["load", "routes", "settings"])
def test_a_failure_on_the_way_is_undone(
    host: Host, refuses: Callable[..., None], monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """What the kernel refuses in the middle leaves no half of a gateway."""
    before = host.shown()

    def refuse(*_: object) -> None:
        raise GatewayError("refused")

    if fails == "load":
        refuses("", tries=False)
    elif fails == "routes":
        monkeypatch.setattr(policy_routes.PolicyRoutes, "add", refuse)
    else:
        monkeypatch.setattr(sysctls.Sysctls, "apply", refuse)
    with pytest.raises(GatewayError, match="refused"):
        host.up()
    monkeypatch.undo()
    assert host.shown() == before


def test_an_older_kernel_gets_the_table_whole(host: Host, refuses: Callable[..., None]) -> None:
    """One that can't flush a set and fill it again in one transaction still follows the policy."""
    host.up()
    refuses("flush table", "File exists")
    host.up(host.rules("198.51.100.0/24"))
    assert "198.51.100.0/24" in host.shown()[0]
    assert "2001:db8:c::/48" not in host.shown()[0]


def test_a_kernel_without_tproxy(host: Host, refuses: Callable[..., None]) -> None:
    """It is told by name, with the way round it, and nothing is changed."""
    before = host.shown()
    refuses("tproxy", "Could not process rule: No such file or directory\n  tproxy to :8080\n")
    with pytest.raises(HostProblems, match="modprobe nft_tproxy, or use --redirect"):
        host.up()
    assert host.shown() == before
    Host(host.namespace, host.folder, TableOptions(forwarded=Redirect())).up()
