"""The service file made of a list: its YAML, with where the names come from."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Final

import yaml

from tokgate.config.service_lists.entries import EntryKind
from tokgate.policy.services import PatternKind, Service, ServiceSource

_HEAD: Final = """\
# yaml-language-server: $schema=../../schema/policy.schema.json
#
# Made by `tokgate service import`. `tokgate service update {name} LIST` shows what a newer list changes; with
# --write it writes this file again, without comments of yours.
"""

Names = Mapping[EntryKind, list[str]]
"""Patterns and addresses by kind."""

NAME_KINDS: Final = (EntryKind.SUFFIX, EntryKind.EXACT, EntryKind.REGEX)
"""The kinds that stand under `names`, which are those of the same value in `PatternKind`."""


def names_of(service: Service) -> dict[EntryKind, list[str]]:
    """What a service has by now; labels, which no list has, are not among them."""
    names = {
        kind: [each.value for each in service.patterns if each.kind is PatternKind(kind.value)] for kind in NAME_KINDS
    }
    return {**names, EntryKind.ADDRESS: [str(prefix) for prefix in service.addresses]}


def service_file(name: str, title: str, source: ServiceSource, names: Names, before: Service | None = None) -> str:
    """The text of the file. Description, labels and store listings are those of `before`, since no list has any."""
    said: dict[str, Any] = {"title": title}
    if before is not None and before.description is not None:
        said["description"] = before.description
    said["source"] = {key: value for key, value in source_keys(source).items() if value}
    by_kind: dict[str, list[str]] = {kind.value: list(names.get(kind, ())) for kind in NAME_KINDS}
    stores: dict[str, list[str]] = {}
    if before is not None:
        by_kind["label"] = [each.value for each in before.patterns if each.kind is PatternKind.LABEL]
        for listing in before.stores:
            stores.setdefault(listing.store, []).append(listing.identifier)
    said["names"] = {kind: values for kind, values in by_kind.items() if values}
    said["addresses"] = list(names.get(EntryKind.ADDRESS, ()))
    said["store"] = stores
    said = {key: value for key, value in said.items() if value}
    body = yaml.safe_dump({"version": 1, "services": {name: said}}, sort_keys=False, allow_unicode=True, width=1 << 20)
    return _HEAD.format(name=name) + body


def source_keys(source: ServiceSource) -> dict[str, Any]:
    """The keys of `source` as they stand in YAML."""
    values = {each.name: getattr(source, each.name) for each in fields(source)}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}
