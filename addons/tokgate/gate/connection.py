"""One client connection on its way through the gate, and the directions of it that carry more than a packet."""

from enum import IntEnum
from typing import Any, Final

from tokgate.gate.admission import Shown
from tokgate.gate.sockets import Address, Listener, Socket


class State(IntEnum):
    """Where a connection is in its life. Compared by identity of small integers: this is the hot path."""

    GREETING = 0
    """The client has not yet said what it wants: a ClientHello, a CONNECT request, a request line."""
    WAITING = 1
    """Something else has to happen first: a name is being resolved."""
    CONNECTING = 2
    """Towards the destination."""
    OPEN = 3
    """Bytes flow."""
    PARTING = 4
    """Refused; our side is closed, and what the client still sends is thrown away."""
    CLOSED = 5


# By themselves, for the hot path: a global is found quicker than a member of a class.
GREETING: Final = State.GREETING
WAITING: Final = State.WAITING
CONNECTING: Final = State.CONNECTING
OPEN: Final = State.OPEN
PARTING: Final = State.PARTING
CLOSED: Final = State.CLOSED


class Connection:
    """A client's socket, the destination's, and how far each direction is. Plain attributes: no logic lives here."""

    __slots__ = (
        "client",
        "client_fd",
        "client_fin",
        "deadline",
        "destination",
        "down",
        "down_done",
        "greeting",
        "held",
        "id",
        "listener",
        "peer",
        "port",
        "seen",
        "server",
        "server_fd",
        "server_fin",
        "shown",
        "state",
        "tunnel",
        "up",
        "up_done",
    )

    def __init__(self, client: Socket, client_fd: int, peer: str, port: int, listener: Listener, now: float) -> None:
        self.client: Socket = client
        self.client_fd: int = client_fd
        self.peer: str = peer
        self.port: int = port
        self.listener: Listener = listener
        self.server: Socket = None
        self.server_fd: int = -1
        self.state: State = State.GREETING
        self.destination: Address | None = None
        self.held: bytes = b""
        """Read from the client and not yet passed on."""
        self.greeting: Any = None
        """Whoever collects a greeting that comes in pieces."""
        self.tunnel: Any = None
        """What an explicit client asked for, while the tunnel it got still has to show what it carries."""
        self.shown: str | Shown | None = None
        """What it was let through on: the name in its ClientHello, or more where a name isn't all."""
        self.seen: float = now
        """When something last happened, in monotonic seconds."""
        self.deadline: float = 0.0
        """When the present state has lasted too long; 0.0: it may last as long as things happen."""
        self.client_fin: bool = False
        self.server_fin: bool = False
        self.up_done: bool = False
        self.down_done: bool = False
        self.up: Half | None = None
        self.down: Half | None = None
        self.id: str | None = None


class Half:
    """A direction that blocked or carries bulk: bytes from one socket to the other through a pipe in the kernel."""

    __slots__ = (
        "blocked",
        "connection",
        "in_pipe",
        "is_up",
        "pending",
        "pipe",
        "queued",
        "sink",
        "sink_fd",
        "source_fd",
        "turns",
    )

    def __init__(self, connection: Connection, is_up: bool, pending: bytes, turns: int) -> None:
        self.connection: Connection = connection
        self.is_up: bool = is_up
        self.source_fd: int = connection.client_fd if is_up else connection.server_fd
        self.sink_fd: int = connection.server_fd if is_up else connection.client_fd
        self.sink: Socket = connection.server if is_up else connection.client
        self.pending: bytes = pending
        """Read already, before there was a pipe."""
        self.pipe: tuple[int, int] | None = None
        self.in_pipe: int = 0
        """Bytes that the pipe holds."""
        self.queued: bool = False
        """Whether it waits for its turn."""
        self.blocked: bool = False
        """Whether the sink takes no more for now."""
        self.turns: int = turns
        """Turns left before the next direction has its own."""
