"""The ClientHello in a QUIC client's first flight: parts in CRYPTO frames, in any order, over several packets.

Sans-IO. Parts that contradict each other are an error: a server might read them in the other order.
"""

import struct
from dataclasses import replace
from typing import Final

from tokgate.wire.client_hello import ClientHello, ClientHelloError
from tokgate.wire.hello_reader import read_client_hello
from tokgate.wire.quic.packets import Initial, taken, unprotected, varint

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
        """A packet without its protection; None if these are not its keys."""
        opened = unprotected(initial, self.first.destination, self._largest)
        if opened is None:
            return None
        number, plain = opened
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
