"""Rows of what is asked of an explicit proxy: CONNECT, URLs, SOCKS 5, and addresses in other addresses."""

from collections.abc import Iterator

from evasion.carriers import Carrier
from evasion.servers import ALLOWED
from evasion.table import BANNED_ADDRESS, Row, carriers_of, family
from tokgate.evasion.attempt import Family
from tokgate.evasion.families.proxy_requests import SPELLINGS

_WHOLE = ("connect-address", "socks-address", "socks-address-as-name")
_EMBEDDED = ("nat64", "6to4", "teredo", "mapped", "compatible")
_DOTTED = ("mapped-dotted", "mapped-long", "compatible-dotted", "nat64-dotted")
_ADDRESSES = {
    *_WHOLE,
    *(f"connect-{kind}" for kind in (*_EMBEDDED, *_DOTTED, "nat64-local", "translated", "isatap")),
    *(f"connect-{kind}" for kind in ("address-brackets", "zone", "unbracketed")),
    *(f"connect-address-{kind}" for kind in SPELLINGS),
    *(f"socks-{kind}" for kind in (*_EMBEDDED, "decimal", "brackets", "mapped-as-name", "zone", "octal")),
    *("socks-address-dot", "socks-isatap", "socks-udp", "socks-bind", "socks-4"),
}
"""Attempts that ask for the banned address."""


def rows() -> Iterator[Row]:
    for attempt in (*family(Family.PROXY_REQUESTS), *family(Family.SOCKS_REQUESTS)):
        carriers = carriers_of(attempt)
        if attempt.id.startswith("nested-"):
            carriers = Carrier.CONNECT, Carrier.SOCKS, Carrier.MITMPROXY_CONNECT
        if attempt.id in _ADDRESSES:
            yield Row(
                attempt=attempt,
                carriers=carriers,
                name=ALLOWED,
                address=BANNED_ADDRESS,
                recorded=attempt.id.endswith((*_WHOLE, *_EMBEDDED)),
            )
        if attempt.id not in _ADDRESSES or attempt.id in _WHOLE:
            counted = "address" if attempt.limit is not None else ""
            yield Row(attempt=attempt, carriers=carriers, counted=counted, recorded=attempt.innocent)
