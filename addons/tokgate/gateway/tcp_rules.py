"""The chains for TCP: what brings connections to the gates, and what refuses those that no gate has."""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address
from typing import Final

from tokgate.gateway.nft_sets import FAMILIES, counting, known_return, traffic_set
from tokgate.gateway.ruleset import Redirect, Ruleset, Tproxy
from tokgate.policy.observation import KernelRefusal

LABEL: Final = 116
"""The conntrack label of connections that a gate has; any of 128 that no one else uses."""
GATED: Final = f"meta l4proto tcp ct label {LABEL}"
"""Matches packets of connections that a gate has, or had."""
FOUND_UNDER_WAY: Final = 117
"""The label of connections whose beginning conntrack has not seen: it doesn't know who began them."""
NOT_NEW: Final = "meta l4proto tcp tcp flags & (fin | syn | rst | ack) != syn"
RESET: Final = "reject with tcp reset"
PAST_GATES: Final = f"{counting(KernelRefusal.TCP_PAST_GATES)} {RESET}"
_DIALLED: Final = f"{counting(KernelRefusal.DIALLED_DIRECTLY)} {RESET}"
_SEED: Final = 0x746B6761
_FAILED: Final = ("refused", 9, RESET), ("unreachable", 10, "reject with icmpx host-unreachable")
"""Sets of destinations that have just failed, the `udp length` of what adds to them, and what clients are told."""
_FAILED_SECONDS: Final = 10
_MOST_FAILED: Final = 16_384
_ICMP_REDIRECTS: Final = (
    "# Where the next router is on the clients' own link Linux tells clients to go there themselves: past the gates.",
    "chain icmp_redirects {",
    "\ttype filter hook output priority filter; policy accept;",
    "",
    "\tmeta l4proto tcp accept",
    "\ticmp type redirect counter drop",
    "\ticmpv6 type nd-redirect counter drop",
    "}",
)


def chains(rules: Ruleset) -> Iterator[Iterable[str]]:
    """Each as lines of nftables' language."""
    forwarded, local = rules.options.forwarded, rules.options.local
    redirects = dict.fromkeys(each for each in (forwarded, local) if isinstance(each, Redirect))
    for each in redirects:
        if each.to.first != each.to.last:
            yield _redirect_ports(each)
    if isinstance(forwarded, Tproxy):
        yield _under_way(rules, forwarded)
        yield (
            "# What destinations answer to a gate that asked from its client's address comes here, not to the client.",
            "# Behind address translation: by then what is masqueraded bears the client's address again.",
            "chain answers {",
            "\ttype filter hook prerouting priority dstnat + 5; policy accept;",
            "",
            f"\tmeta l4proto {{ tcp, icmp, icmpv6 }} ct direction reply {_to_socket(forwarded)}",
            "}",
        )
        yield (
            "# What conntrack has forgotten is labelled anew where the gate speaks first, too, from another's address.",
            "chain under_way_output {",
            "\ttype filter hook output priority mangle; policy accept;",
            "",
            f"\tct state new {NOT_NEW} fib saddr type != local ct label set {LABEL}",
            "}",
        )
    yield _prerouting(rules)
    yield _clients("clients", "to_gate", rules)
    yield _ICMP_REDIRECTS
    if rules.strangers:
        yield _strangers(rules)
    if isinstance(forwarded, Tproxy):
        yield _tproxy(forwarded)
    for each in redirects:
        yield _redirect(each, "to_gate" if each == forwarded else "to_gate_local")
    if local is not None:
        yield _output(rules, local)
        target = "to_gate" if local == forwarded else "to_gate_local"
        if target != "to_gate":
            yield _clients("clients_local", target, rules)
        if rules.strangers:
            yield _strangers_local(rules, target)
    yield _input(rules)
    yield _under_ban(rules)


# -- destinations that have just failed


def failed_sets() -> Iterator[Iterable[str]]:
    """By client: what fails for one may be there for others. Gates add to them by datagrams of their own."""
    for name, _, _ in _FAILED:
        for _, version, kind in FAMILIES:
            purpose = "Destinations that a gate could not reach, with the client who wanted to."
            kinds = f"{kind} . {kind} . inet_service"
            yield traffic_set(f"{name}{version}", kinds, purpose, _FAILED_SECONDS, _MOST_FAILED)


def failed_told() -> Iterator[str]:
    """Rules that add what datagrams tell of, from a client to a destination."""
    for name, length, _ in _FAILED:
        for family, version, _ in FAMILIES:
            yield f"udp length {length} update @{name}{version} {{ {family} saddr . {family} daddr . udp dport }}"


