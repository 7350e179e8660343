"""Reads a ClientHello from the records at the beginning of a connection, as they come.

It reads what any server does: records that RFC 8446 forbids before or inside a hello are passed over where some server
passes over them, because the name behind them is served.
"""

import struct
from typing import Final

from tokgate.wire.client_hello import ClientHello, ClientHelloError, NotTlsError, read_message

MAX_HELLO: Final = 65536
"""Octets of the stream, record headers included, within which a hello must end. Real ones take 0.2 to 2 kB."""

_MAX_RECORD: Final = 16384  # https://www.rfc-editor.org/rfc/rfc8446#section-5.1
_CHANGE_CIPHER_SPEC: Final = 20
_ALERT: Final = 21
HANDSHAKE: Final = 22
_APPLICATION_DATA: Final = 23
CONTENT_TYPES: Final = range(_CHANGE_CIPHER_SPEC, 25)
"""Those of TLS records (RFC 8446 §5.1); the last is heartbeat (RFC 6520)."""
_LONGEST_IGNORED: Final = {_CHANGE_CIPHER_SPEC: 1, _ALERT: 2}
"""Octets of records that a server may pass over; those of other types only if they are empty.

TLS 1.2 servers warn of a name that they don't know (RFC 6066 §3)."""
_HIGHEST_MAJOR: Final = 0x0F
"""Go's server takes a record for TLS up to here, whatever RFC 8446 says of versions (crypto/tls/conn.go); wolfSSL takes
a first one of any version, if the hello begins in it."""
_SSLV2_HELLO: Final = struct.Struct("!HBHHHH").unpack_from  # RFC 5246 E.2
_CLIENT_HELLO: Final = 1
_START: Final = struct.Struct("!2sxHI").unpack_from
"""A record's type, its major version and its length; the type and the length of the message in it."""
_FILLED: Final = 0x00FFFFFC
"""By how much the latter, of a ClientHello that fills its record, are more than the record's length."""
_HEADER: Final = 4
"""Octets of a handshake message before its body."""


def read_client_hello(data: bytes) -> ClientHello | None:
    """Read the hello at the start of `data`; None as long as it is incomplete. What follows it doesn't matter.

    Takes 2 to 3 µs for a browser's hello in one record, half of it for walking over all extensions: stopping at the
    first server_name would miss a second one, and ECH. A hello that comes in more than one piece is for
    `HelloReader`, which doesn't start again at each.

    Raises:
        ClientHelloError: no continuation of `data` is a ClientHello.

    """
    if len(data) > 8:
        begins, length, message = _START(data)
        if begins == b"\x16\3" and message == length + _FILLED and length <= _MAX_RECORD and len(data) >= 5 + length:
            return read_message(data[5 : 5 + length])
    return HelloReader(bytearray(data)).read()


def end_of_hello(said: bytes | bytearray, hello: ClientHello) -> int:
    """The length of the records at the beginning of `said` that hold the hello."""
    position, missing = 0, len(hello.message)
    while missing > 0 and position + 5 <= len(said):
        length = said[position + 3] << 8 | said[position + 4]
        if said[position] == HANDSHAKE:
            missing -= length
        position += 5 + length
    return position


def unfinished_early_data(behind: bytes | bytearray) -> bytes | None:
    """What of the last record behind a hello has come; empty if it is whole, None if not all of it is early data."""
    position = 0
    while position < len(behind):
        if behind[position] not in (_APPLICATION_DATA, _CHANGE_CIPHER_SPEC):
            return None
        end = position + 5 + int.from_bytes(behind[position + 3 : position + 5])
        if end > len(behind):
            break
        position = end
    return bytes(behind[position:])


