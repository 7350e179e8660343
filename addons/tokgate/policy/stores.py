"""App stores: which store listings a request shows, so that a ban can refuse the page from which an app is installed.

Reads URLs and bodies only; the service files say which listings belong to which service.
"""

import re
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, unquote, unquote_plus, urlsplit

from tokgate.policy.values import Origin

MAX_IDENTIFIERS: Final = 64
"""Identifiers that are read out of one URL. Nobody needs more than one; beyond this the URL is no store page's."""


@dataclass(frozen=True, slots=True)
class StoreListing:
    """An app's identifier in one store, as it stands in the listing's URL."""

    store: str
    identifier: str
    origin: Origin | None = None


_NOWHERE: Final = r"(?!)()"
_PACKAGE: Final = r"[A-Za-z][A-Za-z0-9_]*(?:\.[A-Za-z0-9_]+)+"


@dataclass(frozen=True, slots=True)
class Store:
    """An app store: the hosts of its listings, and where identifiers stand in a URL. Expressions are of ASCII."""

    hosts: Set[str]
    path: str = _NOWHERE
    """Finds identifiers in a decoded path."""
    keys: Set[str] = frozenset()
    """The parameters of the query whose values are identifiers, in lower case."""
    shape: str = _PACKAGE
    """What an identifier has to be."""
    example: str = "com.example.app"
    dedicated: bool = True
    """The hosts carry nothing but store pages."""
    fragment: bool = False
    """The path may stand in the fragment. It is never sent, but written in policies."""

    @property
    def fronts(self) -> Set[str]:
        """The only hosts that `inspect_stores` opens."""
        return self.hosts if self.dedicated else frozenset()


STORES: Final[Mapping[str, Store]] = {
    "google-play": Store({"play.google.com", "market.android.com"}, keys={"id", "ids", "doc", "docid", "q"}),
    "apple": Store(
        {"apps.apple.com", "itunes.apple.com"},
        r"/(?:[iI][dD])?([0-9]{6,})(?=/|\Z)",
        keys={"id", "ids", "adamid", "salableadamid"},
        shape=r"[0-9]{6,}",
        example="835599320",
    ),
    "microsoft": Store(
        {"apps.microsoft.com"},
        r"/(?i:detail|productid)/(?:[^/]+/)?([0-9A-Za-z]{12})(?=/|\Z)",
        keys={"productid"},
        shape=r"[0-9A-Za-z]{12}",
        example="9NH2GPH4JZS4",
    ),
    "amazon": Store(
        {"www.amazon.com", "www.amazon.de", "www.amazon.fr", "www.amazon.nl", "www.amazon.com.be", "www.amazon.co.uk"},
        r"/(?:dp|gp/product)/([0-9A-Z]{10})(?=/|\Z)",
        keys={"asin"},
        shape=r"[0-9A-Z]{10}",
        example="B00EXAMPLE",
        dedicated=False,
    ),
    "galaxy-store": Store(
        {"galaxystore.samsung.com", "apps.samsung.com"}, r"/(?i:detail)/([A-Za-z0-9_.]+)", keys={"appid"}
    ),
    "huawei": Store(
        {"appgallery.huawei.com"},
        r"/(?i:app)/(C[0-9]+)",
        keys={"id", "appid"},
        shape=r"C[0-9]+",
        example="C100315379",
        fragment=True,
    ),
    "apkmirror": Store(
        {"www.apkmirror.com", "apkmirror.com"},
        r"\A/apk/([^/]+/[^/]+)(?=/|\Z)",
        shape=r"[^/\s]+/[^/\s]+",
        example="example-inc/example",
    ),
    "apkpure": Store(
        {"apkpure.com", "apkpure.net", "d.apkpure.com", "d.apkpure.net", "m.apkpure.com"},
        rf"\A(?:/b/[A-Za-z]+|/[^/]+(?:/[^/.]+)?)/([a-z]{_PACKAGE.removeprefix('[A-Za-z]')})(?=/|\Z)",
    ),
    "apple-bundle": Store(  # in no URL: for `tokgate export mdm`; CFBundleIdentifier (Apple, Information Property List)
        frozenset(), shape=r"[A-Za-z][A-Za-z0-9-]*(?:\.[A-Za-z0-9-]+)*", example="com.example.App"
    ),
}
"""The stores that policies may name, by the word used in YAML."""

