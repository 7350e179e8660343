"""Definitions: what two policies state otherwise.

Which changed settings let more pass: each of them in its order, in the differences of reload and of diff.
"""

from dataclasses import fields, is_dataclass, replace
from enum import EnumType
from ipaddress import IPv6Network
from itertools import permutations
from typing import Any, get_type_hints

import pytest

from labs.builders import OFFICE, ban, exemption, network, snapshot, wall
from tokgate.policy.analysis import definitions as module
from tokgate.policy.analysis.definitions import (
    MAX_WORDS,
    ChangeKind,
    DefinitionChange,
    changes,
    redefinitions,
    weaker_settings,
)
from tokgate.policy.settings import GatewaySettings, MissingSni, Settings, Upstream
from tokgate.policy.snapshot import NOTHING

ABROAD = network("abroad", "198.51.100.0/24", zone="America/New_York")


def test_changes_by_name() -> None:
    """What was said otherwise: keys of bans, the words of networks and services, settings; a ban's end is its end."""
    wider = network("abroad", "198.51.100.0/24", "203.0.113.0/24", zone="America/New_York")
    networks = (OFFICE, ABROAD, network("lab", "203.0.113.0/24"))
    old = snapshot(ban(), ban("gone"), networks=networks, exemptions=(exemption("hole"),))
    new = snapshot(
        ban(expires=wall("2023-09-01T00:00"), title="Another"),
        ban("come"),
        networks=(OFFICE, wider),
        missing_sni=MissingSni.BLOCK,
    )
    name = next(iter(old.bans))
    assert list(changes(old.policy, new.policy)) == [
        DefinitionChange("bans", name, ChangeKind.CHANGED, ("title", "end")),
        DefinitionChange("bans", "gone", ChangeKind.REMOVED),
        DefinitionChange("bans", "come", ChangeKind.ADDED),
        DefinitionChange("exemptions", "hole", ChangeKind.REMOVED),
        DefinitionChange("networks", "abroad", ChangeKind.CHANGED, ("+203.0.113.0/24",)),
        DefinitionChange("networks", "lab", ChangeKind.REMOVED),
        DefinitionChange("settings", "missing_sni", ChangeKind.CHANGED, ("+block", "-check-address")),
    ]
    assert list(changes(new.policy, new.policy)) == []


def test_parents_in_another_order() -> None:
    """The first parent proxy that is for a destination reaches it: their order is part of the setting."""
    near, far = (Upstream(host=f"{name}.example.org", port=3128) for name in ("near", "far"))
    old, new = (snapshot(upstream=parents) for parents in ((near, far), (far, near)))
    [found] = redefinitions(old.policy, new.policy)
    assert found.added == ("1. http://far.example.org:3128", "2. http://near.example.org:3128")
    assert found.removed == ("1. http://near.example.org:3128", "2. http://far.example.org:3128")


@pytest.mark.parametrize(
    ("count", "said"),
    [(0, "bans.x changed"), (1, "bans.x changed: w0"), (MAX_WORDS, None), (MAX_WORDS + 2, None)],
)
def test_a_change_in_words(count: int, said: str | None) -> None:
    """What differs is named up to a bound; the rest is counted, and only where there is a rest."""
    words = tuple(f"w{number}" for number in range(count))
    rest = ", 2 more" if count > MAX_WORDS else ""
    expected = said or f"bans.x changed: {', '.join(words[:MAX_WORDS])}{rest}"
    assert str(DefinitionChange("bans", "x", ChangeKind.CHANGED, words)) == expected


def _with(name: str, value: object) -> Settings:
    """The settings with another value at a name with dots."""
    above, _, last = name.rpartition(".")
    if not above:
        return replace(Settings(), **{last: value})  # type: ignore[arg-type]
    return replace(Settings(), **{above: replace(getattr(Settings(), above), **{last: value})})


def _told(old: Settings, new: Settings) -> tuple[str, ...]:
    return tuple(weaker_settings(changes(replace(NOTHING, settings=old), replace(NOTHING, settings=new))))


@pytest.mark.parametrize("name", module._FROM_LAX)
def test_orders(name: str) -> None:
    """Each step to a laxer value is told, and none to a stricter one."""
    values = module._FROM_LAX[name]
    for one, other in permutations(range(len(values)), 2):
        told = _told(_with(name, values[one]), _with(name, values[other]))
        assert told == ((f"{name}: {values[one]} -> {values[other]}",) if other < one else ())


NEUTRAL = {"log.clients"}
"""Words of which none lets more pass: how the log names clients."""


def test_all_are_ranked() -> None:
    """A setting that is one of some words has an order, with all its words, or is known to have none."""
    assert {name for name, _ in _words(Settings)} - NEUTRAL == set(module._FROM_LAX)
    for name, words in _words(Settings):
        assert name in NEUTRAL or set(module._FROM_LAX[name]) == set(words)


def _words(settings: Any, above: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for each in fields(settings):
        kind = get_type_hints(settings)[each.name]
        if is_dataclass(kind):
            found += _words(kind, f"{above}{each.name}.")
        elif isinstance(kind, EnumType):
            found.append((f"{above}{each.name}", kind))
    return found


def test_ports_and_prefixes() -> None:
    """Of what is filtered besides, each that is taken out is told; nothing is when more is filtered."""
    ports = GatewaySettings().ports
    fewer = _with("gateway.ports", ports[1:])
    assert _told(Settings(), fewer) == (f"gateway.ports: without {ports[0]}",)
    assert _told(fewer, Settings()) == ()
    opened = _with("egress.own_ports", ports[:1])
    assert _told(Settings(), opened) == (f"egress.own_ports: with {ports[0]}",)
    assert _told(opened, Settings()) == ()
    assert _told(_with("nat64_prefixes", (IPv6Network("2001:db8::/96"),)), Settings()) == (
        "nat64_prefixes: without 2001:db8::/96",
    )
    assert _told(_with("name_files", ("a",)), Settings()) == ()
