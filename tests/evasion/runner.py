"""Runs cases side by side, ends what carried them, and says of each what arrived, was served and was logged."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from evasion.carriers import Carried, Clients, Key, start
from evasion.python_server import ALLOWED_PAGE, BANNED_PAGE
from evasion.servers import ALLOWED, DEADLINE, Recorder, Server, running_servers
from evasion.table import ANYTHING, BANNED_ADDRESS, OPEN_ADDRESS, Case, twin_of
from tokgate.evasion.attempt import Attempt, Result, ServerReply, Target
from tokgate.evasion.trial import AttemptRoute, make

AT_ONCE: Final = 48
"""Attempts that are made at a time: most of an attempt is waiting."""


@dataclass(slots=True)
class Outcome:
    """What became of a case."""

    client: str
    answer: ServerReply
    served: bool
    """Whether the banned name was served, or anything of the attempt arrived at the recorder."""
    twin: ServerReply
    twin_served: bool
    records: list[dict[str, Any]] = field(default_factory=list)


class Runner:
    def __init__(self, wanted: Iterable[Case], folder: Path) -> None:
        self._cases = list(wanted)
        self._folder = folder
        self._clients = Clients()
        self._twins: dict[tuple[object, ...], tuple[ServerReply, bool]] = {}
        self._lock = threading.Lock()
        self.running: dict[Key, Carried] = {}
        self.outcomes: dict[Case, Outcome] = {}

    def run(self) -> None:
        (servers_folder := self._folder / "servers").mkdir()
        with running_servers(servers_folder) as self._servers:
            self.running = start({case.key for case in self._cases}, self._folder)
            try:
                with ThreadPoolExecutor(AT_ONCE) as pool:
                    self.outcomes = dict(zip(self._cases, pool.map(self._run, self._cases), strict=True))
            finally:
                with ThreadPoolExecutor() as pool:
                    list(pool.map(Carried.close, self.running.values()))
        logged = {key: running.records() for key, running in self.running.items()}
        for case, outcome in self.outcomes.items():
            records = logged[case.key]
            outcome.records = [record for record in records if record.get("source", {}).get("ip") == outcome.client]

    def _run(self, case: Case) -> Outcome:
        row = case.row
        client, answer, served = self._make(case, row.attempt, row.name, row.address, banned=True)
        attempt, name, address, banned = twin_of(case)
        known = (case.key, case.carrier, case.server, attempt.id, name, address, banned)
        with self._lock:
            twin = self._twins.get(known)
        if twin is None:
            _, twin_answer, twin_served = self._make(case, attempt, name, address, banned=banned, twin=True)
            twin = self._twins[known] = twin_answer, twin_served
        return Outcome(client, answer, served, *twin)

    def _make(
        self, case: Case, attempt: Attempt, name: str, address: str, *, banned: bool, twin: bool = False
    ) -> tuple[str, ServerReply, bool]:
        client = self._clients.address(address, banned=banned)
        if case.server is Server.RECORDER:
            local = address in (OPEN_ADDRESS, BANNED_ADDRESS)
            leak = b"example.org" if twin and name == ALLOWED and case.row.leak != ANYTHING else case.row.leak
            has_come = partial(shows, leak)
            comes = twin or (case.row.counted and case.row.certain)
            with closing(Recorder(address if local else BANNED_ADDRESS, has_come if comes else None)) as recorder:
                target = Target(name, address, recorder.port)
                answer = make(attempt, self._route(case, client, recorder.port, twin=twin), target)
            return client, answer, has_come(bytes(recorder.received))
        tls = attempt.is_tls
        server = Server.PYTHON if twin and case.server is Server.NAMELESS else case.server
        port = self._servers.port(server, tls=tls)
        answer = make(attempt, self._route(case, client, port, twin=twin), Target(name, address, port))
        if tls:
            return client, answer, answer.result is Result.SERVED
        return client, answer, (ALLOWED_PAGE if twin and name == ALLOWED else BANNED_PAGE) in answer.body

    def _route(self, case: Case, client: str, port: int, *, twin: bool) -> AttemptRoute:
        """The way to a server; what has to come is waited for, however long a crowded machine takes."""
        route, row = self.running[case.key].route(case.carrier, client, port), case.row
        comes = row.certain if row.counted else row.recorded and case.server is row.server
        return replace(route, patience=DEADLINE) if twin or comes else route


def shows(leak: bytes, arrived: bytes) -> bool:
    """Whether it is in what arrived, also where TLS records divide it."""
    message, position = bytearray(), 0
    while position + 5 <= len(arrived):
        end = position + 5 + int.from_bytes(arrived[position + 3 : position + 5])
        message += arrived[position + 5 : end]
        position = end
    return bool(arrived) and (leak in arrived.lower() or leak in bytes(message).lower())
