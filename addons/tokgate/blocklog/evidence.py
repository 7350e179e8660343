"""What the wire showed, as ECS fields: the part of a record that no policy has a say in. Pure: no clock, no I/O."""

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from tokgate.blocklog.document import EventAction, Record, clean, pruned, timestamp
from tokgate.blocklog.domains import domain_parts
from tokgate.blocklog.observation import Endpoint, Observation, Stage
from tokgate.policy.decide import Judgement
from tokgate.policy.decision import Signal
from tokgate.policy.devices import hardware_address
from tokgate.policy.identity import Identity
from tokgate.policy.names import AddressLiteral, DomainName, normalise, parse_address

MAX_NAMES: Final = 16
"""Most names kept of one connection: a client can't fill the log with a long list of its own making."""

MAX_USER: Final = 256
"""Longest name of a user."""

_PROTOCOL: Final = {
    Stage.TLS: "tls",
    Stage.QUIC: "quic",
    Stage.CONNECT: "http",
    Stage.HTTP: "http",
    Stage.DNS: "dns",
}


def described(seen: Observation, judgement: Judgement) -> str:
    """What was asked for, as a person would say it: a name, else an address."""
    name = _host_of(judgement.sighting.signal, judgement.sighting.value)
    if name:
        return clean(str(normalise(name)), 253)
    return clean(seen.destination.ip) if seen.destination is not None else "a host without a name"


def folded_name(seen: Observation, judgement: Judgement) -> str:
    """What was asked for, as repeats are told apart by it: the domain name, else what was said and the address."""
    name = normalise(_host_of(judgement.sighting.signal, judgement.sighting.value) or "")
    if isinstance(name, DomainName):
        return name.value
    return f"{name} {seen.destination.ip if seen.destination is not None else ''}"


def common(seen: Observation, judgement: Judgement) -> Observation:
    """What all repeats of an event show alike: no ports, no paths, no fingerprints; an address for want of a name."""
    by_name = isinstance(normalise(_host_of(judgement.sighting.signal, judgement.sighting.value) or ""), DomainName)
    destination = seen.destination
    return replace(
        seen,
        client=Endpoint(seen.client.ip),
        destination=None if by_name or destination is None else Endpoint(destination.ip),
        names=(judgement.sighting,),
        tls=None,
        http=seen.http and replace(seen.http, path=None, user_agent=None),
        dns=seen.dns and replace(seen.dns, id=None),
        connection=None,
    )


def observed(seen: Observation, judgement: Judgement, action: EventAction) -> Record:
    """The fields that say what the wire showed."""
    names = [normalise(host) for signal, value in _shown(seen, judgement) if (host := _host_of(signal, value))]
    hosts = sorted({name.value for name in names if isinstance(name, DomainName)})
    addresses = [ip for end in (seen.client, seen.destination) if end is not None and (ip := _ip(end.ip)) is not None]
    addresses += [str(name) for name in names if isinstance(name, AddressLiteral)]
    source, destination = _endpoint(seen.client), _endpoint(seen.destination)
    carried = seen.carried
    if carried is not None:
        source["bytes"], destination["bytes"] = carried.up, carried.down
    who = seen.identity or Identity()
    user = None if who.user is None else clean(who.user, MAX_USER)
    source["mac"] = _octets(who.device)
    asked = normalise(_host_of(judgement.sighting.signal, judgement.sighting.value) or "")
    if isinstance(asked, DomainName):
        parts = domain_parts(asked.value)
        destination |= {
            "domain": asked.value,
            "registered_domain": parts.registered_domain,
            "subdomain": parts.subdomain,
            "top_level_domain": parts.top_level_domain,
        }
    return pruned(
        {
            "source": source,
            "destination": destination,
            "network": {
                "transport": seen.transport.value,
                "protocol": "socks" if seen.stage is Stage.CONNECT and seen.http is None else _PROTOCOL.get(seen.stage),
                "type": None if (ip := _ip(seen.client.ip)) is None else "ipv6" if ":" in ip else "ipv4",
                "direction": "outbound",
                "name": judgement.decision.network,
                "bytes": None if carried is None else carried.up + carried.down,
            },
            "tls": _tls(seen, action),
            **_http(seen),
            "dns": _dns(seen),
            "user": {"name": user},
            "related": {"ip": sorted(set(addresses)), "hosts": hosts, "user": [user] if user else None},
            "tokgate": {
                "stage": seen.stage.value,
                "visibility": seen.visibility.value,
                "connection": None if seen.connection is None else clean(seen.connection, 64),
                "names": _names(seen, judgement),
                "alpn": [clean(protocol, 64) for protocol in seen.tls.alpn[:MAX_NAMES]] if seen.tls else None,
                "ja4": clean(seen.tls.ja4, 64) if seen.tls and seen.tls.ja4 else None,
                "ech": seen.tls.ech if seen.tls else None,
                "passed": seen.passed and seen.passed.value,
                "continued_until": seen.continued_until and timestamp(seen.continued_until),
            },
        }
    )


