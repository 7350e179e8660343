"""The records of a DNS message (RFC 1035 §4), and the length that goes before a message over TCP (§4.2.2)."""

import re
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

HEADER: Final = struct.Struct("!HHHHHH")
QUESTION: Final = struct.Struct("!HH")
POINTER: Final = struct.Struct("!H")
RECORD: Final = struct.Struct("!HHIH")
RESPONSE: Final = 0x8000
OPT: Final = 41
_POINTERS: Final = 32
"""Most pointers in one name, so that chains of them cost little. A compressed name has one, seldom a few."""

_readable = re.compile(rb"[A-Za-z0-9_-]+").fullmatch


class ResourceRecord(NamedTuple):
    """Where a record's parts are in its message: `end` is the first octet after it."""

    owner: int
    type: int
    ttl: int
    at: int
    """The offset of type, class, TTL and length."""
    end: int

    @property
    def data(self) -> int:
        """The offset of the record's RDATA in the message."""
        return self.at + RECORD.size


def records(data: bytes) -> list[ResourceRecord]:
    """The offsets of all records of a message. Raises ValueError."""
    try:
        _, _, questions, *counts = HEADER.unpack_from(data)
        end = HEADER.size
        for _ in range(questions):
            end = after_name(data, end) + QUESTION.size
        return list(read_records(data, end, sum(counts)))
    except (IndexError, struct.error) as error:
        raise ValueError(f"malformed: {error}") from error


def read_records(data: bytes, at: int, count: int) -> Iterator[ResourceRecord]:
    """The records from an offset on, up to the message's end."""
    for _ in range(count):
        owner, at = at, after_name(data, at)
        kind, _, ttl, length = RECORD.unpack_from(data, at)
        end = at + RECORD.size + length
        yield ResourceRecord(owner, kind, ttl, at, end)
        at = end
    if at != len(data):
        raise ValueError("the message ends elsewhere than it says")


def read_labels(data: bytes, at: int) -> tuple[list[bytes], int]:
    """The labels of a name, and where it ends. Pointers lead back, and never into the header (RFC 1035 §4.1.4)."""
    labels: list[bytes] = []
    size, start, end, pointers = 0, at, 0, 0
    while length := data[at]:
        if length >= 0xC0:
            target = name_start(data, at)
            pointers += 1
            if not HEADER.size <= target < start or pointers > _POINTERS:
                raise ValueError("a pointer that leads nowhere")
            end = end or at + 2
            at = start = target
            continue
        if length > 63:
            raise ValueError("a label of an unknown kind")
        labels.append(data[at + 1 : at + 1 + length])
        at += 1 + length
        size += 1 + length
        if size > 254:
            raise ValueError("a name of more than 255 octets")
    return labels, end or at + 1


def name_start(data: bytes, at: int) -> int:
    """The offset of a name, after one pointer if it is no more than that."""
    return POINTER.unpack_from(data, at)[0] & 0x3FFF if data[at] >= 0xC0 else at


def after_name(data: bytes, at: int) -> int:
    """The offset after a name. Pointers are not followed, since chains of them would be expensive."""
    while length := data[at]:
        if length >= 0xC0:
            return at + 2
        if length > 63:
            raise ValueError("a label of an unknown kind")
        at += 1 + length
    return at + 1


def names_in_text(labels: list[bytes]) -> tuple[str, ...]:
    """A name in text; and, if it has octets that no host name has, what follows them, whose owner answers for it."""
    odd = max((index for index, label in enumerate(labels, 1) if not _readable(label)), default=0)
    below = in_text(labels[odd:]) if odd else ""
    return (in_text(labels), below) if below else (in_text(labels),)


def in_text(labels: list[bytes]) -> str:
    """A name in text, without its last dot."""
    return ".".join(label.decode("ascii") if _readable(label) else _escaped(label) for label in labels)


def _escaped(label: bytes) -> str:
    r"""As in zone files (RFC 1035 §5.1): a dot inside a label is `\.`, an octet that can't be shown `\ddd`."""
    shown = (f"\\{chr(o)}" if o in b".\\" else chr(o) if 0x21 <= o <= 0x7E else f"\\{o:03d}" for o in label)
    return "".join(shown)


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
