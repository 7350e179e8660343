"""The chains that bring TCP connections to the gates."""

from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address
from typing import Final

from tokgate.gateway.nft_sets import FAMILIES, ClientSets
from tokgate.gateway.ruleset import Redirect, Ruleset, Tproxy

LABEL: Final = 116
"""The conntrack label of connections that a gate has; any of 128 that no one else uses."""
GATED: Final = f"meta l4proto tcp ct label {LABEL}"
"""Matches packets of connections that a gate has, or had."""
FOUND_UNDER_WAY: Final = 117
"""The label of connections whose beginning conntrack has not seen: it doesn't know who began them."""
NOT_NEW: Final = "meta l4proto tcp tcp flags & (fin | syn | rst | ack) != syn"
_SEED: Final = 0x746B6761
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
    """The chains that bring connections to gates, each as lines of nftables' language."""
    forwarded, local = rules.options.forwarded, rules.options.local
    redirects = dict.fromkeys(each for each in (forwarded, local) if isinstance(each, Redirect))
    for each in redirects:
        if each.to.first != each.to.last:
            yield _redirect_ports(each)
    if isinstance(forwarded, Tproxy):
        yield _under_way(rules, forwarded)
        yield _forgotten()
    yield _prerouting(rules)
    yield _taken("clients", "to_gate", rules)
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
            yield _taken("clients_local", target, rules)
        if rules.strangers:
            yield _strangers_local(rules, target)


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
        yield f"\tmeta l4proto {{ icmp, icmpv6 }} socket transparent 1 meta mark set {forwarded.mark:#x} accept"
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
    yield from (f"\t{client} jump clients" for client in rules.client_sets.conditions())
    if rules.strangers:
        yield ""
        yield "\t# Whoever is in no network of the policy."
        yield "\tjump strangers"
    yield "}"


def _under_way(rules: Ruleset, to: Tproxy) -> Iterator[str]:
    yield "# conntrack has no room for the label in what it knew before this table was loaded, and keeps that for up to"
    yield "# two minutes after its end. A connection between the same ports is known by the gate's socket."
    yield "chain under_way {"
    yield "\t# So is what conntrack has forgotten, or doesn't follow, whatever the policy says of the client by then."
    found = f"socket transparent 1 ct label set {LABEL} meta mark set {to.mark:#x} accept"
    yield f"\tct state new,invalid {found}"
    yield ""
    conditions = ["meta l4proto tcp"] if rules.strangers else rules.client_sets.conditions()
    yield from (f"\t{each} socket transparent 1 meta mark set {to.mark:#x} accept" for each in conditions)
    yield "}"


def _forgotten() -> Iterator[str]:
    yield "# What conntrack has forgotten is labelled anew as well where the gate speaks first, from another's address."
    yield "chain under_way_output {"
    yield "\ttype filter hook output priority mangle; policy accept;"
    yield ""
    yield f"\tct state new {NOT_NEW} fib saddr type != local ct label set {LABEL}"
    yield "}"


def taken(rules: Ruleset) -> Iterator[str]:
    """Matches what networks with a ban in sight may not send past the gates."""
    yield "tcp dport @ports"
    if rules.addresses:
        yield from (f"{family} daddr @addresses{version} meta l4proto tcp" for family, version, _ in FAMILIES)
    for each in rules.canary_servers:
        yield f"{'ip' if isinstance(each, IPv4Address) else 'ip6'} daddr {each} meta l4proto tcp"


def _taken(name: str, target: str, rules: Ruleset) -> Iterator[str]:
    yield "# The ports of the web, and all that goes to addresses of banned services or the canary's; the gates decide."
    yield f"chain {name} {{"
    yield from (f"\t{each} jump {target}" for each in taken(rules))
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


def known_return(known: ClientSets, *, local: bool = False) -> Iterator[str]:
    """The rules that leave clients of the policy alone, in a chain for all others."""
    yield from (f"\t{client} return" for client in known.conditions(local=local))
    if not local:
        yield "\t# What comes in for a client is no egress."
        yield from (f"\t{family} daddr @{known.name}{version} return" for family, version, _ in FAMILIES)


def _tproxy(to: Tproxy) -> Iterator[str]:
    yield "# To the listener, with its addresses untouched. Where none listens `tproxy` doesn't match: `forward` says"
    yield "# what happens. `socket transparent` has no place here: a SYN would find the dead socket of an older one."
    yield "chain to_gate {"
    then = f"ct label set {LABEL} meta mark set {to.mark:#x} accept"
    if to.http_port is not None and to.http_port != to.port:
        yield f"\ttcp dport 80 counter tproxy to :{to.http_port} {then}"
    yield f"\tmeta l4proto tcp counter tproxy to :{to.port} {then}"
    yield "}"


def _redirect(to: Redirect, name: str) -> Iterator[str]:
    yield "# To this machine's own address; conntrack keeps the one that was meant."
    yield f"chain {name} {{"
    if to.http_port is not None:
        yield f"\ttcp dport 80 counter redirect to :{to.http_port}"
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
    chain = "clients" if local == rules.options.forwarded else "clients_local"
    yield from (f"\t{client} jump {chain}" for client in rules.client_sets.conditions(local=True))
    if rules.strangers:
        yield "\tjump strangers_local"
    yield "}"


def _strangers_local(rules: Ruleset, target: str) -> Iterator[str]:
    yield "# This machine's own programs, where its address is in no network: their web traffic, not all that they do."
    yield "chain strangers_local {"
    yield from known_return(rules.known_sets, local=True)
    yield from (f"\t{each} jump {target}" for each in taken(rules))
    yield "}"
