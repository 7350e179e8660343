"""What tokgate cannot see, or lets pass by its settings' defaults, and what an admin can do about each.

docs/cannot-see.md is written from this: `tokgate evasion --limits`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from textwrap import wrap
from typing import Final


class Limit(StrEnum):
    """Why an attempt may pass; the value is its heading's anchor in docs/cannot-see.md."""

    FRONTING = "another-name-inside-tls"
    ECH = "encrypted-client-hello"
    NO_NAME = "no-name-to-an-unlisted-address"
    OTHER_BYTES = "bytes-that-are-neither-tls-nor-http"
    ENCRYPTED_DNS = "encrypted-dns"
    VPN = "vpns-and-tunnels-to-elsewhere"
    OTHER_PORTS = "unlisted-ports-and-addresses"
    OTHER_ROADS = "traffic-that-does-not-pass-the-gateway"


@dataclass(frozen=True, slots=True)
class LimitExplanation:
    """A limit in words: its heading, what happens, what can be done, and how it shows in log and metrics."""

    heading: str
    what: str
    remedy: str
    shows: str


PATH: Final = "docs/cannot-see.md"

LIMITS: Final = {
    Limit.FRONTING: LimitExplanation(
        "Another name inside TLS",
        "A connection whose ClientHello names an allowed host, over TCP or QUIC, may ask for a banned one in its "
        "`Host` field or `:authority`, or in a second handshake inside the first (TLS 1.2's renegotiation). tokgate "
        "doesn't open allowed connections, so it can't see that. It works only where one server "
        "answers for both names; large content networks refuse it (421 Misdirected Request).",
        "Ban the content network's name that is misused, or the service's `addresses`, which count whatever name is "
        "shown. On managed devices keep the app off the device.",
        "Counts as `sni` in coverage, with the name that was shown.",
    ),
    Limit.ECH: LimitExplanation(
        "Encrypted Client Hello",
        "With ECH the ClientHello names the provider's public name only; the host's own name is encrypted. Browsers "
        "send an ECH extension without meaning as well (GREASE), so its presence says nothing.",
        "Set `ech_outer: block`, or `inspect` where devices trust your authority: both make the client try again "
        "without. Let clients ask tokgate's DNS, which keeps ECH's keys from those under a ban, and ban the service "
        "`encrypted-dns`. Switch ECH and DNS over HTTPS off in managed browsers.",
        "Counts as `ech-outer` in coverage where the public name is a known provider's, else as `sni`.",
    ),
    Limit.NO_NAME: LimitExplanation(
        "No name to an unlisted address",
        "A ClientHello may carry no server_name. With `missing_sni: check-address`, the default, the connection is "
        "decided by its address alone, and passes if no service lists that.",
        "Set `missing_sni: check-certificate`, which asks the destination whom it takes itself for, or `block`. List "
        "the service's own address ranges under `addresses`.",
        "Counts as `none` in coverage.",
    ),
    Limit.OTHER_BYTES: LimitExplanation(
        "Bytes that are neither TLS nor HTTP",
        "Other protocols (SSH, mail, games, a VPN over TCP) show no name that could be judged. They are decided by "
        "address, and so is TLS that they begin with words of their own (STARTTLS, PostgreSQL, MySQL).",
        "Let the firewall in front refuse what your networks don't need. List addresses under `addresses`.",
        "Counts as `address` in coverage.",
    ),
    Limit.ENCRYPTED_DNS: LimitExplanation(
        "Encrypted DNS",
        "Questions over HTTPS, TLS or QUIC to a resolver elsewhere aren't read, so a name may be resolved that "
        "tokgate's own resolver would refuse. The connection that follows is decided by its own name all the same.",
        "Ban the shipped service `encrypted-dns`, which has the public resolvers by name and address. Switch secure "
        "DNS off in managed browsers.",
        "The resolver's own connection counts as `sni`.",
    ),
    Limit.VPN: LimitExplanation(
        "VPNs and tunnels to elsewhere",
        "What is inside a VPN, SSH or a relay such as iCloud Private Relay is unreadable, and comes out elsewhere.",
        "Ban the relay's names as a service; allow outgoing UDP and TCP ports that you need, and no others.",
        "TLS to the relay counts as `sni`, everything else as `address`, or does not reach tokgate.",
    ),
    Limit.OTHER_PORTS: LimitExplanation(
        "Unlisted ports and addresses",
        "Only what the firewall redirects reaches tokgate: for networks under a ban 80, 443, the web's other usual "
        "ports, and every port of the addresses that banned services list. A server that answers elsewhere is reached "
        "past it. On UDP ports other than 443 QUIC is known by its version: 1, 2 and drafts. What asks for another one "
        "passes; a server that doesn't speak it answers with its own versions, and the next packet is refused. Where a "
        "server outside may send the first datagram to a client, the client's QUIC on that flow counts as an answer, "
        "and passes.",
        "List the service's address ranges; add the ports to settings.gateway.ports. Refuse outgoing ports that nobody "
        "needs.",
        "Doesn't show: count refused and forwarded packets in the firewall.",
    ),
    Limit.OTHER_ROADS: LimitExplanation(
        "Traffic that does not pass the gateway",
        "Mobile data, another Wi-Fi, a cable past the gateway. And an app store's own app is pinned, so that what it "
        "installs isn't seen.",
        "Manage devices: always-on VPN through the gateway, a list of apps that may be installed.",
        "Doesn't show.",
    ),
}


_INTRODUCTION: Final = (
    "Everything on this page passes, or passes with the settings' defaults. `tests/evasion` makes each attempt that it "
    "knows against real servers, and fails if one passes that isn't named here. `tokgate evasion` makes them against "
    "your own gateway: see [operation.md](operation.md#try-to-get-round-it)."
)
_OPENED: Final = (
    "Plain HTTP of clients under a ban, requests with a URL to an explicit proxy, and what is opened for a page go "
    "through mitmproxy, and some of what a wire would carry doesn't: requests and answers of HTTP/0.9, heads of "
    "requests over 64 KiB and of answers over 256 KiB, lists of lengths in requests, and a certificate that the client "
    "would show. The client gets a page that says what was wrong. All other connections pass unopened, octet by octet."
)
_WIDTH: Final = 120


def markdown() -> Iterator[str]:
    """The text of docs/cannot-see.md, in Markdown."""
    yield "# What tokgate cannot see"
    yield from _paragraph(_INTRODUCTION)
    for explanation in LIMITS.values():
        yield from ("", f"## {explanation.heading}")
        yield from _paragraph(explanation.what)
        yield from _paragraph(f"**What to do.** {explanation.remedy}")
        yield from _paragraph(f"**How it shows.** {explanation.shows}")
    yield from ("", "## What requests that are read don't carry")
    yield from _paragraph(_OPENED)


def _paragraph(text: str) -> Iterator[str]:
    yield ""
    yield from wrap(text, _WIDTH, break_long_words=False, break_on_hyphens=False)
