"""One face for whatever carries clients' traffic, so that a claim is made once and tried with each carrier.

What is said and seen here are sockets, records and counters. How a carrier works inside is for its own tests.
"""

import asyncio
import contextlib
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from typing import Any

import h2.config
import h2.connection
import pytest

from labs.gate_lab import DEADLINE, Origin, RunningGate, echo, pass_time, stop_time, until
from labs.proxy_lab import Authority, Proxy, policy, running_proxy
from labs.raw_client import RawClient, Reply, dialled
from labs.records import Clock, Holder, Records
from tokgate.gate import handoff
from tokgate.gate.sockets import Address
from tokgate.mitm.gate_mode import GateInstance
from tokgate.mitm.hooks.connection import close_silent, hear_servers
from tokgate.mitm.hooks.proxy_auth import ask_in_socks
from tokgate.policy.snapshot import Snapshot
from tokgate.traffic.counters import Counters
from tokgate.traffic.limits import Limits
from tokgate.traffic.live_review import LiveReview
from tokgate.traffic.warning_state import WarnedClients

ALERT = bytes.fromhex("15030300020270")
"""A fatal unrecognized_name (112) of TLS 1.2: RFC 8446 §6.2."""
BEFORE, STARTS, NOW = "2023-03-09T22:59:59.9Z", "2023-03-09T23:00:00Z", "2023-04-01T12:00:00Z"
"""Instants just before the ban of `policy()`, at its start, and within it."""
LOOK = 0.005
"""Seconds between two rounds of what a carrier does besides traffic."""


class Kind(StrEnum):
    """What carries the traffic."""

    GATE = "gate"
    """A gate alone: what must be opened is refused."""
    OPENER = "opener"
    """A gate, and mitmproxy for what must be opened or read."""
    MITMPROXY = "mitmproxy"


class Way(StrEnum):
    """How a client's connection comes in."""

    REDIRECTED = "redirected"
    CONNECT = "connect"
    SOCKS = "socks"


OPENING = pytest.mark.parametrize("lab", [Kind.OPENER, Kind.MITMPROXY], indirect=True)
"""For claims about what only a carrier that can end TLS and read HTTP does."""
EXPLICIT = pytest.mark.parametrize("way", [Way.CONNECT, Way.SOCKS])
REDIRECTED = pytest.mark.parametrize("way", [Way.REDIRECTED])


class Gate:
    """A gate in a thread of its own, with clock and log of the laboratory's."""

    def __init__(
        self,
        lab: "Lab",
        snapshot: Snapshot,
        limits: Limits,
        opener: handoff.OpenerChannel | None = None,
        warned: WarnedClients | None = None,
    ) -> None:
        """`opener`: where what must be opened goes; without one it is refused."""
        self._running = RunningGate(snapshot, limits, lab.clock, lab.records, opener, warned)
        self._running.opener.willing = False
        self._gate, self._monotonic = self._running.gate, lab.monotonic
        self.holder, self.counters = self._running.holder, self._gate.enforcer.counters

    def door(self, way: Way) -> Address:
        """Where a client dials it."""
        return self._running.redirected if way is Way.REDIRECTED else self._running.explicit

    def idle(self) -> bool:
        """Whether no client's connection is left."""
        return not self._gate.loop.connections and not self._gate.acceptor.open_connections

    def wait(self, seconds: float) -> None:
        """Let time pass for those who keep others waiting, and look who is late."""
        pass_time(self._gate, self._monotonic, seconds)

    def close(self) -> None:
        """End it. What went wrong inside is raised."""
        self._running.stop()


class Mitmproxy:
    """mitmproxy with our addons on an event loop in a thread."""

    modes: tuple[str, ...] = ("transparent@127.0.0.1:0", "regular@127.0.0.3:0", "socks5@127.0.0.4:0")
    """At an address each, or mitmproxy would see one port 0."""

    def __init__(self, lab: "Lab", snapshot: Snapshot, limits: Limits) -> None:
        self._lab, self._limits = lab, limits
        self.proxy: Proxy
        self._passed, self._rounds = 0.0, 0
        self._error: BaseException | None = None
        self._ready, self._stop = threading.Event(), asyncio.Event()
        self._thread = threading.Thread(target=self._run, args=(snapshot,), daemon=True)
        self._thread.start()
        assert self._ready.wait(DEADLINE)
        if self._error is not None:
            raise self._error
        self.holder: Any = self.proxy.holder
        self.counters: Any = self.proxy.counters
        self.ca = self.proxy.ca

    def _run(self, snapshot: Snapshot) -> None:
        try:
            asyncio.run(self._serve(snapshot))
        except BaseException as error:
            self._error = error
        finally:
            self._ready.set()

    async def _serve(self, snapshot: Snapshot) -> None:
        self._loop, lab = asyncio.get_running_loop(), self._lab
        async with running_proxy(snapshot, lab.records, lab.authority, modes=self.modes, now=lab.clock) as self.proxy:
            ask_in_socks(self.proxy.master.options, wanted=snapshot.settings.proxy_auth is not None)
            besides = asyncio.create_task(self._besides())
            self._ready.set()
            await self._stop.wait()
            besides.cancel()

    async def _besides(self) -> None:
        """What the addon does besides traffic."""
        traffic = self.proxy.traffic
        review = LiveReview(traffic.enforcer, traffic)
        while True:
            review.look()
            if self._lab.servers_may_begin:
                await hear_servers(traffic, 0.0)
            if self._passed >= self._limits.greeting:
                await close_silent(traffic, -DEADLINE)
            self._rounds += 1
            await asyncio.sleep(LOOK)

    def door(self, way: Way) -> Address:
        names = {Way.REDIRECTED: "transparent", Way.CONNECT: "regular", Way.SOCKS: "socks5"}
        return self.proxy.places[names[way]]

    def idle(self) -> bool:
        return not self.proxy.connections

    def wait(self, seconds: float) -> None:
        self._passed += seconds
        rounds = self._rounds
        until(lambda: self._rounds > rounds + 1)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(DEADLINE)
        if self._error is not None:
            raise self._error


