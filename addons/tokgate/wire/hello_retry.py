"""Tells a HelloRetryRequest from every other answer of a TLS server: after one, the client says anew where it goes.

RFC 8446 §4.1.2 has the second ClientHello repeat the first, but servers go by the name in the second: a client that
names an innocent host first, with no key share that the server takes, would be served under any name it names next.
"""

from __future__ import annotations

from typing import Final

from tokgate.wire.hello_reader import CONTENT_TYPES

HELLO_RETRY: Final = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
"""The random that makes a ServerHello a HelloRetryRequest (RFC 8446 §4.1.3)."""

_CHANGE_CIPHER_SPEC: Final = 20
_ALERT: Final = 21
_HANDSHAKE: Final = 22
_SERVER_HELLO: Final = 2
_RANDOM: Final = 6  # after type, length and legacy_version
MAX_ANSWER: Final = 4096
"""Octets of an answer within which it shows."""
_FATAL: Final = 2
_LONGEST_BEFORE: Final = {_CHANGE_CIPHER_SPEC: 1, _ALERT: 2}
"""Octets of records that may come first: TLS 1.2 servers warn of a name that they don't know (RFC 6066 §3)."""


def asks_again(answer: bytes | bytearray) -> bool | None:
    """Whether a server's first octets ask for another ClientHello; None as long as that can't be told."""
    message, position = b"", 0
    while position < len(answer):
        kind = answer[position]
        if kind not in CONTENT_TYPES:
            return False
        end = position + 5 + int.from_bytes(answer[position + 3 : position + 5])
        body = answer[position + 5 : end]
        if kind == _HANDSHAKE:
            message += body
            if message and not _may_be_retry(message):
                return False
            if len(message) >= _RANDOM + 32:
                return True
        elif end - position - 5 > _LONGEST_BEFORE.get(kind, 0) or (kind == _ALERT and body[:1] == bytes((_FATAL,))):
            return False
        position = end
    return None if len(answer) < MAX_ANSWER else False


def may_begin_record(data: bytes | bytearray) -> bool:
    """Whether a client's octets could be a TLS record; no server reads a second hello out of anything else."""
    return bool(data) and data[0] in CONTENT_TYPES


def _may_be_retry(message: bytes) -> bool:
    return message[0] == _SERVER_HELLO and HELLO_RETRY.startswith(message[_RANDOM : _RANDOM + 32])
