"""Writes the sections of a policy in the format of policy files: the loader reads the same values again."""

import csv
import io
from collections.abc import Iterable
from dataclasses import fields
from enum import StrEnum
from typing import Any, Final

from whenever import Instant, PlainDateTime, Weekday

from tokgate.policy.networks import Device, Network
from tokgate.policy.schedule import Duration, Window
from tokgate.policy.services import Service
from tokgate.policy.snapshot import Policy

_UNWRITTEN: Final = ("name", "origin")
_NOT_KEYS: Final = ("except_cidrs", "except_networks")
"""What a network has under `except`."""


def sections(policy: Policy, inventories: dict[str, str]) -> dict[str, Any]:
    """The sections of a policy without its settings, as plain values; `inventories` are file names by network."""
    named = {
        "services": {name: _service(each) for name, each in policy.services.items()},
        "networks": {name: _network(each, inventories.get(name)) for name, each in policy.networks.items()},
        "bans": {name: _stated(each) for name, each in policy.bans.items()},
        "exemptions": {name: _stated(each) for name, each in policy.exemptions.items()},
        "lifted": [_stated(each) for each in policy.lifted],
    }
    return {section: entries for section, entries in named.items() if entries}


def inventory(devices: Iterable[Device]) -> str:
    """Devices as an inventory, a CSV file."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(("name", "address", "mac", "owner", "paid_by"))
    for each in devices:
        addresses = " ".join(str(prefix.network_address) for prefix in each.addresses)
        rows.writerow((each.name, addresses, " ".join(each.hardware), each.owner, "+".join(each.paid_by)))
    return out.getvalue()


def _stated(entry: Any) -> dict[str, Any]:
    """What a dataclass states whose fields are called as the keys are."""
    stated = (each.name for each in fields(entry) if each.compare and each.name not in _UNWRITTEN)
    values = {name: getattr(entry, name) for name in stated}
    return {key: _written(value) for key, value in values.items() if value is not None and value != ()}


def _written(value: Any) -> Any:
    match value:
        case bool():
            return value
        case tuple():
            return [_written(each) for each in value]
        case StrEnum():
            return value.value
        case Instant() | PlainDateTime() | Duration():
            return value.format_iso()
        case Window():
            return {
                "days": [day.name[:3].lower() for day in Weekday if day in value.days],
                "from": value.start.format_iso()[:5],
                "to": value.end.format_iso()[:5],
            } | ({"except_holidays": list(value.except_holidays)} if value.except_holidays else {})
        case _:
            return str(value)


def _service(service: Service) -> dict[str, Any]:
    names: dict[str, list[str]] = {}
    for pattern in service.patterns:
        names.setdefault(pattern.kind.value, []).append(pattern.value)
    stores: dict[str, list[str]] = {}
    for entry in service.stores:
        stores.setdefault(entry.store, []).append(entry.identifier)
    stated = {"names": names, "addresses": [str(prefix) for prefix in service.addresses], "store": stores}
    described = {"title": service.title, "description": service.description}
    return {key: value for key, value in (described | stated).items() if value}


def _network(network: Network, file: str | None) -> dict[str, Any]:
    stated = {key: value for key, value in _stated(network).items() if key not in _NOT_KEYS}
    excepted = [*map(str, network.except_cidrs), *network.except_networks]
    if excepted:
        stated["except"] = excepted
    return stated | {"devices": {"file": file}} if file is not None else stated
