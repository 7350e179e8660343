"""HTTP requests as policy and log see them: every name that a request shows, what can be answered, and its body.

Navigation requests of browsers, whose response is shown as a page, are told by Fetch Metadata. A body matters where it
says what is asked for of an app store, and where a server that ignores it goes on reading at its first octet: only its
beginning, since a server that finds no request there answers 400 and closes.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Final
from urllib.parse import unquote

from mitmproxy.http import Headers, HTTPFlow, Request
from mitmproxy.net.http.http1 import expected_http_body_size

from tokgate.mitm.client_connection import ClientConnection
from tokgate.policy import stores
from tokgate.policy.decide import Sighting
from tokgate.policy.decision import Signal
from tokgate.policy.observation import HttpSeen
from tokgate.policy.values.hostname import parse_address, public_suffix
from tokgate.traffic import seen as seen_traffic
from tokgate.traffic.admission import Admission, admit
from tokgate.traffic.enforcer import Enforcer
from tokgate.traffic.seen import Arrival
from tokgate.wire import host_names
from tokgate.wire.proxy_request import read_authority

MAX_BODY: Final = 65536
"""Octets of request body that are read so that a page can be answered; senders of more are cut off."""
_STRAY: Final = frozenset(b"\r\n\0")
_IN_TARGETS: Final = re.compile(r"[\x00-\x20\x7f]")
_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OTHER_HTTP: Final = re.compile(r"h2c?|http|tls", re.IGNORECASE)
"""Protocols to which a connection could be upgraded that ask for hosts by name themselves."""


def authorities(request: Request) -> tuple[str, ...]:
    """Every authority that a request names, as sent: the target's, `:authority`, each Host field."""
    # `Request.authority` decodes A-labels
    found = [request.data.authority.decode("utf-8", "surrogateescape"), *request.headers.get_all("host")]
    return tuple(dict.fromkeys(authority for authority in found if authority))


_IN_PATH: Final = re.compile(r"/[/\\]+([^/\\?#]+)")


def authority_in_path(request: Request) -> str:
    """What servers that resolve a target like a reference take for its authority (RFC 3986 §4.2), without user info.

    Paths also begin so by mistake, before a folder's name: beside a Host field only a name on the internet counts.
    """
    found = _IN_PATH.match(request.path)
    authority = "" if found is None else unquote(found[1], "latin-1").rpartition("@")[2]
    if authorities(request) and public_suffix(authority.partition(":")[0]) is None:
        return ""
    return authority


def can_be_dialled(host: str) -> bool:
    """Whether a destination as mitmproxy has it is one that policy and resolver read alike."""
    return host.isascii() and host_names.can_be_dialled(host.partition("%")[0].encode("ascii"))


def ambiguity(request: Request) -> str | None:
    """Why proxy, resolver and origin might each read a request in another way, if so. No conforming client sends it."""
    if len(request.headers.get_all("host")) > 1 or None in map(read_authority, _named(request)):  # RFC 9112 §3.2: 400
        return "the host is no host name as everybody writes it"
    if not can_be_dialled(request.data.host):
        return "the host is no name, and no address as everybody writes it"
    if not _TOKEN.fullmatch(request.method) or _IN_TARGETS.search(request.path):  # HTTP/2 can carry them
        return "the method or the target has characters that must not be there"
    if not request.path.startswith("/") and not (request.path == "*" and request.method == "OPTIONS"):
        return "the target is no path"  # RFC 9113 §8.3.1: a URL there becomes the target of HTTP/1
    # CR, LF and NUL end a field for some (RFC 9110 §5.5); folded lines, which mitmproxy keeps, are obsolete.
    if any(not _STRAY.isdisjoint(part) for field in request.headers.fields for part in field):
        return "a field goes on in the next line, or has a character that ends it for some servers"
    return None


def mend(request: Request) -> bool:
    """Put equal Host fields into one and folded fields on a line, as proxies may (RFC 9112 §5.2); whether any was."""
    before, hosts = request.headers.fields, request.headers.get_all("host")
    if len(hosts) > 1 and len(set(hosts)) == 1:
        request.headers["host"] = hosts[0]
    request.headers.fields = tuple((name, value.replace(b"\r\n ", b" ")) for name, value in request.headers.fields)
    return request.headers.fields != before


def _named(request: Request) -> tuple[str, ...]:
    return (*authorities(request), *filter(None, [authority_in_path(request)]))