class Opener(Mitmproxy):
    """A gate, and mitmproxy behind it as an opener, each in a thread in place of a process."""

    modes = ("gate",)

    def __init__(self, lab: "Lab", snapshot: Snapshot, limits: Limits) -> None:
        self._channel = handoff.channel()
        lab.patch.setattr(GateInstance, "handovers", self._channel[1], raising=False)
        super().__init__(lab, snapshot, limits)
        to_opener, warned = handoff.OpenerChannel(self._channel[0]), self.proxy.traffic.enforcer.warned
        self._gate = Gate(lab, snapshot, limits, to_opener, warned)
        self.door = self._gate.door  # type: ignore[method-assign]
        self.holder = _Both(self._gate.holder, self.holder)
        self.counters = _Sums(self._gate.counters, self.counters)

    def idle(self) -> bool:
        return super().idle() and self._gate.idle()

    def wait(self, seconds: float) -> None:
        self._gate.wait(seconds)
        super().wait(seconds)

    def close(self) -> None:
        self._gate.close()
        super().close()
        for end in self._channel:
            end.close()


type Carrier = Gate | Mitmproxy


class _Both:
    """Holders of one policy in two processes."""

    def __init__(self, *holders: Holder) -> None:
        self._holders = holders

    @property
    def snapshot(self) -> Snapshot:
        return self._holders[0].snapshot

    @snapshot.setter
    def snapshot(self, snapshot: Snapshot) -> None:
        for each in self._holders:
            each.snapshot = snapshot


class _Sums:
    """Counters of two processes: their numbers together, and the latest words of whichever has some."""

    def __init__(self, *counters: Counters) -> None:
        self._counters = counters

    def __getattr__(self, name: str) -> Any:
        found = [getattr(each, name) for each in self._counters]
        if isinstance(found[0], int):
            return sum(found)
        if isinstance(found[0], Mapping):
            return sum(map(Counter, found), Counter())
        return next(filter(None, found), None)


