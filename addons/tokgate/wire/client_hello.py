"""Reads a TLS ClientHello from the first bytes of a connection: the name asked for, ECH, and what the log wants.

Whether a name is wanted or banned, and what it looks like once normalised, is none of this module's business.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from enum import StrEnum
from typing import Final, NamedTuple

from tokgate.wire.server_name import NameStatus, read_server_name

MAX_HELLO: Final = 65536
"""Octets of the stream, record headers included, within which a hello must end. Real ones take 0.2 to 2 kB."""

_MAX_RECORD: Final = 16384  # https://www.rfc-editor.org/rfc/rfc8446#section-5.1
_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1
_SESSION_ID: Final = 38  # after type, length, legacy_version and random

_SIGNATURE_ALGORITHMS: Final = 0x000D
_ALPN: Final = 0x0010
_EARLY_DATA: Final = 0x002A
_SUPPORTED_VERSIONS: Final = 0x002B
_ENCRYPTED_CLIENT_HELLO: Final = 0xFE0D  # https://www.rfc-editor.org/rfc/rfc9849#section-5

_type_and_length = struct.Struct("!HH").unpack_from


class HelloProblem(StrEnum):
    """Why bytes can never become a ClientHello."""

    NOT_TLS = "not-tls"
    SSLV2 = "sslv2"
    EMPTY_RECORD = "empty-record"
    RECORD_TOO_LONG = "record-too-long"
    NOT_CLIENT_HELLO = "not-client-hello"
    HELLO_TOO_LONG = "hello-too-long"
    MALFORMED = "malformed"


class ClientHelloError(ValueError):
    """The bytes are not the start of a ClientHello, whatever may follow them."""

    def __init__(self, problem: HelloProblem) -> None:
        super().__init__(problem.value)
        self.problem = problem


class ClientHello(NamedTuple):
    """A complete ClientHello. The fields are read at once; the properties on demand, for the log.

    The properties leave GREASE (RFC 8701) out, and are empty where the client sent a list that can't be read: the walk
    over the message has been checked, the inside of extensions other than server_name has not.
    """

    name: str | None
    """The server name exactly as sent (case, trailing dot, address literals); None unless `name_status` is `valid`."""
    name_status: NameStatus
    message: bytes
    """The handshake message with its four octets of header, without record headers."""

    @property
    def ech(self) -> bool:
        """Whether encrypted_client_hello is present: real, or GREASE, which looks the same."""
        return self._has(_ENCRYPTED_CLIENT_HELLO)

    @property
    def early_data(self) -> bool:
        """Whether the client goes on sending before it is answered (RFC 8446 §4.2.10)."""
        return self._has(_EARLY_DATA)

    @property
    def legacy_version(self) -> int:
        """The version before supported_versions: 0x0303 for TLS 1.2, and for TLS 1.3 too (RFC 8446 §4.1.2)."""
        return int.from_bytes(self.message[4:6])

    @property
    def versions(self) -> tuple[int, ...]:
        """The versions offered, most wanted first: supported_versions, or the legacy version in its absence."""
        body = self.extension(_SUPPORTED_VERSIONS)
        return (self.legacy_version,) if body is None else _without_grease(_uint16s(_vector(body, 1)))

    @property
    def ciphers(self) -> tuple[int, ...]:
        """The cipher suites, signalling values included, in the client's order."""
        start = _SESSION_ID + 1 + self.message[_SESSION_ID]
        return _without_grease(_uint16s(_vector(self.message[start : self._compression_start], 2)))

    @property
    def extension_types(self) -> tuple[int, ...]:
        """The types of the extensions in the client's order, which browsers shuffle."""
        return _without_grease(tuple(kind for kind, _ in self._walk()))

    @property
    def alpn(self) -> tuple[bytes, ...]:
        """The application protocols, most wanted first: `b"h2"`, `b"http/1.1"` (RFC 7301 §3.1)."""
        names = _protocol_names(_vector(self.extension(_ALPN) or b"", 2))
        return tuple(name for name in names if not (len(name) == 2 and is_grease(int.from_bytes(name))))

    @property
    def signature_algorithms(self) -> tuple[int, ...]:
        """The signature schemes in the client's order (RFC 8446 §4.2.3)."""
        return _without_grease(_uint16s(_vector(self.extension(_SIGNATURE_ALGORITHMS) or b"", 2)))

    def extension(self, kind: int) -> bytes | None:
        """The body of the first extension of this type, or None."""
        return next((body for found, body in self._walk() if found == kind), None)

    def _has(self, kind: int) -> bool:
        """Whether there is an extension of this type: mostly a look for its number is enough."""
        return kind.to_bytes(2) in self.message and self.extension(kind) is not None

    @property
    def _compression_start(self) -> int:
        start = _SESSION_ID + 1 + self.message[_SESSION_ID]
        return start + 2 + int.from_bytes(self.message[start : start + 2])

    def _walk(self) -> Iterator[tuple[int, bytes]]:
        message, start = self.message, self._compression_start
        start += 1 + message[start] + 2
        while start < len(message):
            kind, length = _type_and_length(message, start)
            yield kind, message[start + 4 : start + 4 + length]
            start += 4 + length


