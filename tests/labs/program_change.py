"""A running tokgate whose program can be changed: by `tokgate restart`, or as systemd restarts it."""

import contextlib
import shutil
import socket
from collections.abc import Callable, Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

from labs.running_lab import ROOT, Scraped, children, runs, until
from labs.service_manager import ServiceManager
from tokgate.runtime.control_socket import ControlRequest, ask
from tokgate.service import program_change
from tokgate.service.children import Child, Role
from tokgate.service.program_change import Bequest, QuicBequest, Survivor
from tokgate.service.service_manager import ServiceManager as UnitManager


class How(StrEnum):
    """What brings all to the next program."""

    EXEC = "exec"
    """The program takes the place of the one before in its process."""
    STORE = "store"
    """The next one is another process, to which systemd gives what it stored."""


class Restarting(Scraped):
    """Its package is a copy, its port stays the same, and it has two gates."""

    def __init__(self, folder: Path, how: How) -> None:
        shutil.copytree(ROOT / "addons" / "tokgate", folder / "program" / "tokgate")
        self.how, self.manager = how, ServiceManager(folder)
        with socket.create_server(("127.0.0.1", 0)) as free:
            mode = ("--mode", f"gate:explicit@127.0.0.1:{free.getsockname()[1]}")
        by_systemd: dict[str, Any] = {}
        if how is How.STORE:
            by_systemd = {"python": str(self.manager.python), "environment": self.manager.environment()}
        super().__init__(folder, mode, workers=2, addons=folder / "program", **by_systemd)
        self.before: set[int] = set()
        """The processes of programs before."""
        if by_systemd:
            self.wait_until_ready()
        until("it is well", lambda: self.problems() == [])

    @property
    def module(self) -> Path:
        """What holds a program's own understanding of what the one before left."""
        return self.addons / "tokgate" / "service" / "program_change.py"

    def restart(self, meanwhile: Callable[[], object] = lambda: None, *, moves: bool = True) -> None:
        """Have the program on disk take over; when this returns its gates accept.

        `meanwhile` is called when nobody supervises, where there is such a time. `moves`: open connections go to it.
        """
        if self.how is How.STORE:
            self.stop()
            meanwhile()
            self.go_on()
            self.wait_until_ready()
            return
        self.before |= {*children(self.process.pid)}
        meanwhile()
        answer = ask(self.confdir, ControlRequest.RESTART)
        assert answer is not None
        assert (answer["ok"], answer.get("moves")) == (True, moves), answer

    def stop(self) -> None:
        """As systemd stops it for a restart: the processes stay."""
        self.before |= {*children(self.process.pid)}
        self.process.terminate()
        assert self.process.wait(60) == 0, self.narrated()

    def go_on(self, *options: str) -> None:
        """As systemd starts it again."""
        self.manager.told.clear()
        self.start(self.manager.environment(), self.manager.descriptors(), options)

    def wait_until_ready(self) -> None:
        """New gates accept, and what was left for this program is no longer kept."""
        until("it is ready", self._is_ready)
        until("nothing is left", lambda: program_change.NAME not in self.manager.names())

    def _is_ready(self) -> bool:
        assert self.process.poll() is None, self.narrated()
        return b"READY=1" in self.manager.told

    def ending(self) -> float | None:
        """Connections of gates that serve only their last ones."""
        return self.metric("connections", role="gate", state="ending")

    def wait_for_end_of(self, pids: Sequence[int], *, but: int = 0) -> None:
        """Wait until all of these have ended, `but` so many."""
        until("they have ended", lambda: sum(map(runs, pids)) <= but)

    def end(self) -> None:
        """Stop it for good."""
        self.manager.stops()
        if self.process.poll() is None:
            self.close()

    def close_all(self) -> None:
        """End it, if it has not ended, and what stands for systemd."""
        with contextlib.ExitStack() as stack:
            stack.callback(self.manager.close)
            self.end()


class Systemd(UnitManager):
    """Keeps what it is given, and has always read."""

    def __init__(self) -> None:
        super().__init__({})
        self.kept: list[socket.socket] = []

    def keep(self, name: str, sock: socket.socket) -> None:
        self.kept.append(sock.dup())

    def has_read(self) -> bool:
        return True


def bequest_of(descriptors: Iterable[int]) -> Bequest:
    """One that names these descriptors, at least 15 of them, in all its places."""
    left = iter(descriptors)
    child = Child(Role.GATE, 1, 17, 3.5, "abc", next(left), next(left), retired=True, drains=True)
    return Bequest(
        program="1.0",
        takeover="x",
        listeners=[(next(left), "explicit"), (next(left), "tproxy")],
        metrics=next(left),
        control=next(left),
        quic=QuicBequest([[next(left), next(left)]], {2: [next(left)]}, [(next(left), next(left))]),
        warned=next(left),
        caller=next(left),
        children=[Survivor(child, next(left), [(("decision", "a"), 3)])],
        options="shape",
        channels={str(each): each for each in left},
    )
