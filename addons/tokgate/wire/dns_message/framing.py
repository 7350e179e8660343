"""DNS messages in a stream: each with its length before it (RFC 1035 §4.2.2)."""

import struct
from collections.abc import Iterator
from typing import Final

_LENGTH: Final = struct.Struct("!H")


def framed(message: bytes) -> bytes:
    """A message of up to 65,535 octets, as it is sent in a stream."""
    return _LENGTH.pack(len(message)) + message


def take_messages(buffer: bytearray) -> Iterator[bytes]:
    """Take the whole messages out of a stream's buffer; what is left is the beginning of the next one."""
    while len(buffer) >= _LENGTH.size and len(buffer) - _LENGTH.size >= (size := _LENGTH.unpack_from(buffer)[0]):
        message = bytes(buffer[_LENGTH.size : _LENGTH.size + size])
        del buffer[: _LENGTH.size + size]
        yield message
