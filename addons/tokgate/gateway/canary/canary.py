"""The supervisor's side of the canary: starts its process, connects it, and keeps the results."""

import contextlib
import fcntl
import json
import logging
import os
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from whenever import Instant

from tokgate.gateway import GatewayError
from tokgate.gateway.canary import links
from tokgate.gateway.canary.definition import Clients, as_json, client_link, server_link
from tokgate.gateway.canary.process import AGAIN, PATIENCE, SOCKET
from tokgate.gateway.policy_routes import versions
from tokgate.policy.settings import CanarySettings

logger = logging.getLogger(__name__)

RESTART: Final = 10.0
"""Seconds before a canary that ended is started again."""
GRACE: Final = 60.0
"""Seconds for gates to start in, before which a canary that never succeeded is not red."""
_LONGEST: Final = 2 * PATIENCE
"""Seconds that one probe takes at most, on a crowded machine."""


class CanaryOrigin(StrEnum):
    """Where the canary asks from."""

    NAMESPACE = "namespace"
    """A network namespace of its own."""
    MACHINE = "machine"
    """This machine's own, where none can be made."""


@dataclass(frozen=True, slots=True)
class Change:
    """The canary failed, or recovered: what is or was wrong, in sentences."""

    failed: bool
    problems: tuple[str, ...]


