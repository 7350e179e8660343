"""Definitions: whatever a policy may state otherwise is a change, also what the format gains later."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from ipaddress import ip_network
from typing import Any

from labs.builders import ban, exemption, network, service
from tokgate.policy.analysis.definitions import redefinitions
from tokgate.policy.networks import Device
from tokgate.policy.services import NamePattern, PatternKind, ServiceSource
from tokgate.policy.settings import Directory, ProxyAuth, Settings
from tokgate.policy.snapshot import NOTHING, Policy
from tokgate.policy.stores import StoreListing

STATED: dict[str, Any] = {
    "bans": ban(),
    "exemptions": exemption(),
    "networks": network("office"),
    "services": replace(service("clips"), source=ServiceSource("list", "hosts")),
    "settings": Settings(proxy_auth=ProxyAuth(ldap=Directory(url="ldaps://ldap.example.org", base="dc=example"))),
}
OTHER: dict[str, Any] = {
    "devices": (Device(None, (), ("00:53:00:00:00:03",), None, ()),),
    "except_cidrs": (ip_network("192.0.2.128/25"),),
    "patterns": (NamePattern(PatternKind.LABEL, "another"),),
    "stores": (StoreListing("apple", "835599320"),),
}
"""Values of those fields whose parts are told one by one; of all others text will do."""
UNSAID = ("name", "origin", "on_all", "members", "excluded")
"""Which entry it is and where it stands, and what shows in other fields: in `services`, and in names of networks."""


def altered(stated: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """The same with another value of one field, for each that a policy may state, and that field's path."""
    for each in fields(stated):
        value, path = getattr(stated, each.name), f"{above}.{each.name}"
        if each.name in UNSAID or not each.init:
            continue
        if is_dataclass(value):
            yield from ((below, replace(stated, **{each.name: other})) for below, other in altered(value, path))
        else:
            other = OTHER.get(each.name, ("another",) if isinstance(value, tuple) else "another")
            yield path, replace(stated, **{each.name: not value if isinstance(value, bool) else other})


def test_each_field_makes_a_change() -> None:
    """Whoever reviews a policy or a reload is told of it; of a position in the files, and of nothing, nothing."""
    silent, tried = [], 0
    for section, stated in STATED.items():
        for path, other in altered(stated):
            old, new = (_policy(section, each) for each in (stated, other))
            assert list(redefinitions(old, old)) == []
            silent += [] if list(redefinitions(old, new)) else [section + path]
            tried += 1
    assert silent == []
    assert tried > 90


def _policy(section: str, stated: Any) -> Policy:
    found: dict[str, Any] = {section: stated if section == "settings" else {stated.name: stated}}
    return replace(NOTHING, **found)
