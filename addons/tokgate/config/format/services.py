"""Services in policy files: name patterns, addresses and store listings, with hints for common mistakes."""

import re
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, WithJsonSchema, create_model

from tokgate.config.diagnostics import Code
from tokgate.config.format.networks import cidr
from tokgate.config.format.times import Day
from tokgate.config.format.values import Flag, Line, Model, OneOf, Parsed, Text, one_line, text, wrong
from tokgate.policy.services import ServiceSource, compile_regex, is_public_suffix
from tokgate.policy.stores import STORES, listing
from tokgate.policy.values import Word
from tokgate.policy.values.hostname import AddressLiteral, InvalidName, normalise
from tokgate.policy.values.prefixes import IPNetwork

_MAX_REGEX: Final = 1000
_UNRELATED: Final = ("example.org", "www.example.com", "a-0.b.c.example.net", "xn--bcher-kva.example")
"""Unrelated names: a regex that matches all of them is taken to match every name."""


class ListFormat(Word):
    """The formats of public lists, by the words of `--format` and of `source.format`."""

    DOMAIN_LIST = "domain-list-community", "Lists of v2fly/domain-list-community."
    HOSTS = "hosts", "hosts(5), or names one a line."


@dataclass(frozen=True, slots=True)
class NameFile:
    """A file of patterns, one a line, that stands for them; its path is relative to the policy file."""

    path: str


def exact(value: Any) -> str:
    """A single host name in canonical form."""
    return _name(text(value))


def suffix(value: Any) -> str:
    """A name that matches itself and all names below it; no public suffix."""
    name = _name(text(value))
    if is_public_suffix(name):
        raise wrong(
            Code.PUBLIC_SUFFIX,
            f"`{name}` is a public suffix: it would take in the names of everybody registered under it",
        )
    return name


def label(value: Any) -> str:
    """A registrable label under any public suffix: `tiktok` for tiktok.com, tiktok.co.uk."""
    written = text(value)
    if "." in written.strip("."):
        raise wrong(Code.BAD_PATTERN, f"a label holds no dot: write `{written}` under `suffix`")
    return _name(written)


def regex(value: Any) -> str:
    """A regular expression for whole names, in RE2 syntax."""
    pattern = text(value)
    if len(pattern) > _MAX_REGEX:
        raise wrong(Code.BAD_REGEX, f"a regex of {len(pattern)} characters: at most {_MAX_REGEX}; list names instead")
    try:
        compiled = compile_regex(pattern)
    except ValueError as error:
        reason = str(error)
        if "perl operator" in reason or re.search(r"\\[1-9]", reason):
            reason += " (look-around and back-references can't be matched in linear time)"
        raise wrong(Code.BAD_REGEX, f"not a regex that matches in linear time (RE2): {reason}") from None
    if all(compiled.fullmatch(name) for name in _UNRELATED):
        raise wrong(Code.MATCHES_EVERYTHING, f"`{pattern}` matches every name")
    return pattern


def _name(written: str) -> str:
    if written.startswith(("*.", ".")):
        bare = written.lstrip("*.")
        raise wrong(Code.BAD_PATTERN, f"write `{bare}` under `suffix`: it takes in the name itself and all below it")
    if "://" in written or "/" in written:
        try:
            host = urlsplit(written if "://" in written else f"//{written}").netloc
        except ValueError:  # brackets that hold no address
            host = ""
        raise wrong(Code.BAD_PATTERN, f"`{written}` is not a host name: write `{host}`" if host else "not a host name")
    if "*" in written:
        raise wrong(Code.BAD_PATTERN, f"`{written}`: wildcards are written under `suffix`, or as a `regex`")
    name = normalise(written)
    if isinstance(name, AddressLiteral):
        raise wrong(Code.BAD_PATTERN, f"`{written}` is an address: write it under `addresses`")
    if isinstance(name, InvalidName):
        raise wrong(Code.BAD_PATTERN, f"`{written}` is no host name: {name.problem}")
    if ":" in written:
        raise wrong(Code.BAD_PATTERN, f"a pattern has no port: write `{name.value}`")
    return name.value


def address(value: Any) -> IPNetwork:
    """An address prefix of a service; not one that holds every address."""
    prefix = cidr(value)
    if prefix.prefixlen == 0:
        raise wrong(Code.MATCHES_EVERYTHING, f"`{value}` takes in every address")
    return prefix


def store_id(store: str, value: Any) -> str:
    """An identifier of one store, as it occurs in URLs of listings."""
    written = text(value)
    if re.fullmatch(STORES[store].shape, written, re.ASCII):
        return written
    by_url = listing(written)
    meant = by_url.identifier if by_url is not None and by_url.store == store else None
    hint = f"for example `{STORES[store].example}`" if meant is None else f"write `{meant}`"
    raise wrong(Code.BAD_STORE_ID, f"`{written}` is no identifier of the store `{store}`: {hint}")


