"""The inside of the server_name extension: a name, or the reason why none can be taken from it."""

from __future__ import annotations

import struct
from enum import StrEnum

from tokgate.wire.host_name import is_host_name

_list_of_one = struct.Struct("!HBH").unpack_from
"""The length of the list, the type of its first name and that name's length."""


class NameStatus(StrEnum):
    """What server_name holds. All but `valid` and `absent` are suspicious: no ordinary client sends them."""

    VALID = "valid"
    ABSENT = "absent"
    EMPTY = "empty"
    SEVERAL = "several"
    WRONG_TYPE = "wrong-type"
    NOT_ASCII = "not-ascii"
    INVALID = "invalid"
    MALFORMED = "malformed"


def read_server_name(message: bytes, start: int, end: int) -> tuple[str | None, NameStatus]:
    """Read the ServerNameList (RFC 6066 §3) in `message[start:end]`: the name as sent, or None, and what was found.

    The list may hold one name of each type, and there is but one type: two names are two opinions about where a
    connection goes, and the server might hold the other one. An address literal is not allowed there either, yet some
    clients send it, it says where they want to go, and policy knows addresses: it counts as valid.
    """
    name_start = start + 5
    if end < name_start:
        return None, NameStatus.EMPTY if message[start:end] in (b"", b"\0\0") else NameStatus.MALFORMED
    list_length, name_type, name_length = _list_of_one(message, start)
    if start + 2 + list_length != end:
        return None, NameStatus.MALFORMED
    if name_start + name_length != end:
        return None, NameStatus.SEVERAL if _is_list(message, start + 2, end) else NameStatus.MALFORMED
    if name_type:
        return None, NameStatus.WRONG_TYPE
    name = message[name_start:end]
    if is_host_name(name):
        return name.decode("ascii"), NameStatus.VALID
    if not name:
        return None, NameStatus.EMPTY
    return None, NameStatus.INVALID if name.isascii() else NameStatus.NOT_ASCII


def _is_list(message: bytes, position: int, end: int) -> bool:
    """Whether the lengths of the entries add up to the list."""
    while position + 3 <= end:
        position += 3 + (message[position + 1] << 8 | message[position + 2])
    return position == end
