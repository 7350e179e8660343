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
from dataclasses import fields
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


def _format() -> str:
    """A digest of the fields of what travels."""
    states = (ProxyHeader, ExplicitRequest, TunnelMessage, FirstMessage, Connecting, ConnectingTunnel, FirstExchange)
    values = (Tunnel, AfterHello, AfterProxyRequest, AfterUnreadLine, UnreadLine, Shown, Identity)
    travels = (Connection, Direction, *values)
    shapes = [(each.__name__, [field.name for field in fields(each)]) for each in travels]
    for each in states:
        slots = (name for kind in each.__mro__ for name in getattr(kind, "__slots__", ()))
        shapes.append((each.__name__, sorted(slots)))
    return hashlib.sha256(repr((shapes, [*SocksStep], [*LinePart])).encode()).hexdigest()[:12]


FORMAT: Final = _format()
"""Gates of two programs pass connections on if both have the same."""


class _Pickler(pickle.Pickler):
    """Leaves out what is another gate's or another process's own, and what is read anew from what was received."""

    def __init__(self, gate: Gate, listeners: Sequence[Listener], file: io.BytesIO) -> None:
        super().__init__(file)
        self.descriptors: Final[list[int]] = []
        self._names: Final = {id(part): name for name, part in _parts(gate, listeners).items()}

    def persistent_id(self, value: Any) -> str | int | None:
        """The name of what is not pickled; of a socket, the place of its descriptor."""
        if isinstance(value, socket.SocketType):
            descriptor = value.fileno()
            if descriptor not in self.descriptors:
                self.descriptors.append(descriptor)
            return self.descriptors.index(descriptor)
        if isinstance(value, FirstBytesReader | ConnectReader):
            return _NOT_READ
        return self._names.get(id(value))


class _Unpickler(pickle.Unpickler):
    """Puts another gate's parts in their place, and sockets around descriptors."""

    def __init__(self, gate: Gate, listeners: Sequence[Listener], file: io.BytesIO, descriptors: Sequence[int]) -> None:
        super().__init__(file)
        self.sockets: Final[dict[int, Socket]] = {}
        self._descriptors: Final = descriptors
        self._parts: Final = _parts(gate, listeners)

    def persistent_load(self, name: str | int) -> Any:
        """What stands for a name in this gate."""
        if isinstance(name, str):
            return self._parts[name]
        if name not in self.sockets:  # family, type and protocol are found out
            self.sockets[name] = socket.SocketType(fileno=self._descriptors[name])
        return self.sockets[name]


_NOT_READ: Final = "not read"


def _parts(gate: Gate, listeners: Sequence[Listener]) -> dict[str, object]:
    parts = {"context": gate.context, "relay": gate.relay, "front": gate.explicit, "acceptor": gate.acceptor}
    return parts | {f"listener {number}": each for number, each in enumerate(listeners)} | {_NOT_READ: None}


def write(gate: Gate, connection: Connection, listeners: Sequence[Listener]) -> tuple[bytes, list[int]]:
    """A connection of a gate whose state is movable: all but its descriptors, and these."""
    file = io.BytesIO()
    pickler = _Pickler(gate, listeners, file)
    pickler.dump(connection)
    for direction in _full(connection):
        pickler.descriptors.extend(direction.pipe or ())
    return file.getvalue(), pickler.descriptors


def _full(connection: Connection) -> list[Direction]:
    """The directions whose pipes hold something."""
    return [each for each in (connection.up, connection.down) if each is not None and each.in_pipe]


def read(gate: Gate, datagram: bytes, descriptors: Sequence[int], listeners: Sequence[Listener]) -> Connection:
    """A connection that another gate sent on the gates' own channel, around descriptors that are ours now.

    Raises:
        ValueError: it is malformed; the descriptors are still open.

    """
    unpickler = _Unpickler(gate, listeners, io.BytesIO(datagram), descriptors)
    try:
        connection: Connection = unpickler.load()
        pipes = _full(connection)
        if len(descriptors) != len(unpickler.sockets) + 2 * len(pipes):
            raise ValueError(f"a connection came with {len(descriptors)} descriptors")
    except Exception as error:
        for each in unpickler.sockets.values():
            each.detach()
        raise ValueError(f"what a gate passed on can't be read: {error!r}") from error
    connection.received = bytes(connection.received)
    connection.up = None if connection.up_done else connection.up
    connection.down = None if connection.down_done else connection.down
    connection.client_fd = connection.client.fileno()
    connection.server_fd = -1 if connection.server is None else connection.server.fileno()
    left = iter(descriptors[len(unpickler.sockets) :])
    for direction in (connection.up, connection.down):
        if direction is not None:
            direction.go_on_elsewhere((next(left), next(left)) if direction in pipes else None)
    return connection


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
        self.descriptor: Final = read.fileno()
        """Readable when there are connections to take over; then call `take`."""
        self._monotonic: Final = monotonic
        self._most: Final = (resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _RESERVED) // 2
        self._left: Iterator[Connection] = iter(())
        self._next: Connection | None = None
        self._ended = False
        """Whether the channel has ended, at which it stays readable for ever."""
        write.setblocking(False)
        read.setblocking(False)

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
                connection = read(self._gate, datagram, descriptors, self._listeners)
            except ValueError as error:
                self._gate.enforcer.failed("succession", error)
                for descriptor in descriptors:
                    os.close(descriptor)
                continue
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
            datagram, descriptors = write(gate, connection, self._listeners)
            try:
                socket.send_fds(self._write, [datagram], descriptors)
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
