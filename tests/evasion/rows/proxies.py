"""Rows of what is asked of an explicit proxy: CONNECT, URLs, SOCKS 5, and addresses in other addresses."""

from collections.abc import Iterator

from evasion.carriers import Carrier
from evasion.servers import ALLOWED
from evasion.table import ANYTHING, BANNED_ADDRESS, Logged, Row, Twin, carriers_of, family
from tokgate.evasion.attempt import Family, Opens
from tokgate.evasion.families import ATTEMPTS
from tokgate.evasion.families.proxy_requests import SPELLINGS

_EMBEDDED = ("nat64", "6to4", "teredo", "mapped", "compatible")
_DOTTED = ("mapped-dotted", "mapped-long", "compatible-dotted", "nat64-dotted")
_IN_TUNNELS = (
    "nested-connect",
    "nested-connect-address",
    "nested-connect-odd",
    "nested-twice",
    "nested-hello",
    "nested-url",
    "nested-socks",
)


def rows() -> Iterator[Row]:
    addresses = {f"connect-{kind}" for kind in (*_EMBEDDED, "nat64-local", "translated", "isatap")}
    addresses |= {f"connect-address-{kind}" for kind in SPELLINGS}
    addresses |= {f"socks-{kind}" for kind in (*_EMBEDDED, "decimal", "brackets", "mapped-as-name")}
    addresses |= {f"connect-{kind}" for kind in (*_DOTTED, "address-brackets", "zone", "unbracketed")}
    addresses |= {f"socks-{kind}" for kind in ("zone", "octal", "address-dot", "isatap")}
    addresses |= {"socks-udp", "socks-bind", "socks-4"}
    for attempt in (*family(Family.PROXY_REQUESTS), *family(Family.SOCKS_REQUESTS)):
        if attempt.id in addresses:
            continue
        carriers = carriers_of(attempt)
        if attempt.id in _IN_TUNNELS:
            carriers = Carrier.CONNECT, Carrier.SOCKS, Carrier.MITMPROXY_CONNECT
        if attempt.limit is not None:
            yield Row(
                attempt=attempt, carriers=carriers, passes=attempt.limit, logged=Logged.COUNTED, counted="address"
            )
            continue
        yield Row(
            attempt=attempt,
            carriers=carriers,
            logged=Logged.RECORD if attempt.innocent else Logged.OPTIONAL,
            twin=Twin.SAME_TRICK if attempt.innocent else Twin.PLAIN,
        )
    for attempt in (*family(Family.PROXY_REQUESTS), *family(Family.SOCKS_REQUESTS)):
        if attempt.id not in addresses:
            continue
        embedded = attempt.id.endswith(_EMBEDDED)
        yield Row(
            attempt=attempt,
            carriers=carriers_of(attempt),
            name=ALLOWED,
            address=BANNED_ADDRESS,
            leak=ANYTHING,
            logged=Logged.RECORD if embedded else Logged.OPTIONAL,
            twin=Twin.SAME_TRICK if attempt.opens is Opens.SOCKS and attempt.innocent else Twin.PLAIN,
        )
    for attempt_id in ("connect-address", "socks-address", "socks-address-as-name"):
        yield Row(
            attempt=ATTEMPTS[attempt_id],
            carriers=carriers_of(ATTEMPTS[attempt_id]),
            name=ALLOWED,
            address=BANNED_ADDRESS,
            leak=ANYTHING,
            twin=Twin.SAME_TRICK,
        )