def sightings(flow: HTTPFlow, connection: ClientConnection) -> tuple[Sighting, ...]:
    """Every name that a request and the connection that it came by show."""
    request = flow.request
    hosts = [a.host for a in map(read_authority, _named(request)) if a is not None]
    target = request.data.host
    if target and (parse_address(target) is None or not hosts):
        hosts.append(target)
    hosts = list(dict.fromkeys(hosts))
    seen = [Sighting(Signal.HTTP_HOST, host) for host in hosts]
    if flow.client_conn.sni:
        seen.append(Sighting(Signal.SNI, flow.client_conn.sni))
    if connection.connect and connection.connect not in hosts:
        seen.append(Sighting(Signal.HTTP_HOST, connection.connect))
    seen += [Sighting(Signal.URL, _url(request, host)) for host in hosts]
    if parse_address(target) is not None:
        seen.append(Sighting(Signal.ADDRESS, target))
    return tuple(seen)


def seen(flow: HTTPFlow, connection: ClientConnection) -> seen_traffic.Request:
    """A request as `admission` decides about it. mitmproxy has set an error if its framing is invalid."""
    ambiguous = flow.error is not None or ambiguity(flow.request) is not None
    return seen_traffic.Request(
        sightings(flow, connection), http_seen(flow.request), opened=connection.opened, ambiguous=ambiguous
    )


def stay_in_http1(request: Request) -> None:
    """Remove from Upgrade the protocols that would go on unread and name hosts; a server may ignore Upgrade."""
    upgrades = [each.strip() for field in request.headers.get_all("upgrade") for each in field.split(",")]
    kept = [each for each in upgrades if not _OTHER_HTTP.fullmatch(each.partition("/")[0])]
    if kept == upgrades:
        return
    del request.headers["upgrade"]
    request.headers.pop("http2-settings", None)
    named = [each.strip() for field in request.headers.get_all("connection") for each in field.split(",")]
    dropped = {"http2-settings", "upgrade"} if not kept else {"http2-settings"}
    options = [each for each in named if each and each.lower() not in dropped]
    request.headers.pop("connection", None)
    if kept:
        request.headers["Upgrade"] = ", ".join(kept)
    if options:
        request.headers["Connection"] = ", ".join(options)


def arrival(flow: HTTPFlow, connection: ClientConnection) -> Arrival:
    """The client of a request, and its destination."""
    data = flow.request.data
    return connection.arrival((connection.lead or data.host, data.port) if data.host else None)


def http_seen(request: Request) -> HttpSeen:
    """The fields of a request for the log."""
    return HttpSeen(
        method=request.method,
        path=request.path or None,
        scheme=request.scheme or None,
        version=request.http_version.removeprefix("HTTP/").removesuffix(".0"),
        user_agent=request.headers.get("user-agent"),
    )


def answerable(request: Request) -> bool:
    """Whether an answer can be sent soon: mitmproxy holds it back until the whole request body has come."""
    try:
        size = expected_http_body_size(request)
    except ValueError:
        return False
    if size == 0 and not (request.is_http2 and request.method not in BODILESS):
        return True
    return size is not None and 0 < size <= MAX_BODY


def _url(request: Request, host: str) -> str:
    return f"{request.scheme or 'http'}://{f'[{host}]' if ':' in host else host}{request.path}"


_DOCUMENT: Final = ("navigate", "document")
"""Sec-Fetch-Mode and Sec-Fetch-Dest of what a person sees in a tab of its own (Fetch Metadata Request Headers)."""


def is_navigation(request: Request) -> bool:
    """Whether the response becomes the document of a tab. Frames are not: a button in one can't be trusted."""
    if request.method != "GET":
        return False
    headers = request.headers
    if _has_metadata(headers):
        return _is_document(headers)
    return _claims_to_be_a_browser(headers) and "text/html" in headers.get("accept", "").lower()


def from_a_browser(request: Request) -> bool:
    """Whether the software that sent it may yet send a navigation."""
    return _has_metadata(request.headers) or _claims_to_be_a_browser(request.headers)


def is_own_form(request: Request, authority: str) -> bool:
    """Whether a form was sent in a tab, by a page of this very origin, as far as the browser says.

    Scripts can't say so: a site's own, left in the browser from earlier visits, must not continue for people.
    """
    headers = request.headers
    site, origin = headers.get("sec-fetch-site", "same-origin"), headers.get("origin")
    if site != "same-origin" or (_has_metadata(headers) and not _is_document(headers)):
        return False
    return origin is None or origin.lower() == f"{request.scheme}://{authority}".lower()


def _has_metadata(headers: Headers) -> bool:
    return "sec-fetch-mode" in headers or "sec-fetch-dest" in headers


