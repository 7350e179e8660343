"""Pseudonyms and prefixes in the place of clients.

A pseudonym is an HMAC of the address under a key of the period. The next period's key is derived from this one's, which
is then overwritten, so nothing on the machine can reverse pseudonyms of earlier periods. The initial secret can; it is
split into two halves for two people.
"""

import base64
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

from whenever import Instant

from tokgate.blocklog.integrity.checkpoint import KeyUnusable, replace_secret
from tokgate.blocklog.paths import secret_path_for
from tokgate.blocklog.records.record import PSEUDONYM, WITHHELD, Record
from tokgate.blocklog.write.checkpointer import LogOptions
from tokgate.policy.settings import ClientsShown
from tokgate.policy.values.hostname import parse_address
from tokgate.policy.values.prefixes import IPNetwork

_SECONDS_A_DAY: Final = 86_400


class NotAHalf(ValueError):
    """A text is not half of a secret, or two halves belong to different secrets."""


@dataclass(frozen=True, slots=True)
class Secret:
    """The secret from which the keys of a period and all later ones are derived.

    Periods are `days` long and are counted from 1970-01-01 UTC.
    """

    days: int
    period: int
    state: bytes

    @classmethod
    def new(cls, days: int, now: Instant) -> "Secret":
        """A random secret for the period of `now` and all later ones."""
        return cls(days, period_of(now, days), secrets.token_bytes())

    def at(self, period: int) -> "Secret":
        """The secret of a later period. Raises ValueError for an earlier one, which can't be derived."""
        if period < self.period:
            raise ValueError(f"period {period} was before this secret began, in period {self.period}")
        state = self.state
        for _ in range(period - self.period):
            state = hmac.digest(state, b"next", hashlib.sha256)
        return Secret(self.days, period, state)

    def pseudonym(self, address: str) -> str:
        """The pseudonym of an address in this secret's period."""
        key = hmac.digest(self.state, b"pseudonyms", hashlib.sha256)
        digest = hmac.digest(key, address.encode("utf-8", "backslashreplace"), hashlib.sha256)
        return f"p{self.period}-{base64.b32encode(digest[:10]).decode().lower()}"


def period_of(at: Instant, days: int) -> int:
    """The number of the period that an instant falls in."""
    return int(at.timestamp()) // (days * _SECONDS_A_DAY)


def split(secret: Secret) -> tuple[str, str]:
    """A secret as two lines of text; one alone reveals nothing about it (a one-time pad)."""
    pad = secrets.token_bytes(len(secret.state))
    other = bytes(a ^ b for a, b in zip(secret.state, pad, strict=True))
    check = hashlib.sha256(b"tokgate halves" + secret.state).hexdigest()[:16]
    first, second = (f"tokgate-half {secret.days} {secret.period} {part.hex()} {check}" for part in (pad, other))
    return first, second


def join(first: str, second: str) -> Secret:
    """The secret of two halves. Raises NotAHalf."""
    try:
        (mark, days, period, one, check), (other_mark, *_, two, other_check) = first.split(), second.split()
        state = bytes(a ^ b for a, b in zip(bytes.fromhex(one), bytes.fromhex(two), strict=True))
        secret = Secret(int(days), int(period), state)
    except ValueError as error:
        raise NotAHalf(f"not a half of a secret: {error}") from error
    proper = hashlib.sha256(b"tokgate halves" + state).hexdigest()[:16]
    if {mark, other_mark} != {"tokgate-half"} or {check, other_check} != {proper}:
        raise NotAHalf("these are not the two halves of one secret")
    return secret


