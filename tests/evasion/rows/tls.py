"""Rows of what plays with TLS: records, two hellos, server names, segments, and connections that hide their name."""

from collections.abc import Iterator

from evasion.carrier_main import DESTINATIONS
from evasion.carriers import Carrier, Settings
from evasion.servers import ALLOWED, Server
from evasion.table import BANNED_ADDRESS, Row, Twin, carriers_of, family
from tokgate.evasion.attempt import Family, Limit, Opens
from tokgate.evasion.families import ATTEMPTS
from tokgate.evasion.families.server_names import MAPPED

_REAL = (Server.NGINX, Server.NODE, Server.HAPROXY, Server.CADDY)
_REDIRECTED = (Carrier.GATE, Carrier.MITMPROXY)
_SEEN_TOGETHER = (*_REDIRECTED, Carrier.CONNECT)
EMBEDDED = [address for address in DESTINATIONS.values() if ":" in address]
"""IPv6 addresses that stand for the banned IPv4 address."""
_SPELLED_OTHERWISE = frozenset({"sni-utf-16", "sni-dns-labels", "sni-name-cut"}) | MAPPED
"""In which the name doesn't stand as it is."""


def rows() -> Iterator[Row]:
    for attempt in family(Family.TLS_RECORDS):
        unread = attempt.limit is Limit.OTHER_BYTES
        yield Row(
            attempt=attempt,
            carriers=carriers_of(attempt),
            servers=(Server.PYTHON, *_REAL) if unread else (Server.CADDY, Server.NGINX),
            counted="address" if unread else "",
            certain=not unread,
            shows=attempt.id != "sslv2",  # which can't carry a name
        )
        if not (attempt.innocent or unread):
            shows = attempt.id != "sslv2"
            yield Row(attempt=attempt, carriers=_REDIRECTED, settings=Settings.STRICT, shows=shows)
    for attempt in family(Family.TWO_HELLOS):  # the recorder asks for no second hello
        yield Row(attempt=attempt, carriers=carriers_of(attempt), server=Server.PYTHON, servers=_REAL)
    for attempt in family(Family.SERVER_NAMES):
        shows, servers = attempt.id not in _SPELLED_OTHERWISE, (Server.NGINX, Server.CADDY)
        yield Row(attempt=attempt, carriers=_SEEN_TOGETHER, servers=servers, shows=shows)
    for attempt in family(Family.SEGMENTS):
        yield Row(attempt=attempt, carriers=carriers_of(attempt), servers=(Server.NGINX,))
    yield from _hidden()
    yield Row(attempt=ATTEMPTS["sni-plain"], carriers=_SEEN_TOGETHER, name=ALLOWED, address=BANNED_ADDRESS)
    for address in EMBEDDED:
        yield Row(attempt=ATTEMPTS["sni-plain"], carriers=_REDIRECTED, name=ALLOWED, address=address)
    for opened in (
        "sni-plain",
        "sni-uppercase",
        "sni-wildcard",
        "records-of-one-octet",
        "alert-before",
        "ech-and-name",
    ):
        yield Row(
            attempt=ATTEMPTS[opened],
            carriers=_REDIRECTED,
            settings=Settings.PAGE,
            recorded=False,  # the page is asked for inside, or the certificate is not believed
            twin=Twin.PLAIN,
        )
    yield Row(attempt=ATTEMPTS["other-name"], carriers=_REDIRECTED, server=Server.PYTHON, settings=Settings.PAGE)


def _hidden() -> Iterator[Row]:
    for attempt in family(Family.HIDDEN_NAMES):
        if attempt.opens is not Opens.TLS or attempt.id in ("ech-and-name", "fronting"):
            continue
        if attempt.limit is Limit.NO_NAME:
            certain = not attempt.id.startswith("empty")
            yield Row(attempt=attempt, carriers=_REDIRECTED, counted="none", certain=certain, shows=False)
            yield Row(attempt=attempt, carriers=_REDIRECTED, address=BANNED_ADDRESS, twin=Twin.VISITOR)
        if attempt.limit is None:
            yield Row(attempt=attempt, carriers=_REDIRECTED, shows=False, twin=Twin.VISITOR)
        if attempt.id != "ech-elsewhere":
            yield Row(attempt=attempt, carriers=_REDIRECTED, settings=Settings.STRICT, shows=False, twin=Twin.VISITOR)
    yield Row(attempt=ATTEMPTS["ech-and-name"], carriers=_REDIRECTED)
    for hidden, counted in (("ech-outer", "ech-outer"), ("ech-elsewhere", "sni")):
        yield Row(attempt=ATTEMPTS[hidden], carriers=_REDIRECTED, counted=counted, shows=False)
    servers = (Server.NODE, Server.PYTHON)
    yield Row(attempt=ATTEMPTS["fronting"], carriers=_REDIRECTED, servers=servers, counted="sni", shows=False)
    for nameless in ("no-name", "no-extensions", "ipv4-for-name", "ipv6-for-name", "empty-extension"):
        yield Row(
            attempt=ATTEMPTS[nameless],
            carriers=_REDIRECTED,
            server=Server.NAMELESS,
            settings=Settings.CERTIFICATE,
            twin=Twin.PLAIN if nameless in ("no-extensions", "empty-extension") else Twin.SAME_TRICK,
        )
