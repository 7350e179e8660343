"""The interface of the event loop for readers of explicit clients' requests."""

from collections.abc import Callable
from typing import Protocol

from tokgate.gate.connection import Connection, Greeting
from tokgate.gate.sockets import Address, Socket
from tokgate.policy.settings import Upstream
from tokgate.traffic.arrival import Arrival


class Loop(Protocol):
    """What the explicit front and its sign-in ask of the event loop that they stand in."""

    def call_back(self, descriptor: int, callback: Callable[[], None]) -> None:
        """Call whenever a descriptor is readable."""

    def arrival(self, connection: Connection) -> Arrival:
        """The client, and its destination as far as it is known."""

    def say(self, connection: Connection, words: bytes) -> bool:
        """Send a few octets to the client; False, and the connection closed, if it has gone."""

    def wait_for_greeting(self, connection: Connection) -> None:
        """Wait for more bytes of the client's request."""

    def suspend(self, connection: Connection, seconds: float) -> None:
        """Something else has to happen first, within that time; the connection is WAITING until then."""

    def listen(self, connection: Connection, seconds: float = 0.0) -> Greeting:
        """Hear the client from now on, also what came meanwhile; within `seconds`, or whenever it comes."""

    def read_greeting(self, connection: Connection, greeting: Greeting, data: bytes | bytearray) -> None:
        """Decide about what a tunnel carries, of which this came next."""

    def dial(self, connection: Connection, destination: Address) -> bool:
        """Begin to connect a tunnel; False if it would lead back to this gate. Raises OSError."""

    def parent(self, connection: Connection, destination: Address) -> Upstream | None:
        """The parent proxy that reaches a destination; None where it is reached directly."""

    def hand_over(self, connection: Connection, arrival: Arrival, *, tls: bool) -> bool:
        """Give the client to an opener; False, and nothing done, if there is none."""

    def refuse(self, connection: Connection, last_words: bytes) -> None:
        """Send `last_words` to the client and close the connection."""

    def reset(self, connection: Connection, other: Socket) -> None:
        """Break off, towards `other` as well."""
