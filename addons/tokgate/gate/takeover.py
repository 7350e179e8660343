"""Passes open connections on to the gates of the next policy: descriptors by SCM_RIGHTS, with how far each is.

So one policy is in force for every connection, however long it lasts. One datagram a connection, on a socket pair that
all gates inherit: retired ones write, whoever isn't retired reads.
"""

import errno
import hashlib
import io
import os
import pickle
import resource
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

from tokgate.gate.acceptor import ProxyHeader
from tokgate.gate.connecting import Connecting
from tokgate.gate.connection import Connection, Direction, Tunnel
from tokgate.gate.explicit_clients.front import ConnectingTunnel, ExplicitRequest, SocksStep, TunnelMessage
from tokgate.gate.first_message import FirstExchange, FirstMessage
from tokgate.gate.gate import Gate
from tokgate.gate.handoff import MAX_DATAGRAM
from tokgate.gate.sockets import Listener, Socket
from tokgate.policy.membership import Identity
from tokgate.traffic.client_messages import AfterHello, AfterProxyRequest, AfterUnreadLine, FirstBytesReader
from tokgate.traffic.seen import Shown
from tokgate.wire.http_detection import LinePart, UnreadLine
from tokgate.wire.proxy_request import ConnectReader

TURN: Final = 0.002
"""Seconds of passing on before others have their turn."""
RETRY: Final = 0.005
"""Seconds before another try when the channel is full, or a connection is not movable yet."""
AT_ONCE: Final = 64
"""Connections taken over between two batches of events."""
_MOST_DESCRIPTORS: Final = 6
"""Client, destination, and a pipe for each direction."""
_RESERVED: Final = 512
"""Descriptors that are kept for pipes and what else a gate has open: a connection that comes without would be lost."""


@dataclass(frozen=True, slots=True)
class SerializedFlow:
    """A direction that is blocked or carries bulk; `in_pipe` octets come in a pipe of their own."""

    pending: bytes
    in_pipe: int


@dataclass(frozen=True, slots=True)
class SerializedConnection:
    """A connection in all but its descriptors. Times are monotonic, the same for all processes of a machine."""

    carried: dict[str, Any]
    """The attributes of a connection that are handed over unchanged."""
    listener: int
    server: bool
    up: SerializedFlow | None
    down: SerializedFlow | None


MADE_ANEW: Final = frozenset({"client", "client_fd", "server", "server_fd", "listener", "up", "down", "rivals"})
"""Attributes of a connection that mean something in one process only."""


def _format() -> str:
    """A digest of the fields of what travels."""
    states = (ProxyHeader, ExplicitRequest, TunnelMessage, FirstMessage, Connecting, ConnectingTunnel, FirstExchange)
    values = (Tunnel, AfterHello, AfterProxyRequest, AfterUnreadLine, UnreadLine, Shown, Identity)
    travels = (SerializedConnection, SerializedFlow, Connection, *values)
    shapes = [(each.__name__, [field.name for field in fields(each)]) for each in travels]
    shapes += [(each.__name__, sorted(_slots(each))) for each in states]
    return hashlib.sha256(repr((shapes, sorted(MADE_ANEW), [*SocksStep], [*LinePart])).encode()).hexdigest()[:12]


def _slots(kind: type) -> list[str]:
    return [name for each in kind.__mro__ for name in getattr(each, "__slots__", ())]


FORMAT: Final = _format()
"""Gates of two programs pass connections on if both have the same."""


def describe(connection: Connection, listeners: Sequence[Listener]) -> tuple[SerializedConnection, list[int]]:
    """The serialized form of a connection whose state is movable, and its descriptors."""
    descriptors = [connection.client_fd]
    if connection.server is not None:
        descriptors.append(connection.server_fd)
    up = None if connection.up_done else _flow(connection.up, descriptors)
    down = None if connection.down_done else _flow(connection.down, descriptors)
    carried = {field.name: getattr(connection, field.name) for field in fields(connection)}
    carried = {name: value for name, value in carried.items() if name not in MADE_ANEW}
    carried["received"] = bytes(connection.received)
    listener = listeners.index(connection.listener)
    return SerializedConnection(carried, listener, connection.server is not None, up, down), descriptors


def _flow(direction: Direction | None, descriptors: list[int]) -> SerializedFlow | None:
    if direction is None:
        return None
    if direction.pipe is not None and direction.in_pipe:
        descriptors += direction.pipe
    return SerializedFlow(direction.pending, direction.in_pipe)


class _Pickler(pickle.Pickler):
    """Leaves the parts of a gate out of the states that refer to them, and what is read anew from what was received."""

    def __init__(self, gate: Gate, file: io.BytesIO) -> None:
        super().__init__(file)
        self._names: Final = {id(part): name for name, part in _parts(gate).items()}

    def persistent_id(self, value: Any) -> str | None:
        """The name of what is not pickled."""
        if isinstance(value, FirstBytesReader | ConnectReader):
            return _NOT_READ
        return self._names.get(id(value))


class _Unpickler(pickle.Unpickler):
    """Puts another gate's parts in their place."""

    def __init__(self, gate: Gate, file: io.BytesIO) -> None:
        super().__init__(file)
        self._parts: Final = _parts(gate)

    def persistent_load(self, name: str) -> Any:
        """What stands for a name in this gate."""
        return self._parts[name]


_NOT_READ: Final = "not read"


