"""The entries of all files by section and name, each validated against its model.

An invalid entry doesn't hide errors of others, and its name counts as defined.
"""

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from tokgate.config.diagnostics import Code, did_you_mean, listed
from tokgate.config.format.bans import BanModel, ExemptionModel, LiftedModel
from tokgate.config.format.networks import NetworkModel
from tokgate.config.format.policy_file import PolicyFile
from tokgate.config.format.services import ServiceModel
from tokgate.config.format.settings import SettingsModel
from tokgate.config.format.test_model import TestModel, TestTransport, dns_query
from tokgate.config.format.values import IDENTIFIER
from tokgate.config.inventory import Inventory
from tokgate.config.yaml.nodes import Mapping, Node, Scalar, Sequence, led_to, plain
from tokgate.config.yaml.source import Report, Source, TextSpan
from tokgate.policy.networks import Device
from tokgate.policy.services import PatternKind

_IDENTIFIER: Final = re.compile(IDENTIFIER.removesuffix("$") + r"\Z")
_SECTIONS: Final = tuple(PolicyFile.model_fields)
_NAMED: Final[dict[str, type[BaseModel]]] = {
    "services": ServiceModel,
    "networks": NetworkModel,
    "bans": BanModel,
    "exemptions": ExemptionModel,
}


