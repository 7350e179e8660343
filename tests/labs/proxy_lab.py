"""A small internet in one process: origins that count who comes, a proxy on a free port, and clients in raw bytes."""
# mypy: disallow-untyped-calls=False

import asyncio
import contextlib
import functools
import ssl
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

with warnings.catch_warnings():  # ldap3, which mitmproxy imports, uses names that pyasn1 has deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    import mitmproxy.addons  # noqa: F401

import pytest
import trustme
from mitmproxy import certs, platform
from mitmproxy.addons import core, disable_h2c, next_layer, proxyserver, tlsconfig
from mitmproxy.master import Master
from mitmproxy.options import Options
from whenever import Instant

from labs import builders
from labs.own_layers import OwnLayers
from labs.raw_client import Reply as Reply
from labs.raw_client import fields, read_fields
from labs.records import Holder, Records, enforcer_of
from labs.serving import Handler, all_taken_up, serving
from labs.waiting import eventually as eventually
from tokgate.mitm.addon import hooks
from tokgate.mitm.hooks.traffic import ProxyContext, Traffic
from tokgate.mitm.options import DEFAULTS, REQUIRED
from tokgate.mitm.origin_certificate import OriginCertificates
from tokgate.policy.bans import Action, Ban
from tokgate.policy.decision import Response
from tokgate.policy.settings import EchOuter, MissingSni, OnError, UnknownClients
from tokgate.policy.snapshot import Snapshot
from tokgate.traffic.counters import Counters
from tokgate.traffic.limits import ProbeLimits

DEADLINE = 60.0
BANNED = "www.clips.example.org"
ALLOWED = "www.example.org"
BANNED_ADDRESS = "127.0.0.2"
STORE = "play.google.com"
NOW = Instant.parse_iso("2023-04-01T12:00:00Z")