def _parts(gate: Gate) -> dict[str, object]:
    parts = {"context": gate.context, "relay": gate.relay, "front": gate.explicit, "acceptor": gate.acceptor}
    return parts | {_NOT_READ: None}


def write(gate: Gate, serialized: SerializedConnection) -> bytes:
    """Pickle a connection of a gate."""
    file = io.BytesIO()
    _Pickler(gate, file).dump(serialized)
    return file.getvalue()


def read(gate: Gate, datagram: bytes, descriptors: Sequence[int]) -> SerializedConnection:
    """Unpickle a connection that another gate sent on the gates' own channel. Raises ValueError if it is malformed."""
    try:
        serialized = _Unpickler(gate, io.BytesIO(datagram)).load()
    except Exception as error:
        raise ValueError(f"what a gate passed on can't be read: {error!r}") from error
    if not isinstance(serialized, SerializedConnection):
        raise ValueError("what a gate passed on is no connection")
    pipes = sum(flow is not None and flow.in_pipe > 0 for flow in (serialized.up, serialized.down))
    if len(descriptors) != 1 + serialized.server + 2 * pipes:
        raise ValueError(f"a connection came with {len(descriptors)} descriptors")
    return serialized


def restore(
    gate: Gate, serialized: SerializedConnection, descriptors: Sequence[int], listeners: Sequence[Listener]
) -> Connection:
    """The connection that was described, around descriptors that are ours now."""
    left = iter(descriptors)
    client_fd = next(left)
    connection = Connection(
        _socket(client_fd), client_fd, listener=listeners[serialized.listener], **serialized.carried
    )
    if serialized.server:
        connection.server_fd = next(left)
        connection.server = _socket(connection.server_fd)
    connection.up = _direction(gate, connection, serialized.up, left, is_up=True)
    connection.down = _direction(gate, connection, serialized.down, left, is_up=False)
    return connection


def _socket(descriptor: int) -> Socket:
    """The socket behind a descriptor, whose family, type and protocol are found out."""
    return socket.SocketType(fileno=descriptor)


def _direction(
    gate: Gate, connection: Connection, flow: SerializedFlow | None, descriptors: Iterator[int], *, is_up: bool
) -> Direction | None:
    if flow is None:
        return None
    direction = gate.relay.moved_here(connection, is_up, flow.pending)
    if flow.in_pipe:
        direction.pipe, direction.in_pipe = (next(descriptors), next(descriptors)), flow.in_pipe
    return direction


class ConnectionTransfer:
    """Both ends of the channel, in a gate: first it takes over, and when it is retired it passes on."""

    def __init__(
        self,
        gate: Gate,
        listeners: Sequence[Listener],
        write: socket.socket,
        read: socket.socket,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`write` and `read` are the ends of `handoff.channel`."""
        self.passed_on = 0
        self.taken_over = 0
        self._gate: Final = gate
        self._listeners: Final = listeners
        self._write: Final = write
        self._read: Final = read
        self._monotonic: Final = monotonic
        self._most: Final = (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _RESERVED) // 2
        self._left: Iterator[Connection] = iter(())
        self._next: Connection | None = None
        self._ended = False
        """Whether the channel has ended, at which it stays readable for ever."""
        write.setblocking(False)
        read.setblocking(False)

    @property
    def descriptor(self) -> int:
        """Readable when there are connections to take over; then call `take`."""
        return self._read.fileno()

    @property
    def takes_more(self) -> bool:
        """Whether this gate can take any; when it can't, others may, or it can later."""
        return not self._ended and self._gate.acceptor.open_connections < self._most

    def take(self) -> list[Connection]:
        """Take over what others pass on, up to a bound. What is returned was let through by another policy."""
        taken: list[Connection] = []
        for _ in range(AT_ONCE):
            if not self.takes_more:
                break
            try:
                datagram, descriptors, _, _ = socket.recv_fds(self._read, MAX_DATAGRAM, _MOST_DESCRIPTORS)
            except OSError:  # nothing more, or no descriptor left to take any with
                break
            if not datagram:
                self._ended = True
                break
            try:
                serialized = read(self._gate, datagram, descriptors)
            except ValueError as error:
                self._gate.enforcer.failed("succession", error)
                for descriptor in descriptors:
                    os.close(descriptor)
                continue
            connection = restore(self._gate, serialized, descriptors, self._listeners)
            try:
                self._gate.acceptor.adopt(connection)
            except OSError as error:  # more than the system lets one watch
                self._gate.loop.broken(connection, error)
                continue
            self.taken_over += 1
            taken.append(connection)
        return taken

    def pass_on(self) -> float:
        """Pass connections on for a turn; the seconds until the next one."""
        gate, give_up = self._gate, self._monotonic() + TURN
        while True:
            connection = self._next or next(self._left, None)
            if connection is None:
                self._left = iter(list(gate.loop.connections.values()))
                return RETRY if gate.acceptor.open_connections else 0.0
            self._next = None
            if connection.rivals or not connection.state.movable:
                continue
            serialized, descriptors = describe(connection, self._listeners)
            try:
                socket.send_fds(self._write, [write(gate, serialized)], descriptors)
            except OSError as error:
                if error.errno == errno.EMSGSIZE:  # larger than a datagram, which the limits exclude: it stays here
                    continue
                self._next = connection  # the channel is full
                return RETRY
            connection.silent = False  # the gate that serves it from now on counts it
            gate.loop.unwatch(connection)
            gate.loop.close(connection)
            gate.loop.release_closed()
            self.passed_on += 1
            if self._monotonic() >= give_up:
                return 0.0
