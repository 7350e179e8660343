"""Reads the head of a request to a proxy, as it comes in pieces: CONNECT, its target and who asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import h11

from tokgate.wire.http_authority import Authority, read_authority, read_connect_target

MAX_HEAD: Final = 65536
"""Octets within which the head has to end."""


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

    __slots__ = ("_reader",)

    def __init__(self) -> None:
        self._reader: Final = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD)

    def feed(self, data: bytes | bytearray) -> ConnectRequest | None:
        """Take the next piece; None as long as the head is incomplete.

        Raises:
            ConnectRequestError: it is none, or longer than `MAX_HEAD`.

        """
        try:
            self._reader.receive_data(bytes(data))
            request = self._reader.next_event()
        except h11.RemoteProtocolError as error:
            raise ConnectRequestError(str(error)) from None
        if not isinstance(request, h11.Request):
            return None
        target = read_connect_target(request.target.decode("latin-1"))
        if request.method != b"CONNECT" or not isinstance(target, Authority) or target.port is None:
            raise ConnectRequestError("no CONNECT with a host and a port")
        fields = dict(request.headers)
        said, named = (
            fields.get(b"proxy-authorization", b""),
            read_authority(fields.get(b"host", b"").decode("latin-1")),
        )
        other = named.host if isinstance(named, Authority) and named.host.lower() != target.host.lower() else ""
        return ConnectRequest(target.host, target.port, said, self._reader.trailing_data[0], other)
