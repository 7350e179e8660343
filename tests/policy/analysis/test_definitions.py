"""Definitions: what two policies state otherwise.

Which changed settings let more pass: each of them in its order, in the differences of reload and of diff.
"""

from dataclasses import fields, is_dataclass, replace
from enum import EnumType
from ipaddress import IPv6Network
from itertools import permutations
from typing import Any, get_type_hints

import pytest

from labs.builders import CLIPS, OFFICE, ban, duration, exemption, network, service, snapshot, wall
from tokgate.policy.analysis import definitions as module
from tokgate.policy.analysis.definitions import (
    MAX_WORDS,
    ChangeKind,
    DefinitionChange,
    Redefinition,
    changes,
    redefinitions,
    weaker_settings,
)
from tokgate.policy.bans import Action
from tokgate.policy.settings import GatewaySettings, MissingSni, Settings, Upstream
from tokgate.policy.snapshot import NOTHING, Snapshot

ABROAD = network("abroad", "198.51.100.0/24", zone="America/New_York")


def policy(*bans: Any, **more: Any) -> Snapshot:
    return snapshot(*bans, networks=(OFFICE, ABROAD), **more)


def test_keys_of_bans_and_exemptions() -> None:
    """A reviewer reads what a ban says now and said before; of a new one what isn't the default."""
    old = policy(ban(contact="old@example.org", duration=duration("P6M")), exemptions=(exemption("gone"),))
    come = ban("come", action=Action.WARN, services=(), on_all=True, excepted=("clips",))
    new = policy(ban(title="Another", inspect_stores=True, duration=duration("P6M")), come)
    assert list(redefinitions(old.policy, new.policy))[:4] == [
        Redefinition("bans", "ban", ("Another",), ("The ban",), "title"),
        Redefinition("bans", "ban", ("true",), ("false",), "inspect_stores"),
        Redefinition("bans", "ban", (), ("old@example.org",), "contact"),
        Redefinition("bans", "come", ("The come",), (), "title"),
    ]
    found = {(each.name, each.key): (each.added, each.removed) for each in redefinitions(old.policy, new.policy)}
    assert found["come", "action"] == (("warn",), ())
    assert (found["come", "services"], found["come", "except"]) == ((("all",), ()), (("clips",), ()))
    assert ("come", "response") not in found
    assert found["gone", "until"] == ((), ("2023-03-31T18:00:00",))


def test_redefinitions() -> None:
    """What names mean more and less; also settings, and names that only one policy knows."""
    old = snapshot(networks=(OFFICE,), services=(CLIPS,))
    new = snapshot(
        networks=(network("office", "192.0.2.0/24", zone="UTC"), ABROAD),
        services=(
            replace(service("clips", "suffix:clips.example.org", "suffix:new.example.org"), description="Films"),
        ),
        missing_sni=MissingSni.BLOCK,
    )
    found = {(each.kind, each.name): (each.added, each.removed) for each in redefinitions(old.policy, new.policy)}
    assert found["networks", "office"] == (("timezone:UTC",), ("2001:db8:1::/48", "timezone:Europe/Brussels"))
    assert found["networks", "abroad"] == (("198.51.100.0/24", "timezone:America/New_York"), ())
    assert found["services", "clips"][0] == ("description:Films", "suffix:new.example.org")
    assert "store:apple/835599320" in found["services", "clips"][1]
    assert found["settings", "missing_sni"] == (("block",), ("check-address",))
    assert list(redefinitions(old.policy, old.policy)) == []


def test_changes_by_name() -> None:
    """What was said otherwise: keys of bans, the words of networks and services, settings; a ban's end is its end."""
    wider = network("abroad", "198.51.100.0/24", "203.0.113.0/24", zone="America/New_York")
    old = policy(ban(), ban("gone"), exemptions=(exemption("hole"),))
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
