"""Table, routes and settings in a kernel: all of it or nothing, compared with what should be, and taken out again."""

import contextlib
import dataclasses
import shutil
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from whenever import Instant

from labs.builders import ban, network, present, snapshot
from labs.netns import FAMILY, Namespace, wait_until
from labs.ruleset_lab import ORIGIN, Lab
from tokgate.gateway import GatewayError, libnftables, policy_routes, sysctls
from tokgate.gateway.canary import links
from tokgate.gateway.kernel import HostProblems, Kernel
from tokgate.gateway.libnftables import changing
from tokgate.gateway.ruleset import Redirect, Ruleset, TableOptions, ruleset_of
from tokgate.policy.settings import CanarySettings, PortRange

NOW = Instant.from_utc(2023, 6, 1)
BEFORE = {"net.ipv4.ip_forward": "0", "net.ipv6.conf.all.forwarding": "0", "net.ipv4.tcp_early_demux": "1"}
"""The settings of a new namespace."""
NOBODY_LISTENS = ("IPv4: nothing listens at port 8080", "IPv6: nothing listens at port 8080")


def rules(options: TableOptions, *clients: str) -> Ruleset:
    """A ban for one network, or for several prefixes of it."""
    office = network("office", *(clients or ("192.0.2.0/24", "2001:db8:c::/48")))
    return ruleset_of(snapshot(ban(), networks=(office,)), NOW, options)


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    """What `tokgate gateway` works with."""
    return Kernel(TableOptions(), tmp_path / "keys" / "gateway.json")


def everything(namespace: Namespace) -> tuple[str, ...]:
    """What is loaded, in the words of the system's own programs."""
    commands = (
        "nft list ruleset",
        "ip rule",
        "ip -6 rule",
        "ip route show table all",
        "sysctl net.ipv4.ip_forward net.ipv6.conf.all.forwarding net.ipv4.tcp_early_demux",
    )
    return tuple(namespace.output(*command.split()) for command in commands)


def test_up_and_down(namespace: Namespace, kernel: Kernel) -> None:
    """A gateway that was tried and taken out leaves no rule behind that somebody else has to find."""
    before = everything(namespace)
    changed = namespace.inside(lambda: kernel.up(rules(kernel.options)))
    assert changed == BEFORE
    loaded = everything(namespace)
    assert "tproxy to :8080" in loaded[0]
    assert all("fwmark 0x746b lookup 29803" in said for said in loaded[1:3])
    assert namespace.inside(kernel.down) == changed
    assert everything(namespace) == before
    assert not kernel.state.exists()


def test_nobody_passes_before_the_rules(lab: Lab, kernel: Kernel) -> None:
    """Where nothing was forwarded before, what clients begin all the while is never forwarded past the rules."""
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
        return lab.gateway.inside(kernel.refused)["tcp_past_gates"]

    over = threading.Event()
    client = threading.Thread(target=lab.client.inside, args=(begins,))
    with lab.without_forwarding():
        client.start()
        try:
            for _ in range(3):
                lab.gateway.inside(lambda: kernel.up(rules(kernel.options)))
                wait_until("clients meet the rules", lambda: refused() > 0)
                lab.gateway.sysctl("net.ipv4.ip_forward=0", "net.ipv6.conf.all.forwarding=0")
                lab.gateway.inside(kernel.down)
        finally:
            over.set()
            client.join()
    assert packets() == 0
    with contextlib.suppress(OSError), lab.client.connect(ORIGIN[4], 443):
        pass
    assert packets() > 0
    lab.origin.run("nft", "delete table inet seen")


def test_down_after_a_crash(namespace: Namespace, kernel: Kernel) -> None:
    """What a canary that asked from inside the machine left behind is taken out as well."""
    before = everything(namespace)
    for listener in namespace.inside(lambda: links.make_inside(CanarySettings(), (4, 6))):
        listener.close()
    assert everything(namespace) != before
    namespace.inside(kernel.down)
    assert everything(namespace) == before


def test_down_twice(namespace: Namespace, kernel: Kernel) -> None:
    """What is out already is no error."""
    assert namespace.inside(kernel.down) == {}