def reidentify(secret: Secret, pseudonyms: Iterable[str], among: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Pairs of pseudonyms and addresses, for addresses in `among`. Raises ValueError for what is no pseudonym."""
    wanted: dict[int, set[str]] = {}
    for pseudonym in pseudonyms:
        found = PSEUDONYM.fullmatch(pseudonym)
        if found is None:
            raise ValueError(f"{pseudonym!r} is no pseudonym")
        wanted.setdefault(int(found[1]), set()).add(pseudonym)
    of_period = [(secret.at(period), names) for period, names in sorted(wanted.items())]
    for address in among:
        for known, names in of_period:
            if (pseudonym := known.pseudonym(address)) in names:
                yield pseudonym, address


def read_secret(path: Path) -> Secret:
    """A secret from its file. Raises OSError, KeyUnusable."""
    if path.stat().st_mode & 0o077:
        raise KeyUnusable(f"{path} may be read by others: chmod 600 it")
    try:
        said = json.loads(path.read_text("ascii"))
        return Secret(int(said["days"]), int(said["period"]), bytes.fromhex(said["state"]))
    except (ValueError, KeyError, TypeError) as error:
        raise KeyUnusable(f"{path} holds no secret for pseudonyms") from error


def write_secret(path: Path, secret: Secret) -> None:
    """Replace the file, and overwrite the secret that it held. Raises OSError."""
    said = {"days": secret.days, "period": secret.period, "state": secret.state.hex()}
    replace_secret(path, json.dumps(said).encode())


class Pseudonyms:
    """Makes pseudonyms by the secret in a file, which it creates if need be and replaces with each period."""

    def __init__(self, path: Path, days: int, now: Callable[[], Instant], trouble: Callable[[Exception], None]) -> None:
        """`days` is the length of a period for a new secret. Nothing is read yet."""
        self._path: Final = path
        self._days: Final = days
        self._now: Final = now
        self._trouble: Final = trouble
        self._secret: Secret | None = None

    def __call__(self, address: str) -> str:
        """The pseudonym of an address; `withheld` if the secret can't be read or written."""
        try:
            return self._current().pseudonym(address)
        except OSError as error:
            self._trouble(error)
            return WITHHELD

    def _current(self) -> Secret:
        secret, now = self._secret, self._now()
        if secret is None:
            if self._path.exists():
                secret = read_secret(self._path)
            else:
                secret = Secret.new(self._days, now)
                write_secret(self._path, secret)
        period = period_of(now, secret.days)
        if period > secret.period:  # if the clock goes back, the period stays
            secret = secret.at(period)
            write_secret(self._path, secret)
        self._secret = secret
        return secret


PREFIX_LENGTHS: Final = {4: 24, 6: 48}
"""Length of the prefix that `prefix` keeps, by IP version."""


def client_alias(
    log: Path, options: LogOptions, now: Callable[[], Instant], trouble: Callable[[Exception], None]
) -> Callable[[Record], Record]:
    """The function that gives a record's client its alias, as the options say.

    `trouble` gets errors of the file with the secret.
    """
    if options.clients is ClientsShown.PLAIN:
        return lambda record: record
    if options.clients is ClientsShown.PREFIX:
        return lambda record: with_alias(record, prefix)
    pseudonyms = Pseudonyms(secret_path_for(options.key or log), options.pseudonym_days, now, trouble)
    return lambda record: with_alias(record, pseudonyms)


def prefix(address: str) -> str:
    """The /24 or /48 around an address; `withheld` for a text that is no address."""
    parsed = parse_address(address)
    if parsed is None:
        return WITHHELD
    return str(ip_network((parsed, PREFIX_LENGTHS[parsed.version]), strict=False))


def prefix_around(network: IPNetwork) -> IPNetwork:
    """The /24 or /48 around a network; the network itself if it is that wide."""
    length = PREFIX_LENGTHS[network.version]
    return network if network.prefixlen <= length else network.supernet(new_prefix=length)


def with_alias(record: Record, alias: Callable[[str], str]) -> Record:
    """The record with aliases for its client and user, wherever they occur, also in messages.

    The client's port and hardware address are left out. An override's clients are replaced by the prefixes around them,
    since whoever uses an override is often known by name.
    """
    source = record.get("source")
    client = (source.get("ip") or source.get("address")) if isinstance(source, dict) else None
    if not isinstance(client, str):
        return _widened(record)
    name = alias(client)
    changed: Record = _renamed(record, _written(client), name)
    changed["source"] = {"address": name}  # without the port, by which other logs would know the connection
    destination = changed.get("destination")
    if isinstance(destination, dict) and "subdomain" in destination:  # alone it may not look like a part of a name
        parent = f".{destination.get('registered_domain', '')}"
        changed["destination"] = destination | {"subdomain": str(destination.get("domain", "")).removesuffix(parent)}
    related = changed.get("related")
    if isinstance(related, dict):
        others = [ip for ip in related.get("ip", ()) if ip != name]
        changed["related"] = {key: value for key, value in (related | {"ip": others}).items() if value}
    user = changed.get("user")
    if isinstance(user, dict):
        stated = str(user.get("name", ""))
        known = alias(stated)
        message = str(changed.get("message", ""))
        if message.startswith(f"{stated} at "):
            changed["message"] = known + message.removeprefix(stated)
        changed["user"] = {"name": known}
        changed["related"] = changed.get("related", {}) | {"user": [known]}
    return changed


def _widened(record: Record) -> Record:
    """The record with each client of an override replaced by the prefix around it, where that is wider."""
    own = record.get("tokgate")
    named = own.get("clients") if isinstance(own, dict) else None
    for network in map(ip_network, named or ()):
        around = prefix_around(network)
        if around != network:
            record = _renamed(record, _written(str(network.network_address)), str(around))
            own = record["tokgate"]
            record = record | {"tokgate": own | {"clients": list(dict.fromkeys(own["clients"]))}}
    return record


@lru_cache(maxsize=4096)
def _written(address: str) -> re.Pattern[str]:
    """Matches an address as a whole word, also with a zone or a prefix length; in a name also as its labels."""
    alone = (
        rf"(?<![0-9A-Za-z.:])(?:::ffff:)?{re.escape(address)}(?:%[\w.-]+)?(?:/[0-9]{{1,3}})?(?![0-9A-Za-z:]|\.[0-9])"
    )
    forms = "|".join(map(re.escape, _in_names(address)))
    return re.compile(rf"{alone}|(?<![0-9])(?:{forms})(?![0-9])(?=[\w.-]*\.[a-z])" if forms else alone, re.IGNORECASE)


def _in_names(address: str) -> list[str]:
    """An address as labels of a host name: `10-32-1-7.example.org`, `7.1.32.10.in-addr.arpa`, `2001-db8--7.x.org`."""
    parsed = parse_address(address)
    if parsed is None:
        return []
    pointer = parsed.reverse_pointer.removesuffix(".in-addr.arpa").removesuffix(".ip6.arpa")
    texts = (str(parsed), parsed.exploded, pointer)
    forms = {text.translate({ord(":"): "-", ord("."): dot}) for text in texts for dot in ".-"}
    return sorted(forms, key=len, reverse=True)


def _renamed(value: Any, written: re.Pattern[str], name: str) -> Any:
    if isinstance(value, str):
        return written.sub(name, value)
    if isinstance(value, list):
        return [_renamed(item, written, name) for item in value]
    if isinstance(value, dict):
        return {key: _renamed(item, written, name) for key, item in value.items()}
    return value