def read_client_hello(data: bytes) -> ClientHello | None:
    """Read the hello at the start of `data`; None as long as it is incomplete. What follows it doesn't matter.

    Takes 2 to 3 µs for a browser's hello in one record, half of it for walking over all extensions: stopping at the
    first server_name would miss a second one, and ECH. A caller whose hello comes in more than one piece uses
    `HelloBuffer`, which doesn't start again at each.

    Raises:
        ClientHelloError: no continuation of `data` is a ClientHello.

    """
    if len(data) > 8 and data[0] == _HANDSHAKE and data[1] == 3 and data[5] == _CLIENT_HELLO:
        record_length = data[3] << 8 | data[4]
        end = 9 + (data[6] << 16 | data[7] << 8 | data[8])
        if end - 5 <= record_length <= _MAX_RECORD and len(data) >= 5 + record_length:
            return _read_message(data[5:end])
    return HelloBuffer().feed(data)


def looks_like_tls(data: bytes) -> bool | None:
    """Whether a connection that begins with `data` speaks TLS (a handshake record of version 3.x); None: too short.

    False means that no hello can follow. The minor version says nothing: RFC 8446 §5.1 has it ignored.
    """
    if data[:1] not in (b"", b"\x16"):
        return False
    return None if len(data) < 2 else data[1] == 3


def is_grease(value: int) -> bool:
    """Whether a 16-bit value is one of those that clients sprinkle to keep servers tolerant (RFC 8701 §2)."""
    return value & 0x0F0F == 0x0A0A and value >> 8 == value & 0xFF


class HelloBuffer:
    """Collects a hello that comes in pieces. All work together is linear in the octets, however they are cut.

    Segments of one octet and records of one octet are legal, and a cheap way to make a reader that starts again at
    each piece do quadratic work.
    """

    __slots__ = ("_message", "_next_record", "_received", "_wanted")

    def __init__(self) -> None:
        self._received = bytearray()
        self._message = bytearray()
        self._next_record = 0
        self._wanted = 0  # octets received before which there is nothing new to see

    @property
    def received(self) -> bytes:
        """Everything fed so far: what must be passed on unchanged to whoever serves the connection."""
        return bytes(self._received)

    def feed(self, data: bytes) -> ClientHello | None:
        """Take the next piece of the stream; the hello once it is complete. Not to be called after that.

        Raises:
            ClientHelloError: what was fed can never become a ClientHello, or not within `MAX_HELLO` octets.

        """
        self._received += data
        if len(self._received) < self._wanted:
            return None
        while self._take_record():
            if len(self._message) >= 4:
                end = 4 + int.from_bytes(self._message[1:4])
                if len(self._message) >= end:
                    return _read_message(bytes(self._message[:end]))
        return None

    def _take_record(self) -> bool:
        """Append the next record's fragment to the message; False if the record has not come whole."""
        received, start = self._received, self._next_record
        if not self._is_handshake_record():
            return False
        length = received[start + 3] << 8 | received[start + 4]
        if length == 0:  # https://www.rfc-editor.org/rfc/rfc8446#section-5.1: no zero-length handshake fragments
            raise ClientHelloError(HelloProblem.EMPTY_RECORD)
        if length > _MAX_RECORD:
            raise ClientHelloError(HelloProblem.RECORD_TOO_LONG)
        end = start + 5 + length
        if end > MAX_HELLO:
            raise ClientHelloError(HelloProblem.HELLO_TOO_LONG)
        if len(self._message) < 4:
            _check_start(self._message + received[start + 5 : min(end, start + 9)])
        if len(received) < end:
            self._wanted = end if len(received) >= start + 9 else 0  # until then the check above has more to see
            return False
        self._message += received[start + 5 : end]
        self._next_record = end
        return True

    def _is_handshake_record(self) -> bool:
        """Whether a handshake record's header has come whole; anything else is refused as soon as it shows."""
        received, start = self._received, self._next_record
        here = len(received) - start
        if here == 0:
            return False
        if start == 0 and received[0] & 0x80:
            # Two octets of length with the top bit set, then type 1 (RFC 5246 E.2); not to be sent (RFC 8446 D.5).
            if here < 3:
                return False
            raise ClientHelloError(HelloProblem.SSLV2 if received[2] == _CLIENT_HELLO else HelloProblem.NOT_TLS)
        # Between the fragments of a message there may be no record of another type (RFC 8446 §5.1).
        if received[start] != _HANDSHAKE or (here > 1 and received[start + 1] != 3):
            raise ClientHelloError(HelloProblem.NOT_TLS)
        return here >= 5


