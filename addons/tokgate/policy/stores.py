"""App stores: which store listing a URL shows, for blocking installation as far as a proxy reaches.

Only reads URLs; which listings belong to which service is said by the service files.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, parse_qs, urlsplit

from tokgate.policy.origin import Origin


@dataclass(frozen=True, slots=True)
class StoreListing:
    """An app's identifier in one store, as it stands in the listing's URL."""

    store: str
    identifier: str
    origin: Origin | None = None


@dataclass(frozen=True, slots=True)
class Store:
    """An app store: the hosts of its listings, and how to read the identifier out of a URL.

    `fronts` are hosts that carry nothing but store pages: the only ones that `inspect_stores` opens.
    """

    hosts: frozenset[str]
    fronts: frozenset[str]
    identifier: Callable[[SplitResult], str | None]


def _query(key: str) -> Callable[[SplitResult], str | None]:
    def read(url: SplitResult) -> str | None:
        values = parse_qs(url.query, max_num_fields=64).get(key)
        return values[0] if values else None

    return read


def _path(pattern: str, *, fragment: bool = False) -> Callable[[SplitResult], str | None]:
    compiled = re.compile(pattern, re.ASCII)

    def read(url: SplitResult) -> str | None:
        found = compiled.search(url.path) or (compiled.search(url.fragment) if fragment else None)
        return found[1] if found else None

    return read


def _store(hosts: set[str], read: Callable[[SplitResult], str | None], *, dedicated: bool = True) -> Store:
    return Store(frozenset(hosts), frozenset(hosts if dedicated else ()), read)


STORES: Final[Mapping[str, Store]] = {
    "google-play": _store({"play.google.com", "market.android.com"}, _query("id")),
    "apple": _store({"apps.apple.com", "itunes.apple.com"}, _path(r"/id([0-9]{6,})(?:/|\Z)")),
    "microsoft": _store({"apps.microsoft.com"}, _path(r"/detail/(?:[^/]+/)?([0-9A-Za-z]{12})(?:/|\Z)")),
    "amazon": _store(
        {"www.amazon.com", "www.amazon.de", "www.amazon.fr", "www.amazon.nl", "www.amazon.com.be", "www.amazon.co.uk"},
        _path(r"/(?:dp|gp/product)/([0-9A-Z]{10})(?:/|\Z)"),
        dedicated=False,
    ),
    "galaxy-store": _store({"galaxystore.samsung.com", "apps.samsung.com"}, _path(r"/detail/([A-Za-z0-9_.]+)")),
    "huawei": _store({"appgallery.huawei.com"}, _path(r"/app/(C[0-9]+)", fragment=True)),
    "apkmirror": _store({"www.apkmirror.com", "apkmirror.com"}, _path(r"\A/apk/([^/]+/[^/]+)(?:/|\Z)")),
    "apkpure": _store(
        {"apkpure.com", "apkpure.net", "d.apkpure.com", "d.apkpure.net", "m.apkpure.com"},
        _path(r"\A(?:/b/[A-Za-z]+|/[^/]+(?:/[^/.]+)?)/([a-z][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)+)(?:/|\Z)"),
    ),
}
"""The stores that policies may name, by the word used in YAML."""

_BY_HOST: Final = {host: (name, store) for name, store in STORES.items() for host in store.hosts}


def listing(url: str) -> StoreListing | None:
    """The store listing that an absolute `http(s)` URL shows; None for anything else, however malformed."""
    try:
        parts = urlsplit(url)
        found = _BY_HOST.get((parts.hostname or "").rstrip("."))
        identifier = found[1].identifier(parts) if found else None
    except ValueError:
        return None
    return StoreListing(found[0], identifier) if found and identifier else None


def store_of_front(host: str) -> str | None:
    """The store whose dedicated host this is."""
    found = _BY_HOST.get(host)
    return found[0] if found and host in found[1].fronts else None
