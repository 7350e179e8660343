"""Builds ClientHellos, ordinary and odd ones, and gets real ones from OpenSSL. Knows nothing of the code under test."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path

SERVER_NAME = 0x0000
SIGNATURE_ALGORITHMS = 0x000D
ALPN = 0x0010
PADDING = 0x0015
EARLY_DATA = 0x002A
SUPPORTED_VERSIONS = 0x002B
KEY_SHARE = 0x0033
ECH = 0xFE0D

type Extension = tuple[int, bytes]


def vector(prefix: int, content: bytes) -> bytes:
    """A TLS vector: `content` behind its length in `prefix` octets."""
    return len(content).to_bytes(prefix) + content


def uint16s(values: Iterable[int]) -> bytes:
    return b"".join(value.to_bytes(2) for value in values)


def server_name(*names: bytes, kind: int = 0) -> Extension:
    """server_name with any number of names of one type: RFC 6066 §3."""
    return SERVER_NAME, vector(2, b"".join(bytes([kind]) + vector(2, name) for name in names))


def alpn(*protocols: bytes) -> Extension:
    return ALPN, vector(2, b"".join(vector(1, protocol) for protocol in protocols))


def supported_versions(*versions: int) -> Extension:
    return SUPPORTED_VERSIONS, vector(1, uint16s(versions))


def signature_algorithms(*schemes: int) -> Extension:
    return SIGNATURE_ALGORITHMS, vector(2, uint16s(schemes))


def ech(payload: int = 144) -> Extension:
    """encrypted_client_hello of an outer hello: type, cipher suite, config id, key, payload (RFC 9849 §5)."""
    return ECH, b"\0" + b"\0\1\0\1" + b"\x2a" + vector(2, b"k" * 32) + vector(2, b"p" * payload)


def hello(
    *extensions: Extension,
    ciphers: Sequence[int] = (0x1301, 0x1302, 0xC02F),
    session_id: bytes = b"s" * 32,
    compressions: bytes = b"\0",
    version: int = 0x0303,
    with_extensions: bool = True,
) -> bytes:
    """A ClientHello as a handshake message, without record headers."""
    body = version.to_bytes(2) + b"r" * 32 + vector(1, session_id) + vector(2, uint16s(ciphers))
    body += vector(1, compressions)
    if with_extensions:
        body += vector(2, b"".join(kind.to_bytes(2) + vector(2, content) for kind, content in extensions))
    return b"\1" + vector(3, body)


def hello_for(name: str, *more: Extension) -> bytes:
    """An ordinary TLS 1.3 ClientHello for a name, in one record: what a test of something else needs."""
    return records(hello(server_name(name.encode("ascii")), supported_versions(0x0304, 0x0303), alpn(b"h2"), *more))


def records(message: bytes, size: int = 16384, version: int = 0x0301) -> bytes:
    """The message in records of `size` octets each, the last one shorter."""
    return records_at(message, range(size, len(message), size), version)


def records_at(message: bytes, cuts: Iterable[int], version: int = 0x0301) -> bytes:
    """The message in records that end at the given offsets."""
    edges = [0, *cuts, len(message)]
    fragments = [message[start:end] for start, end in pairwise(edges)]
    return b"".join(b"\x16" + version.to_bytes(2) + vector(2, fragment) for fragment in fragments)


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


def s_client_hello(*arguments: str) -> bytes:
    """What `openssl s_client` sends first, to a listener on loopback that reads one record and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(20)
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        command = ["openssl", "s_client", "-connect", address, *arguments]
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as client:
            try:
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(20)
                    stream = connection.makefile("rb")
                    header = stream.read(5)
                    return header + stream.read(int.from_bytes(header[3:5]))
            finally:
                client.kill()
