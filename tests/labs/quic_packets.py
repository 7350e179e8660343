"""Packets of QUIC, written by aioquic: a client's first flight, and single ones with any frames."""

import struct

from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import QuicProtocolVersion

from tokgate.wire.quic import Initial, initials

NAME = "www.example.org"
V1, V2 = QuicProtocolVersion.VERSION_1, QuicProtocolVersion.VERSION_2
SERVER = ("192.0.2.1", 443)


def client(
    name: str | None = NAME, version: int = V1, *, large: bool = False, token: bytes = b""
) -> tuple[QuicConnection, list[bytes]]:
    """A client of aioquic's and its first flight. `large`: of a hello that fills several datagrams."""
    alpn = [f"protocol-number-{number:03d}" for number in range(200)] if large else ["h3"]
    configuration = QuicConfiguration(
        is_client=True,
        server_name=name,
        alpn_protocols=alpn,
        original_version=version,
        supported_versions=[version],
        token=token,
    )
    made = QuicConnection(configuration=configuration)
    made.connect(SERVER, now=0.0)
    return made, [data for data, _ in made.datagrams_to_send(now=0.0)]


def protected(
    payload: bytes, *, number: int = 0, size: int = 4, version: int = V1, destination: bytes = b"destined"
) -> Initial:
    """A client's packet with these frames, its number in so many octets."""
    pair = CryptoPair()
    pair.setup_initial(destination, is_client=True, version=version)
    payload += bytes(max(0, 4 - len(payload)))
    first = (0xC0 if version == V1 else 0xD0) | size - 1
    head = bytes((first,)) + struct.pack("!I", version) + bytes((len(destination),)) + destination + b"\x00\x00"
    head += struct.pack("!H", 0x4000 | size + len(payload) + 16) + struct.pack("!I", number)[-size:]
    (found,) = initials(pair.encrypt_packet(head, payload, number))
    return found


def crypto(offset: int, data: bytes) -> bytes:
    """A CRYPTO frame."""
    return b"\x06" + struct.pack("!IH", 0x80000000 | offset, 0x4000 | len(data)) + data