class Authority:
    """A certificate authority of origins, contexts that use it, and the folder of the proxies' own authority."""

    def __init__(self, confdir: Path) -> None:
        self.ca = trustme.CA()
        self.confdir = confdir
        """Shared by all proxies: making its keys takes longer than most tests."""
        self.trust = confdir / "origins.pem"
        self.ca.cert_pem.write_to_path(self.trust)

    def server(self, *names: str, alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.ca.issue_cert(*names).configure_cert(context)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context

    def client(self, *extra: Path, alpn: tuple[str, ...] = ()) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.ca.configure_trust(context)
        for path in extra:
            context.load_verify_locations(path)
        if alpn:
            context.set_alpn_protocols(list(alpn))
        return context


@dataclass
class Origin:
    """A server on loopback: how many came, and what they sent."""

    port: int
    connections: int = 0
    received: bytearray = field(default_factory=bytearray)


@dataclass
class Proxy:
    """A proxy in this process."""

    port: int
    traffic: Traffic
    holder: Holder
    counters: Counters
    master: Master
    confdir: Path
    layers: OwnLayers
    places: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Where it listens, by the mode's name."""

    @property
    def ca(self) -> Path:
        return self.confdir / "mitmproxy-ca-cert.pem"

    @property
    def connections(self) -> int:
        return len(self.traffic.context.connections())


_SETTINGS = {"missing_sni": MissingSni, "ech_outer": EchOuter, "on_error": OnError, "unknown_clients": UnknownClients}


def policy(*bans: Ban, networks: tuple[str, ...] = ("127.0.0.0/8", "::1/128"), **settings: Any) -> Snapshot:
    """A policy for clients on loopback: clips.example.org and 127.0.0.2 are banned unless stated otherwise."""
    clips = builders.service(
        "clips",
        "suffix:clips.example.org",
        addresses=(f"{BANNED_ADDRESS}/32",),
        stores=("google-play/org.example.clips",),
    )
    bans = bans or (ban(),)
    exemptions = settings.pop("exemptions", ())
    settings = {name: _SETTINGS.get(name, lambda value: value)(value) for name, value in settings.items()}
    return builders.snapshot(
        *bans,
        services=(clips,),
        networks=(builders.network("office", *networks),),
        exemptions=exemptions,
        **settings,
    )


def ban(**stated: Any) -> Ban:
    """A ban with a legal basis."""
    said = {"authority": "The Council", "basis": "Circular 716", "contact": "desk@example.org"}
    if "action" in stated:
        stated["action"] = Action(stated["action"])
    if "response" in stated:
        stated["response"] = Response(stated["response"])
    return builders.ban(**(said | stated))


class Lab:
    """Starts origins and proxies, and resolves every name to loopback."""

    def __init__(
        self,
        authority: Authority,
        records: Records,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        stack: AsyncExitStack,
    ) -> None:
        self.authority = authority
        self.records = records
        self.folder = folder
        self.monkeypatch = monkeypatch
        self.stack = stack
        self.names: dict[str, tuple[str, ...]] = {}
        """What names resolve to at present."""

    async def raw_origin(self, handler: Handler, context: ssl.SSLContext | None = None) -> Origin:
        """A server that gives each connection to `handler`."""
        origin = Origin(0)

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            origin.connections += 1
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await handler(reader, writer)

        origin.port = await self.stack.enter_async_context(serving(serve, "0.0.0.0", context))
        return origin

    async def sink_origin(self, reply: bytes = b"") -> Origin:
        """A server that reads to the end, then replies and closes."""
        origin: Origin

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(65536):
                origin.received += data
            writer.write(reply)
            await writer.drain()

        origin = await self.raw_origin(handler)
        return origin

    async def web_origin(self, *names: str, tls: bool = True) -> Origin:
        """An HTTP/1.1 server with keep-alive, behind TLS with a certificate for `names`."""
        origin: Origin

        async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while True:
                try:
                    head = await reader.readuntil(b"\r\n\r\n")
                except asyncio.IncompleteReadError:
                    return
                origin.received += head
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\norigin")
                await writer.drain()

        context = self.authority.server(*(names or (ALLOWED, "*.clips.example.org"))) if tls else None
        origin = await self.raw_origin(handler, context=context)
        return origin

    def resolve_to_loopback(self) -> None:
        """Every name that isn't in `names` is 127.0.0.1 from now on."""
        loop = asyncio.get_running_loop()
        real = loop.getaddrinfo

        async def getaddrinfo(host: Any, port: Any, **kwargs: Any) -> Any:
            named = isinstance(host, str) and host and not host.replace(".", "").isdigit() and ":" not in host
            addresses = self.names.get(host, ("127.0.0.1",)) if named else (host,)
            return [entry for address in addresses for entry in await real(address, port, **kwargs)]

        self.monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)

    async def proxy(
        self,
        snapshot: Snapshot | None = None,
        *,
        mode: str = "regular",
        destination: tuple[str, int] | None = None,
        now: Callable[[], Instant] = lambda: NOW,
        before: tuple[object, ...] = (),
        **options: Any,
    ) -> Proxy:
        """Run a proxy. `destination` is where transparent mode believes that all connections were going.

        `before` are addons that stand before ours, as mitmproxy's own do.
        """
        if destination is not None:
            self.monkeypatch.setattr(platform, "original_addr", lambda _socket: destination)
            mode = "transparent"
        running = running_proxy(
            snapshot or policy(),
            self.records,
            self.authority,
            modes=(mode,),
            now=now,
            before=before,
            **options,
        )
        proxy = await self.stack.enter_async_context(running)
        self.resolve_to_loopback()
        return proxy


_private_key = functools.cache(certs.load_pem_private_key)
"""Checking the same key anew would take most of a proxy's start."""


