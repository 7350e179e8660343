"""What a row of the table says, and the cases that it stands for: a carrier, a server, and one attempt between them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from evasion.carriers import Carrier, Key, Settings
from evasion.servers import ALLOWED, BANNED, Server
from tokgate.evasion.attempt import Attempt, Family, Opens
from tokgate.evasion.families import ATTEMPTS

OPEN_ADDRESS: Final = "127.0.0.1"
BANNED_ADDRESS: Final = "127.0.0.2"
ANYTHING: Final = b""
"""Whatever arrives at the recorder has passed."""
NAME_OF_THE_SERVICE: Final = b"clips.example.org"


_ALWAYS: Final = """
    bracketed-for-name ccs-of-two-octets data-before data-inside dots-for-name empty-name-first
    five-numbers-for-name garbage-inside heartbeat-before hello-request-before hello-request-joined hex-for-name
    ipv6-zone-for-name long-session-id message-too-short no-compressions no-name-first-in-its-record nul-for-name
    octets-behind-extensions odd-ciphers other-name-begins-in-its-record other-name-behind-data
    other-name-behind-request other-name-in-its-record padded-in-odd-records proxy-1-before proxy-2-before
    record-too-long sni-circled-dot sni-dns-labels sni-name-cut sni-name-length-too-short sni-percent-dot sni-utf-16
    sslv2 star-for-name trailing-message two-alerts-in-a-record two-in-a-record unknown-message-before
"""
ALWAYS: Final = frozenset(_ALWAYS.split())
"""Attempts of which no one can say which host they are for."""
_STRICT: Final = """
    address-dot-for-name ech-alone ech-inner-type empty-extension empty-list empty-name ech-outer esni ipv4-for-name
    ipv6-for-name mapped-for-name no-extensions no-name
"""
STRICT: Final = frozenset(_STRICT.split())
"""Those that strict settings refuse for what they hide; their addresses decide about them otherwise."""


class Twin(StrEnum):
    """What has to be served if the row's attempt is not: a filter that stops everything stops every attempt."""

    SAME_TRICK = "same-trick"
    """The same attempt for an allowed name, or an allowed address."""
    PLAIN = "plain"
    """An ordinary connection for an allowed name, the same way: no ordinary client does what the attempt does."""
    VISITOR = "visitor"
    """The very same octets from a client that is under no ban."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table."""

    attempt: Attempt
    carriers: tuple[Carrier, ...]
    server: Server = Server.RECORDER
    """Who is behind each carrier."""
    servers: tuple[Server, ...] = ()
    """Who else it is tried with, by the first of the carriers."""
    settings: Settings = Settings.DEFAULT
    name: str = BANNED
    address: str = OPEN_ADDRESS
    counted: str = ""
    """Empty: it is stopped. Else it passes, docs/cannot-see.md says why, and coverage counts it as this visibility."""
    certain: bool = True
    """False: no server reads it, so that it may as well be stopped as be decided by its address."""
    recorded: bool = True
    """A refusal of what is stopped is in the log: under the ban, or under none where the row is `unreadable`.

    False: it may get an error of its own protocol instead, which says what was wrong with it.
    """
    twin: Twin | None = None
    """None: the same trick of an innocent attempt, of others what is usual."""
    shows: bool = True
    """Whether its name stands in what arrives at the recorder; else whatever arrives there has passed."""

    @property
    def id(self) -> str:
        """Told apart from other rows of the same attempt by what is unlike the default."""
        words = [self.attempt.id]
        words += [self.settings] if self.settings is not Settings.DEFAULT else []
        words += [self.address] if self.address != OPEN_ADDRESS else []
        return "/".join(words)

    @property
    def leak(self) -> bytes:
        """What shows in arriving octets that the attempt passed."""
        return NAME_OF_THE_SERVICE if self.shows and self.address == OPEN_ADDRESS else ANYTHING

    @property
    def unreadable(self) -> bool:
        """Whether it is refused because it can't be read or hides where it leads, under no ban."""
        return self.attempt.id in ALWAYS or (self.settings is Settings.STRICT and self.attempt.id in STRICT)


@dataclass(frozen=True, slots=True)
class Case:
    """A row by one carrier, with one server."""

    row: Row
    carrier: Carrier
    server: Server

    def __str__(self) -> str:
        return f"{self.row.attempt.family}:{self.row.id}-{self.carrier}-{self.server}"

    @property
    def key(self) -> Key:
        return Key(self.carrier.program, self.row.settings)


def cases(rows: Iterable[Row]) -> Iterator[Case]:
    for row in rows:
        for carrier in row.carriers:
            yield Case(row, carrier, row.server)
        yield from (Case(row, row.carriers[0], server) for server in row.servers)


def family(which: Family) -> list[Attempt]:
    return [attempt for attempt in ATTEMPTS.values() if attempt.family is which]


def carriers_of(attempt: Attempt) -> tuple[Carrier, ...]:
    """Every way that an attempt can go."""
    match attempt.opens:
        case Opens.PROXY | Opens.URL:
            return Carrier.CONNECT, Carrier.MITMPROXY_CONNECT
        case Opens.SOCKS:
            return Carrier.SOCKS, Carrier.MITMPROXY_SOCKS
        case _:
            return (*(Carrier.GATE, Carrier.MITMPROXY), *(Carrier.CONNECT, Carrier.SOCKS, Carrier.MITMPROXY_CONNECT))


PLAIN: Final = {
    Opens.TLS: ATTEMPTS["sni-plain"],
    Opens.HTTP: ATTEMPTS["plain-request"],
    Opens.PROXY: ATTEMPTS["connect-name"],
    Opens.URL: ATTEMPTS["url"],
    Opens.SOCKS: ATTEMPTS["socks-name"],
}
"""What an ordinary client does."""


def twin_of(case: Case) -> tuple[Attempt, str, str, bool]:
    """Attempt, name, address, and whether the client is under the ban."""
    row = case.row
    usual = (
        Twin.VISITOR if row.attempt.opens is Opens.TLS and row.attempt.family is not Family.HIDDEN_NAMES else Twin.PLAIN
    )
    match row.twin or (Twin.SAME_TRICK if row.attempt.innocent else usual):
        case Twin.SAME_TRICK:
            return row.attempt, ALLOWED, OPEN_ADDRESS, True
        case Twin.VISITOR if case.server is Server.RECORDER:  # what a real server makes of it is its own affair
            return row.attempt, row.name, row.address, False
        case _:
            return PLAIN[row.attempt.opens], ALLOWED, OPEN_ADDRESS, True
