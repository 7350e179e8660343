"""Passes open connections on to the gates of the next policy: descriptors by SCM_RIGHTS, with how far each is.

So one policy is in force for every connection, however long it lasts. One datagram a connection, on a socket pair that
all gates inherit: retired ones write, whoever isn't retired reads.
"""

import errno
import os
import pickle
import resource
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tokgate.gate.admission import Shown
from tokgate.gate.connection import CLOSED, PARTING, WAITING, Connection, Half, State
from tokgate.gate.handover import MAX_DATAGRAM
from tokgate.gate.introduction import Introduction
from tokgate.gate.relay import STICK
from tokgate.gate.sockets import Address, Listener

if TYPE_CHECKING:
    from tokgate.gate.gate import Gate

TURN: Final = 0.002
"""Seconds of passing on before others have their turn."""
RETRY: Final = 0.005
"""Seconds after which it is tried again when the successors have enough to do, or some connection can't go yet."""
AT_ONCE: Final = 64
"""Connections taken over between two batches of events."""
_MOST_DESCRIPTORS: Final = 6
"""Client, destination, and a pipe for each direction."""
_RESERVED: Final = 512
"""Descriptors that are kept for pipes and what else a gate has open: a connection that comes without would be lost."""


@dataclass(frozen=True, slots=True)
class Flow:
    """A direction that is blocked or carries bulk; `in_pipe` octets come in a pipe of their own."""

    pending: bytes
    in_pipe: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Legacy:
    """A connection in all but its descriptors. Times are monotonic, the same for all processes of a machine."""

    peer: str
    port: int
    listener: int
    state: State
    destination: Address | None
    held: bytes
    greeted: bool
    tunnel: Any
    shown: str | Shown | None
    id: str | None
    seen: float
    deadline: float
    client_fin: bool
    server_fin: bool
    up_done: bool
    down_done: bool
    server: bool
    up: Flow | None
    down: Flow | None


def describe(connection: Connection, listeners: Sequence[Listener]) -> tuple[Legacy, list[int]]:
    """A connection as it is now, and its descriptors. It has to be where `movable` says so."""
    descriptors = [connection.client_fd]
    if connection.server is not None:
        descriptors.append(connection.server_fd)
    up = None if connection.up_done else _flow(connection.up, descriptors)
    down = None if connection.down_done else _flow(connection.down, descriptors)
    legacy = Legacy(
        peer=connection.peer,
        port=connection.port,
        listener=listeners.index(connection.listener),
        state=connection.state,
        destination=connection.destination,
        held=connection.held,
        greeted=connection.greeting is True,
        tunnel=connection.tunnel,
        shown=connection.shown,
        id=connection.id,
        seen=connection.seen,
        deadline=connection.deadline,
        client_fin=connection.client_fin,
        server_fin=connection.server_fin,
        up_done=connection.up_done,
        down_done=connection.down_done,
        server=connection.server is not None,
        up=up,
        down=down,
    )
    return legacy, descriptors


def _flow(half: Half | None, descriptors: list[int]) -> Flow | None:
    if half is None:
        return None
    if half.pipe is not None and half.in_pipe:
        descriptors += half.pipe
    return Flow(half.pending, half.in_pipe)


def read(datagram: bytes, descriptors: Sequence[int]) -> Legacy:
    """What came: another gate's pickle, from a channel that nobody else has. Raises ValueError if it was mangled."""
    try:
        legacy = pickle.loads(datagram)
    except Exception as error:
        raise ValueError(f"what a gate passed on can't be read: {error!r}") from error
    if not isinstance(legacy, Legacy):
        raise ValueError("what a gate passed on is no connection")
    pipes = sum(flow is not None and flow.in_pipe > 0 for flow in (legacy.up, legacy.down))
    if len(descriptors) != 1 + legacy.server + 2 * pipes:
        raise ValueError(f"a connection came with {len(descriptors)} descriptors")
    return legacy


