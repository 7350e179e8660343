"""The canary's process: makes its namespaces, has the supervisor connect them, and then asks again and again.

Where it is given the descriptors of a server's sockets it makes none, and asks from this machine's own (see `inside`).

It speaks with the supervisor over a socket of packets, in JSON: a namespace that waits for its link, then the result of
each probe. It ends with that socket's other end, or with the supervisor.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from tokgate.gateway import capabilities
from tokgate.gateway.canary import links, probe
from tokgate.gateway.canary.definition import client_link, from_json, server_link
from tokgate.policy.settings import CanarySettings

SOCKET: Final = 3
"""The descriptor of the socket to the supervisor."""
AGAIN: Final = 5.0
"""Seconds after which a probe that failed is repeated, so that one lost packet is no alarm."""
_PR_SET_PDEATHSIG: Final = 1  # prctl(2)


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


def new_namespace() -> None:
    """Enter a new network namespace: by a privilege (CAP_SYS_ADMIN), or in a user namespace. Raises OSError."""
    try:
        os.unshare(os.CLONE_NEWNET)
    except PermissionError:
        os.unshare(os.CLONE_NEWUSER | os.CLONE_NEWNET)


def run_apart(supervisor: Supervisor, settings: CanarySettings) -> None:
    """Make the namespaces, and ask from there. Raises OSError and EOFError."""
    versions = links.usable()
    new_namespace()
    supervisor.tell(waits_for=links.CLIENT_DEVICE)
    supervisor.waits()
    links.configure_far(client_link(settings, version) for version in versions)
    client = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    os.unshare(os.CLONE_NEWNET)
    supervisor.tell(waits_for=links.SERVER_DEVICE)
    supervisor.waits()
    links.configure_far(server_link(settings, version) for version in versions)
    listeners = probe.listening([str(server_link(settings, version).far) for version in versions])
    os.setns(client, os.CLONE_NEWNET)
    run(supervisor, settings, listeners)


def run(supervisor: Supervisor, settings: CanarySettings, listeners: Sequence[socket.socket]) -> None:
    """Serve, and ask until the supervisor is gone. Raises OSError and EOFError.

    It takes no capability. After two probes in a row that failed the supervisor makes another canary.
    """
    with contextlib.suppress(OSError):  # a system that forbids capset
        capabilities.limit_to(())
    probe.serve(listeners)
    sources = {socket.AF_INET: str(client_link(settings, 4).far), socket.AF_INET6: str(client_link(settings, 6).far)}
    paths = [(sources[each.family], each.getsockname()[:2]) for each in listeners]
    failed = False
    while True:
        found = probe.problems(paths)
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
                run(supervisor, settings, [socket.socket(fileno=each) for each in said["listeners"]])
            else:
                run_apart(supervisor, settings)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            return
        except Exception as error:
            supervisor.tell(failed=f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
