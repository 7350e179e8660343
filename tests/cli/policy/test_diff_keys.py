"""Diff: every key of the policy's format that changes what somebody gets or reads makes a line."""

import copy
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import pytest

from labs.command_line import Command
from tokgate.config.format.policy_file import policy_schema
from tokgate.policy.stores import STORES

_UNSHOWN: Final = ("version", "tests", "lifted")
"""The format has one version; tests decide nothing; what is lifted is gone from the bans."""

POLICY: Final[dict[str, Any]] = {
    "services": {"clips": {"title": "Clips", "names": {"suffix": ["clips.example.org"]}}},
    "networks": {
        "office": {
            "cidrs": ["192.0.2.0/24"],
            "timezone": "Europe/Brussels",
            "devices": {"file": "one.csv", "paid_by": ["city"]},
        },
        "lab": {"cidrs": ["198.51.100.0/24"]},
    },
    "bans": {
        "first": {
            "title": "A",
            "services": ["clips"],
            "networks": ["office"],
            "starts": "2023-03-10",
            "duration": "P9Y",
        },
        "past": {
            "title": "P",
            "services": ["clips"],
            "networks": ["office"],
            "starts": "2023-03-01",
            "last_day": "2023-03-09",
        },
        "other": {"title": "B", "services": ["clips"], "networks": ["office"], "starts": "2023-03-10"},
    },
    "exemptions": {
        "press": {"ban": "first", "clients": ["192.0.2.9"], "until": "2023-06-30T18:00", "reason": "Monitoring"}
    },
    "settings": {
        "proxy_auth": {"ldap": {"url": "ldaps://ldap.example.org", "base": "dc=example", "bind": "a", "password": "/p"}}
    },
}

_WINDOW: Final = {"days": "mon-fri", "from": "08:00", "to": "18:00", "except_holidays": "BE"}

_PARENT: Final = {"proxy": "http://proxy.example.org:3128", "for": ["example.org"]}

