"""Clients of QUIC, by aioquic, without sockets: their first flights, and single packets with any frames."""

import secrets
import ssl
import struct
from typing import Any

from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import QuicProtocolVersion

from tokgate.wire.quic import Initial, Opening, initials

NAME = "www.example.org"
V1, V2 = QuicProtocolVersion.VERSION_1, QuicProtocolVersion.VERSION_2
SERVER = ("203.0.113.9", 443)


def client(
    name: str | None = NAME,
    version: int = V1,
    *,
    large: bool = False,
    token: bytes = b"",
    identity: bytes | None = None,
) -> tuple[QuicConnection, list[bytes]]:
    """A client of aioquic's and its first flight. `large`: of a hello that fills several datagrams.

    `identity`: the id from which the keys come.
    """
    alpn = [f"protocol-number-{number:03d}" for number in range(200)] if large else ["h3"]
    configuration = QuicConfiguration(
        is_client=True,
        server_name=name,
        alpn_protocols=alpn,
        original_version=version,
        supported_versions=[version],
        token=token,
        verify_mode=ssl.CERT_NONE,  # a certificate comes in whichever datagram the network makes of it
    )
    made = QuicConnection(configuration=configuration)
    if identity is not None:  # aioquic makes up its own
        made._peer_cid.cid = made._original_destination_connection_id = identity
    made.connect(SERVER, now=0.0)
    return made, [data for data, _ in made.datagrams_to_send(now=0.0)]


def packet(
    frames: bytes,
    number: int = 0,
    *,
    ids: tuple[bytes, bytes],
    version: int = V1,
    size: int = 4,
    token: bytes = b"",
    keys: bytes | None = None,
    fixed: int = 0x40,
) -> bytes:
    """A client's Initial packet with these frames, its number in `size` octets.

    `ids`: those of destination and source. `keys`: the id from which its keys come, if it is not the destination's.
    """
    pair = CryptoPair()
    pair.setup_initial(ids[0] if keys is None else keys, is_client=True, version=version if version in (V1, V2) else V1)
    frames += bytes(max(0, 4 - len(frames)))
    head = bytes((0x80 | fixed | (0x10 if version == V2 else 0) | size - 1,)) + struct.pack("!I", version)
    head += b"".join(bytes((len(one),)) + one for one in ids)
    head += struct.pack("!H", 0x4000 | len(token)) + token
    head += struct.pack("!H", 0x4000 | size + len(frames) + 16) + struct.pack("!I", number)[-size:]
    return bytes(pair.encrypt_packet(head, frames, number))


def protected(
    payload: bytes, *, number: int = 0, size: int = 4, version: int = V1, destination: bytes = b"destined"
) -> Initial:
    """The same, as it is found in a datagram."""
    (found,) = initials(packet(payload, number, ids=(destination, b""), version=version, size=size))
    return found


def hello_of(flight: list[bytes]) -> bytes:
    """The hello that a client's first flight carries."""
    opening = Opening(initials(flight[0])[0])
    for datagram in flight:
        for each in initials(datagram):
            opening.reads(each)
    assert opening.hello is not None
    return opening.hello.message


def crypto(offset: int, data: bytes) -> bytes:
    """A CRYPTO frame."""
    return b"\x06" + struct.pack("!IH", 0x80000000 | offset, 0x4000 | len(data)) + data


class QuicClient:
    """One connection: what it sends first, and how it ended."""

    def __init__(self, name: str | None, **options: Any) -> None:
        """`options` are those of `client`."""
        self._quic, self.flight = client(name, **options)

    def again(self, message: bytes, size: int = 900) -> list[bytes]:
        """A second hello under the same keys, as after a HelloRetryRequest, in packets of `size` octets of it."""
        first, start = initials(self.flight[0])[0], len(hello_of(self.flight))
        return [
            packet(crypto(start + at, message[at : at + size]), number, ids=(first.destination, first.source))
            for number, at in enumerate(range(0, len(message), size), 100)
        ]

    def greeted(self, datagram: bytes) -> bool:
        """Whether the server has begun its handshake when this had come from it."""
        self._quic.receive_datagram(datagram, SERVER, now=0.1)
        return any(isinstance(event, events.ProtocolNegotiated) for event in iter(self._quic.next_event, None))

    def told(self, datagram: bytes) -> events.ConnectionTerminated | None:
        """How the connection ended when this had come from the server."""
        self._quic.receive_datagram(datagram, SERVER, now=0.1)
        self._quic.handle_timer(now=100.0)
        happened = iter(self._quic.next_event, None)
        return next((event for event in happened if isinstance(event, events.ConnectionTerminated)), None)


def initial(frames: bytes) -> bytes:
    """A first packet of a connection of its own, with these frames."""
    return packet(frames.ljust(1100, b"\0"), ids=(secrets.token_bytes(8), secrets.token_bytes(8)))