def _check_start(message: bytes | bytearray) -> None:
    """Refuse early what the first octets of a handshake message rule out, instead of waiting for the rest."""
    if message and message[0] != _CLIENT_HELLO:
        raise ClientHelloError(HelloProblem.NOT_CLIENT_HELLO)
    if len(message) >= 4 and 9 + int.from_bytes(message[1:4]) > MAX_HELLO:
        raise ClientHelloError(HelloProblem.HELLO_TOO_LONG)


def _read_message(message: bytes) -> ClientHello:
    """Walk a whole handshake message once, checking every length against the next (RFC 8446 §4.1.2).

    Reading past the end raises IndexError or struct.error; falling short of it or past it shows in `position`.
    """
    end, unpack = len(message), _type_and_length
    server_name = name_end = 0
    repeated = False
    try:
        session_id = message[_SESSION_ID]
        position = _SESSION_ID + 1 + session_id
        ciphers = message[position] << 8 | message[position + 1]
        position += 2 + ciphers
        compressions = message[position]
        position += 1 + compressions
        if session_id > 32 or ciphers < 2 or ciphers & 1 or compressions < 1:
            raise ClientHelloError(HelloProblem.MALFORMED)
        if position < end:  # before TLS 1.3 a hello may end here: RFC 5246 §7.4.1.2
            extensions = message[position] << 8 | message[position + 1]
            position += 2
            if position + extensions != end:
                raise ClientHelloError(HelloProblem.MALFORMED)
        while position < end:
            kind, length = unpack(message, position)
            position += 4
            if not kind:
                repeated = server_name > 0
                server_name, name_end = position, position + length
            position += length
    except (IndexError, struct.error):
        raise ClientHelloError(HelloProblem.MALFORMED) from None
    if position != end:
        raise ClientHelloError(HelloProblem.MALFORMED)
    if not server_name:
        return ClientHello(None, NameStatus.ABSENT, message)
    if repeated:
        return ClientHello(None, NameStatus.SEVERAL, message)
    name, status = read_server_name(message, server_name, name_end)
    return ClientHello(name, status, message)


def _vector(data: bytes, prefix: int) -> bytes:
    """The content of a vector that fills `data` behind a length of `prefix` octets; empty if the length is wrong."""
    content = data[prefix:]
    return content if len(data) >= prefix and int.from_bytes(data[:prefix]) == len(content) else b""


def _uint16s(data: bytes) -> tuple[int, ...]:
    return tuple(data[i] << 8 | data[i + 1] for i in range(0, len(data), 2)) if len(data) % 2 == 0 else ()


def _protocol_names(data: bytes) -> tuple[bytes, ...]:
    names: list[bytes] = []
    position = 0
    while position < len(data):
        end = position + 1 + data[position]
        names.append(data[position + 1 : end])
        position = end
    return tuple(names) if position == len(data) else ()


def _without_grease(values: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(value for value in values if not is_grease(value))
