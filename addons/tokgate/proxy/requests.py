"""HTTP requests as policy and log see them: every name that a request shows, and what can be answered to it."""

from typing import Final

from mitmproxy.http import HTTPFlow, Request
from mitmproxy.net.http.http1 import expected_http_body_size

from tokgate.blocklog.observation import HttpSeen, Observation, Passed, Stage, Visibility
from tokgate.policy.decide import Sighting
from tokgate.policy.decision import Signal
from tokgate.policy.names import parse_address
from tokgate.proxy.visit import Visit
from tokgate.wire import host_name
from tokgate.wire.http_authority import Authority, AuthorityProblem, InvalidAuthority, read_authority

MAX_BODY: Final = 65536
"""Octets of request body that are read so that a page can be answered; senders of more are cut off."""
_STRAY: Final = frozenset(b"\r\n\0")
_BODILESS: Final = frozenset({"GET", "HEAD", "OPTIONS", "DELETE", "TRACE"})


def authorities(request: Request) -> tuple[str, ...]:
    """Every authority that a request names, as sent: the target's, `:authority`, each Host field."""
    found = [request.authority, *request.headers.get_all("host")]
    return tuple(dict.fromkeys(authority for authority in found if authority))


def can_be_dialled(host: str) -> bool:
    """Whether a destination as mitmproxy has it is one that policy and resolver read alike."""
    return host.isascii() and host_name.can_be_dialled(host.partition("%")[0].encode("ascii"))


def is_ambiguous(request: Request) -> bool:
    """Whether proxy, resolver and origin might each read a request in another way. No conforming client sends it."""
    if invalid_authority(request) is not None or not can_be_dialled(request.data.host):
        return True
    # CR, LF and NUL end a field for some (RFC 9110 §5.5); folded lines, which mitmproxy keeps, are obsolete.
    return any(not _STRAY.isdisjoint(part) for field in request.headers.fields for part in field)


def invalid_authority(request: Request) -> InvalidAuthority | None:
    """An authority that no conforming client sends: the proxy and the origin might read it differently."""
    if len(request.headers.get_all("host")) > 1:  # RFC 9112 §3.2: 400
        return InvalidAuthority(", ".join(request.headers.get_all("host")), AuthorityProblem.INVALID_HOST)
    read = (read_authority(authority) for authority in authorities(request))
    return next((authority for authority in read if isinstance(authority, InvalidAuthority)), None)


def sightings(flow: HTTPFlow, visit: Visit) -> tuple[Sighting, ...]:
    """Every name that a request and the connection that it came by show."""
    request = flow.request
    hosts = [a.host for a in map(read_authority, authorities(request)) if isinstance(a, Authority)]
    target = request.data.host
    if parse_address(target) is None or not hosts:
        hosts.append(target)
    hosts = list(dict.fromkeys(hosts))
    seen = [Sighting(Signal.HTTP_HOST, host) for host in hosts]
    if flow.client_conn.sni:
        seen.append(Sighting(Signal.SNI, flow.client_conn.sni))
    if visit.connect and visit.connect not in hosts:
        seen.append(Sighting(Signal.HTTP_HOST, visit.connect))
    seen += [Sighting(Signal.URL, _url(request, host)) for host in hosts]
    if parse_address(target) is not None:
        seen.append(Sighting(Signal.ADDRESS, target))
    return tuple(seen)


def observe(
    flow: HTTPFlow,
    visit: Visit,
    names: tuple[Sighting, ...],
    stage: Stage,
    status: int | None,
    passed: Passed | None = None,
) -> Observation:
    """A request as the log sees it; `status` is what it was answered with, if we answered; else why it `passed`."""
    request = flow.request
    target = (visit.lead or request.data.host, request.data.port) if request.data.host else None
    return Observation(
        client=visit.client,
        destination=visit.arrival(target).endpoint,
        stage=stage,
        visibility=Visibility.DECRYPTED,
        names=names,
        http=HttpSeen(
            method=request.method,
            path=request.path or None,
            scheme=request.scheme or None,
            version=request.http_version.removeprefix("HTTP/").removesuffix(".0"),
            status=status,
            user_agent=request.headers.get("user-agent"),
        ),
        opened=visit.opened,
        passed=passed,
        connection=visit.connection,
        identity=visit.identity,
    )


def answerable(request: Request) -> bool:
    """Whether an answer can be sent soon: mitmproxy holds it back until the whole request body has come."""
    try:
        size = expected_http_body_size(request)
    except ValueError:
        return False
    if size == 0 and not (request.is_http2 and request.method not in _BODILESS):
        return True
    return size is not None and 0 < size <= MAX_BODY


def _url(request: Request, host: str) -> str:
    return f"{request.scheme or 'http'}://{f'[{host}]' if ':' in host else host}{request.path}"
