"""The nftables table that brings a policy's clients to the gates: text from values, nothing is read or run here.

This module has the table from top to bottom; the chains for TCP are in `tcp_rules`, those for UDP in `udp_rules`, and
the sets of clients in `nft_sets`.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from tokgate.gateway import tcp_rules, udp_rules
from tokgate.gateway.nft_sets import FAMILIES, counters_declared, counting, interval_set, known_return
from tokgate.gateway.policy_routes import commands
from tokgate.gateway.ruleset import TABLE, Redirect, Ruleset, Tproxy
from tokgate.policy.observation import KernelRefusal
from tokgate.policy.settings import Passage
from tokgate.policy.values.prefixes import IPNetwork

OWNER: Final = "made_by_tokgate"
"""The chain by which a table is known to be tokgate's: `nft flush table` leaves it there."""
REPLACING: Final = f"table inet {TABLE}\ndelete table inet {TABLE}\n"
"""Declared, so that deleting can't fail, then deleted: with what follows one transaction."""
CLOSED_BOOT_RULES: Final = f"""\
# There were no rules yet, and no valid policy to make them from: the web is closed for all that is forwarded.
{REPLACING}table inet {TABLE} {{
	chain {OWNER} {{
	}}

	chain forward {{
		type filter hook forward priority filter; policy accept;
		tcp dport {{ 80, 443 }} ct direction original counter {tcp_rules.RESET}
		udp dport 443 ct direction original counter reject with icmpx port-unreachable
	}}
}}
"""
"""Without a policy, which says for whom the web is closed. `tokgate run --gateway` replaces the table as its own."""
BOOT_FILE: Final = "rules.nft"
"""In tokgate's folder: the rules with which the machine starts."""


def text(rules: Ruleset) -> str:
    """A whole file, with reasons and with the routes as comments; the same for the same values."""
    return "\n".join(_file(rules)) + "\n"


def table(rules: Ruleset) -> str:
    """The table alone, which is added to one that is there."""
    return "\n".join(_table(rules)) + "\n"


def boot_rules(rules: Ruleset) -> str:
    """What holds from the start of the machine until tokgate runs: clients under a ban find no gate, see `on_crash`."""
    said = f"# The last rules that tokgate loaded, policy {rules.version}. Written again whenever it loads others."
    return f"{said}\n{REPLACING}{table(rules)}"


def _file(rules: Ruleset) -> Iterator[str]:
    yield f"# nftables for tokgate, policy {rules.version}. Load with: tokgate ruleset | nft -f -"
    yield "# When networks, bans, exemptions or a banned service's addresses change, `tokgate gateway up` with the"
    yield "# same options changes it in place; with `nft -f` all sets are new, and empty for a moment: clients pass."
    yield "# `tokgate run --gateway` does all of it by itself."
    if rules.until is not None:
        yield f"# By then at the latest, since a ban comes into sight, begins or ends: {rules.until}"
    if isinstance(rules.options.forwarded, Tproxy):
        yield "#"
        yield "# Marked packets are delivered here by routes of their own:"
        yield from (f"#   {command}" for command in commands(rules.options.forwarded.mark))
        yield "# A firewall of your own must let them in, by their mark: accepting here does not overrule it."
    else:
        yield "# The proxy must listen on all addresses, IPv4 and IPv6: what is redirected comes to the gateway's own."
        yield "# A firewall of your own must let the clients reach its ports: accepting here does not overrule it."
    yield "#"
    yield "# Networks with a ban that is not over and begins within a day; all others pass:"
    for network in rules.clients:
        yield f"#   {network.name}"
    if rules.strangers:
        yield "#   whoever is in no network of the policy (unknown_clients: block): refused"
    yield ""
    yield "# Declared, so that deleting cannot fail, then deleted: one transaction, though sets are empty for a moment."
    yield REPLACING
    yield from _table(rules)


def _table(rules: Ruleset) -> Iterator[str]:
    yield f"table inet {TABLE} {{"
    for number, part in enumerate(_parts(rules)):
        if number:
            yield ""
        yield from (f"\t{line}" if line else "" for line in part)
    yield "}"


def _parts(rules: Ruleset) -> Iterator[Iterable[str]]:
    yield ("# Says whose table this is. Nothing comes by here.", f"chain {OWNER} {{", "}")
    yield from _sets(rules)
    yield from counters_declared()
    yield from tcp_rules.chains(rules)
    yield from udp_rules.chains(rules)
    yield _forward(rules)
    if rules.strangers:
        unknown = KernelRefusal.UNKNOWN_CLIENTS
        yield (
            "chain strangers_forwarded {",
            *known_return(rules.known_sets),
            "\tmeta l4proto tcp ct state invalid counter drop",
            f"\tmeta l4proto tcp ct direction original {counting(unknown)} {tcp_rules.RESET}",
            f"\tmeta l4proto udp ct direction original {udp_rules.refuse(unknown)}",
            "}",
        )


def _sets(rules: Ruleset) -> Iterator[Iterable[str]]:
    if rules.strangers:
        yield rules.known_sets.declared()
    yield rules.client_sets.declared()
    yield rules.ban_sets.declared()
    for each in (*((rules.all_sets,) if rules.all_clients else ()), *rules.all_ban_sets):
        yield each.declared()
    if isinstance(rules.options.forwarded, Tproxy):
        yield from udp_rules.flow_sets()
        yield from tcp_rules.failed_sets()
    yield interval_set("ports", "inet_service", "80, 443 and settings.gateway.ports.", rules.ports)
    if rules.addresses:
        yield from _addresses("addresses", "Addresses of services under these bans.", rules.addresses)
    for number, (ban, clients) in enumerate(zip(rules.address_bans, rules.banned_sets, strict=True), 1):
        yield clients.declared()
        yield from _addresses(f"banned{number}_addresses", "And which addresses these are.", ban.addresses)


def _addresses(name: str, purpose: str, addresses: tuple[IPNetwork, ...]) -> Iterator[Iterable[str]]:
    for _, version, kind in FAMILIES:
        yield interval_set(f"{name}{version}", kind, purpose, (each for each in addresses if each.version == version))


def _forward(rules: Ruleset) -> Iterator[str]:
    bypass = rules.options.bypass
    yield "chain forward {"
    yield "\ttype filter hook forward priority filter; policy accept;"
    yield ""
    if bypass is not None and bypass.forwarded:
        yield f"\t{bypass.condition} accept"
        yield ""
    if isinstance(rules.options.forwarded, Tproxy):
        yield "\t# A gate had this connection, and is gone."
        yield f"\t{tcp_rules.GATED} {tcp_rules.PAST_GATES}"
        yield ""
    yield from (f"\tmeta l4proto udp {client} jump clients_udp" for client in rules.client_sets.matches())
    for number, clients in enumerate(rules.all_ban_sets, 1):
        yield from (f"\t{client} jump all{number}_refused" for client in clients.matches())
    if rules.on_crash is Passage.CLOSED or isinstance(rules.options.forwarded, Redirect):
        yield ""
        yield "\t# conntrack may begin with these rules. It takes whom it hears first for who began: a server, too."
        yield f"\tct state new {tcp_rules.NOT_NEW} ct label set {tcp_rules.FOUND_UNDER_WAY}"
        yield ""
        yield "\t# What is still forwarded reached no gate: none listens, or the connection is older than these rules."
        yield from (f"\tmeta l4proto tcp {client} jump under_ban_tcp" for client in rules.ban_sets.matches())
    if rules.strangers:
        yield ""
        yield "\tjump strangers_forwarded"
    yield "}"
