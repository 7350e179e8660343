"""Reads the files that services and networks name: files of names, with the place of each, and inventories."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from pydantic_core import PydanticCustomError

from tokgate.config.diagnostics import Code, did_you_mean
from tokgate.config.format import services
from tokgate.config.format.networks import DevicesModel, NetworkModel
from tokgate.config.format.services import NameFile, ServiceModel
from tokgate.config.inventory import Inventory, read_inventory
from tokgate.config.sections import NameList, PolicyEntry, Sections
from tokgate.config.yaml.source import Report, TextSpan, decode, read_ignores, read_named_file
from tokgate.policy.membership import folded
from tokgate.policy.networks import hardware_address
from tokgate.policy.services import PatternKind

MAX_REPORTED: Final = 20
"""Most lines whose errors are reported one by one; the rest is counted."""
_COMMENT: Final = re.compile(r"(?:^|\s)#.*")
"""A `#` at the beginning or after white space: in a regular expression it may stand."""
_PARSERS: Final[dict[PatternKind, Callable[[Any], str]]] = {
    PatternKind.SUFFIX: services.suffix,
    PatternKind.EXACT: services.exact,
    PatternKind.LABEL: services.label,
    PatternKind.REGEX: services.regex,
}


def read_names(sections: Sections, report: Report) -> None:
    """Read all files of names into `sections.name_lists`, and check them."""
    for entry in sections.services.values():
        for kind in PatternKind if entry.model is not None else ():
            for number, each in enumerate(getattr(entry.model.names, kind)):  # type: ignore[union-attr]
                if isinstance(each, NameFile) and (key := (entry.beside(each.path), kind)) not in sections.name_lists:
                    sections.name_lists[key] = None  # reload watches for it
                    place = entry.at("names", kind, number, "file")
                    if _allowed(key[0], entry, place, sections, report):
                        sections.name_lists[key] = _read_names(key[0], kind, report)


def _allowed(path: Path, entry: PolicyEntry[ServiceModel], place: TextSpan, sections: Sections, report: Report) -> bool:
    """Whether a file is there, in the folder of the policy or one of `settings.name_files`."""
    stated = [Path(folder).resolve() for folder in sections.settings.get("name_files", ())]
    if not any(path.resolve().is_relative_to(folder) for folder in (sections.root.resolve(), *stated)):
        message = (
            f"`{report.file_name(path)}` is outside the folder of the policy: move it there, or name its folder in "
            "`settings.name_files`"
        )
        report.error(entry.source, place, Code.FILE_OUTSIDE, message)
        return False
    if not path.exists():
        report.error(entry.source, place, Code.NOT_FOUND, f"there is no file `{report.file_name(path)}`")
        return False
    return True


def _read_names(path: Path, kind: PatternKind, report: Report) -> NameList | None:
    data = read_named_file(path, report)
    source = None if data is None else decode(path, data, report)
    if source is None:
        return None
    read_ignores(source, report, is_yaml=False)
    parse = _PARSERS[kind]
    patterns: list[tuple[str, TextSpan]] = []
    wrong: list[tuple[TextSpan, PydanticCustomError]] = []
    for number, line in enumerate(source.lines, 1):
        written = _COMMENT.sub("", line).strip()
        if not written:
            continue
        place = TextSpan(number, line.index(written) + 1, len(written))
        try:
            patterns.append((parse(written), place))
        except PydanticCustomError as error:
            wrong.append((place, error))
    for place, found in wrong[:MAX_REPORTED]:
        report.error(source, place, Code(found.type), found.message())
    if len(wrong) > MAX_REPORTED:
        rest = f"{len(wrong) - MAX_REPORTED} more lines are no `{kind}`"
        report.error(source, wrong[MAX_REPORTED][0], Code.BAD_PATTERN, rest)
    if not patterns and not wrong:
        message = "the file holds no name: take out what refers to it, if that is meant"
        report.error(source, TextSpan(1, 1), Code.NO_NAMES, message)
    return NameList(source, tuple(patterns))


def read_inventories(sections: Sections, report: Report) -> None:
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
            _check_selection(entry, devices, inventory, report)
    _check_devices(sections, report)


def _check_selection(
    entry: PolicyEntry[NetworkModel], devices: DevicesModel, inventory: Inventory, report: Report
) -> None:
    """An inventory without devices is an error: a failed export lifts no ban. Warn of payers that paid for none.

    Where the network lists prefixes as well it is a warning: `tokgate phone` has no device at first.
    """
    if not inventory.devices:
        message, place = f"the inventory `{devices.file}` holds no device", entry.at("devices", "file")
        if entry.model is not None and entry.model.cidrs:
            report.warning(entry.source, place, Code.NO_DEVICES, f"{message}: the network is its prefixes alone")
        else:
            report.error(entry.source, place, Code.BAD_INVENTORY, f"{message}: take `devices` out, if that is meant")
        return
    payers = sorted({payer for each in inventory.devices for payer in each.paid_by}) if devices.paid_by else []
    places = dict(entry.items("devices", "paid_by"))
    for payer in devices.paid_by:
        if payer.casefold() not in payers:
            place = places.get(payer, entry.at("devices", "paid_by"))
            message = f"no device in `{devices.file}` is paid for by `{payer}`{did_you_mean(payer, payers)}"
            report.warning(entry.source, place, Code.NO_DEVICES, message)


def _check_devices(sections: Sections, report: Report) -> None:
    """Warn if a test or an exemption names a device that no inventory has: nobody would ever be it."""
    if not sections.whole or None in sections.inventories.values():
        return  # an unreadable file may have it
    listed = [device for each in sections.inventories.values() if each is not None for device in each.devices]
    known = {folded(device.name) for device in listed if device.name is not None}
    named: list[tuple[PolicyEntry[Any], str, TextSpan]] = [
        (entry, entry.model.device, entry.at("device"))
        for entry in sections.tests
        if entry.model is not None and entry.model.device is not None
    ]
    for exempt in sections.exemptions.values():
        stated = exempt.model.devices if exempt.model is not None else []
        places = dict(exempt.items("devices"))
        named += [(exempt, device, places.get(device, exempt.at("devices"))) for device in stated]
    for entry, device, place in named:
        if folded(device) not in known and hardware_address(device) is None:
            message = f"no inventory has a device `{device}`{did_you_mean(device, sorted(known))}"
            report.warning(entry.source, place, Code.UNKNOWN_DEVICE, message)