_NAME_FILE: Final = {
    "type": "object",
    "properties": {
        "file": {
            "type": "string",
            "minLength": 1,
            "description": "A file with one of them a line, beside the policy file or below its folder.",
        }
    },
    "required": ["file"],
    "additionalProperties": False,
}


def _patterns(parsed: Parsed) -> Any:
    """The type of a service's patterns of one kind: a list of them and of files of them, or one file."""

    def one(value: Any) -> str | NameFile:
        if not isinstance(value, dict):
            return str(parsed.parse(value))
        unknown = next((key for key in value if key != "file"), None)
        if unknown is not None:
            raise wrong(Code.UNKNOWN_KEY, f"unknown key `{unknown}`: a file of names is written `{{file: names.txt}}`")
        if "file" not in value:
            raise wrong(Code.MISSING_KEY, "`file` is missing: a file of names is written `{file: names.txt}`")
        return NameFile(one_line(value["file"]))

    def as_list(value: Any) -> Any:
        return [value] if isinstance(value, dict) else value

    shape = {"anyOf": [{"type": "array", "items": {"anyOf": [parsed.schema, _NAME_FILE]}}, _NAME_FILE]}
    return Annotated[list[Annotated[str | NameFile, Parsed(one)]], BeforeValidator(as_list), WithJsonSchema(shape)]


_SUFFIXES: Final = _patterns(Parsed(suffix))
_NAMES: Final = _patterns(Parsed(exact))
_LABELS: Final = _patterns(Parsed(label, "One label, without dots: `tiktok`.", r"^[^.]+$"))
_REGEXES: Final = _patterns(Parsed(regex, maxLength=1000))


class NamesModel(Model):
    """Name patterns. They match whole labels of a host name, never parts of a word."""

    suffix: _SUFFIXES = Field(  # type: ignore[valid-type]
        default=[],
        description="These names and all names below them. No public suffixes.",
        examples=[["tiktok.com"], {"file": "names.txt"}],
    )
    exact: _NAMES = Field(  # type: ignore[valid-type]
        default=[], description="These names alone.", examples=[["analytics.example.org"]]
    )
    label: _LABELS = Field(  # type: ignore[valid-type]
        default=[],
        description="The label registered under any public suffix: `tiktok` matches tiktok.com, tiktok.co.uk and all "
        "names below them.",
        examples=[["tiktok"]],
    )
    regex: _REGEXES = Field(  # type: ignore[valid-type]
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


def _store_listings(store: str) -> tuple[Any, Any]:
    """A key of `store`; Apple's identifiers are numbers, which need no quotes."""
    kinds = ["string", "integer"] if store == "apple" else "string"
    identifier = Annotated[str, Parsed(partial(store_id, store), type=kinds)]
    examples = [[STORES[store].example]]
    return list[identifier], Field(default=[], description=f"Listings in `{store}`.", examples=examples)


_STORES: Any = {store: _store_listings(store) for store in STORES}
StoresModel: Any = create_model("StoresModel", __base__=Model, __doc__="An app's identifiers, by store.", **_STORES)


class SourceModel(Model):
    """The public list from which `tokgate service import` took the names. Nothing is fetched from it."""

    of: Line = Field(
        alias="list",
        description="Its URL, or the name of its file.",
        examples=["https://github.com/v2fly/domain-list-community"],
    )
    format: Annotated[ListFormat, OneOf(*ListFormat)] = Field(description="Its format.")
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

    def built(self) -> ServiceSource:
        """The field `of` is called as its key."""
        values = self.values()
        day = None if self.date is None else self.date.format_iso()
        return ServiceSource(list=values.pop("of"), **values | {"date": day})


class ServiceModel(Model):
    """A named set of name patterns, addresses and store listings."""

    title: Line | None = Field(default=None, description="What people call it. Default: the name.", examples=["TikTok"])
    description: Text | None = Field(
        default=None, description="For those who read the policy.", examples=["The app, its site and its API"]
    )
    source: SourceModel | None = Field(
        default=None,
        description="Where the names were imported from.",
        examples=[{"list": "https://www.example.org/clips.txt", "format": "hosts", "date": "2026-08-19"}],
    )
    names: NamesModel = Field(
        default_factory=NamesModel,
        description="Which host names belong to it.",
        examples=[{"suffix": ["tiktok.com"], "label": ["tiktok"]}],
    )
    addresses: list[Annotated[IPNetwork, Parsed(address)]] = Field(
        default=[], description="Prefixes that belong to this service alone.", examples=[["192.0.2.0/24"]]
    )
    store: StoresModel = Field(
        default_factory=StoresModel,
        description="App store listings: what `inspect_stores` looks for.",
        examples=[{"apple": ["835599320"]}],
    )
