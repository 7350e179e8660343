"""Mixed traffic through `tokgate run --gateway` while its policy is edited: `python bench/mixed.py` as root.

A client under a ban asks for an allowed and for the banned name over TLS and HTTP/3, IPv4 and IPv6, and holds a
connection on which it speaks all the time; a client under none asks for the allowed name. Every ten seconds there is an
edit, which is waited for with `tokgate reload`; in the middle of the run, and then every two minutes, `tokgate restart`
replaces the program.

A client that is silent for a second is connected, since its server may be the one to speak first: on a machine so busy
that hellos come that late, some packets come to the banned server although each hello is refused.

Exit codes: 0 no allowed connection failed and nothing banned came to its server, 1 not so, 3 it can't run here.
"""

import argparse
import contextlib
import os
import shutil
import socket
import ssl
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import count, cycle
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "addons"))

from labs.clients import UNRECOGNIZED_NAME, http3
from labs.gateway import KERNEL_TOO, Gateway, office_policy
from labs.netns import Lab, Namespace, sweep
from labs.origin import ADDRESSES, ALLOWED, BANNED, Origin

EDITED_EACH: Final = 10.0
RESTARTED_EACH: Final = 120.0
SLOW: Final = 0.5
"""Seconds from which a connection counts as slow."""
PATIENCE: Final = 20.0
TALKS: Final = 8888
"""A port of the web, at which a server says back what it hears."""
PAUSE: Final = 0.05
"""Seconds between two tries of a kind: correctness is measured, not how much it takes."""
PAUSE_HTTP3: Final = 0.5


@dataclass(slots=True)
class Kind:
    """What was tried of one kind of traffic, and what came of it."""

    name: str
    tried: int = 0
    slow: int = 0
    slowest: float = 0.0
    wrong: Counter[str] = field(default_factory=Counter)

    def attempt(self, once: Callable[[], str]) -> None:
        """One try, which returns what was wrong, or nothing."""
        began = time.monotonic()
        said = once()
        took = time.monotonic() - began
        self.tried, self.slow, self.slowest = self.tried + 1, self.slow + (took > SLOW), max(self.slowest, took)
        if said:
            self.wrong[said] += 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1800.0, metavar="S", help="how long (default: 1800)")
    options = parser.parse_args()
    missing = [each for each in ("ip", "nft", "nginx", "curl") if shutil.which(each) is None]
    if os.geteuid() != 0 or missing:
        print(f"mixed: needs {', '.join(missing) or 'root, for network namespaces'}", file=sys.stderr)
        return 3
    sweep()
    lab = Lab(os.getpid())
    with contextlib.ExitStack() as stack:
        stack.callback(lab.down)
        lab.up()
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for each in ("origin", "gateway"):
            (folder / each).mkdir()
        origin = stack.enter_context(Origin(lab.origin, folder / "origin"))
        gateway = Gateway(
            *(lab.gateway, folder / "gateway"), policy=office_policy(), mode=KERNEL_TOO, check=Path.exists
        )
        stack.enter_context(gateway)
        return Run(lab, origin, gateway).run(options.seconds)


