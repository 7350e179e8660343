"""Clients of QUIC, by aioquic, without sockets."""

import secrets
import ssl
import struct

from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import QuicProtocolVersion

from tokgate.wire.quic import Opening, initials

SERVER = ("203.0.113.9", 443)


class QuicClient:
    """One connection: what it sends first, and how it ended."""

    def __init__(self, name: str | None, *, large: bool = False, identity: bytes | None = None) -> None:
        """`large`: with a hello that fills several datagrams. `identity`: the id from which the keys come."""
        alpn = [f"protocol-number-{number:03d}" for number in range(200)] if large else ["h3"]
        configuration = QuicConfiguration(
            is_client=True,
            server_name=name,
            alpn_protocols=alpn,
            verify_mode=ssl.CERT_NONE,  # a certificate comes in whichever datagram the network makes of it
        )
        self._quic = QuicConnection(configuration=configuration)
        if identity is not None:  # aioquic makes up its own
            self._quic._peer_cid.cid = self._quic._original_destination_connection_id = identity
        self._quic.connect(SERVER, now=0.0)
        self.flight = [data for data, _ in self._quic.datagrams_to_send(now=0.0)]

    def again(self, message: bytes, size: int = 900) -> list[bytes]:
        """A second hello under the same keys, as after a HelloRetryRequest, in packets of `size` octets of it."""
        pair = CryptoPair()
        first = initials(self.flight[0])[0]
        pair.setup_initial(first.destination, is_client=True, version=QuicProtocolVersion.VERSION_1)
        opening = Opening(first)
        for datagram in self.flight:
            for packet in initials(datagram):
                opening.reads(packet)
        assert opening.hello is not None
        start, datagrams = len(opening.hello.message), []
        for number, at in enumerate(range(0, len(message), size), 100):
            part = message[at : at + size]
            frame = b"\x06" + struct.pack("!IH", 0x80000000 | start + at, 0x4000 | len(part)) + part
            ids = b"".join(bytes((len(one),)) + one for one in (first.destination, first.source))
            head = b"\xc3" + struct.pack("!I", 1) + ids + b"\0" + struct.pack("!HI", 0x4000 | 20 + len(frame), number)
            datagrams.append(pair.encrypt_packet(head, frame, number))
        return datagrams

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
    pair, ids = CryptoPair(), (secrets.token_bytes(8), secrets.token_bytes(8))
    pair.setup_initial(ids[0], is_client=True, version=QuicProtocolVersion.VERSION_1)
    head = b"\xc3" + struct.pack("!I", 1) + b"".join(bytes((len(one),)) + one for one in ids)
    padded = frames.ljust(1100, b"\0")
    return bytes(pair.encrypt_packet(head + b"\0" + struct.pack("!HI", 0x4000 | 20 + len(padded), 0), padded, 0))