class Lab:
    """Starts a carrier and origins, and says what the network around them is like. Everything ends with the test."""

    def __init__(self, kind: Kind, authority: Authority, records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
        self.kind, self.authority, self.records, self.patch = kind, authority, records, monkeypatch
        self.clock = Clock(NOW)
        self.names: dict[str, tuple[str, ...]] = {}
        """What names resolve to; others to this machine's loopback."""
        self.destination: Address = ("127.0.0.1", 1)
        """Where redirected connections were going."""
        self.servers_may_begin = False
        """Whether redirected clients that have said nothing are connected, so that their servers may speak first."""
        self._carrier: Carrier | None = None
        self._open = contextlib.ExitStack()
        self._surround()

    def _surround(self) -> None:
        real = socket.getaddrinfo

        def getaddrinfo(host: Any, port: Any, *how: Any, **more: Any) -> Any:
            text = host.decode() if isinstance(host, bytes) else host
            if not text or ":" in text or (text.count(".") == 3 and text.replace(".", "").isdigit()):
                return real(host, port, *how, **more)
            found = self.names.get(text, ("127.0.0.1",))
            if not found:
                raise socket.gaierror(socket.EAI_NONAME, "not found")
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port or 0)) for address in found]

        self.patch.setattr(socket, "getaddrinfo", getaddrinfo)
        self.patch.setattr("mitmproxy.platform.original_addr", lambda _: self.destination)
        self.patch.setattr("tokgate.gate.context.original_destination", lambda _sock, _listener: self.destination)
        self.monotonic = stop_time(self.patch)
        self.patch.setattr("tokgate.traffic.live_review.LONGEST", LOOK)

    @property
    def opens(self) -> bool:
        """Whether the carrier can end TLS and read HTTP."""
        return self.kind is not Kind.GATE

    def start(self, snapshot: Snapshot | None = None, limits: Limits | None = None) -> Carrier:
        """Start the carrier; by default with the ban that `policy()` has."""
        snapshot, limits = snapshot or policy(), limits or Limits()
        if self.servers_may_begin:
            self.patch.setattr("tokgate.gate.sockets.DEFER_SECONDS", 1)
        made: dict[Kind, type[Carrier]] = {Kind.GATE: Gate, Kind.OPENER: Opener, Kind.MITMPROXY: Mitmproxy}
        carrier = made[self.kind](self, snapshot, limits)
        self._open.callback(carrier.close)
        self._carrier = carrier
        return carrier

    @property
    def carrier(self) -> Carrier:
        """What was started last, or now, with the ban that `policy()` has."""
        return self._carrier or self.start()

    def origin(self, serve: Callable[[socket.socket], object] = echo, **options: Any) -> Origin:
        """A server for whatever is said to any loopback address; by default it says it back."""
        origin = Origin(serve, **({"host": "0.0.0.0"} | options))
        self._open.callback(origin.close)
        return origin

    def web(self, *names: str, tls: bool = True) -> "WebOrigin":
        """A web server, over TLS with a certificate for `names`."""
        context = self.authority.server(*(names or ("www.example.org", "*.clips.example.org"))) if tls else None
        origin = WebOrigin(context)
        self._open.callback(origin.close)
        return origin

    def break_deciding(self) -> None:
        """From now on whatever decides raises."""

        def broken(*_: Any, **__: Any) -> Any:
            raise RuntimeError("broken on purpose")

        for place in ("gate.first_message.decide", "policy.decide.decide", "policy.decide.decide_signals"):
            self.patch.setattr(f"tokgate.{place}", broken)

    def clients_are_elsewhere(self) -> None:
        """Take the clients, which are on loopback, for other machines."""
        self.patch.setattr("tokgate.traffic.admission._is_elsewhere", lambda client: True)

    @contextlib.contextmanager
    def dial(self, way: Way) -> Iterator[RawClient]:
        """A client that has said nothing yet."""
        with dialled(self.carrier.door(way)) as client:
            yield client

    @contextlib.contextmanager
    def reach(self, way: Way, port: int, host: str = "127.0.0.1") -> Iterator[RawClient]:
        """A client whose next bytes are for `host`: redirected, or in a tunnel that was granted."""
        self.destination = (host, port)
        with self.dial(way) as client:
            if way is Way.CONNECT:
                assert client.connect(f"[{host}]" if ":" in host else host, port).status == 200
            elif way is Way.SOCKS:
                assert client.socks(host, port) == 0
            yield client

    @contextlib.contextmanager
    def tls(
        self, context: ssl.SSLContext, name: str | None, way: Way, port: int, host: str = "127.0.0.1"
    ) -> Iterator[RawClient]:
        """A client that has shaken hands for a name with whoever serves `host`."""
        with self.reach(way, port, host) as client:
            client.tls(context, name)
            yield client

    def heard(self, way: Way, port: int, *said: bytes, at: str = "127.0.0.1") -> bytes:
        """What a client hears for what it says to a server, and for the end of it."""
        with self.reach(way, port, at) as client:
            return client.answer(*said)

    def got(self, way: Way, port: int, name: str, *, at: str = "127.0.0.1", **headers: str) -> Reply:
        """What a server answers to a GET of a name's first page."""
        with self.reach(way, port, at) as client:
            return client.get(name, **headers)

    def granted(self, client: RawClient, way: Way, host: str, port: int) -> bool:
        """Whether the carrier grants a tunnel, by CONNECT or SOCKS."""
        return client.connect(host, port).status == 200 if way is Way.CONNECT else client.socks(host, port) == 0

    def trusting(self, *alpn: str) -> ssl.SSLContext:
        """A client's context that trusts the origins' authority, and that of pages, where there is one."""
        ca = self.carrier.ca if isinstance(self.carrier, Mitmproxy) else None
        if ca is not None:
            until(ca.exists)
        return self.authority.client(*([ca] if ca is not None else []), alpn=alpn)

    def settled(self) -> bool:
        """Whether no connection is left, before long."""
        return until(self.carrier.idle)

    def close(self) -> None:
        """End everything."""
        self._open.close()


class WebOrigin(Origin):
    """An HTTP/1.1 server with keep-alive: it answers everything with `origin`, and keeps the heads that it got."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self.context = context
        self.heads: list[bytes] = []
        super().__init__(self._answer, host="0.0.0.0")

    def _answer(self, sock: socket.socket) -> None:
        with contextlib.ExitStack() as stack:
            if self.context is not None:
                sock = stack.enter_context(self.context.wrap_socket(sock, server_side=True))
            stream = stack.enter_context(sock.makefile("rb"))
            head = b""
            while line := stream.readline():
                head += line
                if line == b"\r\n":
                    self.heads.append(head)
                    head = b""
                    sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\norigin")


def talk_at(*, client_side: bool) -> h2.connection.H2Connection:
    """One end of HTTP/2."""
    return h2.connection.H2Connection(h2.config.H2Configuration(client_side=client_side, header_encoding="utf-8"))
