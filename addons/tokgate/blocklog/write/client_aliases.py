"""Puts aliases in the place of clients in records: pseudonyms, or the prefixes around them."""

import re
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Any, Final

from whenever import Instant

from tokgate.blocklog.integrity.checkpointer import LogOptions
from tokgate.blocklog.paths import secret_path_for
from tokgate.blocklog.records.record import WITHHELD, Record
from tokgate.blocklog.write.pseudonyms import Pseudonyms
from tokgate.policy.settings import ClientsShown
from tokgate.policy.values.hostname import parse_address
from tokgate.policy.values.prefix_table import IPNetwork

PREFIX_LENGTHS: Final = {4: 24, 6: 48}
"""Length of the prefix that `prefix` keeps, by IP version."""


def client_alias(
    log: Path, options: LogOptions, now: Callable[[], Instant], trouble: Callable[[Exception], None]
) -> Callable[[Record], Record]:
    """The function that gives a record's client its alias, as the options say.

    Without a file that can hold a secret, as where the log is a pipe, pseudonyms are `withheld`. `trouble` gets errors
    of the file with the secret.
    """
    if options.clients is ClientsShown.PLAIN:
        return lambda record: record
    if options.clients is ClientsShown.PREFIX:
        return lambda record: with_alias(record, prefix)
    device = log.is_symlink() or (log.exists() and not log.is_file())
    if device and options.key is None:  # no file can be kept beside it
        return lambda record: with_alias(record, lambda _: WITHHELD)
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
    related = changed.get("related")
    if isinstance(related, dict):
        others = [ip for ip in related.get("ip", ()) if ip != name]
        changed["related"] = {key: value for key, value in (related | {"ip": others}).items() if value}
    user = changed.get("user")
    if isinstance(user, dict):
        known = alias(str(user.get("name", "")))
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


def _written(address: str) -> re.Pattern[str]:
    """Matches an address as a whole word, also with a zone or a prefix length."""
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