NEW: Final[Mapping[str, Any]] = {
    "services.title": "Short clips",
    "services.description": "The app",
    "services.source.list": "https://www.example.org/newer",
    "services.source.format": "hosts",
    "services.source.revision": "4f2c1d9",
    "services.source.licence": "MIT",
    "services.source.date": "2026-08-19",
    "services.source.attributes": ["!cn"],
    "services.source.subdomains": True,
    "services.names.suffix": ["clips.example.net"],
    "services.names.exact": ["www.example.net"],
    "services.names.label": ["clipsapp"],
    "services.names.regex": ["^clips[0-9]+\\.example\\.com$"],
    "services.addresses": ["203.0.113.0/24"],
    **{f"services.store.{name}": [store.example] for name, store in STORES.items()},
    "networks.title": "The office",
    "networks.cidrs": ["192.0.2.0/25"],
    "networks.users": ["alice"],
    "networks.groups": ["press"],
    "networks.interfaces": ["eth1"],
    "networks.devices.file": "two.csv",
    "networks.devices.paid_by": ["shared"],
    "networks.networks": ["lab"],
    "networks.except": ["192.0.2.128/25"],
    "networks.timezone": "Europe/Vilnius",
    "networks.language": "nl",
    "bans.title": "Another",
    "bans.description": "Please remove the app.",
    "bans.reason": {"en": "Another", "nl": "Een andere"},
    "bans.authority": "The city council",
    "bans.basis": "Decision 12",
    "bans.reference": "https://www.example.org/12",
    "bans.contact": "desk@example.org",
    "bans.services": ["clips", "more"],
    "bans.except": ["more"],
    "bans.networks": ["office", "lab"],
    "bans.announced": "2023-03-01",
    "bans.monitor_from": "2023-03-02",
    "bans.warn_from": "2023-03-03",
    "bans.starts": "2023-03-11",
    "bans.extends": "past",
    "bans.expires": "2033-03-10T00:00",
    "bans.duration": "P8Y",
    "bans.last_day": "2033-03-10",
    "bans.on_expiry": "hold",
    "bans.windows.days": [_WINDOW | {"days": "sat-sun"}],
    "bans.windows.from": [_WINDOW | {"from": "09:00"}],
    "bans.windows.to": [_WINDOW | {"to": "17:00"}],
    "bans.windows.except_holidays": [_WINDOW | {"except_holidays": ["BE", "LU"]}],
    "bans.action": "monitor",
    "bans.response": "page",
    "bans.continue_for": "PT1H",
    "bans.inspect_stores": True,
    "bans.overrides": "forbidden",
    "exemptions.ban": "other",
    "exemptions.clients": ["192.0.2.10"],
    "exemptions.users": ["alice"],
    "exemptions.groups": ["press"],
    "exemptions.devices": ["00:53:00:00:00:03"],
    "exemptions.interfaces": ["eth0.20"],
    "exemptions.starts": "2023-06-01T08:00",
    "exemptions.until": "2023-07-30T18:00",
    "exemptions.reason": "Another",
    "exemptions.ticket": "REQ-1",
    "exemptions.by": "alice",
    "exemptions.ended_by": "bob",
    "exemptions.override": True,
    "settings.unknown_clients": "block",
    "settings.on_error": "allow",
    "settings.missing_sni": "block",
    "settings.ech_outer": "block",
    "settings.encrypted_dns": "allow",
    "settings.dns.ech_keys": "allow",
    "settings.nat64_prefixes": ["2001:db8:64::/96"],
    "settings.overrides.longest": "PT8H",
    "settings.overrides.requests": True,
    "settings.reminders": ["P3D"],
    "settings.log.clients": "prefix",
    "settings.log.pseudonym_days": 7,
    "settings.log.retention_days": 90,
    "settings.log.checkpoint_to": ["journald"],
    "settings.log.key": "/etc/tokgate/log.key",
    "settings.log.forward_security": True,
    "settings.log.small_groups": 9,
    "settings.log.keep_free": 512,
    "settings.egress.addresses": ["192.0.2.1"],
    "settings.egress.own_ports": [443],
    "settings.egress.connect_seconds": 5,
    "settings.limits.connections": 60_000,
    "settings.limits.per_client": 500,
    "settings.name_files": ["/etc/tokgate/lists"],
    "settings.load_balancers": ["192.0.2.10"],
    "settings.pac.direct_addresses": ["198.51.100.0/24"],
    "settings.pac.direct_names": ["intranet.example.org"],
    "settings.gateway.ports": [8080],
    "settings.gateway.on_stop": "closed",
    "settings.gateway.on_crash": "open",
    "settings.gateway.canary.enabled": False,
    "settings.gateway.canary.seconds": 30,
    "settings.gateway.canary.ipv4": "10.99.99.0/29",
    "settings.gateway.canary.ipv6": "fd00:99::/64",
    "settings.upstream.proxy": [_PARENT | {"proxy": "http://proxy.example.org:1080"}],
    "settings.upstream.credentials": [_PARENT | {"credentials": "/etc/tokgate/upstream"}],
    "settings.upstream.for": [_PARENT | {"for": ["example.net"]}],
    "settings.upstream.except": [_PARENT | {"except": ["www.example.org"]}],
    "settings.proxy_auth.htpasswd": "/etc/tokgate/htpasswd",
    "settings.proxy_auth.groups": "/etc/tokgate/groups",
    "settings.proxy_auth.ldap.url": "ldaps://other.example.org",
    "settings.proxy_auth.ldap.base": "dc=example,dc=org",
    "settings.proxy_auth.ldap.bind": "cn=other",
    "settings.proxy_auth.ldap.password": "/etc/tokgate/ldap",
    "settings.proxy_auth.ldap.user_attribute": "sAMAccountName",
    "settings.proxy_auth.ldap.group_attribute": "groups",
    "settings.proxy_auth.ldap.authorities": "/etc/tokgate/ca.pem",
}
"""By key, with the sections' names of entries left out: another value than in POLICY."""

_SOURCE: Final = {"list": "https://www.example.org/list", "format": "domain-list-community"}

