"""Clients of QUIC, by aioquic, without sockets."""

from aioquic.quic import events
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection

SERVER = ("203.0.113.9", 443)


class QuicClient:
    """One connection: what it sends first, and how it ended."""

    def __init__(self, name: str | None, *, large: bool = False, identity: bytes | None = None) -> None:
        """`large`: with a hello that fills several datagrams. `identity`: the id from which the keys come."""
        alpn = [f"protocol-number-{number:03d}" for number in range(200)] if large else ["h3"]
        self._quic = QuicConnection(
            configuration=QuicConfiguration(is_client=True, server_name=name, alpn_protocols=alpn)
        )
        if identity is not None:  # aioquic makes up its own
            self._quic._peer_cid.cid = self._quic._original_destination_connection_id = identity
        self._quic.connect(SERVER, now=0.0)
        self.flight = [data for data, _ in self._quic.datagrams_to_send(now=0.0)]

    def told(self, datagram: bytes) -> events.ConnectionTerminated | None:
        """How the connection ended when this had come from the server."""
        self._quic.receive_datagram(datagram, SERVER, now=0.1)
        self._quic.handle_timer(now=100.0)
        happened = iter(self._quic.next_event, None)
        return next((event for event in happened if isinstance(event, events.ConnectionTerminated)), None)
