"""Host and port out of an HTTP authority: a Host field, `:authority`, a CONNECT target. No URLs, no default ports."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from tokgate.wire.hostname_syntax import can_be_dialled, is_ipv6_address


class AuthorityProblem(StrEnum):
    """Why an authority names no host that could be decided about."""

    EMPTY = "empty"
    USERINFO = "userinfo"
    NOT_ASCII = "not-ascii"
    INVALID_HOST = "invalid-host"
    INVALID_PORT = "invalid-port"
    MISSING_PORT = "missing-port"


@dataclass(frozen=True, slots=True)
class Authority:
    """A host and a port as they were sent; `port` is None if there was none, or an empty one."""

    host: str
    """A DNS name in the sender's spelling, an IPv4 address, or an IPv6 address without its brackets."""
    port: int | None


@dataclass(frozen=True, slots=True)
class InvalidAuthority:
    """An authority that names no host to decide about; most are errors to be answered with 400 (RFC 9112 §3.2)."""

    raw: str
    problem: AuthorityProblem


def read_authority(raw: str) -> Authority | InvalidAuthority:
    """Read `uri-host [ ":" port ]`, the value of Host (RFC 9110 §7.2) and of `:authority` (RFC 9113 §8.3.1).

    Narrower than the generic syntax of RFC 3986 §3.2 where that can't name a host on the internet: no userinfo
    (RFC 9110 §4.2.4 has it treated as an error: it hides the host from readers), no percent-encoding, no
    sub-delimiters, no IPvFuture, no IPv6 zone, no number for an address. White space around the value belongs to the
    field's syntax and is an error here.
    """
    if not raw:
        return InvalidAuthority(raw, AuthorityProblem.EMPTY)
    if not raw.isascii():
        return InvalidAuthority(raw, AuthorityProblem.NOT_ASCII)
    if "@" in raw:
        return InvalidAuthority(raw, AuthorityProblem.USERINFO)
    if raw.startswith("["):
        host, bracket, rest = raw[1:].partition("]")
        between, _, digits = rest.partition(":")
        is_host = bracket == "]" and not between and is_ipv6_address(host.encode("ascii"))
    else:
        host, _, digits = raw.partition(":")
        if not host:
            return InvalidAuthority(raw, AuthorityProblem.EMPTY)
        is_host = can_be_dialled(host.encode("ascii"))
    if not is_host:
        return InvalidAuthority(raw, AuthorityProblem.INVALID_HOST)
    if not digits:  # RFC 3986 §3.2.3: port = *DIGIT, and an empty one is the same as none
        return Authority(host, None)
    port = _port(digits)
    return InvalidAuthority(raw, AuthorityProblem.INVALID_PORT) if port is None else Authority(host, port)


def read_connect_target(raw: str) -> Authority | InvalidAuthority:
    """Read the target of CONNECT, `uri-host ":" port`, where the port is never left out.

    RFC 9110 §9.3.6: there is no default port, and an empty or invalid one is to be rejected.
    """
    authority = read_authority(raw)
    if isinstance(authority, Authority) and authority.port is None:
        return InvalidAuthority(raw, AuthorityProblem.MISSING_PORT)
    return authority


def _port(digits: str) -> int | None:
    """A TCP port from 1 to 65535; leading zeros are legal, and bounded so that no huge number gets converted."""
    if not digits.isdecimal() or len(digits) > 8:
        return None
    port = int(digits)
    return port if 0 < port < 65536 else None
