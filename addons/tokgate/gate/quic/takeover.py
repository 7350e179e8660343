"""Passes flows of QUIC on to the gate of the next policy that reads the same sockets.

Each gate's place has a channel of its own, which its gates of all generations inherit: the retired one writes, the
newest reads. Of connections that aren't decided yet what has come of their hello goes along: a client may not repeat
just that part.
"""

import pickle
import socket
import time
from collections.abc import Callable, Iterator
from itertools import batched, chain
from typing import Final

from tokgate.gate.quic.carrier import QuicCarrier
from tokgate.gate.quic.flow_table import GateFlow

AT_ONCE: Final = 32
"""Flows in a message."""
MESSAGES: Final = 16
"""Taken between two batches of events."""
PATIENCE: Final = 5.0
"""Seconds that flows of a predecessor are awaited, from the first datagram on that may come here."""
_MOST_HELD: Final = 65_536
"""Octets of a flow that isn't decided yet; one with more is not passed on: a message must fit the channel."""
RETRY: Final = 0.005
_LARGEST: Final = 1 << 20
_END: Final = b"."
"""A message: no more flows come."""


def channel() -> tuple[socket.socket, socket.socket]:
    """The end that is written to, and the one to read."""
    read, write = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    read.setblocking(False)
    write.setblocking(False)
    return write, read


class FlowTransfer:
    """Passes a gate's flows on to its successor, and takes over those of its predecessor."""

    def __init__(
        self,
        quic: QuicCarrier,
        write: socket.socket,
        read: socket.socket,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.taken_over = 0
        self.passed_on = 0
        self._quic: Final = quic
        self._write: Final = write
        self._read: Final = read
        self._monotonic: Final = monotonic
        self._give_up_at = 0.0
        self._left: Iterator[tuple[GateFlow, ...]] | None = None
        self._next: bytes | None = None
        self.done = False
        """Whether all flows are passed on."""

    @property
    def descriptor(self) -> int:
        """Readable when flows come; then call `take`."""
        return self._read.fileno()

    def expect(self) -> None:
        """Wait for a predecessor's flows, until PATIENCE seconds after `begin`: packets of unknown flows wait, too."""
        self._give_up_at = float("inf")
        self._quic.unknown_flows_wait = True

    def begin(self) -> None:
        """Start the wait of PATIENCE seconds: the predecessor has retired."""
        self._give_up_at = self._monotonic() + PATIENCE

    def look(self) -> None:
        """End the wait that `expect` began, when its time is over. To be called about once a second."""
        if self._quic.unknown_flows_wait and self._monotonic() >= self._give_up_at:
            self._quic.unknown_flows_wait = False
            self._quic.resume()

    def take(self) -> list[GateFlow]:
        """Take over what has come. What is returned was let through by another policy: judge it, then `resume`."""
        taken: list[GateFlow] = []
        for _ in range(MESSAGES):
            try:
                message = self._read.recv(_LARGEST)
            except OSError:
                break
            if message in (_END, b""):
                self._quic.unknown_flows_wait = False
                continue
            try:
                flows: list[GateFlow] = pickle.loads(message)
            except Exception as error:
                self._quic.enforcer.failed("succession", error)
                continue
            for flow in flows:
                self._quic.flows.adopt(flow)
            taken += flows
        self.taken_over += len(taken)
        return taken

    def pass_on(self) -> float:
        """Pass flows on as far as there is room; the seconds until the next time."""
        if self._left is None:
            flows = self._quic.flows
            self._left = chain(batched(flows.take_waiting(_MOST_HELD), 1), batched(flows.take_all(), AT_ONCE))
        while not self.done:
            if self._next is None:
                some = next(self._left, ())
                self._next = pickle.dumps(list(some)) if some else _END
                self.passed_on += len(some)
            try:
                self._write.send(self._next)
            except BlockingIOError:
                return RETRY
            except OSError as error:
                self._quic.enforcer.failed("succession", error)
            self.done = self._next == _END
            self._next = None
        return float("inf")
