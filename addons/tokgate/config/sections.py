"""The entries of all files by section and name, each checked on its own against its model.

An entry that is wrong does not hide what is wrong with another, nor does its name count as unknown.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

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
from tokgate.config.nodes import Mapping, Node, Scalar, Sequence, plain
from tokgate.config.settings_models import SettingsModel
from tokgate.config.source import Place, Report, Source
from tokgate.config.suggest import did_you_mean, listed
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
        return _find(self.node, path, self.place)

    def text(self, *path: str | int) -> str | None:
        """The text that was written for a key; None when it isn't there, or is no text."""
        node: Node | None = self.node
        for step in path:
            if isinstance(node, Mapping):
                node = node.get(str(step))
            else:
                known = isinstance(node, Sequence) and isinstance(step, int) and step < len(node.items)
                node = node.items[step] if known else None  # type: ignore[union-attr,index]
        return node.text if isinstance(node, Scalar) else None

    def beside(self, file: str) -> Path:
        """A file that is named here: as it stands beside the policy file, unless its path is whole."""
        return Path(self.source.file).parent / file

    def items(self, *path: str) -> Iterator[tuple[str, Place]]:
        """The texts of a list, with their places, whether or not the entry is valid."""
        node: Node | None = self.node
        for key in path:
            node = node.get(key) if isinstance(node, Mapping) else None
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
                    source, key.place, Code.UNKNOWN_KEY, f"unknown section `{section}`{_hint(section, _SECTIONS)}"
                )
            elif section == "version":
                _check(PolicyFile, Mapping(key.place, {section: (key, node)}), source, key.place, report)
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
            model = _check(_NAMED[section], value, source, key.place, report)
            known[name] = Entry(name, source, key.place, value, model)

    def _add_settings(self, source: Source, section: Scalar, node: Node, report: Report) -> None:
        model = _check(SettingsModel, node, source, section.place, report)
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
            model = _check(TestModel, item, source, item.place, report)
            if model is not None and model.host is None and model.url is None:
                report.error(source, item.place, Code.MISSING_KEY, "a test names a `host` or a `url`")
            self.tests.append(Entry("", source, item.place, item, model))


def _check[M: BaseModel](model: type[M], node: Node, source: Source, owner: Place, report: Report) -> M | None:
    """The node as a model; None, and errors at their places, when it isn't one. `owner` is where its name stands."""
    silent = set(_without_value(node))
    valid: M | None = None
    try:
        valid = model.model_validate(plain(node))
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False):
            unknown = detail["type"] == "extra_forbidden"
            place = _find(node, detail["loc"], owner, key=unknown)
            if unknown:
                silent.discard(place)  # that it has no value either is of no interest
            if place not in silent:
                report.error(source, place, *_in_our_words(detail, model))
    for place in silent:
        report.error(source, place, Code.WRONG_TYPE, "this key has no value: write one, or leave the key out")
    return None if silent else valid


def _without_value(node: Node) -> Iterator[Place]:
    """The keys that are there but say nothing."""
    if isinstance(node, Mapping):
        for key, value in node.entries.values():
            if isinstance(value, Scalar) and value.null:
                yield key.place
            else:
                yield from _without_value(value)
    elif isinstance(node, Sequence):
        for item in node.items:
            if not isinstance(item, Scalar):
                yield from _without_value(item)


def _find(node: Node, path: tuple[str | int, ...], owner: Place, *, key: bool = False) -> Place:
    """The place of what `path` leads to, or of the nearest that is there.

    A value's own place; its key's where the value is a block, says nothing, or (with `key`) is not what is meant.
    """
    place = owner
    for step in path:
        if isinstance(node, Mapping) and step in node.entries:
            name, node = node.entries[str(step)]
            place = name.place if key or not isinstance(node, Scalar) or node.null else node.place
        elif isinstance(node, Sequence) and isinstance(step, int) and step < len(node.items):
            node = node.items[step]
            place = node.place
    return place


_TYPES: Final = {
    "list_type": "must be a list: `[…]`",
    "dict_type": "must be a mapping of keys to values",
    "model_type": "must be a mapping of keys to values",
    "model_attributes_type": "must be a mapping of keys to values",
    "too_short": "must not be empty",
}


def _in_our_words(detail: ErrorDetails, model: type[BaseModel]) -> tuple[Code, str]:
    """Code and message for one of pydantic's errors."""
    kind, path = detail["type"], detail["loc"]
    last = str(path[-1]) if path else ""
    if kind in Code:
        message = detail["msg"]
        return Code(kind), f"{_subject(path)} {message}" if message.startswith("must ") else message
    if kind in ("extra_forbidden", "missing"):
        keys = _keys(model, path[:-1])
        if kind == "missing":
            return Code.MISSING_KEY, f"`{last}` is missing"
        if path[:-1] == ("store",):
            return Code.UNKNOWN_STORE, f"unknown store `{last}`{_hint(last, keys)}"
        return Code.UNKNOWN_KEY, f"unknown key `{last}`{_hint(last, keys)}"
    if kind in _TYPES:
        return Code.BAD_VALUE if kind == "too_short" else Code.WRONG_TYPE, f"{_subject(path)} {_TYPES[kind]}"
    return Code.BAD_VALUE, detail["msg"]


def _subject(path: tuple[str | int, ...]) -> str:
    names = [step for step in path if isinstance(step, str)]
    if not names:
        return "this entry"
    return f"`{names[-1]}`" if names[-1] == path[-1] else f"each item of `{names[-1]}`"


def _hint(word: str, allowed: tuple[str, ...]) -> str:
    """What was meant, or else all that is allowed: a wrong key gives no other way to learn the right one."""
    return did_you_mean(word, allowed) or f"; allowed: {listed(allowed)}"


def _keys(model: type[BaseModel], path: tuple[str | int, ...]) -> tuple[str, ...]:
    """The keys of the model that `path` leads to."""
    for step in path:
        if isinstance(step, str):
            model = _inner(model, step)
    return tuple(field.alias or name for name, field in model.model_fields.items())


def _inner(model: type[BaseModel], key: str) -> type[BaseModel]:
    annotation: Any = next((f.annotation for n, f in model.model_fields.items() if key in (n, f.alias)), None)
    for candidate in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return model
