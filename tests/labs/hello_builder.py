"""ClientHellos: ordinary ones, real ones from OpenSSL and Chromium, and their reading in pieces."""

from __future__ import annotations

import ssl
from pathlib import Path

from tokgate.evasion.hello import (
    Extension,
    alpn,
    hello,
    records,
    server_name,
    supported_versions,
    vector,
)
from tokgate.wire.client_hello import ClientHello
from tokgate.wire.hello_reader import HELLO_RETRY, HelloReader

RETRY = records(b"\2" + vector(3, b"\3\3" + HELLO_RETRY + b"\x20" + b"s" * 32 + b"\x13\1\0\0\0"))
"""A HelloRetryRequest."""


def hello_for(name: str, *more: Extension) -> bytes:
    """An ordinary TLS 1.3 ClientHello for a name, in one record: what a test of something else needs."""
    return records(hello(server_name(name.encode("ascii")), supported_versions(0x0304, 0x0303), alpn(b"h2"), *more))


def chromium_hello() -> bytes:
    """What Chromium 156 sent to www.example.org: with a post-quantum key share, GREASE and ECH GREASE."""
    return bytes.fromhex(Path(__file__).with_name("chromium-156.hex").read_text("ascii"))


def openssl_hello(name: str | None = "www.example.org", **settings: object) -> bytes:
    """What Python's ssl sends first. `settings` are attributes of the context, and `alpn` and `ciphers`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    for setting, value in settings.items():
        match setting:
            case "alpn":
                context.set_alpn_protocols(value)  # type: ignore[arg-type]
            case "ciphers":
                context.set_ciphers(value)  # type: ignore[arg-type]
            case _:
                setattr(context, setting, value)
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        return outgoing.read()
    raise AssertionError("a handshake that nobody answered is over")


class HelloPieces:
    """A ClientHello that comes in pieces: what has come of it, and its reader."""

    def __init__(self) -> None:
        self.received = bytearray()
        self._reader = HelloReader(self.received)

    def feed(self, data: bytes) -> ClientHello | None:
        """Take the next piece."""
        self.received.extend(data)
        return self._reader.read()