class HelloReader:
    """Reads a hello from a buffer that grows. All work together is linear in the octets, however they come.

    Segments of one octet and records of one octet are legal, and a cheap way to make a reader that starts again at
    each piece do quadratic work. The octets are the caller's: nothing is copied before the hello is whole.

    What servers make of records that have no place in a hello (OpenSSL 3.5: nginx, HAProxy, Node, Python; Go: Caddy;
    GnuTLS 3.8 and Mbed TLS 3.6 take none that these don't):

    | record                                    | OpenSSL | Go     | here                 |
    |-------------------------------------------|---------|--------|----------------------|
    | warning alert, before or inside           | no      | ignored| ignored              |
    | ChangeCipherSpec, before or inside        | no      | no     | ignored              |
    | empty handshake record, before or inside  | ignored | no     | ignored              |
    | version 0x0000 to 0x0fff                  | no      | yes    | yes                  |
    | hello in version 0x1000 and more          | no; wolfSSL: yes | yes                  |
    | another message behind it in its record   | no      | no     | can't become a hello |
    | HelloRequest, application data, heartbeat | no      | no     | can't become a hello |
    """

    __slots__ = ("_early_data", "_received", "_taken", "begun", "end")

    def __init__(self, received: bytearray, *, early_data: bool = False) -> None:
        """`early_data`: what a client said before it was answered may come first (RFC 8446 §4.2.10)."""
        self._received: Final = received
        self._early_data: Final = early_data
        self.begun = b""  # of the message, up to the end of its header
        self._taken = 0  # octets of the message in the records so far
        self.end = 0
        """The length of the records that were read."""

    def read(self) -> ClientHello | None:
        """The hello once it is complete. Not to be called after that.

        Raises:
            ClientHelloError: what was received can never become a ClientHello, or not within `MAX_HELLO` octets.

        """
        while self._take_record():
            missing = 4 + int.from_bytes(self.begun[1:]) - self._taken
            if missing <= 0:
                if missing:  # of two hellos, a server might go by the other one
                    raise ClientHelloError("a second message in the record")
                return read_message(self._message())
        return None

    def _message(self) -> bytes:
        """The message out of its records, which are all there."""
        received, position, message = self._received, 0, bytearray()
        while position < self.end:
            following = position + 5 + (received[position + 3] << 8 | received[position + 4])
            if received[position] == HANDSHAKE:
                message += received[position + 5 : following]
            position = following
        return bytes(message)

    def _take_record(self) -> bool:
        """Take the next record; False if it has not come whole. What the first octets rule out is refused at once."""
        received, start = self._received, self.end
        length = self._length()
        if length is None:
            return False
        begun, is_fragment = self.begun, received[start] == HANDSHAKE
        end = start + 5 + length
        if end > MAX_HELLO:
            raise ClientHelloError("too long")
        if is_fragment:
            begun += received[start + 5 : min(end, start + 9 - len(begun))]
            if begun and begun[0] != _CLIENT_HELLO:
                raise self._error("another message")
            if 9 + int.from_bytes(begun[1:4]) > MAX_HELLO:
                raise ClientHelloError("too long")  # in records of any version: Go's server takes it
        if len(received) < end:
            return False
        if is_fragment:
            self.begun = begun
            self._taken += length
        self.end = end
        return True

    def _length(self) -> int | None:
        """The length of the next record; None until its header is there. What can't belong to a hello is refused."""
        received, start = self._received, self.end
        here = len(received) - start
        if here == 0:
            return None
        kind = received[start]
        if kind not in CONTENT_TYPES:
            if start:
                raise ClientHelloError("no record")
            self._refuse_unless_sslv2()
            return None
        is_odd = here > 1 and received[start + 1] > _HIGHEST_MAJOR
        if is_odd and (start or kind != HANDSHAKE):
            raise ClientHelloError("an odd record") if start else NotTlsError
        if here < 5:
            return None
        length = received[start + 3] << 8 | received[start + 4]
        if is_odd and length < _HEADER:
            raise NotTlsError
        if length > _MAX_RECORD:
            raise self._error("a record that is too long")
        if kind == HANDSHAKE or (kind == _APPLICATION_DATA and self._early_data):
            return length
        if length > _LONGEST_IGNORED.get(kind, 0):
            raise self._error("a record that belongs elsewhere")
        return length

    def _refuse_unless_sslv2(self) -> None:
        """An SSLv2 hello has two octets of length with the top bit set, then type 1; here its lengths must add up."""
        received = self._received
        if not received[0] & 0x80 or (len(received) > 2 and received[2] != _CLIENT_HELLO):
            raise NotTlsError
        if len(received) < 11:
            return
        length, _, _, ciphers, session_id, challenge = _SSLV2_HELLO(received)
        whole = 9 + ciphers + session_id + challenge == length & 0x7FFF
        raise ClientHelloError("of SSLv2") if whole else NotTlsError

    def _error(self, problem: str) -> ClientHelloError:
        """Nothing but a first record of another version than 3.x can be anything else than TLS by now."""
        is_tls = self.end or self._received[1] == 3
        return ClientHelloError(problem) if is_tls else NotTlsError()


HELLO_RETRY: Final = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
"""The random that makes a ServerHello a HelloRetryRequest (RFC 8446 §4.1.3)."""

_SERVER_HELLO: Final = 2
_RANDOM: Final = 6  # after type, length and legacy_version
MAX_ANSWER: Final = 4096
"""Octets of an answer within which it shows."""
_FATAL: Final = 2


def asks_again(answer: bytes | bytearray) -> bool | None:
    """Whether a server's first octets ask for another ClientHello; None as long as that can't be told.

    RFC 8446 §4.1.2 has the second ClientHello repeat the first, but servers go by the name in the second: a client that
    names an innocent host first, with no key share that the server takes, would be served under any name it names next.
    """
    message, position = b"", 0
    while position < len(answer):
        kind = answer[position]
        if kind not in CONTENT_TYPES:
            return False
        end = position + 5 + int.from_bytes(answer[position + 3 : position + 5])
        body = answer[position + 5 : end]
        if kind == HANDSHAKE:
            message += body
            if message and not (
                message[0] == _SERVER_HELLO and HELLO_RETRY.startswith(message[_RANDOM : _RANDOM + 32])
            ):
                return False
            if len(message) >= _RANDOM + 32:
                return True
        elif end - position - 5 > _LONGEST_IGNORED.get(kind, 0) or (kind == _ALERT and body[:1] == bytes((_FATAL,))):
            return False
        position = end
    return None if len(answer) < MAX_ANSWER else False


def may_begin_record(data: bytes | bytearray) -> bool:
    """Whether a client's octets could be a TLS record; no server reads a second hello out of anything else."""
    return bool(data) and data[0] in CONTENT_TYPES
