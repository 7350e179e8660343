"""The nftables table that brings a policy's clients to the gates: text from values, nothing is read or run here."""

from collections.abc import Iterable, Iterator
from typing import Final

from tokgate.gateway import interception, quic_rules, refusals
from tokgate.gateway.nft_sets import FAMILIES, interval_set
from tokgate.gateway.policy_routes import commands
from tokgate.gateway.refusal_counters import declared
from tokgate.gateway.ruleset import Ruleset, Tproxy
from tokgate.policy.networks import Network
from tokgate.policy.observation import KernelRefusal
from tokgate.policy.values.prefix_table import IPNetwork

MARKER: Final = "made by tokgate"
"""The comment by which older versions know a table to be tokgate's."""
OWNER: Final = "made_by_tokgate"
"""The chain by which a table is known to be tokgate's: `nft flush table` leaves it there."""


def text(rules: Ruleset) -> str:
    """A whole file, with reasons and with the routes as comments; the same for the same values."""
    return "\n".join(_file(rules)) + "\n"


def table(rules: Ruleset) -> str:
    """The table alone, which is added to one that is there."""
    return "\n".join(_table(rules)) + "\n"


def _file(rules: Ruleset) -> Iterator[str]:
    name = rules.options.table
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
        yield f"#   {network.name}: {_in_words(network)}"
    if rules.strangers:
        yield "#   whoever is in no network of the policy (unknown_clients: block): refused"
    yield ""
    yield "# Declared, so that deleting cannot fail, then deleted: one transaction, though sets are empty for a moment."
    yield f"table inet {name}"
    yield f"delete table inet {name}"
    yield ""
    yield from _table(rules)


def _table(rules: Ruleset) -> Iterator[str]:
    yield f"table inet {rules.options.table} {{"
    for number, part in enumerate(_parts(rules)):
        if number:
            yield ""
        yield from (f"\t{line}" if line else "" for line in part)
    yield "}"


def _parts(rules: Ruleset) -> Iterator[Iterable[str]]:
    yield _marker()
    yield from _sets(rules)
    yield from declared()
    yield from interception.chains(rules)
    if isinstance(rules.options.forwarded, Tproxy):
        to = rules.options.forwarded
        yield from quic_rules.chains(
            to.port, to.mark, rules.client_sets.conditions(), refusals.refuse(KernelRefusal.QUIC)
        )
    yield from refusals.chains(rules)


def _marker() -> Iterator[str]:
    yield "# Says whose table this is. Nothing comes by here."
    yield f"chain {OWNER} {{"
    yield f'\treturn comment "{MARKER}"'
    yield "}"


def _in_words(network: Network) -> str:
    words = list(map(str, network.cidrs))
    words += [f"interface {name}" for name in network.interfaces]
    if network.devices:
        words.append(f"{len(network.devices)} devices of an inventory")
    if network.users or network.groups:
        words.append("users, whom only an explicit proxy knows")
    words += [f"network {name}" for name in network.networks]
    excepted = (*map(str, network.except_cidrs), *(f"network {name}" for name in network.except_networks))
    if excepted:
        words[-1] += f" without {', '.join(excepted)}"
    return ", ".join(words)


def _sets(rules: Ruleset) -> Iterator[Iterable[str]]:
    if rules.strangers:
        yield rules.known_sets.declared()
    yield rules.client_sets.declared()
    yield rules.ban_sets.declared()
    if isinstance(rules.options.forwarded, Tproxy):
        yield from quic_rules.sets()
    yield interval_set("ports", "inet_service", "80, 443 and settings.gateway.ports.", rules.ports)
    if rules.addresses:
        yield from _addresses("addresses", "Addresses of services under these bans.", rules.addresses)
    for number, ban in enumerate(rules.address_bans, 1):
        yield refusals.banned_clients(number, ban, rules).declared()
        yield from _addresses(f"banned{number}_addresses", "And which addresses these are.", ban.addresses)


def _addresses(name: str, purpose: str, addresses: Iterable[IPNetwork]) -> Iterator[Iterable[str]]:
    held = list(addresses)
    for _, version, kind in FAMILIES:
        yield interval_set(f"{name}{version}", kind, purpose, (each for each in held if each.version == version))
