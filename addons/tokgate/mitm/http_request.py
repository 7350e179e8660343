"""HTTP requests as policy and log see them: every name that a request shows, and what can be answered to it."""

import re
from typing import Final

from mitmproxy.http import Headers, HTTPFlow, Request
from mitmproxy.net.http.http1 import expected_http_body_size

from tokgate.mitm.client_connection import ClientConnection
from tokgate.mitm.layers.request_body import BODILESS
from tokgate.policy.decide import Sighting
from tokgate.policy.decision import Signal
from tokgate.policy.observation import HttpSeen
from tokgate.policy.values.hostname import parse_address
from tokgate.traffic import seen as seen_traffic
from tokgate.traffic.seen import Arrival
from tokgate.wire import host_names
from tokgate.wire.proxy_request import Authority, AuthorityProblem, InvalidAuthority, read_authority

MAX_BODY: Final = 65536
"""Octets of request body that are read so that a page can be answered; senders of more are cut off."""
_AS_IT_COMES: Final = frozenset({"text/event-stream", "multipart/x-mixed-replace", "application/x-ndjson"})
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


def can_be_dialled(host: str) -> bool:
    """Whether a destination as mitmproxy has it is one that policy and resolver read alike."""
    return host.isascii() and host_names.can_be_dialled(host.partition("%")[0].encode("ascii"))


def is_ambiguous(request: Request) -> bool:
    """Whether proxy, resolver and origin might each read a request in another way. No conforming client sends it."""
    if invalid_authority(request) is not None or not can_be_dialled(request.data.host):
        return True
    if not _TOKEN.fullmatch(request.method) or _IN_TARGETS.search(request.path):  # HTTP/2 can carry them
        return True
    if not request.path.startswith("/") and not (request.path == "*" and request.method == "OPTIONS"):
        return True  # RFC 9113 §8.3.1: a URL there becomes the target of HTTP/1
    # CR, LF and NUL end a field for some (RFC 9110 §5.5); folded lines, which mitmproxy keeps, are obsolete.
    return any(not _STRAY.isdisjoint(part) for field in request.headers.fields for part in field)


def invalid_authority(request: Request) -> InvalidAuthority | None:
    """An authority that no conforming client sends: the proxy and the origin might read it differently."""
    if len(request.headers.get_all("host")) > 1:  # RFC 9112 §3.2: 400
        return InvalidAuthority(", ".join(request.headers.get_all("host")), AuthorityProblem.INVALID_HOST)
    read = (read_authority(authority) for authority in authorities(request))
    return next((authority for authority in read if isinstance(authority, InvalidAuthority)), None)


def sightings(flow: HTTPFlow, connection: ClientConnection) -> tuple[Sighting, ...]:
    """Every name that a request and the connection that it came by show."""
    request = flow.request
    hosts = [a.host for a in map(read_authority, authorities(request)) if isinstance(a, Authority)]
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
    ambiguous = flow.error is not None or is_ambiguous(flow.request)
    return seen_traffic.Request(
        sightings(flow, connection), http_seen(flow.request), opened=connection.opened, ambiguous=ambiguous
    )


def unread(arrival: Arrival, *, opened: bool) -> seen_traffic.Request:
    """A request whose head could not be read, as `admission` decides about it."""
    http = HttpSeen(method="-", scheme="https" if opened else "http")
    return seen_traffic.Request(arrival.sightings, http, opened=opened, ambiguous=True)


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


def is_kept(headers: Headers) -> bool:
    """Whether an answer may be held back until it is whole: nobody waits for each part of it as it comes."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    return kind not in _AS_IT_COMES and not kind.startswith("application/grpc")


def _url(request: Request, host: str) -> str:
    return f"{request.scheme or 'http'}://{f'[{host}]' if ':' in host else host}{request.path}"
