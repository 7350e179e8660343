"""tokgate in processes of its own, one for each way of carrying traffic and each set of settings that rows ask for."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import yaml

from evasion.carrier_main import DESTINATIONS
from evasion.servers import ALLOWED, DEADLINE, Recorder
from labs.ports import hold_port, number
from tokgate.evasion.attempt import Result, Target
from tokgate.evasion.families import ATTEMPTS
from tokgate.evasion.trial import Address, AttemptRoute, Carriage, make

HERE: Final = Path(__file__).parent
ROOT: Final = HERE.parents[1]
NAME_SERVER: Final = "127.53.0.1"
"""Where the upstream resolver listens, at port 53."""
START: Final = 240.0
"""Seconds that ten processes may take to start on a crowded machine: openers give way to everything else."""
PATIENCE: Final = 4.0
"""Seconds after which an attempt counts as unanswered."""


class Program(StrEnum):
    """What runs."""

    GATES = "gates"
    """A supervisor, a gate, an opener and a collector."""
    MITMPROXY = "mitmproxy"
    DNS = "dns"
    """mitmproxy as a resolver."""


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


class Running:
    """`tokgate run`, from its start to its orderly end, after which its log can be read."""

    def __init__(self, program: Program, settings: Settings, folder: Path) -> None:
        self.program, self.settings, self.folder = program, settings, folder
        self._held = [hold_port() for _ in range(3)]
        self.redirected, self.explicit, self.socks = map(number, self._held)
        policies = folder / "policies"
        policies.mkdir(parents=True)
        (policies / "policy.yaml").write_text(yaml.safe_dump(policy(settings)))
        self.log, self.narration = folder / "block.ndjson", folder / "narration"
        command = [sys.executable, str(HERE / "carrier_main.py"), "run", "--drain", "1", "--policies", str(policies)]
        command += ["--log", str(self.log), "--confdir", str(folder / "keys"), *self._modes()]
        environment = os.environ | {"PYTHONPATH": str(ROOT / "addons"), "HOME": str(folder)}
        with self.narration.open("wb") as output:
            self._process = subprocess.Popen(command, stderr=output, stdout=output, cwd=folder, env=environment)
        self.records: list[dict[str, Any]] = []

    def _modes(self) -> list[str]:
        here = "127.0.0.1"
        if self.program is Program.DNS:
            self.redirected = self.socks = self.explicit
            return ["--mode", f"dns@{here}:{self.explicit}", "--name-server", NAME_SERVER]
        if self.program is Program.MITMPROXY:
            modes = {"transparent": self.redirected, "regular": self.explicit, "socks5": self.socks}
        else:
            modes = {"gate": self.redirected, "gate:explicit": self.explicit}
            self.socks = self.explicit
        words = [word for mode, port in modes.items() for word in ("--mode", f"{mode}@{here}:{port}")]
        return words + (["--workers", "1"] if self.program is Program.GATES else [])

    def wait(self) -> None:
        give_up = time.monotonic() + START
        wanted = {f":{port:04X}" for port in (self.redirected, self.explicit, self.socks)}
        # mitmproxy's resolver listens for connections first, and for datagrams a moment later
        table, state = ("udp", " 07 ") if self.program is Program.DNS else ("tcp", " 0A ")
        while time.monotonic() < give_up:
            if self._process.poll() is not None:
                raise RuntimeError(f"it ended: {self.narrated()}")
            lines = Path("/proc/net", table).read_text().splitlines()
            listening = {line.split()[1][8:] for line in lines if state in line}
            if wanted <= listening and (self.program is not Program.GATES or self._opens()):
                return
            time.sleep(0.02)
        raise TimeoutError(self.narrated())

    def _opens(self) -> bool:
        """Whether its opener reads HTTP: a gate listens before there is one."""
        with closing(Recorder()) as recorder:
            route = self.route(Carrier.GATE, "127.1.255.1", recorder.port)
            target = Target(ALLOWED, "127.0.0.1", recorder.port)
            return make(ATTEMPTS["plain-request"], route, target).result is Result.SERVED

    def route(self, carrier: Carrier, client: str, port: int) -> AttemptRoute:
        routed = carrier.carriage is Carriage.ROUTE
        place: Address = ("127.0.0.1", self.redirected if routed else self.explicit)
        if carrier.carriage is Carriage.SOCKS:
            place = ("127.0.0.1", self.socks)

        def dial(_: Address) -> socket.socket:
            return dial_from((client, port if routed else 0), place)

        tunnel = ALLOWED if carrier.carriage is Carriage.SOCKS else None
        return AttemptRoute(carriage=carrier.carriage, proxy=place, tunnel_host=tunnel, patience=PATIENCE, dial=dial)

    def narrated(self) -> str:
        return self.narration.read_text(errors="replace")

    def end(self) -> int:
        """Stop it in order, read its log, and give its exit code."""
        self._process.send_signal(signal.SIGTERM)
        try:
            code = self._process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        for held in self._held:
            held.close()
        if self.log.exists():
            self.records = [json.loads(line) for line in self.log.read_bytes().splitlines()]
        return code

    def coverage(self) -> dict[str, int]:
        """How many connections of the banned network were counted, by what could be seen of them."""
        found: dict[str, int] = {}
        for record in self.records:
            if record["event"]["action"] == "coverage-counted":
                for seen, number in record["tokgate"]["coverage"].get("office", {}).items():
                    found[seen] = found.get(seen, 0) + number
        return found


def dial_from(source: Address, place: Address) -> socket.socket:
    """Connect from an address and port of our choice."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(source)
        sock.settimeout(PATIENCE)
        sock.connect(place)
    except OSError:
        sock.close()
        raise
    return sock


@dataclass(frozen=True, slots=True)
class Key:
    program: Program
    settings: Settings


def start(keys: Iterable[Key], folder: Path) -> dict[Key, Running]:
    running = {key: Running(key.program, key.settings, folder / f"{key.program}-{key.settings}") for key in keys}
    for each in running.values():
        each.wait()
    return running