# -- to the gates


def _prerouting(rules: Ruleset) -> Iterator[str]:
    forwarded, bypass = rules.options.forwarded, rules.options.bypass
    yield "chain prerouting {"
    if isinstance(forwarded, Tproxy):
        yield "\ttype filter hook prerouting priority mangle; policy accept;"
        yield ""
        yield "\t# What a gate has stays with it until it ends, whatever the policy says of the client by then."
        yield f"\t{GATED} tproxy to :{forwarded.port} meta mark set {forwarded.mark:#x} accept"
        yield ""
        yield "\t# Only the first packet of a connection is of interest from here on."
        yield f"\t{NOT_NEW} goto under_way"
        yield ""
        yield "\t# What routers say of it, such as what size they take, goes to the address of the gate's socket."
        yield f"\tmeta l4proto {{ icmp, icmpv6 }} {_to_socket(forwarded)}"
    else:
        yield "\ttype nat hook prerouting priority dstnat; policy accept;"
    yield ""
    if bypass is not None and bypass.forwarded:
        yield "\t# The proxy's own packets, should they come by here (policy routing, a container): never back into it."
        yield f"\t{bypass.condition} accept"
        yield ""
    yield "\t# What this gateway itself serves is not egress; taking it could lock the admin out."
    yield "\tfib daddr type local accept"
    yield ""
    yield from _all_to_gates(rules, "to_gate")
    yield from (f"\t{client} jump clients" for client in rules.client_sets.matches())
    if rules.strangers:
        yield ""
        yield "\t# Whoever is in no network of the policy."
        yield "\tjump strangers"
    yield "}"


def _to_socket(to: Tproxy) -> str:
    """Matches packets for a gate's socket that bears another's address, and delivers them."""
    return f"socket transparent 1 meta mark set {to.mark:#x} accept"


def _under_way(rules: Ruleset, to: Tproxy) -> Iterator[str]:
    yield "# conntrack has no room for the label in what it knew before this table was loaded, and keeps that for up to"
    yield "# two minutes after its end. A connection between the same ports is known by the gate's socket."
    yield "chain under_way {"
    yield "\t# So is what conntrack has forgotten, or doesn't follow, whatever the policy says of the client by then."
    found = f"socket transparent 1 ct label set {LABEL} meta mark set {to.mark:#x} accept"
    yield f"\tct state new,invalid {found}"
    yield ""
    clients = ["meta l4proto tcp"] if rules.strangers else rules.client_sets.matches()
    yield from (f"\t{each} {_to_socket(to)}" for each in clients)
    yield "}"


def _to_gates(rules: Ruleset) -> Iterator[str]:
    """Match what networks with a ban in sight may not send past the gates."""
    yield "tcp dport @ports"
    if rules.addresses:
        yield from (f"{family} daddr @addresses{version} meta l4proto tcp" for family, version, _ in FAMILIES)
    for each in rules.canary_servers:
        yield f"{'ip' if isinstance(each, IPv4Address) else 'ip6'} daddr {each} meta l4proto tcp"


def _all_to_gates(rules: Ruleset, target: str, *, local: bool = False) -> Iterator[str]:
    matches = rules.all_sets.matches(local=local) if rules.all_clients else ()
    yield from (f"\t{client} meta l4proto tcp jump {target}" for client in matches)


def _clients(name: str, target: str, rules: Ruleset) -> Iterator[str]:
    yield "# The ports of the web, and all that goes to addresses of banned services or the canary's; the gates decide."
    yield f"chain {name} {{"
    yield from (f"\t{each} jump {target}" for each in _to_gates(rules))
    yield "}"


def _strangers(rules: Ruleset) -> Iterator[str]:
    yield "# Clients of no network: all their TCP goes to the gates, which refuse it and say so in the log."
    yield "chain strangers {"
    yield from known_return(rules.known_sets)
    if rules.canary_servers:
        yield "\t# This machine's own, such as a gate's connection to a canary's server that is here as well."
        yield '\tiif "lo" return'
    yield "\tmeta l4proto tcp jump to_gate"
    yield "}"


