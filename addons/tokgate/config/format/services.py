"""Services in policy files: name patterns, addresses and store listings."""

from typing import Any

from pydantic import Field, create_model

from tokgate.config.format import name_patterns
from tokgate.config.format.base import Model
from tokgate.config.format.choices import ListFormatChoice
from tokgate.config.format.field_types import (
    Day,
    ExactPattern,
    Flag,
    LabelPattern,
    Line,
    RegexPattern,
    ServiceAddress,
    SuffixPattern,
    Text,
    patterns,
    store_id,
)
from tokgate.config.format.name_patterns import NameFile


class NamesModel(Model):
    """Name patterns. They match whole labels of a host name, never parts of a word."""

    suffix: patterns(SuffixPattern) = Field(  # type: ignore[valid-type]
        default=[],
        description="These names and all names below them. No public suffixes.",
        examples=[["tiktok.com"], {"file": "names.txt"}],
    )
    exact: patterns(ExactPattern) = Field(  # type: ignore[valid-type]
        default=[], description="These names alone.", examples=[["analytics.example.org"]]
    )
    label: patterns(LabelPattern) = Field(  # type: ignore[valid-type]
        default=[],
        description="The label registered under any public suffix: `tiktok` matches tiktok.com, tiktok.co.uk and all "
        "names below them.",
        examples=[["tiktok"]],
    )
    regex: patterns(RegexPattern) = Field(  # type: ignore[valid-type]
        default=[],
        description="Regular expressions (RE2 syntax, linear time) that match the whole name, in lower case, without "
        "a trailing dot.",
        examples=[["p16-(va|sg)-default\\.akamaized\\.net"]],
    )

    def stated(self, kind: str) -> list[str]:
        """The patterns that the policy file itself states."""
        return [each for each in getattr(self, kind) if isinstance(each, str)]

    def files(self, kind: str) -> list[str]:
        """The files of patterns that it names."""
        return [each.path for each in getattr(self, kind) if isinstance(each, NameFile)]


_STORE_IDS: Any = {
    name: (
        list[store_id(name)],  # type: ignore[misc]
        Field(
            default=[], description=f"Listings in `{name}`.", examples=[[name_patterns.STORE_EXAMPLES.get(name, "…")]]
        ),
    )
    for name in name_patterns.STORE_NAMES
}


StoresModel: Any = create_model("StoresModel", __base__=Model, __doc__="An app's identifiers, by store.", **_STORE_IDS)


class SourceModel(Model):
    """The public list from which `tokgate service import` took the names. Nothing is fetched from it."""

    of: Line = Field(
        alias="list",
        description="Its URL, or the name of its file.",
        examples=["https://github.com/v2fly/domain-list-community"],
    )
    format: ListFormatChoice = Field(description="Its format.")
    part: Line | None = Field(
        default=None, description="Which of the services in the list, if it has several.", examples=["deepseek"]
    )
    revision: Line | None = Field(
        default=None, description="Of which revision it is: a commit, a version or a digest.", examples=["c975cce"]
    )
    licence: Line | None = Field(default=None, description="Under which licence it is published.", examples=["MIT"])
    date: Day | None = Field(default=None, description="Of which day it is.", examples=["2026-08-19"])
    attributes: list[Line] = Field(
        default=[],
        description="Only entries with one of these attributes were taken, and none with those that begin with `-`.",
        examples=[["!cn", "-ads"]],
    )
    subdomains: Flag = Field(default=False, description="Single hosts were taken with all names below them.")
    keywords: Flag = Field(default=False, description="Keywords were taken as regular expressions.")


class ServiceModel(Model):
    """A named set of name patterns, addresses and store listings."""

    title: Line | None = Field(default=None, description="What people call it. Default: the name.", examples=["TikTok"])
    description: Text | None = Field(
        default=None, description="For those who read the policy.", examples=["The app, its site and its API"]
    )
    source: SourceModel | None = Field(
        default=None,
        description="Where the names were imported from.",
        examples=[{"list": "https://www.example.org/clips.txt", "format": "adblock", "date": "2026-08-19"}],
    )
    names: NamesModel = Field(
        default_factory=NamesModel,
        description="Which host names belong to it.",
        examples=[{"suffix": ["tiktok.com"], "label": ["tiktok"]}],
    )
    addresses: list[ServiceAddress] = Field(
        default=[], description="Prefixes that belong to this service alone.", examples=[["192.0.2.0/24"]]
    )
    store: StoresModel = Field(
        default_factory=StoresModel,
        description="App store listings: what `inspect_stores` looks for.",
        examples=[{"apple": ["835599320"]}],
    )
