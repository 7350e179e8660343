"""ClientHellos for the load generator: a browser's as recorded, or OpenSSL's, for any name."""

import contextlib
import ssl
from collections.abc import Callable, Mapping
from typing import Final

from comparison.settings import BROWSER_HELLO

_SERVER_NAME: Final = 0


def openssl_hello(name: str) -> bytes:
    """The first flight of OpenSSL's client."""
    context = ssl.create_default_context()
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


def browser_hello(name: str) -> bytes:
    """The ClientHello that Chromium sent, post-quantum key share, GREASE and all, with another server name."""
    message = bytes.fromhex(BROWSER_HELLO.read_text("ascii"))[9:]  # past the record's and the handshake's header
    position = 2 + 32
    position += 1 + message[position]  # session id
    position += 2 + int.from_bytes(message[position : position + 2])  # cipher suites
    position += 1 + message[position]  # compression methods
    before, extensions = message[:position], message[position + 2 :]
    rebuilt = b""
    while extensions:
        kind, length = int.from_bytes(extensions[:2]), int.from_bytes(extensions[2:4])
        body, extensions = extensions[4 : 4 + length], extensions[4 + length :]
        if kind == _SERVER_NAME:
            body = _sized(b"\0" + _sized(name.encode("ascii"), 2), 2)
        rebuilt += kind.to_bytes(2) + _sized(body, 2)
    return b"\x16\x03\x01" + _sized(b"\x01" + _sized(before + _sized(rebuilt, 2), 3), 2)


def _sized(data: bytes, octets: int) -> bytes:
    return len(data).to_bytes(octets) + data


KINDS: Final[Mapping[str, Callable[[str], bytes]]] = {"browser": browser_hello, "openssl": openssl_hello}
