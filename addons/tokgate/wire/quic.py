"""QUIC (RFC 9000, 9001, 9369) as far as who sees the first packets can read it. Sans-IO.

Initial packets are found in a datagram and unprotected, with keys that anyone can derive who sees the first one; out of
their CRYPTO frames, in any order over several packets, comes the ClientHello. Nothing else is read.
"""

import hmac
import struct
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

from tokgate.wire.client_hello import ClientHello, ClientHelloError
from tokgate.wire.hello_reader import read_client_hello


@dataclass(frozen=True, slots=True)
class Version:
    """What differs between versions (RFC 9001 §5.2, RFC 9369 §3)."""

    salt: bytes
    label: str
    initial: int
    """The type of Initial packets."""
    retry: int


VERSIONS: Final = {
    0x00000001: Version(bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a"), "quic", 0, 3),
    0x6B3343CF: Version(bytes.fromhex("0dede3def700a6db819381be6e269dcbf9bd2ed9"), "quicv2", 1, 0),
}
DRAFTS: Final = (0xFF0000, 0xFF0200, 0x513034, 0x513035, 0x543035, 0xFACEB0, 0x709A50)
"""All but the last octet of versions that servers still speak: the IETF's drafts (0x709a50c4 is version 2's last),
Google's and Meta's."""


CRYPTO_ERROR: Final = 0x0100
"""RFC 9000 §20.1: a TLS alert is this plus the alert."""

_LONG: Final = 0x80
_TAG: Final = 16
_SAMPLE: Final = 16
_MAX_ID: Final = 20


@dataclass(frozen=True, slots=True)
class Initial:
    """One Initial packet as it was sent, protected."""

    version: int
    destination: bytes
    """The connection id of whom it is for; a client's first one is made up, and all keys come from it."""
    source: bytes
    packet: bytes
    number_at: int
    """The offset of the packet number."""


@dataclass(frozen=True, slots=True)
class _Keys:
    """The keys for Initial packets of one side (RFC 9001 §5.1)."""

    aead: AESGCM
    iv: bytes
    header: AES

    def mask(self, sample: bytes) -> bytes:
        """The header protection mask (RFC 9001 §5.4.3)."""
        return Cipher(self.header, ECB()).encryptor().update(sample)  # noqa: S305  (one block, as the standard has it)

    def nonce(self, number: int) -> bytes:
        """The AEAD nonce of a packet number (RFC 9001 §5.3)."""
        return (int.from_bytes(self.iv) ^ number).to_bytes(len(self.iv))


def is_unreadable(datagram: bytes) -> bool:
    """Whether a datagram begins as QUIC's first ones do (RFC 8999 §5.1), in a version that is not known here."""
    version = int.from_bytes(datagram[1:5])
    return len(datagram) >= 7 and datagram[0] & 0xC0 == 0xC0 and version != 0 and version not in VERSIONS


def follows_initial(datagram: bytes) -> bool:
    """Whether it begins with a packet that is sent after Initial ones: early data, or of the handshake."""
    version = _long_header(datagram)
    return version is not None and datagram[0] >> 4 & 0x03 != version.initial


def _long_header(datagram: bytes) -> Version | None:
    return VERSIONS.get(int.from_bytes(datagram[1:5])) if datagram and datagram[0] & _LONG else None


def initials(datagram: bytes) -> tuple[Initial, ...]:
    """The Initial packets of versions that are known here, in a datagram; packets may follow one another (§12.2)."""
    return _packets(datagram)[0]


def hides_packets(datagram: bytes) -> bool:
    """Whether a packet can't be read whose end a server may know all the same, and find an Initial one behind it."""
    _, end = _packets(datagram)
    return end < len(datagram) and datagram[end] & _LONG > 0 and _long_header(datagram) is not None


def _packets(datagram: bytes) -> tuple[tuple[Initial, ...], int]:
    """The Initial packets, and how far the datagram could be read."""
    found: list[Initial] = []
    at = 0
    while at < len(datagram) and datagram[at] & _LONG:
        try:
            initial, at = _packet(datagram, at)
        except (IndexError, struct.error, ValueError):
            break
        if initial is not None:
            found.append(initial)
    return tuple(found), at


def close(initial: Initial, error: int, reason: str) -> bytes:
    """A datagram in which the server says no to a client's first packet: CONNECTION_CLOSE (RFC 9000 §19.19)."""
    version = VERSIONS[initial.version]
    text = reason.encode()[:256].decode(errors="ignore").encode()
    frame = b"\x1c" + struct.pack("!H", 0x4000 | error) + b"\x06" + struct.pack("!H", 0x4000 | len(text)) + text
    number = bytes(2)
    ids = b"".join(bytes((len(one),)) + one for one in (initial.source, initial.destination))
    length = len(number) + len(frame) + _TAG
    head = bytearray((0xC0 | version.initial << 4 | len(number) - 1,))
    head += struct.pack("!I", initial.version) + ids + b"\x00" + struct.pack("!H", 0x4000 | length) + number
    keys = _keys(initial.version, initial.destination, "server in")
    packet = head + keys.aead.encrypt(keys.nonce(0), frame, bytes(head))
    at = len(head) - len(number)
    mask = keys.mask(bytes(packet[at + 4 :][:_SAMPLE]))
    packet[0] ^= mask[0] & 0x0F
    for index in range(len(number)):
        packet[at + index] ^= mask[1 + index]
    return bytes(packet)


def _packet(data: bytes, start: int) -> tuple[Initial | None, int]:
    """The packet with a long header at `start`, if it is an Initial; and where it ends (RFC 9000 §17.2)."""
    (number,) = struct.unpack_from("!I", data, start + 1)
    version = VERSIONS.get(number)
    if version is None:
        raise ValueError("a version that is not known")
    kind = data[start] >> 4 & 0x03
    if kind == version.retry:
        raise ValueError("a packet of servers only")
    destination, at = _connection_id(data, start + 5)
    source, at = _connection_id(data, at)
    if kind == version.initial:
        token, at = varint(data, at)
        at += token
    length, at = varint(data, at)
    end = at + length
    if end > len(data) or length < 4 + _SAMPLE:
        raise ValueError("a packet that is cut off")
    if kind != version.initial:
        return None, end
    return Initial(number, destination, source, data[start:end], at - start), end


def _connection_id(data: bytes, at: int) -> tuple[bytes, int]:
    length = data[at]
    if length > _MAX_ID:
        raise ValueError("a connection id that is too long")
    return taken(data, at + 1, length), at + 1 + length


def taken(data: bytes, at: int, length: int) -> bytes:
    if at + length > len(data):
        raise IndexError
    return data[at : at + length]


def varint(data: bytes, at: int) -> tuple[int, int]:
    """An integer of one to eight octets, and where it ends (RFC 9000 §16)."""
    size = 1 << (data[at] >> 6)
    return int.from_bytes(taken(data, at, size)) & (1 << 8 * size - 2) - 1, at + size


def _whole(short: int, size: int, largest: int) -> int:
    """A packet's number from its last octets (RFC 9000 §A.3); no Initial packet's comes near the last one, 2^62."""
    window = 1 << 8 * size
    expected = largest + 1
    number = expected & ~(window - 1) | short
    if number <= expected - window // 2:
        return number + window
    if number > expected + window // 2 and number >= window:
        return number - window
    return number


@lru_cache(maxsize=256)
def _keys(version: int, connection_id: bytes, side: str) -> _Keys:
    known = VERSIONS[version]
    initial = hmac.digest(known.salt, connection_id, "sha256")  # HKDF-Extract
    secret = _expanded(initial, side, 32)
    return _Keys(
        AESGCM(_expanded(secret, f"{known.label} key", 16)),
        _expanded(secret, f"{known.label} iv", 12),
        AES(_expanded(secret, f"{known.label} hp", 16)),
    )


def _expanded(secret: bytes, label: str, length: int) -> bytes:
    """HKDF-Expand-Label with an empty context (RFC 8446 §7.1); up to 32 octets that is one HMAC (RFC 5869 §2.3)."""
    name = b"tls13 " + label.encode()
    info = struct.pack("!HB", length, len(name)) + name + b"\x00"
    return hmac.digest(secret, info + b"\x01", "sha256")[:length]


MAX_HELLO: Final = 65536
"""Octets of CRYPTO data that are kept of one connection; no client needs a tenth of it."""
_RECORD: Final = 16384


class QuicError(ValueError):
    """A first flight from which no ClientHello can come."""


class Opening:
    """One connection's first flight, as far as it has come: packets in any order, and several datagrams."""

    __slots__ = ("_known", "_largest", "_stream", "first")

    def __init__(self, first: Initial) -> None:
        """The keys come from the `first` packet; it still has to be read, and what it holds isn't kept here."""
        self.first: Final = replace(first, packet=b"")
        self._stream = bytearray()
        self._known = bytearray()  # 1 for each octet that has come
        self._largest = -1

    def reads(self, initial: Initial) -> bool:
        """Take a packet's part of the hello; False if it belongs to another connection. Raises QuicError."""
        plain = self._opened(initial)
        if plain is None:
            return False
        at = 0
        while at < len(plain):
            at = self._frame(plain, at)
        return True

    def fits(self, initial: Initial) -> bool:
        """Whether a packet belongs to this connection."""
        return self._opened(initial) is not None

    @property
    def octets(self) -> int:
        """The memory that its parts take: a single small packet may claim to be the last of a long hello."""
        return len(self._stream) + len(self._known)

    def forget(self) -> None:
        """Give that memory back: `fits` still tells its packets from others', but nothing may be read any more."""
        self._stream, self._known = bytearray(), bytearray()

    @property
    def hello(self) -> ClientHello | None:
        """The hello; None as long as parts are missing. Raises QuicError."""
        return self._message_at(0)

    @property
    def goes_on(self) -> bool:
        """Whether more has come than the hello: a second one, for which a HelloRetryRequest asks (RFC 8446 §4.1.4)."""
        return len(self._stream) > self._length_at(0)

    @property
    def second_hello(self) -> ClientHello | None:
        """The second hello; None as long as parts are missing. Raises QuicError."""
        return self._message_at(self._length_at(0))

    def _length_at(self, start: int) -> int:
        return 4 + int.from_bytes(self._stream[start + 1 : start + 4])

    def _message_at(self, start: int) -> ClientHello | None:
        end = self._known.find(0, start)
        whole = len(self._known) if end < 0 else end
        if whole > start and self._stream[start] != 1:
            raise QuicError("no ClientHello")
        length = self._length_at(start)
        if start + length > MAX_HELLO:
            raise QuicError("the hello is too long")
        if whole < start + length:
            return None
        message = bytes(self._stream[start : start + length])
        chunks = (message[at : at + _RECORD] for at in range(0, length, _RECORD))
        try:
            return read_client_hello(b"".join(b"\x16\x03\x01" + struct.pack("!H", len(c)) + c for c in chunks))
        except ClientHelloError as error:
            raise QuicError(str(error)) from error

    def _opened(self, initial: Initial) -> bytes | None:
        """The frames of a client's packet without its protection (RFC 9001 §5); None if the keys don't fit."""
        keys = _keys(initial.version, self.first.destination, "client in")
        packet, at = bytearray(initial.packet), initial.number_at
        mask = keys.mask(bytes(packet[at + 4 :][:_SAMPLE]))
        packet[0] ^= mask[0] & 0x0F
        size = (packet[0] & 0x03) + 1
        for index in range(size):
            packet[at + index] ^= mask[1 + index]
        number = _whole(int.from_bytes(packet[at : at + size]), size, self._largest)
        try:
            plain = keys.aead.decrypt(keys.nonce(number), bytes(packet[at + size :]), bytes(packet[: at + size]))
        except InvalidTag:
            return None
        self._largest = max(self._largest, number)
        return plain

    def _frame(self, data: bytes, at: int) -> int:
        """Take a frame, of those that Initial packets may hold (RFC 9000 §12.4), and say where it ends."""
        try:
            kind, at = varint(data, at)
            if kind == 0x00:  # PADDING: hundreds of them
                return len(data) - len(data[at:].lstrip(b"\0"))
            if kind == 0x01:  # PING
                return at
            if kind in (0x02, 0x03):
                return _after_ack(data, at, counts=kind == 0x03)
            if kind == 0x06:
                offset, at = varint(data, at)
                length, at = varint(data, at)
                self._keep(offset, taken(data, at, length))
                return at + length
            if kind == 0x1C:  # CONNECTION_CLOSE: the client gives up, and some servers read on
                for _ in range(2):
                    _, at = varint(data, at)
                length, at = varint(data, at)
                return at + len(taken(data, at, length))
        except IndexError as error:
            raise QuicError("a frame is cut off") from error
        raise QuicError(f"a frame of type {kind:#x}")

    def _keep(self, offset: int, part: bytes) -> None:
        end = offset + len(part)
        if end > MAX_HELLO:
            raise QuicError("the hello is too long")
        missing = bytes(max(0, end - len(self._stream)))
        self._stream += missing
        self._known += missing
        if 1 in self._known[offset:end]:
            for index, octet in enumerate(part, offset):
                if self._known[index] and self._stream[index] != octet:
                    raise QuicError("a part of the hello came twice, and differs")
        self._stream[offset:end] = part
        self._known[offset:end] = b"\x01" * len(part)


def _after_ack(data: bytes, at: int, *, counts: bool) -> int:
    """The offset after an ACK frame (RFC 9000 §19.3)."""
    _, at = varint(data, at)
    _, at = varint(data, at)
    ranges, at = varint(data, at)
    for _ in range(1 + 2 * min(ranges, len(data)) + 3 * counts):
        _, at = varint(data, at)
    return at