def _is_document(headers: Headers) -> bool:
    return (headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")) == _DOCUMENT


def _claims_to_be_a_browser(headers: Headers) -> bool:
    """Browsers too old for Sec-Fetch, or speaking plain HTTP, where it isn't sent."""
    return bool(headers.get("user-agent", "").startswith("Mozilla/5.0"))


BAD_REQUEST: Final = 400
BODILESS: Final = frozenset({"GET", "HEAD", "OPTIONS", "DELETE", "TRACE"})
"""Methods whose body has no meaning (RFC 9110 §9.3), so that some servers don't read it."""
_LINE: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}[ \t\v\f]+[^ \t\v\f\r\n]")
"""A method and the beginning of a target, whatever they are."""
_METHODS: Final = (b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"PATCH", b"CONNECT", b"PROPFIND")
_KNOWN: Final = re.compile(b"(?:" + b"|".join(_METHODS) + rb")[ \t\v\f]+(?:[/*]|(?i:https?:)|[^ \t\v\f\r\n]+:[0-9])")
"""The beginning of a request that no text begins with."""
_PERHAPS: Final = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{0,32})([ \t\v\f]+[^ \t\v\f\r\n]*)?")
"""What may yet become one of them: a method, and what has come of its target."""
_MOST_HELD: Final = 1024
_IGNORED: Final = b"\r\n\t \v\f\0"
"""What some server passes over before a request line."""


class BodyStart:
    """Watches a body that passes, until it is clear that it doesn't begin like a request."""

    def __init__(self, method: str) -> None:
        """Text may begin with any word; only where a body means nothing (RFC 9110 §9.3) is that suspicious."""
        self._any_word: Final = method.upper() in BODILESS
        self._held: bytearray | None = bytearray()

    def feed(self, data: bytes) -> bytes | None:
        """What can pass of it by now; None: it begins like a request. Empty `data` is the end."""
        if self._held is None:
            return data
        self._held += data
        begun = bytes(self._held.lstrip(_IGNORED))
        if (_LINE if self._any_word else _KNOWN).match(begun):
            return None
        if data and len(self._held) < _MOST_HELD and self._may_become_one(begun):
            return b""
        return self.release()

    def release(self) -> bytes:
        """Pass it all the same, and what follows."""
        passed, self._held = bytes(self._held or b""), None
        return passed

    def _may_become_one(self, begun: bytes) -> bool:
        perhaps = _PERHAPS.fullmatch(begun)
        if perhaps is None or self._any_word:
            return perhaps is not None
        return perhaps[1] in _METHODS if perhaps[2] else any(each.startswith(perhaps[1]) for each in _METHODS)


def watched(
    enforcer: Enforcer, method: str, admission: Admission, refused: Callable[[Admission], None]
) -> Callable[[bytes], bytes]:
    """Passes a body on, piece by piece; calls `refused` if it begins like a request and the client is under a ban."""
    start, ended = BodyStart(method), False

    def watch(data: bytes) -> bytes:
        nonlocal ended
        passing = b"" if ended else start.feed(data)
        if passing is not None:
            return passing
        refusal = unclear(enforcer, admission)
        if not refusal.ruling.blocks:
            return start.release()
        ended = True
        refused(refusal)
        return b""

    return watch


def unclear(enforcer: Enforcer, admission: Admission) -> Admission:
    """The decision about a request of which it turned out that servers may read something else."""
    if not isinstance(admission.seen, seen_traffic.Request):
        return admission
    return admit(enforcer, admission.arrival, replace(admission.seen, ambiguous=True))


def unsaid(enforcer: Enforcer, admission: Admission) -> Admission | None:
    """The decision about a request to a store if its body can't be read; None: it isn't needed for a decision."""
    if admission.ruling.blocks or _store_asked(admission) is None:
        return None
    refused = unclear(enforcer, admission)
    return refused if refused.ruling.blocks else None


def with_body(enforcer: Enforcer, admission: Admission, body: bytes) -> Admission:
    """The decision about a request to a store whose body has come whole."""
    store, services, seen = _store_asked(admission), enforcer.snapshot.services, admission.seen
    if store is None or not isinstance(seen, seen_traffic.Request):
        return admission
    asked = sorted(each for each in stores.identifiers_in_body(body) if services.lists(store, each))
    urls = (Sighting(Signal.URL, stores.page_of(store, each)) for each in asked)
    return admit(enforcer, admission.arrival, replace(seen, names=(*seen.names, *urls)))


def _store_asked(admission: Admission) -> str | None:
    """The store whose listings are asked for in the body of a request."""
    seen = admission.seen
    if not isinstance(seen, seen_traffic.Request) or seen.http.method in BODILESS:
        return None
    urls = (name.value for name in seen.names if name.signal is Signal.URL)
    return next(filter(None, map(stores.asks_in_body, urls)), None)
