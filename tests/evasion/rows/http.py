"""Rows of what plays with plain HTTP: how it begins, how the name is spelled, and where bodies end."""

from collections.abc import Iterator

from evasion.carriers import Carrier
from evasion.servers import Server
from evasion.table import Row, carriers_of, family
from tokgate.evasion.attempt import Attempt, Family, Limit
from tokgate.evasion.families import ATTEMPTS

_REDIRECTED = (Carrier.GATE, Carrier.MITMPROXY, Carrier.CONNECT)
_NEEDS_A_SERVER = {"http2": Server.NGINX, "second-request": Server.NGINX, "h2c-smuggled": Server.CADDY}
"""What the recorder can't answer: HTTP/2, and a request behind another one."""
_ALL_WAYS = ("http2", "h2c-smuggled")


def _server(attempt: Attempt) -> Server:
    if attempt.id.startswith("second-") and not attempt.innocent:
        return Server.HAPROXY
    return _NEEDS_A_SERVER.get(attempt.id, Server.CADDY if attempt.id.startswith("http2") else Server.RECORDER)


def _servers(attempt: Attempt) -> tuple[Server, ...]:
    if attempt.id.startswith("http2"):
        return (Server.HAPROXY,)
    if attempt.limit is Limit.OTHER_BYTES:  # of these no server may be forgotten
        return (Server.PYTHON, Server.HAPROXY, Server.NODE, Server.NGINX, Server.CADDY)
    if attempt.family is Family.HTTP_BODIES and attempt.innocent:
        return (Server.CADDY,)  # others answer before the body has come, and reset what it is sent in
    return (Server.PYTHON, Server.HAPROXY, Server.NODE)


def rows() -> Iterator[Row]:
    for which in (Family.HTTP_HEADS, Family.HTTP_HOSTS, Family.HTTP_BODIES, Family.HTTP2_FRAMES):
        for attempt in family(which):
            unread = attempt.limit is Limit.OTHER_BYTES
            if attempt.limit is None or unread:
                yield Row(
                    attempt=attempt,
                    carriers=carriers_of(attempt)
                    if which is Family.HTTP_HEADS or attempt.id in _ALL_WAYS
                    else _REDIRECTED,
                    server=_server(attempt),
                    servers=_servers(attempt),
                    counted="address" if unread else "",
                    certain=not unread,
                    recorded=attempt.innocent,
                )
    carriers = (Carrier.GATE, Carrier.MITMPROXY)
    yield Row(attempt=ATTEMPTS["no-host"], carriers=carriers, counted="decrypted", shows=False)
    yield Row(attempt=ATTEMPTS["forwarded-host"], carriers=carriers, counted="decrypted")