def _shown(seen: Observation, judgement: Judgement) -> Iterator[tuple[Signal, str]]:
    if judgement.sighting not in seen.names[:MAX_NAMES]:
        yield judgement.sighting.signal, judgement.sighting.value
    for sighting in seen.names[:MAX_NAMES]:
        yield sighting.signal, sighting.value


def _names(seen: Observation, judgement: Judgement) -> dict[str, list[str]]:
    """Every name as it was shown, by signal: the evidence when signals disagree."""
    names: dict[str, list[str]] = {}
    for signal, value in _shown(seen, judgement):
        shown = clean(_without_query(value) if signal is Signal.URL else value)
        if shown and shown not in names.setdefault(signal.value, []):
            names[signal.value].append(shown)
    return names


def _host_of(signal: Signal, value: str) -> str | None:
    if signal is not Signal.URL:
        return value or None
    try:
        return urlsplit(value).hostname
    except ValueError:
        return None


def _without_query(url: str) -> str:
    """A URL without query, fragment and user: they can hold what a person typed."""
    try:
        parts = urlsplit(url)
    except ValueError:  # brackets that hold no address, and the like
        return re.sub("//[^/]*@", "//", url.partition("?")[0].partition("#")[0])
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


@lru_cache(maxsize=8192)
def _ip(text: str) -> str | None:
    address = parse_address(text)
    return None if address is None else str(address)


def _octets(device: str | None) -> str | None:
    """A hardware address as ECS wants it (RFC 7042 §2.1): `00-53-00-AA-BB-CC`."""
    known = None if device is None else hardware_address(device)
    return None if known is None else known.upper().replace(":", "-")


def _endpoint(end: Endpoint | None) -> dict[str, Any]:
    if end is None:
        return {}
    ip = _ip(end.ip)
    return {"address": None if ip is not None else clean(end.ip), "ip": ip, "port": end.port}


def _tls(seen: Observation, action: EventAction) -> Record:
    sni = seen.name(Signal.SNI, Signal.QUIC_SNI)
    established = None
    if seen.opened:
        established = True
    elif action in (EventAction.TLS_HANDSHAKE_REFUSED, EventAction.QUIC_REFUSED):
        established = False
    return {"client": {"server_name": clean(sni) if sni else None}, "established": established}


def _http(seen: Observation) -> Record:
    http = seen.http
    if http is None:
        return {}
    host = seen.name(Signal.HTTP_HOST, Signal.URL, Signal.SNI)
    name = normalise(_host_of(Signal.URL, host) or host if "://" in host else host) if host else None
    parts = domain_parts(name.value) if isinstance(name, DomainName) else None
    port = seen.destination.port if seen.destination is not None else None
    return {
        "http": {
            "version": http.version,
            "request": {"method": clean(http.method, 32)},
            "response": {"status_code": http.status},
        },
        "url": {
            "scheme": http.scheme,
            "domain": clean(str(name)) if name is not None else None,
            "registered_domain": parts.registered_domain if parts is not None else None,
            "port": port,
            "path": clean(http.path.partition("?")[0].partition("#")[0]) if http.path else None,
        },
        "user_agent": {"original": clean(http.user_agent) if http.user_agent else None},
    }


def _dns(seen: Observation) -> Record:
    dns = seen.dns
    if dns is None:
        return {}
    name = seen.name(Signal.DNS_NAME)
    asked = normalise(name) if name else None
    parts = domain_parts(asked.value) if isinstance(asked, DomainName) else None
    return {
        "id": None if dns.id is None else str(dns.id),
        "type": "query" if dns.response_code is None else "answer",
        "response_code": dns.response_code,
        "question": {
            "name": clean(str(asked)) if asked is not None else None if name is None else ".",
            "type": dns.type,
            "class": "IN",
            "registered_domain": parts.registered_domain if parts is not None else None,
        },
    }