class Run:
    """The traffic and the edits of one run."""

    def __init__(self, lab: Lab, origin: Origin, gateway: Gateway) -> None:
        self._lab, self._origin, self._gateway = lab, origin, gateway
        self._trust = ssl.create_default_context(cafile=str(origin.authority))
        self._ended = threading.Event()
        self._kinds: list[Kind] = []
        self._threads: list[threading.Thread] = []
        self._edits = Kind("edits")
        self._restarts = Kind("restarts")

    def run(self, seconds: float) -> int:
        """All of it, and then the figures."""
        client, guest = self._lab.client, self._lab.guest
        with self._origin.watch() as seen:
            for version in (4, 6):
                passes, refuses = partial(self._passes, version), partial(self._refuses, version)
                self._start(client, f"allowed, TLS, IPv{version}", passes)
                self._start(client, f"banned, TLS, IPv{version}", refuses)
                self._start(client, f"allowed, HTTP/3, IPv{version}", partial(self._passes_http3, version), PAUSE_HTTP3)
                self._start(client, f"banned, HTTP/3, IPv{version}", partial(self._refuses_http3, version), PAUSE_HTTP3)
                self._start(guest, f"another network, TLS, IPv{version}", passes)
            self._start(client, "words on a connection that stays", Conversation(self._lab).says)
            try:
                self._edit(time.monotonic() + seconds, seconds / 2)
            finally:
                self._ended.set()
                for thread in self._threads:
                    thread.join()
        return self._report({name: packets for name, packets in seen.items() if name.startswith("banned-")})

    def _start(self, namespace: Namespace, name: str, once: Callable[[], str], pause: float = PAUSE) -> None:
        kind = Kind(name)
        self._kinds.append(kind)

        def work() -> None:
            while not self._ended.wait(pause):
                kind.attempt(once)

        self._threads.append(threading.Thread(target=namespace.inside, args=(work,)))
        self._threads[-1].start()

    def _edit(self, ends: float, first_restart: float) -> None:
        """An edit each ten seconds, and a restart now and then."""
        restart_at, edit_at = ends - first_restart, time.monotonic()
        for number, change in zip(count(), cycle(EDITS)):
            self._gateway.write_policy(change(office_policy(title=f"Edit {number}")))
            self._edits.attempt(partial(self._tokgate, "reload"))
            if time.monotonic() >= restart_at:
                restart_at += RESTARTED_EACH
                self._restarts.attempt(partial(self._tokgate, "restart"))
            edit_at = max(edit_at + EDITED_EACH, time.monotonic())
            if edit_at >= ends:
                return
            time.sleep(max(0.0, edit_at - time.monotonic()))

    def _tokgate(self, *words: str) -> str:
        done = self._gateway.namespace.run(
            *self._gateway.command(*words), env=self._gateway.environment, check=False, seconds=120
        )
        return (done.stdout + done.stderr).strip() if done.returncode else ""

    # -- one try of each kind

    def _passes(self, version: int) -> str:
        return _hello(ADDRESSES[ALLOWED][version], ALLOWED, self._trust)

    def _refuses(self, version: int) -> str:
        said = _hello(ADDRESSES[BANNED][version], BANNED, self._trust)
        return "" if UNRECOGNIZED_NAME in said.lower().replace("_", " ") else f"not refused: {said or 'it passed'}"

    def _passes_http3(self, version: int) -> str:
        code, _ = http3(self._lab.client, self._origin, ALLOWED, version, "--max-time", "30")
        return "" if code == 0 else f"curl: {code}"

    def _refuses_http3(self, version: int) -> str:
        code, _ = http3(self._lab.client, self._origin, BANNED, version, "--connect-timeout", "5")
        return "it passed" if code == 0 else ""

    def _report(self, reached_banned: dict[str, int]) -> int:
        print(f"{'':36}{'tried':>9}{'wrong':>8}{'slow':>7}{'slowest':>10}")
        for kind in (*self._kinds, self._edits, self._restarts):
            wrong = sum(kind.wrong.values())
            print(f"{kind.name:36}{kind.tried:9,}{wrong:8,}{kind.slow:7,}{kind.slowest:8.2f} s")
            for said, times in kind.wrong.most_common(5):
                print(f"    {times:,} × {said}")
        print(f"packets that came to the banned server: {reached_banned or 'none'}")
        well = not reached_banned and not any(each.wrong for each in (*self._kinds, self._edits, self._restarts))
        print("no allowed connection failed, and nothing banned passed" if well else "NOT SO")
        return 0 if well else 1


def _hello(address: str, name: str, trust: ssl.SSLContext) -> str:
    """A new connection with a whole handshake; what went wrong."""
    try:
        with (
            socket.create_connection((address, 443), PATIENCE) as plain,
            trust.wrap_socket(plain, server_hostname=name) as secure,
        ):
            return "" if secure.getpeercert() else "no certificate"
    except OSError as error:
        return str(error)


class Conversation:
    """A connection that stays open, which a gate got from the client under the ban."""

    def __init__(self, lab: Lab) -> None:
        address = ADDRESSES[ALLOWED][4]
        with lab.origin.inside(partial(socket.create_server, (address, TALKS))) as server:
            self._client = lab.client.connect(address, TALKS, PATIENCE)
            self._client.sendall(b"\0")
            server.settimeout(PATIENCE)
            self._server, _ = server.accept()
        self._server.settimeout(PATIENCE)

    def says(self) -> str:
        """A word there and back."""
        try:
            self._client.sendall(b"word")
            heard = self._server.recv(64)
            self._server.sendall(b"back")
            return "" if heard and self._client.recv(64) else "it ended"
        except OSError as error:
            return str(error)


def _another_service(policy: dict[str, Any]) -> dict[str, Any]:
    policy["services"]["other"] = {"names": {"suffix": ["example.net"]}}
    policy["bans"]["office-ban"]["services"] = ["tiktok", "other"]
    return policy


def _many_networks(policy: dict[str, Any]) -> dict[str, Any]:
    cidrs = [f"10.{number >> 8}.{number & 255}.0/25" for number in range(2000)]
    policy["networks"]["branches"] = {"cidrs": cidrs, "timezone": "Europe/Brussels"}
    policy["bans"]["office-ban"]["networks"] = ["office", "branches"]
    return policy


def _addresses(policy: dict[str, Any]) -> dict[str, Any]:
    policy["services"]["tiktok"]["addresses"] = [f"{ADDRESSES[BANNED][4]}/32", f"{ADDRESSES[BANNED][6]}/128"]
    return policy


def _exemption(policy: dict[str, Any]) -> dict[str, Any]:
    said = {"ban": "office-ban", "clients": ["192.0.2.99"], "until": "2098-01-01T00:00", "reason": "Mixed traffic"}
    return policy | {"exemptions": {"somebody-else": said}}


EDITS: Final[Sequence[Callable[[dict[str, Any]], dict[str, Any]]]] = (
    *(lambda policy: policy, _another_service, _many_networks, _addresses, _exemption),
)
"""None of them changes what is decided about the traffic here."""


if __name__ == "__main__":
    sys.exit(main())
