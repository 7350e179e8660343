"""SOCKS 5 as a server reads it (RFC 1928): how a client offers to say who it is, and which destination it asks for."""

from dataclasses import dataclass
from enum import IntEnum
from ipaddress import ip_address
from typing import Final

from tokgate.wire.host_names import can_be_dialled

VERSION: Final = 5
_NO_AUTHENTICATION: Final = 0
_PASSWORD: Final = 2
_NONE_ACCEPTABLE: Final = 0xFF
_CONNECT: Final = 1

METHOD_CHOSEN: Final = bytes((VERSION, _NO_AUTHENTICATION))
PASSWORD_CHOSEN: Final = bytes((VERSION, _PASSWORD))
NO_METHOD: Final = bytes((VERSION, _NONE_ACCEPTABLE))


SOCKS4: Final = 4
"""The version of an older protocol, which is refused: its clients resolve names by themselves."""
SOCKS4_REJECTED: Final = b"\0\x5b\0\0\0\0\0\0"


class Reply(IntEnum):
    """Replies to a request (RFC 1928 §6)."""

    SUCCEEDED = 0
    GENERAL_FAILURE = 1
    NOT_ALLOWED = 2
    HOST_UNREACHABLE = 4
    COMMAND_NOT_SUPPORTED = 7
    ADDRESS_NOT_SUPPORTED = 8

    @property
    def octets(self) -> bytes:
        """The reply; the bound address, of no use to clients, is all zeros."""
        return bytes((VERSION, self, 0, 1, 0, 0, 0, 0, 0, 0))


class SocksError(ValueError):
    """The client says something that can't be served; `reply` tells it so, and the connection ends."""

    def __init__(self, problem: str, reply: bytes = b"") -> None:
        super().__init__(problem)
        self.reply: Final = reply


@dataclass(frozen=True, slots=True)
class SocksRequest:
    """A CONNECT request; `host` is a name as sent, or an address. `length`: its octets."""

    host: str
    port: int
    length: int


def read_methods(data: bytes, *, password: bool = False) -> int | None:
    """The length of the method selection at the start of `data` (RFC 1928 §3); None if it is incomplete.

    The client must offer to go without authentication, or with `password` to say who it is (RFC 1929).

    Raises:
        SocksError: not version 5, or the client does not offer that method.

    """
    if data and data[0] != VERSION:
        raise SocksError("not SOCKS version 5")
    if len(data) < 2 or len(data) < 2 + data[1]:
        return None
    if (_PASSWORD if password else _NO_AUTHENTICATION) not in data[2 : 2 + data[1]]:
        problem = "the client won't say who it is" if password else "the client wants authentication"
        raise SocksError(problem, NO_METHOD)
    return 2 + data[1]


def read_request(data: bytes) -> SocksRequest | None:
    """The request at the start of `data` (RFC 1928 §4); None if it is incomplete.

    Raises:
        SocksError: another version, command or address type, or a name that is none.

    """
    if data and data[0] != VERSION:
        raise SocksError("not SOCKS version 5")
    if len(data) < 7:
        return None
    if data[1] != _CONNECT:
        raise SocksError("only CONNECT is served", Reply.COMMAND_NOT_SUPPORTED.octets)
    match data[3]:
        case 1:
            end = 8
        case 3:
            end = 5 + data[4]
        case 4:
            end = 20
        case _:
            raise SocksError("unknown address type", Reply.ADDRESS_NOT_SUPPORTED.octets)
    if len(data) < end + 2:
        return None
    raw = data[4:end]
    port = int.from_bytes(data[end : end + 2])
    if data[3] != 3:
        return SocksRequest(str(ip_address(raw)), port, end + 2)
    if not can_be_dialled(raw[1:]):
        raise SocksError("the name is none", Reply.GENERAL_FAILURE.octets)
    return SocksRequest(raw[1:].decode("ascii"), port, end + 2)