@dataclass(frozen=True, slots=True)
class NameList:
    """The patterns of one kind in a file, with their places in it."""

    source: Source
    patterns: tuple[tuple[str, TextSpan], ...]

    @property
    def digest(self) -> str:
        """SHA-256 of the patterns, whatever their order and what else stands in the file."""
        return hashlib.sha256("\n".join(sorted({value for value, _ in self.patterns})).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class PolicyEntry[M: BaseModel]:
    """One named entry, or a test; its model is None if it is invalid."""

    name: str
    source: Source
    place: TextSpan
    node: Node
    model: M | None

    def at(self, *path: str | int) -> TextSpan:
        """The place of the value at a path of keys and indices, or of its nearest existing ancestor."""
        return place_of(self.node, path, self.place)

    def text(self, *path: str | int) -> str | None:
        """The text at a path; None if it is absent or no text."""
        node = led_to(self.node, path)
        return node.text if isinstance(node, Scalar) else None

    def beside(self, file: str) -> Path:
        """The path of a file that the entry names: relative to the policy file's folder, unless it is absolute."""
        return self.source.path.parent / file

    def items(self, *path: str) -> Iterator[tuple[str, TextSpan]]:
        """The texts of a list with their places, also of an invalid entry."""
        node = led_to(self.node, path)
        for item in node.items if isinstance(node, Sequence) else ():
            if isinstance(item, Scalar):
                yield item.text, item.place


@dataclass(slots=True)
class Sections:
    """The content of all files. `whole` is False if a file could not be read, so that names may be missing.

    `root` is the folder of the policy, outside of which a file of names needs a setting.
    """

    root: Path = Path()

    services: dict[str, PolicyEntry[ServiceModel]] = field(default_factory=dict)
    networks: dict[str, PolicyEntry[NetworkModel]] = field(default_factory=dict)
    bans: dict[str, PolicyEntry[BanModel]] = field(default_factory=dict)
    exemptions: dict[str, PolicyEntry[ExemptionModel]] = field(default_factory=dict)
    tests: list[PolicyEntry[TestModel]] = field(default_factory=list)
    lifted: list[PolicyEntry[LiftedModel]] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    stated_settings: dict[str, Any] = field(default_factory=dict)
    """The same as the files state them, in plain values."""
    inventories: dict[Path, Inventory | None] = field(default_factory=dict)
    """By file; None for those that could not be read."""
    name_lists: dict[tuple[Path, PatternKind], NameList | None] = field(default_factory=dict)
    """By file and kind of pattern; None for those that could not be read."""
    whole: bool = True
    settings_at: dict[str, tuple[Source, TextSpan]] = field(default_factory=dict)
    """The file and place of each setting that is set."""

    def devices(self, entry: PolicyEntry[NetworkModel]) -> tuple[Device, ...]:
        """The devices that a network selects; empty if it names no valid inventory."""
        stated = None if entry.model is None else entry.model.devices
        inventory = self.inventory(entry)
        return () if stated is None or inventory is None else inventory.paid_by(stated.paid_by)

    def inventory(self, entry: PolicyEntry[NetworkModel]) -> Inventory | None:
        """The inventory that a network names; None without a valid one, or before it was read."""
        stated = None if entry.model is None else entry.model.devices
        return None if stated is None else self.inventories.get(entry.beside(stated.file))

    def patterns(self, entry: PolicyEntry[ServiceModel], kind: PatternKind) -> Iterator[tuple[str, Source, TextSpan]]:
        """The patterns of a valid service, those of files included, each with the file and place where it stands."""
        names = None if entry.model is None else entry.model.names
        if names is None:
            return
        stated = zip(names.stated(kind), entry.items("names", kind), strict=True)
        yield from ((value, entry.source, place) for value, (_, place) in stated)
        for file in names.files(kind):
            held = self.name_lists.get((entry.beside(file), kind))
            if held is not None:
                yield from ((value, held.source, place) for value, place in held.patterns)

    def zones(self, network: str) -> tuple[str, ...]:
        """The zone that a network states, or else those of the networks that it is made of; several are an error."""
        found: dict[str, None] = {}
        seen: set[str] = set()
        rest = [network]
        while rest:
            entry = self.networks.get(rest.pop())
            model = None if entry is None else entry.model
            if entry is None or model is None or entry.name in seen:
                continue
            seen.add(entry.name)
            if "timezone" in model.model_fields_set or not model.networks:
                found[model.timezone] = None
            else:
                rest += reversed(model.networks)
        return tuple(found)

    def zone(self, entry: PolicyEntry[NetworkModel]) -> str:
        """The time zone of a network; UTC if the networks that it is made of have several."""
        zones = self.zones(entry.name)
        return zones[0] if len(zones) == 1 else "UTC"

    def add(self, source: Source, root: Node, report: Report) -> None:
        """Add the entries of one file, and report its errors."""
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
            elif section == "lifted":
                for item in node.items if isinstance(node, Sequence) else (node,):
                    lifted = shaped(LiftedModel, item, source, item.place, report)
                    self.lifted.append(PolicyEntry("", source, item.place, item, lifted))
            else:
                self._add_named(section, source, node, report)

    def _add_named(self, section: str, source: Source, node: Node, report: Report) -> None:
        if not isinstance(node, Mapping):
            message = f"`{section}` is a mapping from names to entries"
            report.error(source, node.place, Code.WRONG_TYPE, message)
            self.whole = False
            return
        known: dict[str, PolicyEntry[Any]] = getattr(self, section)
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
            known[name] = PolicyEntry(name, source, key.place, value, model)

    def _add_settings(self, source: Source, section: Scalar, node: Node, report: Report) -> None:
        model = shaped(SettingsModel, node, source, section.place, report)
        for name, (key, value) in node.entries.items() if isinstance(node, Mapping) else ():
            if name in self.settings_at:
                first_source, first = self.settings_at[name]
                where = first_source.origin(first)
                report.error(source, key.place, Code.DEFINED_TWICE, f"`{name}` is set twice; first at {where}")
            else:
                self.settings_at[name] = (source, key.place)
                if model is not None:
                    self.settings[name] = getattr(model, name)
                    self.stated_settings[name] = plain(value)

    def _add_tests(self, source: Source, section: Scalar, node: Node, report: Report) -> None:
        if not isinstance(node, Sequence):
            report.error(source, node.place, Code.WRONG_TYPE, "`tests` is a list")
            return
        for item in node.items:
            model = shaped(TestModel, item, source, item.place, report)
            if model is not None and model.host is None and model.url is None:
                report.error(source, item.place, Code.MISSING_KEY, "a test names a `host` or a `url`")
            elif model is not None:
                wrong = _contradiction(model)
                if wrong is not None:
                    report.error(source, place_of(item, (wrong[0],), item.place), Code.BAD_VALUE, wrong[1])
            self.tests.append(PolicyEntry("", source, item.place, item, model))


def _contradiction(model: TestModel) -> tuple[str, str] | None:
    """The key of a test that goes with no other of its keys, and why."""
    plain = model.url is not None and model.url.lower().startswith("http://")
    if model.sni is not None and model.ech is not None:
        return "ech", "`ech: outer` is a name, and `sni: none` says that there is none"
    for key in ("sni", "ech"):
        if getattr(model, key) is not None and (plain or model.transport is TestTransport.DNS):
            return key, f"`{key}` is about a ClientHello, and this test has none"
    if model.url is not None and (plain and model.transport is TestTransport.QUIC):
        return "transport", "QUIC carries no plain HTTP: `https://…`"
    if model.url is not None and model.transport is TestTransport.DNS:
        return "url", "a DNS question has no URL: write a `host`"
    if model.transport is TestTransport.DNS:
        try:
            dns_query(model.host or "")
        except ValueError as error:
            return "host", str(error)
    return None


def zones_of(networks: Iterable[str], sections: Sections) -> tuple[str, ...]:
    """The zones of those networks that are valid, in order and without repeats."""
    valid = (sections.networks[name] for name in networks if name in sections.networks)
    return tuple(dict.fromkeys(sections.zone(entry) for entry in valid if entry.model is not None))


_Path = tuple[str | int, ...]


def shaped[M: BaseModel](model: type[M], node: Node, source: Source, owner: TextSpan, report: Report) -> M | None:
    """The node as a model; None, and errors at their positions, if it is invalid. `owner` is the place of its name."""
    silent = set(_without_value(node))
    valid: M | None = None
    try:
        valid = model.model_validate(plain(node))
    except ValidationError as error:
        for detail in error.errors(include_url=False, include_input=False):
            unknown = detail["type"] == "extra_forbidden"
            place = place_of(node, detail["loc"], owner, key=unknown)
            if unknown:
                silent.discard(place)  # one error is enough
            if place not in silent:
                code, message = _in_our_words(detail, model, led_to(node, detail["loc"]))
                report.error(source, place, code, message)
    for place in silent:
        behind = (source.line(place.line) or "")[place.column - 1 :].partition(":")[2].lstrip()
        cut = behind.startswith("#") and not behind.startswith("# ")
        value = "put what follows in quotes, since `#` begins a comment" if cut else "write one"
        report.error(source, place, Code.WRONG_TYPE, f"this key has no value: {value}, or leave the key out")
    return None if silent else valid


def _without_value(node: Node) -> Iterator[TextSpan]:
    """The places of keys without a value."""
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


def place_of(node: Node, path: _Path, owner: TextSpan, *, key: bool = False) -> TextSpan:
    """The place of the node at `path`, or of its nearest existing ancestor.

    This is the value's place, or its key's if the value is a collection, is empty, or if `key` is set.
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


_MAPPING_TYPES: Final = ("dict_type", "model_type", "model_attributes_type")
_GLUED: Final = re.compile(r"[\w-]+:\S")
_TYPOGRAPHIC: Final = tuple("“”„‘’‚«»")
_SHORT: Final = 60


def _in_our_words(detail: ErrorDetails, model: type[BaseModel], node: Node | None) -> tuple[Code, str]:
    """The code and message for one of pydantic's errors about this node."""
    kind, path = detail["type"], detail["loc"]
    last, written = str(path[-1]) if path else "", node.text if isinstance(node, Scalar) else ""
    if kind in Code:
        message = f"{_subject(path)} {detail['msg']}" if detail["msg"].startswith("must ") else detail["msg"]
        quotes = "; for YAML these quotes are part of the text: write `\"` or `'`"
        return Code(kind), message + (quotes if written.startswith(_TYPOGRAPHIC) else "")
    if kind == "missing":
        return Code.MISSING_KEY, f"`{last}` is missing"
    if kind == "extra_forbidden":
        return _unknown(last, path[:-1], _keys(model, path[:-1]))
    if kind == "too_short":
        return Code.BAD_VALUE, f"{_subject(path)} must not be empty"
    if kind == "list_type" and isinstance(node, Mapping):
        return Code.WRONG_TYPE, f"{_subject(path)} must be a list: begin each item with `- `"
    if kind == "list_type":
        example = written if 0 < len(written) <= _SHORT and written.isprintable() else "…"
        return Code.WRONG_TYPE, f"{_subject(path)} must be a list: `[{example}]`"
    if kind in _MAPPING_TYPES:
        why = ""
        if _GLUED.match(written):
            why = ": a space is missing after the `:`"
        elif isinstance(node, Scalar) and node.null:
            why = ": are its keys, on the lines below, indented further than its name?"
        return Code.WRONG_TYPE, f"{_subject(path)} must be a mapping of keys to values{why}"
    return Code.BAD_VALUE, detail["msg"]


def _unknown(key: str, above: _Path, known: tuple[str, ...]) -> tuple[Code, str]:
    if _GLUED.match(key) and key.partition(":")[0] in known:
        return Code.UNKNOWN_KEY, f"unknown key `{key}`: a space is missing after its `:`"
    if above == ("store",):
        return Code.UNKNOWN_STORE, f"unknown store `{key}`; allowed: {listed(known)}"
    return Code.UNKNOWN_KEY, f"unknown key `{key}`{hint(key, known)}"


def _subject(path: _Path) -> str:
    names = [step for step in path if isinstance(step, str)]
    if not names:
        return "this entry"
    return f"`{names[-1]}`" if names[-1] == path[-1] else f"each item of `{names[-1]}`"


def hint(word: str, allowed: tuple[str, ...]) -> str:
    """The end of a message: the most similar allowed word, or else all of them, however many."""
    return did_you_mean(word, allowed) or f"; allowed: {listed(allowed)}"


def _keys(model: type[BaseModel], path: _Path) -> tuple[str, ...]:
    """The keys, as in YAML, of the model at `path`."""
    for step in path:
        if isinstance(step, str):
            annotation: Any = next((f.annotation for n, f in model.model_fields.items() if step in (n, f.alias)), None)
            parts = (annotation, *getattr(annotation, "__args__", ()))
            model = next((each for each in parts if isinstance(each, type) and issubclass(each, BaseModel)), model)
    return tuple(field.alias or name for name, field in model.model_fields.items())