_BESIDE: Final[Mapping[str, Mapping[str, Any]]] = {
    "bans.except": {"services": "all"},
    **{key: _SOURCE for key in NEW if key.startswith("services.source.")},
    "bans.expires": {"duration": None},
    "bans.last_day": {"duration": None},
    "bans.windows": {"windows": [_WINDOW]},
    "settings.upstream": {"upstream": [_PARENT]},
    "exemptions.override": {"starts": "2023-06-30T08:00"},
    "settings.proxy_auth.htpasswd": {"ldap": None, "htpasswd": "/etc/other"},
    "settings.proxy_auth.groups": {"ldap": None, "htpasswd": "/etc/tokgate/htpasswd"},
}
"""What both policies state of the same entry, so that a key may be stated at all."""

_LINES: Final[Mapping[str, str]] = {
    "bans.last_day": "bans.first.expires",
    **{key: "settings.upstream" for key in NEW if key.startswith("settings.upstream.")},
}
"""Where another key than the one changed is in the line: a last day is an end, a parent proxy is shown whole."""


def keys(schema: Mapping[str, Any], node: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """All keys of the format that have a value of their own."""
    if "$ref" in node:
        node = schema["$defs"][node["$ref"].rpartition("/")[2]]
    within = node.get("additionalProperties") if isinstance(node.get("additionalProperties"), dict) else None
    within = within or (node.get("items") if "$ref" in node.get("items", {}) else None)
    if within is not None:
        yield from keys(schema, within, above)
    elif "properties" in node:
        for name, each in node["properties"].items():
            if above or name not in _UNSHOWN:
                yield from keys(schema, each, f"{above}.{name}" if above else name)
    else:
        yield above


def test_every_key_is_tried() -> None:
    """A key that is added to the format can't be forgotten in what a reviewer sees."""
    assert set(keys(policy_schema(), policy_schema())) == set(NEW)


def stated(key: str, value: Any, *, changed: bool) -> dict[str, Any]:
    """The policy, with what the key needs beside it; `changed`: with another value of the key."""
    policy = copy.deepcopy(POLICY)
    section, *path = key.split(".")
    entry = policy[section] if section == "settings" else next(iter(policy[section].values()))
    if path[0] in ("windows", "upstream"):
        path = path[:1]
    for each in path[:-1]:
        entry = entry.setdefault(each, {})
    entry |= _BESIDE.get(".".join((section, *path)), {})
    if changed:
        entry[path[-1]] = value
    for each in [each for each in entry if entry[each] is None]:
        del entry[each]
    policy["services"]["more"] = {"names": {"suffix": ["more.example.org"]}}
    return policy


@pytest.mark.parametrize("key", NEW)
def test_a_changed_key_makes_a_line(key: str, tmp_path: Path, tokgate: Command) -> None:
    """Whoever reviews a change sees it, whichever key it is, and no secret with it."""
    for number in ("one", "two"):
        rows = f"00:53:00:00:00:0{len(number)},city\n00:53:00:aa:00:{'01' if number == 'one' else '02'},city\n"
        (tmp_path / f"{number}.csv").write_text(f"mac,paid_by\n{rows}00:53:00:00:00:05,shared\n")
    for name, changed in (("old", False), ("new", True)):
        (tmp_path / f"{name}.yaml").write_text(json.dumps(stated(key, NEW[key], changed=changed)))
    outcome = tokgate("diff", str(tmp_path / "old.yaml"), str(tmp_path / "new.yaml"), "--from", "2023-01-01")
    section, *path = key.split(".")
    name = next(iter(POLICY[section])) if section != "settings" else ".".join(path)
    if section in ("bans", "exemptions"):
        name = f"{name}.{path[0]}"
    lines = [
        line for line in outcome.out.splitlines() if line.startswith(f"  {_LINES.get(key, f'{section}.{name}')}: ")
    ]
    assert (outcome.code, len(lines)) == (0, 1), outcome.err or outcome.out
    assert "SECRET" not in outcome.out
