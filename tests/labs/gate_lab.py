"""A gate in a thread, origins on loopback, and clients that say exactly what a test wants."""

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from whenever import Instant

from labs import waiting
from labs.builders import network, service, snapshot
from labs.hello_builder import hello_for
from labs.records import Clock as Clock
from labs.records import Holder, Monotonic, Records, Sink, enforcer_of
from tokgate.gate.gate import Gate, GateConnections
from tokgate.gate.handoff import OpenerChannel
from tokgate.gate.sockets import Address, Entry, listen
from tokgate.gate.takeover import ConnectionTransfer
from tokgate.policy.snapshot import Snapshot
from tokgate.traffic.limits import Limits
from tokgate.traffic.live_review import LiveReview
from tokgate.traffic.seen import Arrival
from tokgate.traffic.warning_state import WarnedClients
from tokgate.wire.client_hello import REFUSAL

DEADLINE = waiting.DEADLINE
ALLOWED, BANNED = hello_for("www.example.net"), hello_for("www.clips.example.org")
"""What clients say first, under the ban of `policy`."""
REFUSED = REFUSAL
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
NOBODY: Address = ("127.0.0.1", 1)
"""Where nothing listens. A port that was free before would soon be another test's."""


def until[T](probe: Callable[[], T], seconds: float = DEADLINE) -> T:
    """Wait for a condition; its value."""
    return waiting.until("what the gate is to come to", probe, seconds, every=0.005)


def stop_time(monkeypatch: pytest.MonkeyPatch) -> Monotonic:
    """Have the deadlines of gates pass when a test says so, and not because the machine is busy."""
    clock = Monotonic(time.monotonic())
    monkeypatch.setattr("tokgate.gate.sockets.DEFER_SECONDS", int(DEADLINE))  # the kernel's, for a client's first words
    monkeypatch.setattr("tokgate.gate.event_loop.time", SimpleNamespace(monotonic=clock))
    return clock


def pass_time(gate: Gate, clock: Monotonic, seconds: float) -> None:
    """Let a little more time pass: a gate looks for what is overdue once a second, at those whom it had then."""
    for passed in (max(seconds, 1.0), 1.0):
        clock.now += passed
        until(lambda: gate.loop._next_sweep > clock.now)


class Adopter(OpenerChannel):
    """An opener that keeps what it is given, or refuses to."""

    def __init__(self) -> None:
        self.willing = True
        self.adopted: list[tuple[socket.socket, Arrival, bytes, bool, bool]] = []

    def adopt(self, client: Any, arrival: Arrival, received: bytes, *, tls: bool, explicit: bool) -> bool:
        """Keep a duplicate of the socket, as another process would."""
        if self.willing:
            copy = socket.socket(fileno=socket.dup(client.fileno()))
            self.adopted.append((copy, arrival, received, tls, explicit))
        return self.willing


