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
OTHER: dict[str, tuple[Any, str]] = {
    "Network.devices": ((Device(None, (), ("00:53:00:00:00:03",), None, ()),), "device:00:53:00:00:00:03"),
    "Network.except_cidrs": ((ip_network("192.0.2.128/25"),), "except:192.0.2.128/25"),
    "Service.patterns": ((NamePattern(PatternKind.LABEL, "another"),), "label:another"),
    "Service.stores": ((StoreListing("apple", "835599320"),), "store:apple/835599320"),
}
"""Values of those fields whose parts are told one by one, and the words for them; of all others text will do."""
UNSAID = ("name", "origin", "on_all", "members", "excluded")
"""Which entry it is and where it stands, and what shows in other fields: in `services`, and in names of networks."""


def altered(stated: Any, above: str = "") -> Iterator[tuple[str, Any, str]]:
    """For each field that a policy may state: its path, the same with another value there, and the word for that."""
    for each in fields(stated):
        value, path = getattr(stated, each.name), f"{above}.{each.name}"
        if each.name in UNSAID or not each.init:
            continue
        if is_dataclass(value):
            for below, other, word in altered(value, path):
                yield below, replace(stated, **{each.name: other}), word
        else:
            plain = not value if isinstance(value, bool) else ("another",) if isinstance(value, tuple) else "another"
            other, word = OTHER.get(
                f"{type(stated).__name__}.{each.name}",
                (plain, str(plain).lower() if isinstance(plain, bool) else "another"),
            )
            yield path, replace(stated, **{each.name: other}), word


def test_each_field_makes_a_change() -> None:
    """Whoever reviews a policy or a reload is told of it in a word, of bans and exemptions with its key."""
    tried = 0
    for section, stated in STATED.items():
        for path, other, word in altered(stated):
            old, new = (_policy(section, each) for each in (stated, other))
            assert list(redefinitions(old, old)) == []
            (found,) = redefinitions(old, new)
            assert any(each.endswith(word) for each in found.added), section + path
            assert found.key in (None, path[1:].replace("excepted", "except"))
            assert (found.key is not None) == (section in ("bans", "exemptions"))
            tried += 1
    assert tried > 90


def test_what_only_one_policy_has() -> None:
    """Of a new ban what isn't the default, of one that is gone what it said; a ban on all has that for services."""
    on_all = _policy("bans", ban(services=(), on_all=True, excepted=("clips",)))
    told = {each.key: (each.added, each.removed) for each in redefinitions(NOTHING, on_all)}
    assert (told["services"], told["except"]) == ((("all",), ()), (("clips",), ()))
    assert "response" not in told
    assert {each.key: (each.removed, each.added) for each in redefinitions(on_all, NOTHING)} == told


def _policy(section: str, stated: Any) -> Policy:
    found: dict[str, Any] = {section: stated if section == "settings" else {stated.name: stated}}
    return replace(NOTHING, **found)
