"""What a client asks a proxy for: CONNECT requests, as they come in pieces; authorities; names and passwords."""

import binascii
import re
from dataclasses import dataclass, field
from typing import Final

import h11

from tokgate.wire.host_names import can_be_dialled, is_ipv6_address

MAX_HEAD: Final = 65536
"""Octets within which the head has to end."""


_FIRST_LINE: Final = re.compile(rb"[^\n]*\n")
_HOST_MISSING: Final = "Missing mandatory Host"


class ConnectRequestError(ValueError):
    """The bytes are no CONNECT request that names a host and a port."""


@dataclass(frozen=True, slots=True)
class ConnectRequest:
    """A CONNECT request (RFC 9110 §9.3.6)."""

    host: str
    port: int
    proxy_authorization: bytes
    """The field's value as it was sent; empty without the field."""
    rest: bytes
    """The bytes after the head."""
    named: str = ""
    """The host in its Host field where that is another one, which RFC 9112 §3.2 forbids."""


class ConnectReader:
    """A head that comes in pieces. Each octet is looked at once, however many pieces there are."""

    __slots__ = ("_reader", "_said")

    def __init__(self) -> None:
        self._said: Final = bytearray()
        self._reader: Final = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)

    def feed(self, data: bytes | bytearray) -> ConnectRequest | None:
        """Take the next piece; None as long as the head is incomplete.

        Raises:
            ConnectRequestError: it is none, or longer than `MAX_HEAD`.

        """
        self._said.extend(data)
        try:
            self._reader.receive_data(bytes(data))
            request = self._reader.next_event()
        except h11.RemoteProtocolError as error:
            if _HOST_MISSING not in str(error):
                raise ConnectRequestError(str(error)) from None
            said = _FIRST_LINE.sub(rb"\g<0>Host: \r\n", bytes(self._said), count=1)
            return ConnectReader().feed(said)  # old programs leave it out; the target says it all
        if not isinstance(request, h11.Request):
            return None
        target = read_authority(request.target.decode("latin-1"))
        if request.method != b"CONNECT" or target is None or target.port is None:  # RFC 9110 §9.3.6: no default port
            raise ConnectRequestError("no CONNECT with a host and a port")
        fields = dict(request.headers)
        named = read_authority(fields.get(b"host", b"").decode("latin-1"))
        other = named.host if named is not None and named.host.lower() != target.host.lower() else ""
        said = fields.get(b"proxy-authorization", b"")
        return ConnectRequest(target.host, target.port, said, self._reader.trailing_data[0], other)


@dataclass(frozen=True, slots=True)
class Authority:
    """A host and a port as they were sent; `port` is None if there was none, or an empty one."""

    host: str
    """A DNS name in the sender's spelling, an IPv4 address, or an IPv6 address without its brackets."""
    port: int | None


def read_authority(raw: str) -> Authority | None:
    """Read `uri-host [ ":" port ]`, the value of Host (RFC 9110 §7.2) and of `:authority` (RFC 9113 §8.3.1).

    None for one that names no host to decide about: most are errors to be answered with 400 (RFC 9112 §3.2). It is
    narrower than the generic syntax of RFC 3986 §3.2 where that can't name a host on the internet: no userinfo
    (RFC 9110 §4.2.4 has it treated as an error: it hides the host from readers), no percent-encoding, no
    sub-delimiters, no IPvFuture, no IPv6 zone, no number for an address. White space around the value belongs to the
    field's syntax and is an error here.
    """
    if not raw.isascii():
        return None
    if raw.startswith("["):
        host, bracket, rest = raw[1:].partition("]")
        between, _, digits = rest.partition(":")
        is_host = bracket == "]" and not between and is_ipv6_address(host.encode("ascii"))
    else:
        host, _, digits = raw.partition(":")
        is_host = can_be_dialled(host.encode("ascii"))
    if not is_host:
        return None
    if not digits:  # RFC 3986 §3.2.3: port = *DIGIT, and an empty one is the same as none
        return Authority(host, None)
    # Leading zeros are legal, and bounded so that no huge number gets converted.
    port = int(digits) if digits.isdecimal() and len(digits) <= 8 else 0
    return Authority(host, port) if 0 < port < 65536 else None


SOCKS_VERSION: Final = 1
"""Of the sub-negotiation (RFC 1929 §2)."""
ACCEPTED: Final = b"\x01\x00"
REJECTED: Final = b"\x01\x01"


@dataclass(frozen=True, slots=True)
class Credentials:
    """The name and password that a client sends. The password is left out of the repr, so that no log gets it."""

    user: str
    password: str = field(repr=False)


def read_basic(value: str | None) -> Credentials | None:
    """The credentials of a `Proxy-Authorization` field (RFC 7617 §2); None without any that can be read.

    UTF-8, as our challenge says.
    """
    scheme, _, rest = (value or "").strip().partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = binascii.a2b_base64(rest.strip(), strict_mode=True).decode().partition(":")
    except ValueError:
        return None
    return Credentials(user, password) if colon and user else None


def read_password(data: bytes) -> tuple[Credentials, int] | None:
    """The credentials at the start of `data` (RFC 1929 §2) and how many octets they take; None if incomplete.

    Raises:
        ValueError: another version, or text that is not UTF-8.

    """
    if data and data[0] != SOCKS_VERSION:
        raise ValueError("not version 1 of username and password")
    if len(data) < 3 or len(data) < 3 + data[1]:
        return None
    end = 2 + data[1]
    length = end + 1 + data[end]
    if len(data) < length:
        return None
    return Credentials(data[2:end].decode(), data[end + 1 : length].decode()), length