class Origin:
    """A server on loopback; each connection is given to `serve` in a thread of its own."""

    def __init__(
        self,
        serve: Callable[[socket.socket], object],
        family: int = socket.AF_INET,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        v6 = family == socket.AF_INET6
        # The port is taken in IPv4 too: mitmproxy takes `::1` with a port that it listens on in IPv4 for itself.
        self.socket = socket.create_server(("::" if v6 else host, port), family=family, backlog=512, dualstack_ipv6=v6)
        self.port = self.socket.getsockname()[1]
        self.address: Address = ("::1" if v6 else "127.0.0.1", self.port)
        self.accepted = 0
        self._serve = serve
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self.socket.accept()
                self.accepted += 1
                threading.Thread(target=self._one, args=(client,), daemon=True).start()

    def _one(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            client.settimeout(DEADLINE)
            self._serve(client)

    def close(self) -> None:
        """Stop accepting."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


class RunningGate:
    """A gate whose loop runs in a thread. `redirected` and `explicit` are where to dial it."""

    def __init__(
        self,
        policy: Snapshot,
        limits: Limits | None = None,
        now: Callable[[], Instant] | None = None,
        records: Records | None = None,
        opener: OpenerChannel | None = None,
        warned: WarnedClients | None = None,
    ) -> None:
        """Its records go to `records`, or else to `sink`; what must be opened to `opener`, or else to a stand-in."""
        self.holder = Holder(policy)
        self.sink = Sink()
        self.opener = Adopter()
        enforcer = enforcer_of(self.holder, records or self.sink, now=now or Instant.now, warned=warned)
        self.gate: Gate = Gate(enforcer, opener or self.opener, limits)
        self.review = LiveReview(enforcer, GateConnections(self.gate.context))
        self.transfer: ConnectionTransfer | None = None
        self.retired = False
        redirected, explicit = listen("127.0.0.1", 0, Entry.REDIRECT), listen("127.0.0.1", 0, Entry.EXPLICIT)
        self.listeners = (redirected, explicit)
        self.gate.acceptor.add_listener(redirected)
        self.gate.acceptor.add_listener(explicit)
        self.redirected: Address = ("127.0.0.1", redirected.port)
        self.explicit: Address = ("127.0.0.1", explicit.port)
        self.error: BaseException | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                self.gate.loop.once(0.005)
                self.review.look()
                if self.transfer is not None and self.retired:
                    self.transfer.pass_on()
                elif self.transfer is not None:
                    for connection in self.transfer.take():
                        self.review.examine(connection)
        except BaseException as error:
            self.error = error

    def pause(self) -> None:
        """Stop the loop, and leave the gate as it is."""
        self._stop.set()
        self._thread.join(DEADLINE)

    def serves[T](self, probe: Callable[[], T], seconds: float = DEADLINE) -> T:
        """Run the loop of a paused gate, here, until a condition holds; its value."""

        def probe_after_a_batch() -> T:
            self.gate.loop.once(0.01)
            return probe()

        return until(probe_after_a_batch, seconds)

    def stop(self) -> None:
        """Stop the loop and close everything; what went wrong in it is raised here."""
        self.pause()
        self.gate.close()
        for sock, *_ in self.opener.adopted:
            sock.close()
        if self.error is not None:
            raise self.error

    def settled(self) -> bool:
        """Whether no connection is left."""
        return bool(until(lambda: not self.gate.loop.connections and self.gate.acceptor.open_connections == 0))


StartGate = Callable[..., RunningGate]
StartOrigin = Callable[..., Origin]
POLICY_PARTS: dict[str, Any] = {
    "services": (service("clips", "suffix:clips.example.org", addresses=("203.0.113.0/24",)),),
    "networks": (network("loop", "127.0.0.0/8", "::1/128"),),
}


def policy(*bans: Any, **settings: Any) -> Snapshot:
    """A policy for clients on loopback."""
    return snapshot(*bans, **(POLICY_PARTS | settings))


def echo(client: socket.socket) -> None:
    """Send back what comes, until its end."""
    while data := client.recv(65536):
        client.sendall(data)


def connect_request(host: str, port: int = 443, *fields: str) -> bytes:
    """A CONNECT request of an explicit client."""
    return "\r\n".join((f"CONNECT {host}:{port} HTTP/1.1", f"Host: {host}:{port}", *fields, "", "")).encode()


def read_all(sock: socket.socket) -> bytes:
    """Everything up to the end of the stream."""
    data = bytearray()
    while piece := sock.recv(1 << 16):
        data += piece
    return bytes(data)


def exactly(sock: socket.socket, count: int) -> bytes:
    """That many bytes, or those up to the end of the stream."""
    data = b""
    while len(data) < count and (piece := sock.recv(count - len(data))):
        data += piece
    return data


def read_head(sock: socket.socket) -> bytes:
    """A head of HTTP, with its empty line, or what comes of one up to the end of the stream."""
    head = b""
    while not head.endswith(b"\r\n\r\n") and (octet := sock.recv(1)):
        head += octet
    return head


def broken_off(sock: socket.socket) -> bool:
    """Whether a connection ends with a reset, whatever comes before it."""
    try:
        while sock.recv(1 << 16):
            pass
    except ConnectionResetError:
        return True
    return False


def reset(sock: socket.socket) -> None:
    """Break a connection off."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@contextlib.contextmanager
def dial(address: Address, *said: bytes, room: int | None = None) -> Iterator[socket.socket]:
    """A client that has said something; `room`: as much as it takes before it is read, in octets."""
    with socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET) as sock:
        if room is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
        sock.settimeout(DEADLINE)
        sock.connect(address)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for piece in said:
            sock.sendall(piece)
        yield sock