class Canary:
    """Not more than one process at a time. Methods never raise, unless they say so."""

    def __init__(self, command: Sequence[str], environment: dict[str, str], *, tproxy: bool = True) -> None:
        """`command` is that of the canary's process, without its argument. From inside it reaches gates by TPROXY."""
        self._command: Final = command
        self._environment: Final = environment
        self._tproxy: Final = tproxy
        self._settings: CanarySettings | None = None
        self._clients: Clients = {}
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        near.setblocking(False)
        self.socket: Final = near
        """Readable when the canary says something; for `hear`."""
        self._heard: Final[deque[dict[str, Any]]] = deque()
        self._far: Final = far
        self._process: int | None = None
        """A descriptor (pidfd_open(2)), since the supervisor waits for all its children."""
        self._pid = 0
        self._at: Instant | None = None
        self._problems: tuple[str, ...] = ()
        self._unavailable: str | None = None
        self._apart: str | None = None
        """Why it can't ask from a namespace of its own."""
        self._asked_from: CanaryOrigin | None = None
        self._origin = CanaryOrigin.NAMESPACE
        self._failures = 0
        self._due = 0.0
        """When it is to have said something, in monotonic seconds; without a process, when one is started."""
        self._red = False
        self._red_from = 0.0
        """Before then two failures are none, in monotonic seconds."""

    def follow(self, settings: CanarySettings, clients: Clients) -> None:
        """Start it with these settings, asking as these clients, too, or stop it; nothing if they are as before."""
        if settings != self._settings:
            self.stop()
            self._settings, self._red_from = settings, time.monotonic() + GRACE
        elif clients != self._clients:
            self._end()
        self._clients = clients

    def look(self, now: Instant) -> Change | None:
        """Start what is due, and take what was said; whether it failed or recovered."""
        settings = self._settings
        if settings is None or not settings.enabled:
            return None
        if self._process is None:
            if time.monotonic() >= self._due:
                self._start(settings)
            return None
        change = None
        self.hear()
        while self._heard:
            change = self._take(self._heard.popleft(), settings, now) or change
        if self._process is not None and time.monotonic() >= self._due:
            self._end()
            if self._failures > 1:  # it may be its own links that somebody took out
                self._start(settings)
            else:
                change = self._judge(("the canary says nothing: it is started again",)) or change
        return change

    def hear(self) -> None:
        """Read what the canary says; `look` does something about it."""
        while True:
            try:
                self._heard.append(json.loads(self.socket.recv(65536)))
            except (OSError, ValueError):
                return

    def due(self) -> float:
        """Seconds until the next call of `look`; `socket` may be readable before."""
        if self._settings is None or not self._settings.enabled:
            return float("inf")
        return 0.0 if self._heard else max(0.0, self._due - time.monotonic())

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with enforcement, in sentences; a single probe that failed is repeated first."""
        return self._problems if self._red else ()

    def state(self) -> dict[str, Any] | None:
        """For `tokgate status`, as JSON; None where there is none."""
        if self._settings is None or not self._settings.enabled:
            return None
        return {
            "ok": not self._red,
            "at": None if self._at is None else str(self._at),
            "seconds": self._settings.seconds,
            "problems": list(self.problems),
            "asks_from": self._asked_from,
            "unavailable": self._unavailable,
        }

    def stop(self) -> None:
        """End it; its namespaces and links vanish with it."""
        self._settings = None
        self._end()
        self._problems, self._red, self._failures, self._due, self._unavailable = (), False, 0, 0.0, None

    def let_go(self) -> None:
        """In a child of the supervisor: close what only the supervisor needs."""
        self.socket.close()
        self._far.close()
        if self._process is not None:
            os.close(self._process)

    # -- its process

    def _start(self, settings: CanarySettings, origin: CanaryOrigin = CanaryOrigin.NAMESPACE) -> None:
        self._due, self._origin = time.monotonic() + _LONGEST + AGAIN, origin
        listeners: list[socket.socket] = []
        handed: list[int] = []
        try:
            links.take_out()  # what a program that crashed, or was replaced, has left
            ours = [choose(settings, version) for version in versions() for choose in (client_link, server_link)]
            found = links.held(str(each) for link in ours for each in (link.near, link.far))
            if found:
                raise GatewayError("; ".join(f"{address} is in use on this machine" for address in found))
            if origin is CanaryOrigin.MACHINE:
                listeners = links.make_inside(settings, versions())
            handed += (fcntl.fcntl(each.fileno(), fcntl.F_DUPFD, SOCKET + 1) for each in listeners)
            given = {"supervisor": os.getpid(), "settings": as_json(settings), "listeners": handed}
            given["clients"] = self._elsewhere()
            self._pid = os.posix_spawn(
                sys.executable,
                [*self._command, json.dumps(given)],
                self._environment,
                file_actions=[(os.POSIX_SPAWN_DUP2, self._far.fileno(), SOCKET)],
                setpgroup=0,  # the terminal's signals are for the supervisor
            )
            self._process = os.pidfd_open(self._pid)
        except (GatewayError, OSError) as error:
            self._give_up(str(error))
        finally:
            for listener in listeners:
                listener.close()
            for descriptor in handed:
                os.close(descriptor)

    def _take(self, said: dict[str, Any], settings: CanarySettings, now: Instant) -> Change | None:
        match said:
            case {"waits_for": links.CLIENT_DEVICE | links.SERVER_DEVICE as device}:
                self._connect(device, settings)
            case {"problems": list(found)}:
                return self._probed(tuple(map(str, found)), settings, now)
            case {"failed": why} if self._origin is CanaryOrigin.NAMESPACE and self._tproxy:
                self._end()
                if self._apart != str(why):
                    self._apart, words = str(why), "since it can't make a network namespace"
                    logger.warning("the canary asks from this machine itself, %s: %s", words, why)
                self._start(settings, CanaryOrigin.MACHINE)
            case {"failed": why}:
                self._give_up(str(why))
        return None

    def _probed(self, found: tuple[str, ...], settings: CanarySettings, now: Instant) -> Change | None:
        change, self._unavailable = self._judge(found), None
        pause = min(AGAIN, settings.seconds) if self._failures == 1 else settings.seconds
        self._due = time.monotonic() + pause + (0.0 if self._failures > 1 else _LONGEST + AGAIN)
        if not found or self._red:
            self._at, self._asked_from = now, self._origin
        return change

    def _connect(self, device: str, settings: CanarySettings) -> None:
        choose = client_link if device == links.CLIENT_DEVICE else server_link
        try:
            links.make(device, self._pid, [choose(settings, version) for version in versions()])
            if device == links.CLIENT_DEVICE and self._clients:
                links.lead_back(settings, versions())
            self.socket.send(b"made")
        except (GatewayError, OSError) as error:
            self._give_up(str(error))

    def _elsewhere(self) -> Clients:
        """The addresses of clients that are not this machine's, whose packets it would take for forged."""
        here = links.held(address for addresses in self._clients.values() for address in addresses)
        there = versions()
        return {
            name: tuple(each for each in addresses if each not in here and (6 if ":" in each else 4) in there)
            for name, addresses in self._clients.items()
        }

    def _judge(self, found: tuple[str, ...]) -> Change | None:
        before = self._problems
        self._problems = found
        self._failures = self._failures + 1 if found else 0
        if not found:
            self._red_from = 0.0
        if self._failures > 1 and not self._red and time.monotonic() >= self._red_from:
            self._red = True
            return Change(True, found)
        if not found and self._red:
            self._red = False
            return Change(False, before)
        return None

    def _give_up(self, why: str) -> None:
        """There can be no canary here, for now: said once, and tried again."""
        self._end()
        self._due = time.monotonic() + RESTART
        if self._unavailable != why:
            self._unavailable = why
            logger.warning("there is no canary: %s", why)

    def _end(self) -> None:
        if self._process is not None:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self._process, signal.SIGKILL)
            os.close(self._process)
            self._process = None
            with contextlib.suppress(GatewayError):
                links.take_out()
        self.hear()  # what it said before its end
        self._heard.clear()
        self._due = time.monotonic()