def test_what_was_put_right_is_not_what_was_before(namespace: Namespace, kernel: Kernel) -> None:
    """Forwarding that the admin had on, and somebody switched off meanwhile, is on after tokgate's end."""
    off, on = (("sysctl", "-qw", f"net.ipv4.ip_forward={value}") for value in (0, 1))
    namespace.run(*on)
    namespace.inside(lambda: kernel.up(rules(kernel.options)))
    namespace.run(*off)
    assert namespace.inside(lambda: kernel.up(rules(kernel.options))) == {"net.ipv4.ip_forward": "0"}
    assert namespace.inside(kernel.down) == {name: BEFORE[name] for name in BEFORE if name != "net.ipv4.ip_forward"}
    assert namespace.inside(lambda: sysctls.read("net.ipv4.ip_forward")) == "1"


def test_up_again_that_fails(namespace: Namespace, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """It leaves a gateway that works as it is: forwarding stays on, and what it was before the first time is known."""
    namespace.inside(lambda: kernel.up(rules(kernel.options)))
    namespace.sysctl("net.ipv4.tcp_early_demux=1")
    loaded = everything(namespace)

    def refuse(*_: object) -> None:
        raise GatewayError("refused")

    with monkeypatch.context() as patched:
        patched.setattr(Kernel, "load", refuse)
        with pytest.raises(GatewayError, match="refused"):
            namespace.inside(lambda: kernel.up(rules(kernel.options)))
    assert everything(namespace) == loaded
    assert namespace.inside(kernel.down).keys() == {"net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"}


def test_up_again_replaces_the_table_alone(namespace: Namespace, kernel: Kernel) -> None:
    """A new policy changes sets and chains in place, and what settings were before is still known."""
    first, second = rules(kernel.options), rules(kernel.options, "192.0.2.0/25", "198.51.100.7")
    namespace.inside(lambda: kernel.up(dataclasses.replace(first, strangers=True)))
    assert namespace.inside(lambda: kernel.up(second)) == {}
    wanted = namespace.inside(lambda: kernel.wanted(second))
    assert tuple(namespace.inside(lambda: kernel.differences(wanted))) == NOBODY_LISTENS
    assert "known4" not in everything(namespace)[0]
    assert namespace.inside(kernel.down) == BEFORE


def test_sets_of_traffic_keep_their_elements(namespace: Namespace, kernel: Kernel) -> None:
    """An edit of the policy takes no flow out of the fast path: what traffic has put into a set stays."""
    text = "table inet tokgate {\n\tset flows {\n\t\ttype ipv4_addr; flags timeout,dynamic; timeout 1m;\n\t}\n}\n"
    namespace.inside(lambda: kernel.up(rules(kernel.options)))
    namespace.run("nft", "-f", "-", given=text)
    namespace.run("nft", "add element inet tokgate flows { 203.0.113.9 }")
    loaded = present(namespace.inside(kernel.loaded))
    transactions = changing("tokgate", text.replace("type", "flags timeout,dynamic; type"), loaded)
    namespace.run("nft", "-f", "-", given="\n".join(transactions))
    assert "203.0.113.9" in everything(namespace)[0]


def test_rules_ask_no_empty_sets(namespace: Namespace, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Linux fills a new set after its transaction's rules act, and so all known clients would be strangers at first."""
    plain = rules(kernel.options, "192.0.2.0/24", "2001:db8:c::/48")
    strict = dataclasses.replace(plain, strangers=True)
    run, seen = libnftables.run, list[set[str]]()

    def watched(commands: str, *, dry: bool = False) -> None:
        if not dry and "hook prerouting" in commands:
            assert "delete set" not in commands
            loaded = kernel.loaded()
            seen.append(set() if loaded is None else {name for name, held in loaded.elements.items() if held})
        run(commands, dry=dry)

    def filled(wanted: Ruleset) -> set[str]:
        return {name for name, held in kernel.wanted(wanted).elements.items() if held}

    with monkeypatch.context() as patched:
        patched.setattr(libnftables, "run", watched)
        namespace.inside(lambda: kernel.up(plain))
        namespace.inside(lambda: kernel.load(strict))
        namespace.inside(lambda: kernel.load(plain))
    assert "known4" not in everything(namespace)[0]
    wanted = [namespace.inside(lambda each=each: filled(each)) for each in (plain, strict)]  # type: ignore[misc]
    assert seen == [*wanted, wanted[1]]
    assert "known4" in wanted[1] - wanted[0]


def test_a_first_table_that_the_kernel_refuses(
    namespace: Namespace, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it stays, not even its sets."""
    run = libnftables.run

    def without(commands: str, *, dry: bool = False) -> None:
        if "tproxy to" in commands:
            raise libnftables.NftError("refused")
        run(commands, dry=dry)

    monkeypatch.setattr(libnftables, "run", without)
    with pytest.raises(libnftables.NftError, match="refused"):
        namespace.inside(lambda: kernel.load(rules(kernel.options)))
    assert namespace.inside(kernel.loaded) is None


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


def test_a_flushed_table_is_ours(namespace: Namespace, kernel: Kernel) -> None:
    """`nft flush table` leaves nothing but names: it is told as damage, and put right."""
    wanted_rules = rules(kernel.options)
    namespace.inside(lambda: kernel.up(wanted_rules))
    wanted = namespace.inside(lambda: kernel.wanted(wanted_rules))
    namespace.run("nft", "flush table inet tokgate")
    assert "chain to_gate lacks 5 rules and has 0" in str(namespace.inside(lambda: kernel.differences(wanted)).table)
    namespace.inside(lambda: kernel.repair(wanted_rules))
    assert tuple(namespace.inside(lambda: kernel.differences(wanted))) == NOBODY_LISTENS


@pytest.mark.parametrize("command", DAMAGE)
def test_damage_is_seen_and_repaired(namespace: Namespace, kernel: Kernel, command: str) -> None:
    """Enforcement that somebody took out by accident shows at once, in words that say where, and comes back whole."""
    wanted_rules = rules(kernel.options)
    namespace.inside(lambda: kernel.up(wanted_rules))
    wanted = namespace.inside(lambda: kernel.wanted(wanted_rules))
    assert tuple(namespace.inside(lambda: kernel.differences(wanted))) == NOBODY_LISTENS
    namespace.run(*command.split(maxsplit=command.count(" ")))
    assert tuple(namespace.inside(lambda: kernel.differences(wanted))) == (DAMAGE[command], *NOBODY_LISTENS)
    namespace.inside(lambda: kernel.repair(wanted_rules))
    assert tuple(namespace.inside(lambda: kernel.differences(wanted))) == NOBODY_LISTENS


def test_a_policy_route_that_came_later(namespace: Namespace, kernel: Kernel) -> None:
    """A VPN that takes marked packets shows at once; it is its admin's, and loading it all again would not help."""
    wanted_rules = rules(kernel.options)
    namespace.inside(lambda: kernel.up(wanted_rules))
    wanted = namespace.inside(lambda: kernel.wanted(wanted_rules))
    namespace.run(*["ip", "rule", "add", "priority", "700", "fwmark", "0x746b", "lookup", "main"])
    found = namespace.inside(lambda: kernel.differences(wanted))
    assert found.conflicts == ("the IPv4 policy rule 700 sends packets of mark 0x746b to table 254",)
    assert not found.repairable


def test_a_firewall_is_no_reason_to_stay_open(namespace: Namespace, kernel: Kernel) -> None:
    """A firewall that flushed the table, and drops what comes to the gates, doesn't keep the table out."""
    wanted_rules = rules(kernel.options)
    namespace.inside(lambda: kernel.up(wanted_rules))
    namespace.run("nft", "-f", "-", given=f"flush ruleset\n{firewall('drop', ())}")
    namespace.inside(lambda: kernel.repair(wanted_rules))
    assert "tproxy to :8080" in everything(namespace)[0]
    namespace.run("nft", "-f", "-", given="flush ruleset\ntable inet tokgate {\nchain theirs { accept; }\n}\n")
    wanted = namespace.inside(lambda: kernel.wanted(wanted_rules))
    assert namespace.inside(lambda: kernel.differences(wanted)).table == ("table inet tokgate is somebody else's",)
    namespace.inside(lambda: kernel.repair(wanted_rules))
    assert tuple(namespace.inside(lambda: kernel.differences(wanted))) == NOBODY_LISTENS


def test_whoever_listens_is_found(namespace: Namespace, kernel: Kernel) -> None:
    """A gate that listens over one family only leaves the other without one."""
    wanted_rules = rules(kernel.options)
    namespace.inside(lambda: kernel.up(wanted_rules))
    with namespace.listen(4, 8080):
        wanted = namespace.inside(lambda: kernel.wanted(wanted_rules))
        assert tuple(namespace.inside(lambda: kernel.differences(wanted))) == NOBODY_LISTENS[1:]


def test_redirection_needs_no_routes(namespace: Namespace, tmp_path: Path) -> None:
    """Where TPROXY can't be used nothing of it is set up."""
    kernel = Kernel(TableOptions(forwarded=Redirect()), tmp_path / "gateway.json")
    namespace.inside(lambda: kernel.up(rules(kernel.options)))
    assert "746b" not in everything(namespace)[1]
    assert len(namespace.inside(lambda: kernel.differences(kernel.wanted(rules(kernel.options)))).listeners) == 128


FOREIGN = {
    "nft add table inet tokgate": "a table inet tokgate that tokgate did not make",
    "nft add table inet tokgate; add chain inet tokgate owner": "a table inet tokgate that tokgate did not make",
    "ip rule add fwmark 0x746b lookup 5 priority 9000": "the IPv4 policy rule 9000 sends packets",
    "ip rule add fwmark 0x6b/0xff lookup 5 priority 9": "the IPv4 policy rule 9 sends packets of mark 0x746b",
    "ip -6 rule add not fwmark 7 lookup 5 priority 9": "the IPv6 policy rule 9 sends packets of mark 0x746b",
    "ip rule add from 192.0.2.9 lookup 29803": "uses routing table 29803 already",
    "ip route add blackhole 192.0.2.9 table 29803": "the IPv4 routing table 29803 has routes of somebody else's",
    "ip link set lo down": "the loopback interface is down",
}


@pytest.mark.parametrize("command", FOREIGN)
def test_what_others_have_set_up(namespace: Namespace, kernel: Kernel, command: str) -> None:
    """A host on which it can't work is told why before anything is changed, and stays as it is."""
    namespace.run(*command.split())
    before = everything(namespace)
    with pytest.raises(HostProblems) as told:
        namespace.inside(lambda: kernel.up(rules(kernel.options)))
    found = [problem.partition(": ")[0] for problem in told.value.problems]  # before what helps
    assert any(FOREIGN[command] in each for each in found)
    assert everything(namespace) == before
    assert not kernel.state.exists()


@pytest.mark.parametrize(
    "command",
    [
        "ip rule add fwmark 7 lookup 5",
        "ip rule add from 192.0.2.9 lookup 5 priority 9",
        "ip rule add not fwmark 7 lookup 5",
    ],
)
def test_other_policy_routes_are_no_obstacle(namespace: Namespace, kernel: Kernel, command: str) -> None:
    """VPNs and second uplinks have rules of their own, which ours come before or don't meet."""
    namespace.run(*command.split())
    namespace.inside(lambda: kernel.up(rules(kernel.options)))


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


@pytest.mark.parametrize("named", FIREWALLS)
def test_firewalls(namespace: Namespace, kernel: Kernel, named: str) -> None:
    """Clients would have no web at all, and nobody would know why: it is told with the rule that helps."""
    held, drops = FIREWALLS[named]
    namespace.run("nft", "-f", "-", given=firewall(named.partition(":")[0], held))
    before = everything(namespace)
    if not drops:
        namespace.inside(lambda: kernel.up(rules(kernel.options)))
        return
    with pytest.raises(HostProblems, match=f"chain input of table inet filter drops what is delivered.*{MARKED}"):
        namespace.inside(lambda: kernel.up(rules(kernel.options)))
    assert everything(namespace) == before


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


@pytest.mark.parametrize("commands", IPTABLES)
def test_firewalls_of_iptables(namespace: Namespace, kernel: Kernel, commands: str) -> None:
    """The rule with which most begin lets in answers alone; one with a limit is no drop of everything."""
    if shutil.which("iptables-nft") is None:
        pytest.skip("needs iptables-nft")
    for command in commands.split("; "):
        namespace.run("iptables-nft", *command.split())
    if not IPTABLES[commands]:
        assert namespace.inside(lambda: kernel.up(rules(kernel.options)))
        return
    with pytest.raises(HostProblems, match=f"chain INPUT of table ip filter drops what is delivered.*{MARKED}"):
        namespace.inside(lambda: kernel.up(rules(kernel.options)))


def test_a_firewall_and_redirection(namespace: Namespace, tmp_path: Path) -> None:
    """Redirected packets bear no mark, and have the gate's port."""
    kernel = Kernel(TableOptions(forwarded=Redirect(PortRange(8080, 8080))), tmp_path / "gateway.json")
    namespace.run("nft", "-f", "-", given=firewall("drop", ("meta mark 0x746b accept",)))
    with pytest.raises(HostProblems, match="add `tcp dport 8080 accept` there"):
        namespace.inside(lambda: kernel.up(rules(kernel.options)))
    namespace.run("nft", "add rule inet filter input tcp dport 8080 accept")
    namespace.inside(lambda: kernel.up(rules(kernel.options)))


def test_a_foreign_table_stays(namespace: Namespace, kernel: Kernel) -> None:
    """`down` deletes nobody else's table."""
    namespace.run("nft", "add", "table", "inet", "tokgate")
    with pytest.raises(GatewayError, match="not tokgate's"):
        namespace.inside(kernel.down)
    assert "table inet tokgate" in everything(namespace)[0]


@pytest.mark.parametrize("fails", ["load", "routes", "settings"])
def test_a_failure_on_the_way_is_undone(
    namespace: Namespace, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """What the kernel refuses in the middle leaves no half of a gateway."""
    before = everything(namespace)

    def refuse(*_: object, **__: object) -> None:
        raise GatewayError("no")

    def refuse_table(commands: str, *, dry: bool = False) -> None:
        if not dry:
            refuse()

    patches: dict[str, Callable[[], None]] = {
        "load": lambda: monkeypatch.setattr(libnftables, "run", refuse_table),
        "routes": lambda: monkeypatch.setattr(policy_routes.PolicyRoutes, "add", refuse),
        "settings": lambda: monkeypatch.setattr(sysctls.Sysctls, "apply", refuse),
    }
    patches[fails]()
    with pytest.raises(GatewayError, match="no"):
        namespace.inside(lambda: kernel.up(rules(kernel.options)))
    monkeypatch.undo()
    assert everything(namespace) == before


def test_an_older_kernel_gets_the_table_whole(
    namespace: Namespace, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that can't flush a set and fill it again in one transaction still follows the policy."""
    second, run = rules(kernel.options, "198.51.100.0/24"), libnftables.run
    namespace.inside(lambda: kernel.up(rules(kernel.options)))

    def old(commands: str, *, dry: bool = False) -> None:
        if commands.startswith("flush table"):
            raise libnftables.NftError("File exists")
        run(commands, dry=dry)

    monkeypatch.setattr(libnftables, "run", old)
    namespace.inside(lambda: kernel.up(second))
    assert "198.51.100.0/24" in everything(namespace)[0]
    assert "2001:db8:c::/48" not in everything(namespace)[0]


def test_a_kernel_without_tproxy(namespace: Namespace, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told by name, with the way round it, and nothing is changed."""
    before, run = everything(namespace), libnftables.run

    def without(commands: str, *, dry: bool = False) -> None:
        if "tproxy" in commands:
            raise libnftables.NftError("Could not process rule: No such file or directory\n  tproxy to :8080\n")
        run(commands, dry=dry)

    monkeypatch.setattr(libnftables, "run", without)
    with pytest.raises(HostProblems, match="modprobe nft_tproxy, or use --redirect"):
        namespace.inside(lambda: kernel.up(rules(kernel.options)))
    assert everything(namespace) == before
    redirecting = Kernel(TableOptions(forwarded=Redirect()), kernel.state)
    namespace.inside(lambda: redirecting.up(rules(redirecting.options)))
