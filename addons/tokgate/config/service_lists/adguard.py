"""Reads AdGuard's files of blocked services: JSON with all, or YAML with one, each with rules of an ad blocker."""

import json
from collections.abc import Mapping
from typing import Any, Final

import yaml

from tokgate.config.service_lists.adblock import read_rule
from tokgate.config.service_lists.entries import Place, ServiceList
from tokgate.config.yaml.did_you_mean import did_you_mean

_LISTS: Final = ("blocked_services", "services")


class NoSuchPart(ValueError):
    """The file has several services, and the one that is asked for isn't among them."""


def read_adguard(file: str, text: str, part: str) -> ServiceList:
    """Read the rules of the service `part`, or of the only one there is.

    Raises ValueError: the file is none of AdGuard's; NoSuchPart.
    """
    services = _services(text)
    chosen = services.get(part) or (next(iter(services.values())) if len(services) == 1 else None)
    if chosen is None:
        hint = did_you_mean(part, services)
        raise NoSuchPart(f"the file has {len(services)} services, and none is `{part}`{hint}")
    found = ServiceList()
    if isinstance(chosen.get("name"), str):
        found.said["title"] = chosen["name"]
    lines = text.splitlines()
    for rule in chosen["rules"]:
        written = str(rule)
        shown = (json.dumps(written), json.dumps(written, ensure_ascii=False), written)
        number = next((n for n, line in enumerate(lines, 1) if any(each in line for each in shown)), 1)
        read_rule(found, Place(file, number), written)
    return found


def _services(text: str) -> dict[str, Mapping[str, Any]]:
    """The services by identifier. Raises ValueError."""
    try:
        document = json.loads(text) if text.lstrip().startswith(("{", "[")) else yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"neither JSON nor YAML: {error}") from None
    held = (
        next((document[key] for key in _LISTS if key in document), document) if isinstance(document, dict) else document
    )
    each = held if isinstance(held, list) else [held]
    services: dict[str, Mapping[str, Any]] = {
        str(one["id"]): one
        for one in each
        if isinstance(one, dict) and "id" in one and isinstance(one.get("rules"), list)
    }
    if not services:
        raise ValueError("it holds no service with `id` and `rules`")
    return services
