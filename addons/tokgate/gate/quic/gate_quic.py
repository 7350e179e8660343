"""The QUIC of a gate in a process of its own: carried, judged again while it lasts, and passed on to the next gate.

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

from tokgate.gate.context import Context
from tokgate.gate.quic.carrier import QuicCarrier
from tokgate.gate.quic.flow_table import GateFlow
from tokgate.traffic.live_review import LiveReview

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


class GateQuic:
    """The parts of a gate for QUIC: its carrier, the review of open flows, and their transfer between generations."""

    def __init__(
        self,
        context: Context,
        carrier: QuicCarrier,
        transfer_out: socket.socket,
        transfer_in: socket.socket,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """`transfer_out` and `transfer_in` are the ends of `channel`."""
        self.carrier: Final = carrier
        self.review: Final[LiveReview[GateFlow]] = LiveReview(context.enforcer, carrier)
        self.remains = True
        """Whether flows are still to be passed on, once the gate is retired."""
        self._context: Final = context
        self._write: Final = transfer_out
        self._read: Final = transfer_in
        self._monotonic: Final = monotonic
        self._retired = False
        self._give_up_at = 0.0
        self._left: Iterator[tuple[GateFlow, ...]] | None = None
        self._next: bytes | None = None
        context.loop.call_back(transfer_in.fileno(), self.take_over)

    def expect(self) -> None:
        """Wait for a predecessor's flows, until PATIENCE seconds after `begin`: packets of unknown flows wait, too."""
        self._give_up_at = float("inf")
        self.carrier.unknown_flows_wait = True

    def begin(self) -> None:
        """Read from the sockets from now on: the gate before has retired."""
        self._give_up_at = self._monotonic() + PATIENCE
        self.carrier.begin()

    def look(self) -> float:
        """Do what is due; the seconds until the next call."""
        if self._retired:
            return self._pass_on()
        self.carrier.look()
        if self.carrier.unknown_flows_wait and self._monotonic() >= self._give_up_at:
            self.carrier.unknown_flows_wait = False
            self.carrier.resume()
        return self.review.look()

    def retire(self) -> None:
        """Take nothing over any more, and pass flows on with each `look`."""
        self._retired = True
        self._context.loop.call_no_more(self._read.fileno())

    def take_over(self) -> None:
        """Go on with flows that have come, which another policy let through."""
        for _ in range(MESSAGES):
            try:
                message = self._read.recv(_LARGEST)
            except OSError:
                break
            if message in (_END, b""):
                self.carrier.unknown_flows_wait = False
                continue
            try:
                flows: list[GateFlow] = pickle.loads(message)
            except Exception as error:
                self._context.enforcer.failed("succession", error)
                continue
            for flow in flows:
                self.carrier.flows.adopt(flow)
                self.review.examine(flow)
        self.carrier.resume()

    def _pass_on(self) -> float:
        """Pass flows on as far as there is room; the seconds until the next time."""
        if self._left is None:
            flows = self.carrier.flows
            self._left = chain(batched(flows.take_waiting(_MOST_HELD), 1), batched(flows.take_all(), AT_ONCE))
        while self.remains:
            if self._next is None:
                some = next(self._left, ())
                self._next = pickle.dumps(list(some)) if some else _END
            try:
                self._write.send(self._next)
            except BlockingIOError:
                return RETRY
            except OSError as error:
                self._context.enforcer.failed("succession", error)
            self.remains = self._next != _END
            self._next = None
        return float("inf")
