"""QUIC Initial packets (RFC 9000, 9001, 9369): found in a datagram, unprotected; and one that refuses a client.

Sans-IO. Initial packets are protected with keys that anyone who sees the first one can derive; nothing else is read.
"""

from __future__ import annotations

import hmac
import struct
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

from tokgate.wire.quic.versions import VERSIONS, Version

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


def unprotected(initial: Initial, first_id: bytes, largest: int) -> tuple[int, bytes] | None:
    """A client's packet without its protection (RFC 9001 §5): its number and its frames; None if the keys don't fit.

    The keys come from `first_id`, the destination's id in the connection's first packet. `largest` is the largest
    packet number so far, or -1.
    """
    keys = _keys(initial.version, first_id, "client in")
    packet, at = bytearray(initial.packet), initial.number_at
    mask = keys.mask(bytes(packet[at + 4 :][:_SAMPLE]))
    packet[0] ^= mask[0] & 0x0F
    size = (packet[0] & 0x03) + 1
    for index in range(size):
        packet[at + index] ^= mask[1 + index]
    number = _whole(int.from_bytes(packet[at : at + size]), size, largest)
    head, body = bytes(packet[: at + size]), bytes(packet[at + size :])
    try:
        return number, keys.aead.decrypt(keys.nonce(number), body, head)
    except InvalidTag:
        return None


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
