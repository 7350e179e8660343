"""One client connection of a gate, and its directions that transfer bulk."""

from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Final

from tokgate.gate.egress.parent_handshake import ParentHandshake
from tokgate.gate.sockets import Address, Listener, Socket
from tokgate.policy.membership import Identity
from tokgate.policy.values.hostname import parse_address
from tokgate.traffic.second_words import Reader, Watched
from tokgate.traffic.seen import Shown
from tokgate.wire.connect_request import ConnectReader


class SocksStep(IntEnum):
    """The steps of a SOCKS 5 client before its request."""

    METHOD_CHOSEN = 1
    """It was told how to say who it is, or that it need not."""
    SIGNED_IN = 2
    """It has proved who it is: `Connection.person`."""


@dataclass(slots=True, eq=False)
class Greeting:
    """The client has not yet said what it wants: a ClientHello, a CONNECT request, a request line."""

    reader: Reader | ConnectReader | SocksStep | None = None
    """Where the greeting arrives in pieces: what reads it, or how far a SOCKS client is."""
    preface: bytes | None = None
    """What has come of a load balancer's header, before anything of its client; None: no header is to come."""


@dataclass(slots=True, eq=False)
class AskingParent:
    """A parent proxy is connected to, and asked for the destination."""

    handshake: ParentHandshake
    asked: bool = False
    """The first message was sent."""


@dataclass(slots=True, eq=False)
class Answering:
    """The client's first words were passed on, and nothing has flowed towards it: it may have to say more."""

    watched: Watched
    said: bytes = b""
    """The beginning of the destination's answer, as long as it can't be judged."""
    client_waits: bool = False
    """The client has said more, which stays in its socket, and of which epoll does not tell again."""


class SimpleState(Enum):
    """The states that hold nothing of their own."""

    WAITING = 1
    """Something else has to happen first: a name is resolved, a password checked."""
    CONNECTING = 2
    """The destination has not answered yet."""
    OPEN = 3
    """Bytes flow."""
    PARTING = 4
    """Refused; our side is closed, and what the client still sends is thrown away."""
    CLOSED = 5


WAITING: Final = SimpleState.WAITING
CONNECTING: Final = SimpleState.CONNECTING
OPEN: Final = SimpleState.OPEN
PARTING: Final = SimpleState.PARTING
CLOSED: Final = SimpleState.CLOSED

type State = Greeting | AskingParent | Answering | SimpleState
"""Where a connection is in its life, with what is known only there."""


@dataclass(slots=True)
class Tunnel:
    """The destination of an explicit client. `addresses` are those not tried yet."""

    host: str
    port: int
    socks: bool
    addresses: tuple[str, ...] = ()
    established: bool = False
    hurried: bool = False
    """The client has sent a part of its first message, and its deadline was extended once."""

    @property
    def asked(self) -> str | None:
        """The host that was asked for, as admission has it; SOCKS clients ask for addresses without saying so."""
        return None if self.socks and parse_address(self.host) is not None else self.host


@dataclass(slots=True, eq=False)
class Connection:
    """A client's socket, the destination's, and how far each direction is. No logic lives here."""

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
    held: bytes | bytearray = b""
    """Read from the client and not yet passed on; what comes in pieces is in one place, the reader's."""
    watched: Watched | None = None
    """What to watch for once it is connected: the client is under a ban, and may yet ask for another destination."""
    person: Identity | None = None
    """The authenticated identity of an explicit client."""
    tunnel: Tunnel | None = None
    """What an explicit client asked for, while the tunnel it got still has to show what it carries."""
    silent: bool = False
    """It came by redirection, has said nothing yet, and was connected on the word of its destination's address."""
    adopted: bool = False
    """Another gate served it before, and may have its descriptors open for a moment still."""
    shown: str | Shown | None = None
    """What it was let through on: the name in its ClientHello, or more where a name isn't all."""
    deadline: float = 0.0
    """When the present state has lasted too long; 0.0: it may last as long as things happen."""
    owing: float = 0.0
    """Since when the destination owes an answer: to connect, or its first octet; 0.0: it owes none."""
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

    def __post_init__(self) -> None:
        one, is_up = self.connection, self.is_up
        self.source_fd, self.sink_fd = (one.client_fd, one.server_fd) if is_up else (one.server_fd, one.client_fd)
        self.sink = one.server if is_up else one.client
