"""Reads the inventories that a policy's networks name, each file once, and checks what the networks select in them."""

from pathlib import Path
from typing import Any

from tokgate.config.checks.inventory import Inventory, read_inventory
from tokgate.config.checks.sections import PolicyEntry, Sections
from tokgate.config.diagnostics import Code
from tokgate.config.format.networks import DevicesModel, NetworkModel
from tokgate.config.yaml.did_you_mean import did_you_mean
from tokgate.config.yaml.source import Report, TextSpan
from tokgate.policy.devices import hardware_address
from tokgate.policy.identity import folded


def read(sections: Sections, report: Report) -> None:
    """Read all inventories into `sections.inventories`, and check them."""
    named = [(e, e.model.devices) for e in sections.networks.values() if e.model is not None and e.model.devices]
    needs: dict[Path, set[str]] = {}
    for entry, devices in named:
        needs.setdefault(entry.beside(devices.file), set()).update({"paid_by"} if devices.paid_by else ())
    for entry, devices in named:
        path = entry.beside(devices.file)
        if not path.exists():
            sections.inventories[path] = None  # reload watches for it
            message = f"there is no file `{report.file_name(path)}`"
            report.error(entry.source, entry.at("devices", "file"), Code.NOT_FOUND, message)
            continue
        if path not in sections.inventories:
            sections.inventories[path] = read_inventory(path, sorted(needs[path]), report)
        inventory = sections.inventories[path]
        if inventory is not None:
            prefixes = entry.model is not None and bool(entry.model.cidrs)
            _check(entry, devices, inventory, report, prefixes=prefixes)
    _check_tests(sections, report)


def _check(
    entry: PolicyEntry[NetworkModel], devices: DevicesModel, inventory: Inventory, report: Report, *, prefixes: bool
) -> None:
    """An inventory without devices is an error: a failed export lifts no ban. Warn of payers that paid for none.

    With `prefixes`, which the network lists as well, it is a warning: `tokgate phone` has no device at first.
    """
    if not inventory.devices:
        message, place = f"the inventory `{devices.file}` holds no device", entry.at("devices", "file")
        if prefixes:
            report.warning(entry.source, place, Code.NO_DEVICES, f"{message}: the network is its prefixes alone")
        else:
            report.error(entry.source, place, Code.BAD_INVENTORY, f"{message}: take `devices` out, if that is meant")
        return
    payers = sorted(inventory.payers) if devices.paid_by else []
    places = dict(entry.items("devices", "paid_by"))
    for payer in devices.paid_by:
        if payer.casefold() not in payers:
            place = places.get(payer, entry.at("devices", "paid_by"))
            message = f"no device in `{devices.file}` is paid for by `{payer}`{did_you_mean(payer, payers)}"
            report.warning(entry.source, place, Code.NO_DEVICES, message)


def _check_tests(sections: Sections, report: Report) -> None:
    """Warn if a test or an exemption names a device that no inventory has: nobody would ever be it."""
    if not sections.whole or None in sections.inventories.values():
        return  # an unreadable file may have it
    known = frozenset(name for each in sections.inventories.values() if each is not None for name in each.names)
    named: list[tuple[PolicyEntry[Any], str, TextSpan]] = [
        (entry, entry.model.device, entry.at("device"))
        for entry in sections.tests
        if entry.model is not None and entry.model.device is not None
    ]
    for exempt in sections.exemptions.values():
        listed = exempt.model.devices if exempt.model is not None else []
        places = dict(exempt.items("devices"))
        named += [(exempt, device, places.get(device, exempt.at("devices"))) for device in listed]
    for entry, device, place in named:
        if folded(device) not in known and hardware_address(device) is None:
            message = f"no inventory has a device `{device}`{did_you_mean(device, sorted(known))}"
            report.warning(entry.source, place, Code.UNKNOWN_DEVICE, message)
