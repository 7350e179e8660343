"""Network namespaces joined by veth pairs: two client networks, a gateway that forwards, and an origin network."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, Self

from pyroute2 import DiagSocket, NFCTSocket

from labs.waiting import DEADLINE as DEADLINE
from labs.waiting import until

wait_until = until
NETNS = Path("/run/netns")
OURS = re.compile(r"tokgate(\d+)(?:x\d+)?-[a-z0-9]+")
ANY = {4: "0.0.0.0", 6: "::"}
FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_LISTEN = 1 << 10
"""The state TCP_LISTEN alone, as `struct inet_diag_req_v2` has it: sock_diag(7)."""
SECONDS = 60.0
"""What sockets wait for their peers, on a crowded machine."""


def run(
    *command: str | Path,
    check: bool = True,
    given: str = "",
    seconds: float = DEADLINE,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; its output is text with its own line ends, and part of the error when it fails."""
    words = [str(part) for part in command]
    done = subprocess.run(words, input=given.encode(), capture_output=True, timeout=seconds, env=env, check=False)
    output, error = done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    if check and done.returncode:
        raise RuntimeError(f"{' '.join(words)}: exit {done.returncode}\n{output}{error}")
    return subprocess.CompletedProcess(words, done.returncode, output, error)


def inside[T](name: str, work: Callable[[], T]) -> T:
    """Call something in a thread that has entered a namespace."""
    result: list[T] = []
    failure: list[BaseException] = []

    def enter() -> None:
        try:
            descriptor = os.open(NETNS / name, os.O_RDONLY)
            try:
                os.setns(descriptor, os.CLONE_NEWNET)
            finally:
                os.close(descriptor)
            result.append(work())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=enter, name=name)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return result[0]


def flush_conntrack() -> None:
    """Have conntrack forget all that it knows, in the namespace of the calling thread."""
    with NFCTSocket() as conntrack:
        conntrack.flush()


