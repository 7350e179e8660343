"""The canary's process: makes its namespaces, has the supervisor connect them, and then asks again and again.

A probe is a ClientHello that names a host, and what comes back; the server that answers it is here, too.

Where it is given the descriptors of a server's sockets it makes none, and asks from this machine's own (see `inside`).

It speaks with the supervisor over a socket of packets, in JSON: a namespace that waits for its link, then the result of
each probe. It ends with that socket's other end, or with the supervisor.
"""

import contextlib
import ctypes
import json
import os
import select
import selectors
import signal
import socket
import ssl
import sys
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from tokgate.gateway import capabilities
from tokgate.gateway.canary import links
from tokgate.gateway.canary.definition import ALLOWED, BANNED, PORT, Clients, client_link, from_json, server_link
from tokgate.gateway.policy_routes import versions
from tokgate.policy.settings import CanarySettings

SOCKET: Final = 3
"""The descriptor of the socket to the supervisor."""
AGAIN: Final = 5.0
"""Seconds after which a probe that failed is repeated, so that one lost packet is no alarm."""
_PR_SET_PDEATHSIG: Final = 1  # prctl(2)
PATIENCE: Final = 5.0
"""Seconds for a connection and its answer."""
_ALERT: Final = 21
_REFUSED: Final = 112
"""unrecognized_name (RFC 8446 §6.2), with which gates refuse."""
_OWN: Final = 90
"""user_canceled, by which the canary's own server is known."""
_MOST_SILENT: Final = 64
"""Connections that the server keeps waiting for a first word; clients that no ban concerns may reach it."""
OWN_ANSWER: Final = bytes((_ALERT, 3, 3, 0, 2, 2, _OWN))


@dataclass(frozen=True, slots=True)
class Supervisor:
    """The supervisor, at the other end of the socket."""

    sock: socket.socket

    def tell(self, **said: Any) -> None:
        """Raises OSError if it is gone."""
        self.sock.send(json.dumps(said).encode())

    def waits(self) -> None:
        """Wait for its answer. Raises EOFError if it is gone."""
        if not self.sock.recv(16):
            raise EOFError


def run_apart(supervisor: Supervisor, settings: CanarySettings, clients: Clients) -> None:
    """Make the namespaces, and ask from there, also as `clients`. Raises OSError and EOFError."""
    there = versions()
    try:
        os.unshare(os.CLONE_NEWNET)
    except PermissionError:  # without CAP_SYS_ADMIN
        os.unshare(os.CLONE_NEWUSER | os.CLONE_NEWNET)
    supervisor.tell(waits_for=links.CLIENT_DEVICE)
    supervisor.waits()
    among = (address for addresses in clients.values() for address in addresses)
    links.configure_far((client_link(settings, version) for version in there), among)
    client = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    os.unshare(os.CLONE_NEWNET)
    supervisor.tell(waits_for=links.SERVER_DEVICE)
    supervisor.waits()
    links.configure_far(server_link(settings, version) for version in there)
    listeners = listening([str(server_link(settings, version).far) for version in there])
    os.setns(client, os.CLONE_NEWNET)
    run(supervisor, settings, listeners, clients)


def run(supervisor: Supervisor, settings: CanarySettings, listeners: Sequence[socket.socket], clients: Clients) -> None:
    """Serve, and ask until the supervisor is gone. Raises OSError and EOFError.

    It takes no capability. After two probes in a row that failed the supervisor makes another canary.
    """
    with contextlib.suppress(OSError):  # a system that forbids capset
        capabilities.limit_to(())
    serve(listeners)
    sources = {socket.AF_INET: str(client_link(settings, 4).far), socket.AF_INET6: str(client_link(settings, 6).far)}
    servers = {each.family: each.getsockname()[:2] for each in listeners}
    probes = [Probe(sources[family], server, name) for family, server in servers.items() for name in EXPECTED]
    for network, addresses in clients.items():
        for address in addresses:
            server = servers[socket.AF_INET6 if ":" in address else socket.AF_INET]
            probes.append(Probe(address, server, BANNED, network))
    failed = False
    while True:
        found = problems(probes)
        supervisor.tell(problems=found)
        pause: float | None = settings.seconds
        if found:
            pause = None if failed else min(AGAIN, settings.seconds)
        failed = bool(found)
        if select.select([supervisor.sock], [], [], pause)[0]:  # its end; it says nothing more
            return


