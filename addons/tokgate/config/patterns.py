"""What may stand under a service's `names` and `store`: text to canonical patterns, a hint for each common slip."""

import re
from collections.abc import Callable
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

from tokgate.config.diagnostics import Code
from tokgate.config.fields import cidr, text, wrong
from tokgate.policy.names import AddressLiteral, InvalidName, normalise
from tokgate.policy.prefixes import IPNetwork
from tokgate.policy.services import compile_regex, is_public_suffix
from tokgate.policy.stores import STORES, listing

_MAX_REGEX: Final = 1000
_STRANGERS: Final = ("example.org", "www.example.com", "a-0.b.c.example.net", "xn--bcher-kva.example")
"""Names without anything in common: a regex that takes all of them takes every name."""

_PACKAGE: Final = re.compile(r"[A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)+\Z", re.ASCII)
_LISTINGS: Final = {
    "google-play": "https://play.google.com/store/apps/details?id={}",
    "apple": "https://apps.apple.com/app/id{}",
    "microsoft": "https://apps.microsoft.com/detail/{}",
    "amazon": "https://www.amazon.com/dp/{}",
    "galaxy-store": "https://galaxystore.samsung.com/detail/{}",
    "huawei": "https://appgallery.huawei.com/app/{}",
    "apkmirror": "https://www.apkmirror.com/apk/{}/",
    "apkpure": "https://apkpure.com/app/{}",
}
_BY_PACKAGE: Final = {"google-play", "galaxy-store", "apkpure"}
STORE_EXAMPLES: Final = {
    "google-play": "com.example.app",
    "apple": "835599320",
    "microsoft": "9NH2GPH4JZS4",
    "amazon": "B00EXAMPLE",
    "galaxy-store": "com.example.app",
    "huawei": "C100315379",
    "apkmirror": "example-inc/example",
    "apkpure": "com.example.app",
}


def exact(value: Any) -> str:
    """One whole name, canonical."""
    return _name(text(value))


def suffix(value: Any) -> str:
    """A name that stands for itself and all names below it; never a public suffix."""
    name = _name(text(value))
    if is_public_suffix(name):
        raise wrong(
            Code.PUBLIC_SUFFIX,
            f"`{name}` is a public suffix: it would take in the names of everybody registered under it",
        )
    return name


def label(value: Any) -> str:
    """A registrable label, whatever the public suffix: `tiktok` for tiktok.com, tiktok.co.uk."""
    written = text(value)
    if "." in written.strip("."):
        raise wrong(Code.BAD_PATTERN, f"a label holds no dot: write `{written}` under `suffix`")
    return _name(written)


def regex(value: Any) -> str:
    """A regular expression over whole names, in the syntax of RE2."""
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
    if all(compiled.fullmatch(name) for name in _STRANGERS):
        raise wrong(Code.MATCHES_EVERYTHING, f"`{pattern}` matches every name")
    return pattern


def _name(written: str) -> str:
    if written.startswith(("*.", ".")):
        bare = written.lstrip("*.")
        raise wrong(Code.BAD_PATTERN, f"write `{bare}` under `suffix`: it takes in the name itself and all below it")
    if "://" in written or "/" in written:
        host = _host_of(written)
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


def _host_of(url: str) -> str:
    """The host in a URL, with or without its scheme; empty where it has none, or is malformed."""
    try:
        return urlsplit(url if "://" in url else f"//{url}").netloc
    except ValueError:  # brackets that hold no address
        return ""


def address(value: Any) -> IPNetwork:
    """A prefix of a service's addresses."""
    prefix = cidr(value)
    if prefix.prefixlen == 0:
        raise wrong(Code.MATCHES_EVERYTHING, f"`{value}` takes in every address")
    return prefix


def store_id(store: str) -> Callable[[Any], str]:
    """A validator for the identifiers of one store: what its listing's URL would give back."""
    return partial(_store_id, store)


def _store_id(store: str, value: Any) -> str:
    written = text(value)
    shown = listing(_LISTINGS[store].format(written)) if store in _LISTINGS else None
    readable = store not in _LISTINGS or (shown is not None and shown.identifier == written)
    spaced = any(character.isspace() for character in written)
    if readable and not spaced and (store not in _BY_PACKAGE or _PACKAGE.match(written)):
        return written
    by_url = listing(written)
    hint = f": for example `{STORE_EXAMPLES[store]}`" if store in STORE_EXAMPLES else ""
    if by_url is not None and by_url.store == store:
        hint = f": write `{by_url.identifier}`"
    raise wrong(Code.BAD_STORE_ID, f"`{written}` is no identifier of the store `{store}`{hint}")


STORE_NAMES: Final = tuple(STORES)