_BY_HOST: Final = {host: (name, store) for name, store in STORES.items() for host in store.hosts}
_ASKING: Final = {"google-play": "https://play.google.com/store/apps/details?id={}"}
"""Stores whose own page asks for listings in the body of a POST request, and the page of a listing."""
_BATCH: Final = re.compile(r"/(?i:batchexecute)(?=/|\Z)|\A/(?i:store/xhr)/")
_IN_BODY: Final = re.compile(rf"(?<![A-Za-z0-9_.]){_PACKAGE}", re.ASCII)
_JSON_ESCAPE: Final = re.compile(r"\\+u([0-9A-Fa-f]{4})")


def listing(url: str) -> StoreListing | None:
    """The first store listing that an absolute `http(s)` URL shows; None for anything else, however malformed."""
    return next(iter(listings(url)), None)


def listings(url: str) -> tuple[StoreListing, ...]:
    """Every store listing that a URL might show, whichever of its parameters the store's server goes by."""
    try:
        parts = urlsplit(url)
        found = _BY_HOST.get((parts.hostname or "").rstrip("."))
    except ValueError:
        return ()
    if found is None:
        return ()
    name, store = found
    shown = dict.fromkeys(_identifiers(store, parts))
    return tuple(StoreListing(name, identifier) for identifier in list(shown)[:MAX_IDENTIFIERS])


def store_of_front(host: str) -> str | None:
    """The name of the store whose dedicated host this is; None if it is none."""
    found = _BY_HOST.get(host)
    return found[0] if found and host in found[1].fronts else None


def asks_in_body(url: str) -> str | None:
    """The store to which a URL leads if a POST to it says in its body which listing is asked for."""
    try:
        parts = urlsplit(url)
        store = store_of_front((parts.hostname or "").rstrip("."))
    except ValueError:
        return None
    return store if store in _ASKING and _BATCH.search(_path(parts.path)) else None


def page_of(store: str, identifier: str) -> str:
    """The URL of a listing in a store that is asked for listings in bodies."""
    return _ASKING[store].format(identifier)


def identifiers_in_body(body: bytes) -> frozenset[str]:
    """Whatever in a form, or in JSON inside it, could be the package of an app, in lower case.

    Percent-encoding is taken off once, as by the server; escapes of JSON however deep it is nested.
    """
    text = unquote_plus(body.decode("latin-1"))
    text = _JSON_ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), text)
    return frozenset(match[0].lower() for match in _IN_BODY.finditer(text))


def _identifiers(store: Store, parts: SplitResult) -> Iterator[str]:
    for path in (_path(parts.path), *((_path(parts.fragment),) if store.fragment else ())):
        yield from re.findall(store.path, path, re.ASCII)
    # Parameters of the query and of the path, whichever separator the server knows.
    segments = parts.path.partition(";")[2].replace("/", ";")
    for text in re.split("[&;?]", f"{parts.query};{segments}"):
        key, _, value = text.partition("=")
        if unquote_plus(key).strip().lower() in store.keys:
            yield from re.findall(store.shape, unquote_plus(value), re.ASCII)


def _path(path: str) -> str:
    """A path as servers look it up: decoded once, without parameters and empty or dotted segments."""
    kept: list[str] = []
    for written in unquote(path).replace("\\", "/").split("/"):
        segment = written.partition(";")[0]
        if segment == "..":
            del kept[-1:]
        elif segment not in ("", "."):
            kept.append(segment)
    return "/" + "/".join(kept)
