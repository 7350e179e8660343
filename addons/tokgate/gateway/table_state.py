"""A table as the kernel has it, in a form that can be compared: values from libnftables' JSON, nothing is read here."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tokgate.gateway.nftables import MARKER, OWNER

_FLUSHED: Final = frozenset({"owner", "under_ban_tcp", "clients_udp"})
"""Chains of each table of versions before `OWNER`, of which nothing else tells once it was flushed."""


@dataclass(frozen=True, slots=True)
class TableState:
    """Chains with their hooks, rules in order, sets with their elements; all as text, without names of the table."""

    chains: Mapping[str, str] = field(default_factory=dict)
    rules: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    sets: Mapping[str, str] = field(default_factory=dict)
    """The declarations."""
    elements: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Of sets that only tokgate changes. Sets with a timeout, to which traffic adds, are left out."""
    maps: frozenset[str] = frozenset()
    """Which of the sets are maps."""
    ours: bool = False
    """Whether tokgate made it."""
    dormant: bool = False
    """Whether its rules are asleep: nft(8), `flags dormant`."""


def table_state(listing: Iterable[Mapping[str, Any]]) -> TableState:
    """The state in what `list table` returns."""
    chains: dict[str, str] = {}
    rules: dict[str, list[str]] = {}
    sets: dict[str, str] = {}
    elements: dict[str, frozenset[str]] = {}
    maps: set[str] = set()
    marked = dormant = False
    for each in listing:
        ((kind, stated),) = each.items()
        if kind == "table":
            dormant = "dormant" in stated.get("flags", ())
        elif kind == "chain":
            chains[stated["name"]] = _text(stated, "type", "hook", "prio", "policy")
        elif kind == "rule":
            rules.setdefault(stated["chain"], []).append(_text(stated, "expr", "comment"))
            marked |= stated.get("comment") == MARKER
        elif kind in ("set", "map"):
            sets[stated["name"]] = _text(stated, "type", "map", "flags", "auto-merge", "timeout", "size")
            if "timeout" not in stated.get("flags", ()):
                elements[stated["name"]] = frozenset(json.dumps(each) for each in stated.get("elem", ()))
            if kind == "map":
                maps.add(stated["name"])
    ours = marked or OWNER in chains or (chains.keys() >= _FLUSHED and "owner" not in rules)
    return TableState(
        chains, {chain: tuple(held) for chain, held in rules.items()}, sets, elements, frozenset(maps), ours, dormant
    )


def _text(stated: Mapping[str, Any], *keys: str) -> str:
    return json.dumps({key: stated[key] for key in keys if key in stated}, sort_keys=True)


def differences(wanted: TableState, loaded: TableState) -> Iterator[str]:
    """How a table differs from the one that should be there, in sentences; `wanted` may be asleep, as it is tried."""
    if loaded.dormant:
        yield "the table is asleep (flags dormant): none of its rules acts"
    for what, should, has in (("chain", wanted.chains, loaded.chains), ("set", wanted.sets, loaded.sets)):
        for name in sorted(should.keys() | has.keys()):
            if name not in has:
                yield f"{what} {name} is missing"
            elif name not in should:
                yield f"{what} {name} is not tokgate's"
            elif should[name] != has[name]:
                yield f"{what} {name} is declared differently"
    for name in sorted(wanted.chains.keys() & loaded.chains.keys()):
        yield from _rules(name, wanted.rules.get(name, ()), loaded.rules.get(name, ()))
    for name in sorted(wanted.elements.keys() & loaded.elements.keys()):
        lacks = len(wanted.elements[name] - loaded.elements[name])
        extra = len(loaded.elements[name] - wanted.elements[name])
        if lacks or extra:
            yield f"set {name} lacks {lacks} elements and has {extra} that it should not"


def _rules(chain: str, wanted: tuple[str, ...], loaded: tuple[str, ...]) -> Iterator[str]:
    if wanted == loaded:
        return
    lacks, extra = len(set(wanted) - set(loaded)), len(set(loaded) - set(wanted))
    if lacks or extra:
        yield f"chain {chain} lacks {lacks} rules and has {extra} that it should not"
    else:
        yield f"the rules of chain {chain} are in another order, or repeated"


def changing(table: str, wanted: str, loaded: TableState) -> tuple[str, str, str]:
    """The transactions that turn a loaded table of tokgate's, or one that isn't there, into one whose text is `wanted`.

    Sets to which traffic adds keep their elements. Sets come before the rules that ask them, and go after these: Linux
    has a set that is made or deleted with its rules empty for up to some milliseconds in which they act.
    """
    declared = set(_declared(wanted))
    lines = [f"flush table inet {table}"]  # all rules, so that nothing refers to what goes
    lines += [f"delete chain inet {table} {name}" for name in loaded.chains if name not in declared]
    gone = []
    for name in loaded.sets:
        kind = "map" if name in loaded.maps else "set"
        if name not in declared:
            gone.append(f"delete {kind} inet {table} {name}")
        elif name in loaded.elements:
            lines.append(f"flush {kind} inet {table} {name}")
    first = (f"table inet {table} {{", *_new_sets(wanted, loaded), "}")
    return "\n".join(first), "\n".join((*lines, wanted)), "\n".join(gone)


def _new_sets(wanted: str, loaded: TableState) -> Iterator[str]:
    """The lines of sets that are not loaded; where there is no table, also of the chain that says whose it is."""
    inside = False
    for line in wanted.splitlines():
        match line.split():
            case ["set", name, "{"]:
                inside = name not in loaded.sets
            case ["chain", name, "{"]:
                inside = name == OWNER and name not in loaded.chains
        if inside:
            yield line
        inside &= line != "\t}"


def _declared(wanted: str) -> Iterator[str]:
    """The names of the chains, sets and maps that a table's text declares."""
    for line in wanted.splitlines():
        words = line.split()
        if len(words) == 3 and words[0] in ("chain", "set", "map") and words[2] == "{":  # noqa: PLR2004
            yield words[1]
