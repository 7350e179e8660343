"""Reads the PROXY protocol, versions 1 and 2, with which a load balancer says whose connection it passes on.

https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt. Sans-IO.
"""

import ipaddress
import re
import struct
from dataclasses import dataclass
from typing import Final

SIGNATURE: Final = b"\r\n\r\n\0\r\nQUIT\n"
"""How a header of version 2 begins (§2.2)."""
MAX_LINE: Final = 107
"""Octets of a header of version 1, with its line's end (§2.1)."""
MAX_HEADER: Final = 16 + 2048
"""Octets of a header of version 2 that are read; what stands behind the addresses is not used."""
_LINE: Final = re.compile(rb"PROXY TCP([46]) ([0-9A-Fa-f.:]{2,39}) ([0-9A-Fa-f.:]{2,39}) ([0-9]{1,5}) ([0-9]{1,5})\r\n")
_ADDRESSES: Final = {0x11: struct.Struct("!4s4sHH"), 0x21: struct.Struct("!16s16sHH")}
"""TCP over IPv4 and IPv6: source, destination, their ports."""
_LOCAL, _PROXY = 0x20, 0x21


@dataclass(frozen=True, slots=True)
class ProxyHeader:
    """Octets of a header, and the client's address and port; None if the load balancer speaks for itself."""

    length: int
    source: tuple[str, int] | None


def read(data: bytes) -> ProxyHeader | None:
    """The header at the beginning of what came; None as long as it is incomplete.

    Raises:
        ValueError: it is none.
    """
    if data.startswith(SIGNATURE[: len(data)]):
        return _binary(data)
    if data.startswith(b"PROXY "[: len(data)]):
        return _text(data)
    raise ValueError("no header of the PROXY protocol")


def _text(data: bytes) -> ProxyHeader | None:
    line, end, _ = data[:MAX_LINE].partition(b"\r\n")
    if not end:
        if len(data) >= MAX_LINE:
            raise ValueError("a header without an end")
        return None
    line += end
    if line.startswith(b"PROXY UNKNOWN"):
        return ProxyHeader(len(line), None)
    found = _LINE.fullmatch(line)
    if found is None:
        raise ValueError("a malformed header")
    source = ipaddress.ip_address(found[2].decode())
    if source.version != int(found[1]) or int(found[4]) > 0xFFFF:
        raise ValueError("an address of another family, or no port")
    return ProxyHeader(len(line), (str(source), int(found[4])))


def _binary(data: bytes) -> ProxyHeader | None:
    if len(data) < 16:
        return None
    command, family, size = data[12], data[13], int.from_bytes(data[14:16])
    if command not in (_LOCAL, _PROXY) or 16 + size > MAX_HEADER:
        raise ValueError("another version or command, or a header that is too long")
    if len(data) < 16 + size:
        return None
    form = _ADDRESSES.get(family)
    if command == _LOCAL or form is None:
        return ProxyHeader(16 + size, None)
    if size < form.size:
        raise ValueError("addresses that are cut off")
    source, _, port, _ = form.unpack_from(data, 16)
    return ProxyHeader(16 + size, (str(ipaddress.ip_address(source)), port))
