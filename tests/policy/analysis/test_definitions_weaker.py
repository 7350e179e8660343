"""Which changed settings let more pass: each of them in its order, in the differences of reload and of diff."""

from dataclasses import fields, is_dataclass, replace
from enum import EnumType
from ipaddress import IPv6Network
from itertools import permutations
from typing import Any, get_type_hints

import pytest

from tokgate.policy.analysis import definitions as module
from tokgate.policy.analysis.definitions import changes, redefinitions, weaker_settings
from tokgate.policy.settings import GatewaySettings, Settings
from tokgate.policy.snapshot import NOTHING


def _with(name: str, value: object) -> Settings:
    """The settings with another value at a name with dots."""
    above, _, last = name.rpartition(".")
    if not above:
        return replace(Settings(), **{last: value})  # type: ignore[arg-type]
    return replace(Settings(), **{above: replace(getattr(Settings(), above), **{last: value})})


def _both(old: Settings, new: Settings) -> tuple[str, ...]:
    """What is told of a change, which is the same by either way to tell the differences."""
    before, after = replace(NOTHING, settings=old), replace(NOTHING, settings=new)
    told = weaker_settings(changes(before, after))
    assert told == weaker_settings(redefinitions(before, after))
    return told


@pytest.mark.parametrize("name", module._FROM_LAX)
def test_orders(name: str) -> None:
    """Each step to a laxer value is told, and none to a stricter one."""
    values = module._FROM_LAX[name]
    for one, other in permutations(range(len(values)), 2):
        told = _both(_with(name, values[one]), _with(name, values[other]))
        assert told == ((f"{name}: {values[one]} -> {values[other]}",) if other < one else ())


NEUTRAL = {"dns.structured_errors", "log.clients"}
"""Words of which none lets more pass: what refused clients are told, and how the log names clients."""


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
    assert _both(Settings(), fewer) == (f"gateway.ports: without {ports[0]}",)
    assert _both(fewer, Settings()) == ()
    assert _both(_with("nat64_prefixes", (IPv6Network("2001:db8::/96"),)), Settings()) == (
        "nat64_prefixes: without 2001:db8::/96",
    )
    assert _both(_with("name_files", ("a",)), Settings()) == ()