@asynccontextmanager
async def running_proxy(
    snapshot: Snapshot,
    records: Records,
    authority: Authority,
    *,
    modes: tuple[str, ...],
    now: Callable[[], Instant],
    before: tuple[object, ...] = (),
    **options: Any,
) -> AsyncIterator[Proxy]:
    """A proxy on this event loop. `before` are addons that stand before ours.

    Without any before ours, all layers of HTTP and TLS have to be ours, at any time.
    """
    holder, counters, traffic = Holder(snapshot), Counters(), Traffic()
    traffic.enforcer = enforcer_of(holder, records, counters=counters, now=now)
    traffic.certificates = OriginCertificates(ProbeLimits(deadline=DEADLINE), connect=traffic.egress.connect)
    servers = proxyserver.Proxyserver()
    layers = OwnLayers(servers.connections)
    master = Master(Options(confdir=str(authority.confdir)))
    master.addons.add(
        *(core.Core(), servers, *before, *hooks(traffic)),
        *(next_layer.NextLayer(), tlsconfig.TlsConfig(), disable_h2c.DisableH2C()),
        layers,
    )
    wanted = {name: value for name, value in {**REQUIRED, **DEFAULTS}.items() if name in master.options}
    wanted |= {"ssl_verify_upstream_trusted_ca": str(authority.trust), "listen_host": "127.0.0.1", "listen_port": 0}
    master.options.update(**(wanted | {"mode": list(modes)} | options))
    traffic.context = ProxyContext(
        connections=lambda: servers.connections,
        listens_at=lambda: frozenset(address[1] for address in servers.listen_addrs()),
        hostname="gateway.example.org",
    )
    certs.load_pem_private_key = _private_key
    running = asyncio.create_task(master.run())
    all_run = [True] * len(modes)
    await eventually("the proxy listens", lambda: [server.is_running for server in servers.servers] == all_run)
    places = {server.mode.type_name: server.listen_addrs[0][:2] for server in servers.servers if server.listen_addrs}
    port = next((port for _, port in places.values()), 0)
    try:
        yield Proxy(port, traffic, holder, counters, master, authority.confdir, layers, places)
    finally:
        await all_taken_up()
        await servers.servers.update([])
        for handler in list(servers.connections.values()):
            await handler.on_timeout()
        await eventually("all connections end", lambda: not servers.connections)
        master.shutdown()
        await running
        assert before or not layers.found


class Client:
    """A client connection in raw bytes, closed with the `with` block."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def to_end(self) -> bytes:
        async with asyncio.timeout(DEADLINE):
            return await self.reader.read()

    async def exactly(self, size: int) -> bytes:
        async with asyncio.timeout(DEADLINE):
            return await self.reader.readexactly(size)

    async def head(self) -> bytes:
        """A response's head."""
        async with asyncio.timeout(DEADLINE):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def response(self) -> Reply:
        """A whole response with Content-Length."""
        status, headers = read_fields(await self.head())
        return Reply(status, headers, await self.exactly(int(headers.get("content-length", "0"))))

    async def get(self, host: str, path: str = "/", **headers: str) -> Reply:
        """A request on this connection."""
        await self.send(f"GET {path} HTTP/1.1\r\nHost: {host}\r\n{fields(headers)}\r\n".encode())
        return await self.response()

    async def connect(self, target: str, **headers: str) -> Reply:
        """A CONNECT request."""
        await self.send(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n{fields(headers)}\r\n".encode())
        return await self.response()

    async def tls(self, context: ssl.SSLContext, name: str | None) -> None:
        """Begin TLS on this connection."""
        if name is None:
            context.check_hostname = False
        async with asyncio.timeout(DEADLINE):
            await self.writer.start_tls(context, server_hostname=name or "")

    @property
    def issuer(self) -> str:
        """Who issued the certificate that the other side showed."""
        return str(self.writer.get_extra_info("ssl_object").getpeercert()["issuer"])


@asynccontextmanager
async def client(port: int) -> AsyncIterator[Client]:
    """Connect to a port on loopback."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    made = Client(reader, writer)
    try:
        yield made
    finally:
        made.writer.transport.abort()
        with contextlib.suppress(OSError, ssl.SSLError):
            await made.writer.wait_closed()
