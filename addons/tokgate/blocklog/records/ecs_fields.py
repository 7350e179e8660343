"""ECS fields of what was seen on the wire: the part of a record that doesn't depend on a policy. No clock, no I/O."""

import re
from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from tokgate.blocklog.records.record import EventAction, Record, clean, pruned, timestamp
from tokgate.policy.decide import Judgement, Sighting
from tokgate.policy.decision import Signal
from tokgate.policy.membership import Identity
from tokgate.policy.networks import hardware_address
from tokgate.policy.observation import Endpoint, Observation, Stage
from tokgate.policy.values.hostname import AddressLiteral, DomainName, domain_parts, normalise, parse_address

MAX_NAMES: Final = 16
"""Most names of one connection that a record holds, so that a client can't fill the log."""

MAX_USER: Final = 256
"""Longest name of a user, in characters."""

_PROTOCOL: Final = {
    Stage.TLS: "tls",
    Stage.QUIC: "quic",
    Stage.CONNECT: "http",
    Stage.HTTP: "http",
    Stage.DNS: "dns",
}


def described(seen: Observation, judgement: Judgement) -> str:
    """What was asked for, for the message: a name, else an address."""
    name, alias = judgement.sighting.host, _alias(seen, judgement)
    if not name:
        return clean(seen.destination.ip) if seen.destination is not None else "a host without a name"
    said = clean(str(normalise(name)), 253)
    return said if alias is None else f"{clean(str(normalise(alias)), 253)}, which leads to {said}"


def folded_name(seen: Observation, judgement: Judgement) -> str:
    """What was asked for, as part of a fold's key: the domain name, else the text that was seen and the address."""
    if judgement.decision.is_unreadable:
        return ""
    name = normalise(judgement.sighting.host or "")
    if isinstance(name, DomainName):
        alias = _alias(seen, judgement)
        return name.value if alias is None else f"{name.value} {alias.lower()}"
    return f"{name} {seen.destination.ip if seen.destination is not None else ''}"


def common(seen: Observation, judgement: Judgement) -> Observation:
    """The observation without what differs between repeats of an event: ports, paths, fingerprints.

    The destination's address is kept only if there was no name.
    """
    by_name = isinstance(normalise(judgement.sighting.host or ""), DomainName)
    destination, alias = seen.destination, _alias(seen, judgement)
    return replace(
        seen,
        client=Endpoint(seen.client.ip),
        destination=None if by_name or destination is None else Endpoint(destination.ip),
        names=(*(() if alias is None else (Sighting(Signal.DNS_NAME, alias),)), judgement.sighting),
        tls=None,
        http=seen.http and replace(seen.http, path=None, user_agent=None),
        dns=seen.dns and replace(seen.dns, id=None),
        connection=None,
    )


def without_destination(seen: Observation) -> Observation:
    """The observation without all that could say where it led, but the port."""
    port = None if seen.destination is None else seen.destination.port
    return replace(seen, destination=Endpoint("", port), names=(), tls=None, http=None, dns=None, opened=False)


def observed(seen: Observation, judgement: Judgement, action: EventAction) -> Record:
    """The fields of an observation that don't depend on the policy, without absent ones."""
    names = [normalise(host) for sighting in _shown(seen, judgement) if (host := sighting.host)]
    hosts = sorted({name.value for name in names if isinstance(name, DomainName)})
    addresses = [ip for end in (seen.client, seen.destination) if end is not None and (ip := _ip(end.ip)) is not None]
    addresses += [str(name) for name in names if isinstance(name, AddressLiteral)]
    source, destination = _endpoint(seen.client), _endpoint(seen.destination)
    carried = seen.carried
    if carried is not None:
        source["bytes"], destination["bytes"] = carried.up, carried.down
    who = seen.identity or Identity()
    user = None if who.user is None else clean(who.user, MAX_USER)
    device = None if who.device is None else hardware_address(who.device)
    source["mac"] = None if device is None else device.upper().replace(":", "-")  # RFC 7042 §2.1: 00-53-00-AA-BB-CC
    protocol = _PROTOCOL.get(seen.stage)
    if seen.stage is Stage.CONNECT and seen.http is None:  # of what can't be read nobody knows
        protocol = None if action is EventAction.UNREADABLE_REFUSED else "socks"
    sni, established = seen.name(Signal.SNI, Signal.QUIC_SNI), True if seen.opened else None
    if not seen.opened and action in (EventAction.TLS_HANDSHAKE_REFUSED, EventAction.QUIC_REFUSED):
        established = False
    asked = normalise(judgement.sighting.host or "")
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
                "protocol": protocol,
                "type": None if (ip := _ip(seen.client.ip)) is None else "ipv6" if ":" in ip else "ipv4",
                "direction": "outbound",
                "name": judgement.decision.network,
                "bytes": None if carried is None else carried.up + carried.down,
            },
            "tls": {"client": {"server_name": clean(sni) if sni else None}, "established": established},
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
                "passed": seen.passed,
                "continued_until": seen.continued_until and timestamp(seen.continued_until),
            },
        }
    )


def _alias(seen: Observation, judgement: Judgement) -> str | None:
    """The name that was asked for in DNS, if it is another one to which the answer leads that was decided about."""
    asked = seen.name(Signal.DNS_NAME) if seen.dns is not None else None
    name = judgement.sighting.value
    below = asked is not None and "\\" in asked and asked.endswith(f".{name}")  # what follows odd octets in it
    return None if name == asked or below else asked


def _shown(seen: Observation, judgement: Judgement) -> Iterator[Sighting]:
    if judgement.sighting not in seen.names[:MAX_NAMES]:
        yield judgement.sighting
    yield from seen.names[:MAX_NAMES]


def _names(seen: Observation, judgement: Judgement) -> dict[str, list[str]]:
    """Every name as it was seen, by signal: `tokgate.names`."""
    names: dict[str, list[str]] = {}
    for sighting in _shown(seen, judgement):
        shown = clean(_without_query(sighting.value) if sighting.signal.is_url else sighting.value)
        if shown and shown not in names.setdefault(sighting.signal.value, []):
            names[sighting.signal.value].append(shown)
    return names


def _without_query(url: str) -> str:
    """A URL without query, fragment and userinfo, which may hold personal data."""
    try:
        parts = urlsplit(url)
    except ValueError:  # malformed, such as brackets without an address
        return re.sub("//[^/]*@", "//", url.partition("?")[0].partition("#")[0])
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


@lru_cache(maxsize=8192)
def _ip(text: str) -> str | None:
    address = parse_address(text)
    return None if address is None else str(address)


def _endpoint(end: Endpoint | None) -> dict[str, Any]:
    if end is None:
        return {}
    ip = _ip(end.ip)
    return {"address": None if ip is not None else clean(end.ip), "ip": ip, "port": end.port}


def _http(seen: Observation) -> Record:
    http = seen.http
    if http is None:
        return {}
    signals = (Signal.HTTP_HOST, Signal.URL, Signal.SNI)
    host = next((host for sighting in seen.names if sighting.signal in signals and (host := sighting.host)), None)
    name = normalise(host) if host else None
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