def main() -> None:
    """Run with the settings from the command line."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    said = json.loads(sys.argv[1])
    if os.getppid() != said["supervisor"]:  # it died before it could be asked for a signal
        return
    with socket.socket(fileno=SOCKET) as sock:
        supervisor = Supervisor(sock)
        try:
            settings = from_json(said["settings"])
            if said["listeners"]:
                run(supervisor, settings, [socket.socket(fileno=each) for each in said["listeners"]], {})
            else:
                run_apart(supervisor, settings, said["clients"])
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return
        except Exception as error:
            supervisor.tell(failed=f"{type(error).__name__}: {error}")


# -- a probe, and the server


class Answer(StrEnum):
    """What became of a connection."""

    REFUSED = "refused"
    """By a gate, with its alert."""
    ANSWERED = "answered"
    """By the canary's own server."""
    RESET = "reset"
    SILENT = "silent"
    UNREACHABLE = "unreachable"
    OTHER = "other"


EXPECTED: Final = {BANNED: Answer.REFUSED, ALLOWED: Answer.ANSWERED}
_KINDS: Final = {BANNED: "banned", ALLOWED: "allowed"}
WORDS: Final = {
    Answer.REFUSED: "was refused",
    Answer.ANSWERED: "passed",
    Answer.RESET: "was reset",
    Answer.SILENT: f"had no answer in {PATIENCE:g} s",
    Answer.UNREACHABLE: "found no way",
    Answer.OTHER: "was answered by something else",
}


def client_hello(name: str) -> bytes:
    """A ClientHello as a browser's begins."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls = context.wrap_bio(incoming, outgoing, server_hostname=name)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def ask(source: str, destination: tuple[str, int], name: str, patience: float = PATIENCE) -> Answer:
    """Connect and name a host. Blocks for some `patience` seconds at most; never raises."""
    received = b""
    try:
        with socket.create_connection(destination, patience, (source, 0)) as connection:
            connection.sendall(client_hello(name))
            while len(received) < len(OWN_ANSWER):
                more = connection.recv(len(OWN_ANSWER) - len(received))
                if not more:
                    break
                received += more
    except TimeoutError:
        return Answer.SILENT
    except (ConnectionResetError, ConnectionRefusedError, BrokenPipeError):
        return Answer.RESET
    except OSError:
        return Answer.UNREACHABLE
    if received == OWN_ANSWER:
        return Answer.ANSWERED
    refused = len(received) == len(OWN_ANSWER) and (received[0], received[-1]) == (_ALERT, _REFUSED)
    return Answer.REFUSED if refused else Answer.OTHER


@dataclass(frozen=True, slots=True)
class Probe:
    """A name asked for from an address, of a network of the policy if one is named."""

    source: str
    destination: tuple[str, int]
    name: str
    network: str = ""

    def told(self, answer: Answer) -> str:
        """What became of it, in a sentence."""
        where = f" from {self.source} in network {self.network}" if self.network else ""
        return f"IPv{6 if ':' in self.source else 4}{where}: the {_KINDS[self.name]} test name {WORDS[answer]}"


def problems(probes: Sequence[Probe], patience: float = PATIENCE) -> list[str]:
    """What is wrong with enforcement, in sentences. All are tried at once, in some `patience` seconds at most."""
    with ThreadPoolExecutor(len(probes)) as threads:
        answers = list(threads.map(lambda each: ask(each.source, each.destination, each.name, patience), probes))
    return [each.told(answer) for each, answer in zip(probes, answers, strict=True) if answer != EXPECTED[each.name]]


def listening(addresses: Sequence[str]) -> list[socket.socket]:
    """The sockets of a server in the namespace of the calling thread."""
    made = []
    for address in addresses:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        made.append(socket.create_server((address, PORT), family=family))
    return made


def serve(listeners: Sequence[socket.socket]) -> None:
    """Answer all connections in a thread, for as long as the process lives, whoever else connects and says nothing."""
    threading.Thread(target=_serve, args=(listeners,), daemon=True).start()


def _serve(listeners: Sequence[socket.socket]) -> None:
    silent: deque[socket.socket] = deque()
    while True:
        with selectors.DefaultSelector() as selector:
            for each in (*listeners, *silent):
                selector.register(each, selectors.EVENT_READ, each)
            ready = [key.data for key, _ in selector.select()]
        for each in ready:
            with contextlib.suppress(OSError):
                if each in listeners:
                    silent.append(each.accept()[0])
                elif each in silent:
                    silent.remove(each)
                    with each:
                        if each.recv(4096):
                            each.sendall(OWN_ANSWER)
            if len(silent) > _MOST_SILENT:
                silent.popleft().close()


if __name__ == "__main__":
    main()
