"""The inventories that the networks of a policy name: each file is read once, and must have what they ask of it."""

from pathlib import Path

from tokgate.config.diagnostics import Code
from tokgate.config.inventory import Inventory, read_inventory
from tokgate.config.models import DevicesModel, NetworkModel
from tokgate.config.sections import Entry, Sections
from tokgate.config.source import Report
from tokgate.config.suggest import did_you_mean
from tokgate.policy.devices import hardware_address
from tokgate.policy.identity import folded


def read(sections: Sections, report: Report) -> None:
    """Read all that are named, into `sections`."""
    named = [(e, e.model.devices) for e in sections.networks.values() if e.model is not None and e.model.devices]
    needs: dict[Path, set[str]] = {}
    for entry, devices in named:
        needs.setdefault(entry.beside(devices.file), set()).update({"paid_by"} if devices.paid_by else ())
    for entry, devices in named:
        path = entry.beside(devices.file)
        if not path.exists():
            sections.inventories[path] = None  # it is looked for again when it may have come
            message = f"there is no file `{path}`"
            report.error(entry.source, entry.at("devices", "file"), Code.NOT_FOUND, message)
            continue
        if path not in sections.inventories:
            sections.inventories[path] = read_inventory(path, sorted(needs[path]), report)
        inventory = sections.inventories[path]
        if inventory is not None:
            _check(entry, devices, inventory, report)
    _check_tests(sections, report)


def _check(entry: Entry[NetworkModel], devices: DevicesModel, inventory: Inventory, report: Report) -> None:
    """Whether a network means any device, and each payer paid for one."""
    if not inventory.devices:
        message = f"the inventory `{devices.file}` holds no device"
        report.warning(entry.source, entry.at("devices", "file"), Code.NO_DEVICES, message)
        return
    payers = sorted(inventory.payers) if devices.paid_by else []
    places = dict(entry.items("devices", "paid_by"))
    for payer in devices.paid_by:
        if payer.casefold() not in payers:
            place = places.get(payer, entry.at("devices", "paid_by"))
            message = f"no device in `{devices.file}` is paid for by `{payer}`{did_you_mean(payer, payers)}"
            report.warning(entry.source, place, Code.NO_DEVICES, message)


def _check_tests(sections: Sections, report: Report) -> None:
    """Whether devices that tests name are in an inventory: a name that is misspelt is banned from nothing."""
    if not sections.whole or None in sections.inventories.values():
        return  # it may stand in what could not be read
    known = frozenset(name for each in sections.inventories.values() if each is not None for name in each.names)
    for entry in sections.tests:
        device = None if entry.model is None else entry.model.device
        if device is not None and folded(device) not in known and hardware_address(device) is None:
            message = f"no inventory has a device `{device}`{did_you_mean(device, sorted(known))}"
            report.warning(entry.source, entry.at("device"), Code.UNKNOWN_DEVICE, message)
