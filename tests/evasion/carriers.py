"""tokgate in processes of its own, one for each way of carrying traffic and each set of settings that rows ask for."""

from __future__ import annotations

import socket
import threading
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from evasion.carrier_main import DESTINATIONS
from evasion.servers import ALLOWED
from labs.ports import hold_port, number
from labs.running_lab import Running, python_for
from labs.waiting import until
from tokgate.evasion.trial import Address, AttemptRoute, Carriage

HERE: Final = Path(__file__).parent
START: Final = 240.0
"""Seconds that ten processes may take to start on a crowded machine: openers give way to everything else."""
PATIENCE: Final = 4.0
"""Seconds after which an attempt counts as unanswered."""


class Program(StrEnum):
    """What runs."""

    GATES = "gates"
    """A supervisor, a gate, an opener and a collector."""
    MITMPROXY = "mitmproxy"


class Carrier(StrEnum):
    """How an attempt gets into it."""

    GATE = "gate"
    MITMPROXY = "mitmproxy"
    """Redirected clients of each program."""
    CONNECT = "connect"
    """A tunnel through a gate, to an address."""
    SOCKS = "socks"
    """The same by SOCKS 5, to an allowed name."""
    MITMPROXY_CONNECT = "mitmproxy-connect"
    MITMPROXY_SOCKS = "mitmproxy-socks"

    @property
    def program(self) -> Program:
        return Program.MITMPROXY if "mitmproxy" in self else Program.GATES

    @property
    def carriage(self) -> Carriage:
        if "connect" in self:
            return Carriage.CONNECT
        return Carriage.SOCKS if "socks" in self else Carriage.ROUTE


class Settings(StrEnum):
    """What the policy says besides its ban."""

    DEFAULT = "default"
    STRICT = "strict"
    """missing_sni: block, ech_outer: block"""
    CERTIFICATE = "certificate"
    """missing_sni: check-certificate"""
    PAGE = "page"
    """The ban answers with a page, so that its names are opened."""


_SETTINGS: Final[dict[Settings, dict[str, str]]] = {
    Settings.DEFAULT: {},
    Settings.STRICT: {"missing_sni": "block", "ech_outer": "block"},
    Settings.CERTIFICATE: {"missing_sni": "check-certificate"},
    Settings.PAGE: {},
}


def policy(settings: Settings) -> dict[str, Any]:
    """A ban of one service for half of loopback; the other half is under none."""
    ban = {"title": "Clips", "services": ["clips"], "networks": ["office"], "starts": "2023-03-10T00:00"}
    if settings is Settings.PAGE:
        ban |= {"response": "page"}
    return {
        "version": 1,
        "services": {"clips": {"names": {"suffix": ["clips.example.org"]}, "addresses": ["127.0.0.2/32"]}},
        "networks": {"office": {"cidrs": ["127.0.0.0/9"]}, "visitors": {"cidrs": ["127.128.0.0/9"]}},
        "bans": {"clips-ban": ban},
        "settings": _SETTINGS[settings],
    }


class Clients:
    """Addresses for clients, each used once, so that each attempt's records can be told by it."""

    def __init__(self) -> None:
        self._next = 0
        self._lock = threading.Lock()

    def address(self, destination: str, *, banned: bool) -> str:
        """The address of a client that wants to go to `destination`, and is under the ban or not."""
        (kind,) = [number for number, address in DESTINATIONS.items() if address == destination]
        with self._lock:
            self._next += 1
            number = self._next
        return f"127.{kind + (0 if banned else 128)}.{number >> 8}.{number & 255}"


@dataclass(frozen=True, slots=True)
class Key:
    program: Program
    settings: Settings


class Carried(Running):
    """`tokgate run` whose redirected clients are told where they were going by `carrier_main`."""

    def __init__(self, key: Key, folder: Path) -> None:
        self.program, self._held = key.program, [hold_port() for _ in range(3)]
        self.redirected, self.explicit, self.socks = map(number, self._held)
        folder.mkdir()
        python = python_for(folder, (HERE / "carrier_main.py").read_text())
        super().__init__(folder, 1, self._modes(), policy=policy(key.settings), python=python, drain=1)
        until("all its parts have started", lambda: self.problems_told() == [], START)

    def _modes(self) -> list[str]:
        here = "127.0.0.1"
        if self.program is Program.MITMPROXY:
            modes = {"transparent": self.redirected, "regular": self.explicit, "socks5": self.socks}
        else:
            modes = {"gate": self.redirected, "gate:explicit": self.explicit}
            self.socks = self.explicit
        return [word for mode, port in modes.items() for word in ("--mode", f"{mode}@{here}:{port}")]

    def route(self, carrier: Carrier, client: str, port: int) -> AttemptRoute:
        routed = carrier.carriage is Carriage.ROUTE
        place: Address = ("127.0.0.1", self.redirected if routed else self.explicit)
        if carrier.carriage is Carriage.SOCKS:
            place = ("127.0.0.1", self.socks)

        def dial(_: Address) -> socket.socket:
            return socket.create_connection(place, PATIENCE, (client, port if routed else 0))

        tunnel = ALLOWED if carrier.carriage is Carriage.SOCKS else None
        return AttemptRoute(carriage=carrier.carriage, proxy=place, tunnel_host=tunnel, patience=PATIENCE, dial=dial)

    def close(self) -> None:
        """End it in order, after which its log can be read."""
        super().close()
        for held in self._held:
            held.close()

    def coverage(self) -> dict[str, int]:
        """How many connections of the banned network were counted, by what could be seen of them."""
        found = Counter[str]()
        for record in self.records():
            if record["event"]["action"] == "coverage-counted":
                found.update(record["tokgate"]["coverage"].get("office", {}))
        return found


def start(keys: Iterable[Key], folder: Path) -> dict[Key, Carried]:
    with ThreadPoolExecutor() as pool:
        return dict(pool.map(lambda key: (key, Carried(key, folder / f"{key.program}-{key.settings}")), keys))