class Namespace:
    """One network namespace, by name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def add(self) -> Self:
        """Make it, with a working loopback; without duplicate address detection, which costs seconds at first use."""
        run("ip", "netns", "add", self.name)
        self.sysctl(
            *("net.ipv6.conf.default.accept_dad=0", "net.ipv6.conf.all.accept_dad=0"),
            "net.ipv6.conf.default.router_solicitations=0",
        )
        run("ip", "-n", self.name, "link", "set", "lo", "up")
        return self

    def remove(self) -> None:
        """End what still runs inside, then remove it: a leftover process would keep it alive without a name."""
        listed = run("ip", "netns", "pids", self.name, check=False)
        for pid in listed.stdout.split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
        run("ip", "netns", "del", self.name, check=False)
        shutil.rmtree(Path("/etc/netns") / self.name, ignore_errors=True)

    def address(self, device: str, *prefixes: str) -> None:
        """Give a device its addresses and bring it up."""
        for prefix in prefixes:
            run("ip", "-n", self.name, "addr", "add", prefix, "dev", device)
        run("ip", "-n", self.name, "link", "set", device, "up")

    def route(self, *gateways: str) -> None:
        """Send everything that isn't local to these gateways."""
        for via in gateways:
            run("ip", "-n", self.name, "route", "add", "default", "via", via)

    def hosts(self, names: Mapping[str, Sequence[str]]) -> None:
        """Let programs in this namespace resolve these names: `ip netns exec` binds the file over /etc/hosts."""
        folder = Path("/etc/netns") / self.name
        folder.mkdir(parents=True, exist_ok=True)
        lines = ["127.0.0.1 localhost", "::1 localhost"]
        lines += [f"{address} {name}" for name, addresses in names.items() for address in addresses]
        (folder / "hosts").write_text("\n".join(lines) + "\n")
        (folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")

    def command(self, *command: str | Path) -> list[str]:
        """The command line that runs a command here."""
        return ["ip", "netns", "exec", self.name, *(str(part) for part in command)]

    def run(self, *command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command here to its end, with the options of `run`."""
        return run(*self.command(*command), **options)

    def output(self, *command: str | Path) -> str:
        """What a command prints that ends well."""
        return self.run(*command).stdout

    def sysctl(self, *settings: str) -> None:
        """Change kernel settings."""
        self.run("sysctl", "-qw", *settings)

    def start(
        self, *command: str | Path, output: Path, env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a command here; what it prints goes to a file."""
        with output.open("ab") as sink:
            return subprocess.Popen(self.command(*command), stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, env=env)

    def listening(self) -> set[int]:
        """The TCP ports at which somebody listens here. Asked of the kernel: a connection would be one that is seen."""

        def look() -> set[int]:
            with DiagSocket() as kernel:
                found = [each for family in FAMILY.values() for each in kernel.get_sock_stats(family, states=_LISTEN)]
            return {int(each["idiag_sport"]) for each in found}

        return self.inside(look)

    def forget(self) -> None:
        """Have the kernel forget the connections that ended here: who uses their ports again would meet them."""
        self.inside(flush_conntrack)
        self.run("ss", "-K", "state", "time-wait")

    def inside[T](self, work: Callable[[], T]) -> T:
        """Call something in a thread that is inside: the sockets it makes stay there, wherever they are used later."""
        return inside(self.name, work)

    @contextlib.contextmanager
    def serving(self, server: Callable[[], AbstractAsyncContextManager[object]]) -> Iterator[None]:
        """A server in here while the block lasts, on an event loop of its own."""
        ends = SimpleQueue[Callable[[], object]]()

        async def serve() -> None:
            loop, ended = asyncio.get_running_loop(), asyncio.Event()
            async with server():
                ends.put(lambda: loop.call_soon_threadsafe(ended.set))
                await ended.wait()

        thread = threading.Thread(target=lambda: self.inside(lambda: asyncio.run(serve())), daemon=True)
        thread.start()
        end = ends.get(timeout=SECONDS)
        try:
            yield
        finally:
            end()
            thread.join(SECONDS)

    def listen(self, version: int, port: int) -> socket.socket:
        """A transparent listener on all addresses of one version of IP."""

        def make() -> socket.socket:
            listener = socket.socket(FAMILY[version], socket.SOCK_STREAM)
            if version == 6:
                listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.setsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT, 1)
            listener.bind((ANY[version], port))
            listener.listen()
            listener.settimeout(SECONDS)
            return listener

        return self.inside(make)

    def connect(
        self,
        address: str,
        port: int,
        seconds: float | None = None,
        *,
        source: tuple[str, int] | None = None,
        mark: int = 0,
        uid: int = 0,
    ) -> socket.socket:
        """A TCP connection from here."""

        def make() -> socket.socket:
            ctypes.CDLL(None).setfsuid(uid)  # of this thread alone: netfilter's `skuid` is who opened the socket
            made = socket.socket(_family(address), socket.SOCK_STREAM)
            try:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
                made.settimeout(SECONDS if seconds is None else seconds)
                if source is not None:
                    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    made.bind(source)
                made.connect((address, port))
            except BaseException:
                made.close()
                raise
            return made

        return self.inside(make)

    def receiver(self, version: int, port: int) -> socket.socket:
        """A UDP socket at a port of all addresses."""
        return self._datagrams(ANY[version], port)

    def datagrams(
        self, address: str, port: int, *, source: tuple[str, int] | None = None, mark: int = 0
    ) -> socket.socket:
        """A UDP socket to one place, so that ICMP errors reach it; `source` need be no address of this namespace."""
        return self._datagrams(*(source or (ANY[6 if ":" in address else 4], 0)), to=(address, port), mark=mark)

    def _datagrams(self, host: str, port: int, to: tuple[str, int] | None = None, mark: int = 0) -> socket.socket:
        def make() -> socket.socket:
            made = socket.socket(_family(host), socket.SOCK_DGRAM)
            made.settimeout(SECONDS)
            made.setsockopt(socket.IPPROTO_IP, socket.IP_TRANSPARENT, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, mark)
            made.bind((host, port))
            if to is not None:
                made.connect(to)
            return made

        return self.inside(make)


def _family(address: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class Lab:
    """client and guest - gateway - origin, with IPv4 and IPv6 (RFC 5737 and RFC 3849 addresses)."""

    CLIENT: Final = {4: "192.0.2.10", 6: "2001:db8:c::10"}
    GUEST: Final = {4: "198.51.100.10", 6: "2001:db8:9::10"}
    GATEWAY: Final = {4: "192.0.2.1", 6: "2001:db8:c::1"}
    EGRESS: Final = {4: "203.0.113.1", 6: "2001:db8:f::1"}
    ALLOWED: Final = {4: "203.0.113.10", 6: "2001:db8:f::10"}
    BANNED: Final = {4: "203.0.113.20", 6: "2001:db8:f::20"}
    MORE: Final = ({4: "203.0.113.40", 6: "2001:db8:f::40"}, {4: "203.0.113.50", 6: "2001:db8:f::50"})

    def __init__(self, name: object) -> None:
        """`name` is how the names of its namespaces begin, behind `tokgate`: the number of a process that lives."""
        self.client, self.guest, self.gateway, self.origin = self.namespaces = tuple(
            Namespace(f"tokgate{name}-{role}") for role in ("client", "guest", "gateway", "origin")
        )

    def up(self) -> None:
        """Build it all."""
        for namespace in self.namespaces:
            namespace.add()
        links = [(self.client, "client0"), (self.guest, "guest0"), (self.origin, "origin0")]
        for far, device in links:
            run(
                *("ip", "link", "add", "eth0", "netns", far.name),
                *("type", "veth", "peer", "name", device, "netns", self.gateway.name),
            )
        self.client.address("eth0", "192.0.2.10/24", "2001:db8:c::10/64")
        self.guest.address("eth0", "198.51.100.10/24", "2001:db8:9::10/64")
        served = (self.ALLOWED, self.BANNED, *self.MORE)
        # What it says itself comes from the first address: over IPv6 that is the newest.
        self.origin.address("eth0", *(f"{each[4]}/24" for each in served), *(f"{each[6]}/64" for each in served[::-1]))
        self.gateway.address("client0", "192.0.2.1/24", "2001:db8:c::1/64")
        self.gateway.address("guest0", "198.51.100.1/24", "2001:db8:9::1/64")
        self.gateway.address("origin0", "203.0.113.1/24", "2001:db8:f::1/64")
        self.client.route("192.0.2.1", "2001:db8:c::1")
        self.guest.route("198.51.100.1", "2001:db8:9::1")
        self.origin.route("203.0.113.1", "2001:db8:f::1")
        self._forward(on=True)
        # Tests refuse more in a second than Linux tells of by default (ip-sysctl: icmp_ratelimit, in ms).
        self.gateway.sysctl("net.ipv4.icmp_ratelimit=0", "net.ipv6.icmp.ratelimit=0")
        # Kernels before 6.14 have these for all namespaces together, and not here.
        self.gateway.run("sysctl", "-qew", "net.ipv4.icmp_msgs_per_sec=100000", "net.ipv4.icmp_msgs_burst=10000")

    def _forward(self, *, on: bool) -> None:
        self.gateway.sysctl(f"net.ipv4.ip_forward={on:d}", f"net.ipv6.conf.all.forwarding={on:d}")

    @contextlib.contextmanager
    def without_forwarding(self) -> Iterator[None]:
        """The gateway forwards nothing at first, and afterwards as it did, whatever comes between."""
        self._forward(on=False)
        try:
            yield
        finally:
            self._forward(on=True)

    def down(self) -> None:
        """Remove it all, in whatever state it is."""
        for namespace in self.namespaces:
            namespace.remove()


def sweep() -> None:
    """Remove the namespaces that a run which is no longer alive left behind."""
    for entry in NETNS.iterdir() if NETNS.is_dir() else ():
        match = OURS.fullmatch(entry.name)
        if match and not Path(f"/proc/{match[1]}").exists():
            Namespace(entry.name).remove()
