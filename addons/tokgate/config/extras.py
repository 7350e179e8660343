"""The extras of the package: what they bring, and how to install one that is missing."""

import json
from collections.abc import Mapping
from enum import StrEnum
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Final
from urllib.parse import unquote, urlsplit


class Extra(StrEnum):
    """A word in the brackets of `pip install 'tokgate[...]'`. `all` is these together."""

    REVIEW = "review"
    REPORT = "report"
    CALENDAR = "calendar"
    METRICS = "metrics"
    GATEWAY = "gateway"
    PHONES = "phones"
    ANCHOR = "anchor"
    CLICKHOUSE = "clickhouse"


MODULES: Final[Mapping[Extra, tuple[str, ...]]] = MappingProxyType(
    {
        Extra.REVIEW: ("duckdb", "drawsvg", "starlette", "uvicorn", "anyio"),
        Extra.REPORT: ("duckdb", "drawsvg"),
        Extra.CALENDAR: ("holidays",),
        Extra.METRICS: ("prometheus_client",),
        Extra.GATEWAY: ("pyroute2",),
        Extra.PHONES: ("pyroute2", "segno"),
        Extra.ANCHOR: ("rfc3161_client",),
        Extra.CLICKHOUSE: ("clickhouse_connect", "sqlglot"),
    }
)
"""The modules of each extra that the base installation lacks; pyproject.toml has the packages."""


def missing_extra(extra: Extra, *needed: str) -> str | None:
    """What is missing for an extra, and how to install it, in a sentence; None where all is there. Imports nothing.

    `needed`: only these modules of it.
    """
    missing = [module for module in needed or MODULES[extra] if find_spec(module) is None]
    if not missing:
        return None
    return f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing: pip install {_source(extra)}"


def _source(extra: Extra) -> str:
    """Where this tokgate came from, with an extra, as pip takes it (PEP 610); its wheel where that is not known.

    Never the bare name: a package index may have a package of this name by somebody else.
    """
    distribution = metadata.distribution("tokgate")
    came_from = json.loads(distribution.read_text("direct_url.json") or "{}")
    place = Path(unquote(urlsplit(came_from.get("url", "")).path))
    if place.is_absolute() and place.exists():
        editable = "-e " if came_from.get("dir_info", {}).get("editable") else ""
        return f"{editable}'{place}[{extra}]'"
    return f"'./tokgate-{distribution.version}-py3-none-any.whl[{extra}]'"
