"""One client connection of a gate, the states that it may be in, and its directions that transfer bulk."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from tokgate.gate.sockets import Address, Listener, Socket
from tokgate.policy.membership import Identity
from tokgate.policy.values.hostname import parse_address
from tokgate.traffic.seen import Shown

type Attempt = tuple[Socket, Address]
"""A socket that was told to connect, and where to."""


class State(ABC):
    """Where a connection is in its life, with what is known only there, and what its events and its deadline do."""

    __slots__ = ()

    @property
    def movable(self) -> bool:
        """Whether the gate of another policy can go on with it."""
        return True

    @abstractmethod
    def on_client(self, connection: "Connection", event: int) -> None:
        """Serve an event of epoll of the client's socket."""

    @abstractmethod
    def on_server(self, connection: "Connection", event: int) -> None:
        """Serve an event of epoll of the destination's socket."""

    @abstractmethod
    def overdue(self, connection: "Connection") -> None:
        """The connection's deadline has passed, or nothing has happened for too long."""

    def silent(self, connection: "Connection") -> None:  # noqa: B027 - it is over for most
        """The connection has been in this state for a while since its destination was dialled."""


class _Closed(State):
    """Over; its sockets are closed at the end of the batch of events."""

    __slots__ = ()
    movable = False

    def on_client(self, connection: "Connection", event: int) -> None:
        """Nothing happens any more."""

    on_server = on_client

    def overdue(self, connection: "Connection") -> None:
        """Nothing is waited for."""


CLOSED: Final = _Closed()


@dataclass(slots=True)
class Tunnel:
    """The destination of an explicit client. `addresses` are those not tried yet."""

    host: str
    port: int
    socks: bool
    addresses: tuple[str, ...] = ()
    established: bool = False
    extended: bool = False
    """The client has sent a part of its first message, and its deadline was extended once."""

    @property
    def asked(self) -> str | None:
        """The host that was asked for, as admission has it; SOCKS clients ask for addresses without saying so."""
        return None if self.socks and parse_address(self.host) is not None else self.host


@dataclass(slots=True, eq=False)
class Connection:
    """A client's socket, the destination's, and how far each direction is. No logic lives here.

    What matters in one state before the relay is in that state's object. What the relay needs is here, since a
    connection is relayed for most of its life.
    """

    client: Socket
    client_fd: int
    peer: str
    port: int
    listener: Listener
    seen: float
    """When something last happened, in monotonic seconds."""
    state: State
    server: Socket = None
    server_fd: int = -1
    destination: Address | None = None
    rivals: "tuple[Attempt, ...]" = ()
    """Sockets towards other addresses of the destination, which were dialled before and have not answered yet."""
    received: bytes | bytearray = b""
    """Read from the client and not yet passed on; what comes in pieces is in one place, the reader's."""
    person: Identity | None = None
    """The authenticated identity of an explicit client."""
    tunnel: Tunnel | None = None
    """What an explicit client asked for."""
    silent: bool = False
    """It came by redirection, has said nothing yet, and was connected because its destination's address may be."""
    adopted: bool = False
    """Another gate served it before, and may have its descriptors open for a moment still."""
    shown: str | Shown | None = None
    """What it was let through on: the name in its ClientHello, or more where a name isn't all."""
    deadline: float = 0.0
    """When the present state has lasted too long; 0.0: it may last as long as things happen."""
    client_fin: bool = False
    server_fin: bool = False
    client_error: int = 0
    """The error with which the client's side was broken off; 0: it was not."""
    server_error: int = 0
    up_done: bool = False
    down_done: bool = False
    up: "Direction | None" = None
    down: "Direction | None" = None
    id: str | None = None


@dataclass(slots=True, eq=False)
class Direction:
    """A direction that blocked or carries bulk: bytes from one socket to the other through a pipe in the kernel."""

    connection: Connection
    is_up: bool
    pending: bytes
    """Read already, before there was a pipe."""
    turns: int
    """Turns left before the next direction has its own."""
    serve: "Callable[[Direction], None]"
    """Takes one of its turns."""
    source_fd: int = field(init=False)
    sink_fd: int = field(init=False)
    sink: Socket = field(init=False)
    pipe: tuple[int, int] | None = None
    in_pipe: int = 0
    """Bytes that the pipe holds."""
    queued: bool = False
    """Whether it waits for its turn."""
    blocked: bool = False
    """Whether the sink takes no more for now."""

    def go_on_elsewhere(self, pipe: tuple[int, int] | None) -> None:
        """Go on in another gate, which gives it its turn."""
        self.pipe, self.queued, self.blocked = pipe, False, False
        self.__post_init__()

    def __post_init__(self) -> None:
        one, is_up = self.connection, self.is_up
        self.source_fd, self.sink_fd = (one.client_fd, one.server_fd) if is_up else (one.server_fd, one.client_fd)
        self.sink = one.server if is_up else one.client
