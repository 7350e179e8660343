"""The entries of all files by section and name, each checked on its own against its model.

An entry that is wrong does not hide what is wrong with another, nor does its name count as unknown.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel

from tokgate.config.diagnostics import Code
from tokgate.config.inventory import Inventory
from tokgate.config.models import (
    BanModel,
    ExemptionModel,
    NetworkModel,
    PolicyFile,
    ServiceModel,
    TestModel,
)
from tokgate.config.nodes import Mapping, Node, Scalar, Sequence, led_to
from tokgate.config.settings_models import SettingsModel
from tokgate.config.shape import hint, place_of, shaped
from tokgate.config.source import Place, Report, Source
from tokgate.config.suggest import listed
from tokgate.config.values import IDENTIFIER
from tokgate.policy.devices import Device

_IDENTIFIER: Final = re.compile(IDENTIFIER.removesuffix("$") + r"\Z")
_SECTIONS: Final = tuple(PolicyFile.model_fields)
_NAMED: Final[dict[str, type[BaseModel]]] = {
    "services": ServiceModel,
    "networks": NetworkModel,
    "bans": BanModel,
    "exemptions": ExemptionModel,
}


@dataclass(frozen=True, slots=True)
class Entry[M: BaseModel]:
    """One named entry (or test): its model is None when something is wrong with it."""

    name: str
    source: Source
    place: Place
    node: Node
    model: M | None

    def at(self, *path: str | int) -> Place:
        """Where a key's value or a list's item stands; the nearest that is there."""
        return place_of(self.node, path, self.place)

    def text(self, *path: str | int) -> str | None:
        """The text that was written for a key; None when it isn't there, or is no text."""
        node = led_to(self.node, path)
        return node.text if isinstance(node, Scalar) else None

    def beside(self, file: str) -> Path:
        """A file that is named here: as it stands beside the policy file, unless its path is whole."""
        return Path(self.source.file).parent / file

    def items(self, *path: str) -> Iterator[tuple[str, Place]]:
        """The texts of a list, with their places, whether or not the entry is valid."""
        node = led_to(self.node, path)
        for item in node.items if isinstance(node, Sequence) else ():
            if isinstance(item, Scalar):
                yield item.text, item.place


@dataclass(slots=True)
class Sections:
    """What all files say. `whole` is False when some file could not be read: then names may be missing."""

    services: dict[str, Entry[ServiceModel]] = field(default_factory=dict)
    networks: dict[str, Entry[NetworkModel]] = field(default_factory=dict)
    bans: dict[str, Entry[BanModel]] = field(default_factory=dict)
    exemptions: dict[str, Entry[ExemptionModel]] = field(default_factory=dict)
    tests: list[Entry[TestModel]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    inventories: dict[Path, Inventory | None] = field(default_factory=dict)
    """By file; None for those that could not be read."""
    whole: bool = True
    _settings_at: dict[str, tuple[Source, Place]] = field(default_factory=dict)

    def setting_at(self, name: str) -> tuple[Source, Place] | None:
        """Where a setting stands, if it is set."""
        return self._settings_at.get(name)

    def devices(self, entry: Entry[NetworkModel]) -> tuple[Device, ...]:
        """The devices that a network means."""
        stated = None if entry.model is None else entry.model.devices
        inventory = self.inventory(entry)
        return () if stated is None or inventory is None else inventory.paid_by(stated.paid_by)

    def inventory(self, entry: Entry[NetworkModel]) -> Inventory | None:
        """The inventory that a network names, once it was read."""
        stated = None if entry.model is None else entry.model.devices
        return None if stated is None else self.inventories.get(entry.beside(stated.file))

    def add(self, source: Source, root: Node, report: Report) -> None:
        """Take in one file."""
        if not isinstance(root, Mapping):
            what = "a list" if isinstance(root, Sequence) else "text"
            allowed = f"a policy file is a mapping with the keys {listed(_SECTIONS)}, not {what}"
            report.error(source, root.place, Code.WRONG_TYPE, allowed)
            self.whole = False
            return
        for section, (key, node) in root.entries.items():
            if section not in _SECTIONS:
                report.error(
                    source, key.place, Code.UNKNOWN_KEY, f"unknown section `{section}`{hint(section, _SECTIONS)}"
                )
            elif section == "version":
                shaped(PolicyFile, Mapping(key.place, {section: (key, node)}), source, key.place, report)
            elif isinstance(node, Scalar) and node.null:
                continue  # a section whose entries are all commented out
            elif section == "settings":
                self._add_settings(source, key, node, report)
            elif section == "tests":
                self._add_tests(source, key, node, report)
            else:
                self._add_named(section, source, node, report)

    def _add_named(self, section: str, source: Source, node: Node, report: Report) -> None:
        if not isinstance(node, Mapping):
            message = f"`{section}` is a mapping from names to entries"
            report.error(source, node.place, Code.WRONG_TYPE, message)
            self.whole = False
            return
        known: dict[str, Entry[Any]] = getattr(self, section)
        for name, (key, value) in node.entries.items():
            if not _IDENTIFIER.match(name):
                message = (
                    f"`{name}` can't be a name: letters, digits, `-`, `_` and `.`, at most 64, a letter or digit first"
                )
                report.error(source, key.place, Code.BAD_IDENTIFIER, message)
            if name in known:
                first = known[name].source.origin(known[name].place)
                kind = section.removesuffix("s")
                report.error(
                    source, key.place, Code.DEFINED_TWICE, f"the {kind} `{name}` is defined twice; first at {first}"
                )
                continue
            model = shaped(_NAMED[section], value, source, key.place, report)
            known[name] = Entry(name, source, key.place, value, model)

    def _add_settings(self, source: Source, section: Scalar, node: Node, report: Report) -> None:
        model = shaped(SettingsModel, node, source, section.place, report)
        for name, (key, _) in node.entries.items() if isinstance(node, Mapping) else ():
            if name in self._settings_at:
                first_source, first = self._settings_at[name]
                where = first_source.origin(first)
                report.error(source, key.place, Code.DEFINED_TWICE, f"`{name}` is set twice; first at {where}")
            else:
                self._settings_at[name] = (source, key.place)
                if model is not None:
                    self.settings[name] = getattr(model, name)

    def _add_tests(self, source: Source, section: Scalar, node: Node, report: Report) -> None:
        if not isinstance(node, Sequence):
            report.error(source, node.place, Code.WRONG_TYPE, "`tests` is a list")
            return
        for item in node.items:
            model = shaped(TestModel, item, source, item.place, report)
            if model is not None and model.host is None and model.url is None:
                report.error(source, item.place, Code.MISSING_KEY, "a test names a `host` or a `url`")
            self.tests.append(Entry("", source, item.place, item, model))