def _tproxy(to: Tproxy) -> Iterator[str]:
    yield "# To the listener, with its addresses untouched. Where none listens `tproxy` doesn't match: `forward` says"
    yield "# what happens. `socket transparent` has no place here: a SYN would find the dead socket of an older one."
    yield "chain to_gate {"
    yield "\t# A gate accepts clients before it knows whether their destinations are there. What it could not"
    yield "\t# reach of late is refused here as past the gate, so that clients try their next addresses at once."
    counted = counting(KernelRefusal.DESTINATION_FAILED)
    for name, _, refusal in _FAILED:
        for family, version, _ in FAMILIES:
            yield f"\t{family} saddr . {family} daddr . tcp dport @{name}{version} {counted} {refusal}"
    then = f"ct label set {LABEL} meta mark set {to.mark:#x} accept"
    yield f"\tmeta l4proto tcp counter tproxy to :{to.port} {then}"
    yield "}"


def _redirect(to: Redirect, name: str) -> Iterator[str]:
    yield "# To this machine's own address; conntrack keeps the one that was meant."
    yield f"chain {name} {{"
    if to.to.first == to.to.last:
        yield f"\tmeta l4proto tcp counter redirect to :{to.to.first}"
    else:
        for family, _, _ in FAMILIES:
            # Linux would choose another seed with each load, and conntrack may have forgotten which port it was.
            spread = f"jhash {family} daddr . tcp dport mod {_count(to)} seed {_SEED:#x} map @redirect_ports"
            yield f"\tmeta l4proto tcp counter redirect to :{spread}"
    yield "}"


def _redirect_ports(to: Redirect) -> Iterator[str]:
    yield "# A port for each hash of a destination, so that a client's port seldom meets an older connection of its own"
    yield "# to another server."
    yield "map redirect_ports {"
    yield "\ttype mark : inet_service"
    yield "\telements = {"
    yield from (f"\t\t{number} : {to.to.first + number}," for number in range(_count(to)))
    yield "\t}"
    yield "}"


def _count(to: Redirect) -> int:
    return to.to.last - to.to.first + 1


def _output(rules: Ruleset, local: Redirect) -> Iterator[str]:
    yield "chain output {"
    yield "\ttype nat hook output priority dstnat; policy accept;"
    yield ""
    if rules.options.bypass is not None:
        yield "\t# The proxy's own connections go out as they are: redirected, they would come back to it for ever."
        yield f"\t{rules.options.bypass.condition} accept"
        yield ""
    yield "\t# The web traffic of this machine's own programs, where its address is one of the clients'."
    yield "\tfib daddr type local accept"
    yield from _all_to_gates(rules, "to_gate" if local == rules.options.forwarded else "to_gate_local", local=True)
    chain = "clients" if local == rules.options.forwarded else "clients_local"
    yield from (f"\t{client} jump {chain}" for client in rules.client_sets.matches(local=True))
    if rules.strangers:
        yield "\tjump strangers_local"
    yield "}"


def _strangers_local(rules: Ruleset, target: str) -> Iterator[str]:
    yield "# This machine's own programs, where its address is in no network: their web traffic, not all that they do."
    yield "chain strangers_local {"
    yield from known_return(rules.known_sets, local=True)
    yield from (f"\t{each} jump {target}" for each in _to_gates(rules))
    yield "}"


# -- refused


def _input(rules: Ruleset) -> Iterator[str]:
    yield "chain input {"
    yield "\ttype filter hook input priority filter; policy accept;"
    yield ""
    yield "\t# One that dials a gate's port directly has no other destination than the gate itself, which would connect"
    yield "\t# to itself for ever."
    for way in dict.fromkeys((rules.options.forwarded, rules.options.local)):
        if isinstance(way, Tproxy):
            yield f"\ttcp dport {way.to} fib daddr type local {_DIALLED}"
        elif isinstance(way, Redirect):
            yield f"\ttcp dport {way.to} ct status dnat accept"
            yield f"\ttcp dport {way.to} {_DIALLED}"
    yield "}"


def _under_ban(rules: Ruleset) -> Iterator[str]:
    yield "# Stray packets of ended connections must not reach the origin. What began before these rules, or finds no"
    yield "# gate, is reset, and comes again. The answers of the clients' own servers pass."
    yield "chain under_ban_tcp {"
    yield "\t# Services behind an address of this gateway's, which `prerouting` let pass: they are no egress either."
    yield "\tct status dnat return"
    for each in _to_gates(rules):
        yield f"\t{each} ct state invalid counter drop"
        yield f"\t{each} ct direction original {PAST_GATES}"
        yield f"\t{each} ct label {FOUND_UNDER_WAY} {PAST_GATES}"
    yield "}"