def revive(legacy: Legacy, descriptors: Sequence[int], listeners: Sequence[Listener]) -> Connection:
    """The connection that was described, around descriptors that are ours now."""
    left = iter(descriptors)
    client_fd = next(left)
    client = socket.SocketType(-1, -1, -1, client_fd)
    listener = listeners[legacy.listener]
    connection = Connection(client, client_fd, legacy.peer, legacy.port, listener, legacy.seen)
    if legacy.server:
        connection.server_fd = next(left)
        connection.server = socket.SocketType(-1, -1, -1, connection.server_fd)
    connection.state = legacy.state
    connection.destination = legacy.destination
    connection.held = legacy.held
    connection.greeting = legacy.greeted or None  # a hello in pieces is collected again from what is held
    connection.tunnel = legacy.tunnel
    connection.shown = legacy.shown
    connection.id = legacy.id
    connection.deadline = legacy.deadline
    connection.client_fin, connection.server_fin = legacy.client_fin, legacy.server_fin
    connection.up_done, connection.down_done = legacy.up_done, legacy.down_done
    connection.up = _half(connection, legacy.up, left, is_up=True)
    connection.down = _half(connection, legacy.down, left, is_up=False)
    return connection


def _half(connection: Connection, flow: Flow | None, descriptors: Iterator[int], *, is_up: bool) -> Half | None:
    if flow is None:
        return None
    half = Half(connection, is_up, flow.pending, STICK)
    if flow.in_pipe:
        half.pipe, half.in_pipe = (next(descriptors), next(descriptors)), flow.in_pipe
    return half


def movable(connection: Connection) -> bool:
    """Whether it can be passed on: not while a name is being resolved, and not for a refusal's last moment.

    Nor is who has just said who they are: in a moment they will say what they want.
    """
    return connection.state not in (WAITING, PARTING, CLOSED) and not isinstance(connection.greeting, Introduction)


class Succession:
    """Both ends of the channel, in a gate: first it takes over, and when it is retired it passes on."""

    def __init__(
        self,
        gate: "Gate",
        listeners: Sequence[Listener],
        write: socket.socket,
        read: socket.socket,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`write` and `read` are the ends of `handover.channel`."""
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
        write.setblocking(False)
        read.setblocking(False)

    @property
    def descriptor(self) -> int:
        """Readable when there are connections to take over; then call `take`."""
        return self._read.fileno()

    @property
    def has_room(self) -> bool:
        """Whether this gate can take any; when it can't, others may, or it can later."""
        return self._gate.open_connections < self._most

    def take(self) -> list[Connection]:
        """Take over what others pass on, up to a bound. What is returned was let through by another policy."""
        taken: list[Connection] = []
        for _ in range(AT_ONCE):
            if not self.has_room:
                break
            try:
                datagram, descriptors, _, _ = socket.recv_fds(self._read, MAX_DATAGRAM, _MOST_DESCRIPTORS)
            except OSError:  # nothing more, or no descriptor left to take any with
                break
            try:
                legacy = read(datagram, descriptors)
            except ValueError as error:
                self._gate.enforcer.failed("succession", error)
                for descriptor in descriptors:
                    os.close(descriptor)
                continue
            connection = revive(legacy, descriptors, self._listeners)
            try:
                self._gate.adopt(connection)
            except OSError as error:  # more than the system lets one watch
                self._gate.broken(connection, error)
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
                self._left = iter(list(gate.connections.values()))
                return RETRY if gate.open_connections else 0.0
            self._next = None
            if not movable(connection):
                continue
            legacy, descriptors = describe(connection, self._listeners)
            try:
                socket.send_fds(self._write, [pickle.dumps(legacy)], descriptors)
            except OSError as error:
                if error.errno == errno.EMSGSIZE:  # never made, as far as bounds tell: then it stays here
                    continue
                self._next = connection  # they have enough to do
                return RETRY
            gate.let_go(connection)
            gate.bury()
            self.passed_on += 1
            if self._monotonic() >= give_up:
                return 0.0
