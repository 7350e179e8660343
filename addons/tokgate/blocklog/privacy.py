"""Clients as the log names them: plainly, by the network around them, or by a pseudonym whose key changes with time.

A pseudonym is an HMAC of the address under a key of the period. The next period's key is made from this one's, which is
then overwritten: what lies on the machine can't give back who was meant in earlier periods. The secret that began it
can, and is split in two halves for two people.
"""

import base64
import hashlib
import hmac
import json
import re
import secrets
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

from whenever import Instant

from tokgate.blocklog.aliases import PSEUDONYM, WITHHELD
from tokgate.blocklog.document import Record
from tokgate.blocklog.signing import KeyUnusable, replace_secret
from tokgate.policy.names import parse_address

PREFIX_LENGTHS: Final = {4: 24, 6: 48}
"""How much of an address `prefix` keeps, by version."""
_SECONDS_A_DAY: Final = 86_400


class NotAHalf(ValueError):
    """What should be half of a secret isn't, or belongs to another half."""


@dataclass(frozen=True, slots=True)
class Secret:
    """From which the keys of a period and all later ones are made. Periods count from 1970, `days` long."""

    days: int
    period: int
    state: bytes

    @classmethod
    def new(cls, days: int, now: Instant) -> "Secret":
        """A secret that begins now."""
        return cls(days, period_of(now, days), secrets.token_bytes(32))

    def at(self, period: int) -> "Secret":
        """The secret of a later period. Raises ValueError for an earlier one: there is no way back."""
        if period < self.period:
            raise ValueError(f"period {period} was before this secret began, in period {self.period}")
        state = self.state
        for _ in range(period - self.period):
            state = hmac.digest(state, b"next", hashlib.sha256)
        return Secret(self.days, period, state)

    def pseudonym(self, address: str) -> str:
        """What an address is called in this secret's period."""
        key = hmac.digest(self.state, b"pseudonyms", hashlib.sha256)
        digest = hmac.digest(key, address.encode("utf-8", "backslashreplace"), hashlib.sha256)
        return f"p{self.period}-{base64.b32encode(digest[:10]).decode().lower()}"


def period_of(at: Instant, days: int) -> int:
    """The number of the period that an instant falls in."""
    return int(at.timestamp()) // (days * _SECONDS_A_DAY)


def split(secret: Secret) -> tuple[str, str]:
    """A secret as two lines of text, of which one alone says nothing about it."""
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
    """Pseudonyms with their addresses, where that is one of `among`. Raises ValueError for what is no pseudonym."""
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


def secret_path_for(log: Path) -> Path:
    """Where a log's secret is: beside it, `block.pseudonyms` for `block.ndjson`."""
    return log.with_suffix(".pseudonyms")


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
    """Replace the file, so that the secret that it held is gone. Raises OSError."""
    said = {"days": secret.days, "period": secret.period, "state": secret.state.hex()}
    replace_secret(path, json.dumps(said).encode())


class Pseudonyms:
    """Names clients by the secret in a file; makes one if there is none, and moves it on with the periods."""

    def __init__(self, path: Path, days: int, now: Callable[[], Instant], trouble: Callable[[Exception], None]) -> None:
        """`days` is how long a period is if the secret has to be made. Nothing is read yet."""
        self._path: Final = path
        self._days: Final = days
        self._now: Final = now
        self._trouble: Final = trouble
        self._secret: Secret | None = None

    def __call__(self, address: str) -> str:
        """What to call a client; `withheld`, and never its address, when that can't be told."""
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
        if period > secret.period:  # a clock that goes back goes on with the period that it has left
            secret = secret.at(period)
            write_secret(self._path, secret)
        self._secret = secret
        return secret


def prefix(address: str) -> str:
    """The network around an address; `withheld` for what is none."""
    parsed = parse_address(address)
    if parsed is None:
        return WITHHELD
    return str(ip_network((parsed, PREFIX_LENGTHS[parsed.version]), strict=False))


def disguised(record: Record, alias: Callable[[str], str]) -> Record:
    """The record with its client under another name, wherever it is written: also in sentences and error messages.

    So its user, who is named in no sentence; its hardware address is left out. An override has the networks around its
    clients: with their addresses, who uses it would be known by name.
    """
    source = record.get("source")
    client = (source.get("ip") or source.get("address")) if isinstance(source, dict) else None
    if not isinstance(client, str):
        return _widened(record)
    name = alias(client)
    changed: Record = _renamed(record, _written(client), name)
    changed["source"] = {"address": name}  # without the port, by which other logs would know the connection
    related = changed.get("related")
    if isinstance(related, dict) and name in related.get("ip", ()):
        others = [ip for ip in related["ip"] if ip != name]
        changed["related"] = {key: value for key, value in (related | {"ip": others}).items() if value}
    user = changed.get("user")
    if isinstance(user, dict):
        known = alias(str(user.get("name", "")))
        changed["user"] = {"name": known}
        changed["related"] = changed.get("related", {}) | {"user": [known]}
    return changed


def _widened(record: Record) -> Record:
    """The record with each of the clients that an override is for in the network around it, where it is narrower."""
    own = record.get("tokgate")
    named = own.get("clients") if isinstance(own, dict) else None
    for client in map(str, named or ()):
        address, _, length = client.partition("/")
        around = prefix(address)
        if around != WITHHELD and int(length or 128) > int(around.partition("/")[2]):
            record = _renamed(record, _written(address), around)
            own = record["tokgate"]
            record = record | {"tokgate": own | {"clients": list(dict.fromkeys(own["clients"]))}}
    return record


def _written(address: str) -> re.Pattern[str]:
    """An address wherever it stands as such, also with a zone or as a prefix."""
    return re.compile(
        rf"(?<![0-9A-Za-z.:])(?:::ffff:)?{re.escape(address)}(?:%[\w.-]+)?(?:/[0-9]{{1,3}})?(?![0-9A-Za-z:]|\.[0-9])",
        re.IGNORECASE,
    )


def _renamed(value: Any, written: re.Pattern[str], name: str) -> Any:
    if isinstance(value, str):
        return written.sub(name, value)
    if isinstance(value, list):
        return [_renamed(item, written, name) for item in value]
    if isinstance(value, dict):
        return {key: _renamed(item, written, name) for key, item in value.items()}
    return value
