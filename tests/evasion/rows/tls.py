"""Rows of what plays with TLS: records, two hellos, server names, segments, and connections that hide their name."""

from collections.abc import Iterator

from evasion.carrier_main import DESTINATIONS
from evasion.carriers import Carrier, Settings
from evasion.servers import ALLOWED, Server
from evasion.table import ANYTHING, BANNED_ADDRESS, NAME_OF_THE_SERVICE, Logged, Row, Twin, carriers_of, family
from tokgate.evasion.attempt import Attempt, Family, Limit, Opens
from tokgate.evasion.families import ATTEMPTS
from tokgate.evasion.families.server_names import MAPPED

_REAL = (Server.NGINX, Server.NODE, Server.HAPROXY, Server.CADDY)
_SEEN_TOGETHER = (Carrier.GATE, Carrier.MITMPROXY, Carrier.CONNECT)
EMBEDDED = [address for address in DESTINATIONS.values() if ":" in address]
"""IPv6 addresses that stand for the banned IPv4 address."""
_SPELLED_OTHERWISE = frozenset({"sni-utf-16", "sni-dns-labels", "sni-name-cut"}) | MAPPED
"""In which the name doesn't stand as it is."""
_NAMELESS = frozenset({"sslv2"})
"""What can't carry a name: whatever of it arrives has passed."""


def _twin(attempt: Attempt) -> Twin:
    return Twin.SAME_TRICK if attempt.innocent else Twin.VISITOR


def rows() -> Iterator[Row]:
    for attempt in family(Family.TLS_RECORDS):
        unread = attempt.limit is Limit.OTHER_BYTES
        for settings, carriers in ((Settings.DEFAULT, carriers_of(attempt)), (Settings.STRICT, _SEEN_TOGETHER[:2])):
            if settings is Settings.STRICT and (attempt.innocent or unread):
                continue
            yield Row(
                attempt=attempt,
                carriers=carriers,
                servers=((Server.PYTHON, *_REAL) if unread else (Server.CADDY, Server.NGINX))
                if settings is Settings.DEFAULT
                else (),
                settings=settings,
                passes=Limit.OTHER_BYTES if unread else None,
                certain=not unread,
                counted="address" if unread else "",
                logged=Logged.COUNTED if unread else Logged.RECORD,
                leak=ANYTHING if attempt.id in _NAMELESS else NAME_OF_THE_SERVICE,
                twin=_twin(attempt),
            )
    for attempt in family(Family.TWO_HELLOS):
        yield Row(
            attempt=attempt,
            carriers=carriers_of(attempt),
            server=Server.PYTHON,  # the recorder asks for no second hello
            servers=_REAL,
            twin=_twin(attempt),
        )
    for attempt in family(Family.SERVER_NAMES):
        yield Row(
            attempt=attempt,
            carriers=_SEEN_TOGETHER,
            servers=(Server.NGINX, Server.CADDY),
            twin=_twin(attempt),
            leak=ANYTHING if attempt.id in _SPELLED_OTHERWISE else NAME_OF_THE_SERVICE,
        )
    for attempt in family(Family.SEGMENTS):
        yield Row(attempt=attempt, carriers=carriers_of(attempt), servers=(Server.NGINX,), twin=_twin(attempt))
    yield from _hidden()


def _hidden() -> Iterator[Row]:
    redirected = (Carrier.GATE, Carrier.MITMPROXY)
    yield Row(attempt=ATTEMPTS["ech-and-name"], carriers=redirected, twin=Twin.SAME_TRICK)
    for attempt in family(Family.HIDDEN_NAMES):
        if attempt.opens is not Opens.TLS or attempt.id in ("ech-and-name", "fronting"):
            continue
        if attempt.limit is Limit.NO_NAME:
            yield Row(
                attempt=attempt,
                carriers=redirected,
                passes=Limit.NO_NAME,
                certain=not attempt.id.startswith("empty"),
                logged=Logged.COUNTED,
                counted="none",
                leak=ANYTHING,
            )
            yield Row(attempt=attempt, carriers=redirected, address=BANNED_ADDRESS, leak=ANYTHING, twin=Twin.VISITOR)
        if attempt.limit is None:
            yield Row(attempt=attempt, carriers=redirected, leak=ANYTHING, twin=Twin.VISITOR)
        if attempt.id != "ech-elsewhere":
            yield Row(
                attempt=attempt,
                carriers=(Carrier.GATE, Carrier.MITMPROXY),
                settings=Settings.STRICT,
                leak=ANYTHING,
                twin=Twin.VISITOR,
            )
    for nameless in ("no-name", "no-extensions", "ipv4-for-name", "ipv6-for-name", "empty-extension"):
        yield Row(
            attempt=ATTEMPTS[nameless],
            carriers=redirected,
            server=Server.NAMELESS,
            settings=Settings.CERTIFICATE,
            twin=Twin.PLAIN if nameless in ("no-extensions", "empty-extension") else Twin.SAME_TRICK,
        )
    for hidden in ("ech-outer", "ech-elsewhere"):
        counted = "ech-outer" if hidden == "ech-outer" else "sni"
        yield Row(
            attempt=ATTEMPTS[hidden],
            carriers=redirected,
            passes=Limit.ECH,
            logged=Logged.COUNTED,
            counted=counted,
            leak=ANYTHING,
        )
    yield Row(
        attempt=ATTEMPTS["fronting"],
        carriers=(Carrier.GATE, Carrier.MITMPROXY),
        servers=(Server.NODE, Server.PYTHON),
        passes=Limit.FRONTING,
        logged=Logged.COUNTED,
        counted="sni",
        leak=ANYTHING,
    )
    yield Row(
        attempt=ATTEMPTS["sni-plain"],
        carriers=(*redirected, Carrier.CONNECT),
        name=ALLOWED,
        address=BANNED_ADDRESS,
        leak=ANYTHING,
        twin=Twin.SAME_TRICK,
    )
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
            carriers=(Carrier.GATE, Carrier.MITMPROXY),
            settings=Settings.PAGE,
            logged=Logged.OPTIONAL,  # the page is asked for inside, or the certificate is not believed
        )
    yield Row(
        attempt=ATTEMPTS["other-name"],
        carriers=(Carrier.GATE, Carrier.MITMPROXY),
        server=Server.PYTHON,
        settings=Settings.PAGE,
        twin=Twin.VISITOR,
    )
    for address in EMBEDDED:
        yield Row(attempt=ATTEMPTS["sni-plain"], carriers=redirected, name=ALLOWED, address=address, leak=ANYTHING)
