"""tokgate on the gateway: a policy of the test's own, the process, the firewall rules that it prints, and its log.

Every line of every log that a test here makes is checked against the schema when the gateway ends.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml
from whenever import Instant

from labs.builders import present
from labs.clients import UNRECOGNIZED_NAME, http3, python
from labs.netns import DEADLINE, Lab, Namespace, wait_until
from labs.origin import ALLOWED, BANNED, Origin, to_banned
from labs.running_lab import AS_WE_ARE
from tokgate.blocklog.paths import archived
from tokgate.cli.main import main
from tokgate.gateway.kernel import Kernel
from tokgate.gateway.libnftables import TableState, changing
from tokgate.gateway.ruleset import TABLE, TableOptions
from tokgate.runtime.control_socket import ControlRequest, ask
from tokgate.service.status import Condition

ROOT = Path(__file__).parents[2]
CARRIERS: dict[str, dict[str, Any]] = {
    "mitmproxy": {"mode": "transparent"},
    "gates": {"mode": "gate:tproxy"},
    "redirected": {"mode": "gate@10443-10506", "ports": range(10443, 10507)},
}
"""What carries clients that don't know of it: mitmproxy alone by redirection, gates by TPROXY, gates by redirection to
many ports."""
PORT = 8080
END = ("--drain", "1")
_ONE_PORT = ("--redirect", str(PORT))
RULESETS: dict[str, tuple[str, ...]] = {
    "transparent": _ONE_PORT,
    "gate": _ONE_PORT,
    "gate:tproxy": (),
    "gate@10443-10506": ("--redirect",),
}
"""The modes whose clients come by the firewall, and the arguments of `tokgate ruleset` for them."""
KERNEL_TOO = "--gateway"
"""In place of a mode: `tokgate run` loads the kernel's part itself."""

type Record = dict[str, Any]


def office_policy(**ban: Any) -> dict[str, Any]:
    """A ban of the service for the office network only; the visitors' network is known, and in no ban."""
    return {
        "version": 1,
        "services": {"tiktok": {"title": "TikTok", "names": {"suffix": ["tiktok.com"]}}},
        "networks": {
            "office": {"cidrs": ["192.0.2.0/24", "2001:db8:c::/64"], "timezone": "Europe/Brussels"},
            "visitors": {"cidrs": ["198.51.100.0/24", "2001:db8:9::/64"], "timezone": "Europe/Brussels"},
        },
        "bans": {
            "office-ban": {
                "title": "TikTok on office devices",
                "authority": "Example Authority",
                "basis": "Circular 1 of 1 March 2023",
                "reference": "https://www.example.org/circular-1",
                "contact": "servicedesk@example.org",
                "services": ["tiktok"],
                "networks": ["office"],
                "starts": "2023-03-10T00:00",
                "last_day": "2099-12-31",
                **ban,
            }
        },
    }


class Gateway:
    """`tokgate run` in the gateway's namespace while the `with` block lasts."""

    def __init__(
        self,
        namespace: Namespace,
        folder: Path,
        *,
        policy: Mapping[str, Any] | Path,
        mode: str = "transparent",
        ports: Sequence[int] = (PORT,),
        options: Sequence[str | Path] = (),
        stock: bool = False,
        check: Callable[[Path], object],
    ) -> None:
        """`ports`: where it listens. `stock`: not by `tokgate run`, but in mitmproxy's own mitmdump.

        `check` is given the log at the end.
        """
        self.namespace = namespace
        self.folder = folder
        self.mode = mode
        self.ports = ports
        self.options = options
        self.stock = stock
        self.check = check
        self.policies = policy if isinstance(policy, Path) else folder / "policies"
        self.log = folder / "block.ndjson"
        self.narration = folder / "tokgate.log"
        self.home = folder / "home"
        self.process: subprocess.Popen[bytes] | None = None
        self.pace = 0.0
        """Seconds that its start took, which tell how crowded the machine is."""
        if not isinstance(policy, Path):
            self.write_policy(policy)

    def write_policy(self, policy: Mapping[str, Any] | str) -> None:
        """Replace the policy as editors do: a new file, renamed over the old one. The rules follow."""
        self.policies.mkdir(parents=True, exist_ok=True)
        text = policy if isinstance(policy, str) else yaml.safe_dump(dict(policy), sort_keys=False)
        draft = self.folder / "draft"
        draft.write_text(text)
        draft.rename(self.policies / "policy.yaml")
        if (
            self.process is not None and self.mode in RULESETS
        ):  # as an admin does; a broken policy leaves what is loaded
            with contextlib.suppress(RuntimeError):
                self.load_ruleset()

    def command(self, *words: str | Path) -> list[str]:
        """A tokgate command line."""
        return [sys.executable, "-m", "tokgate", *(str(word) for word in words)]

    @property
    def environment(self) -> dict[str, str]:
        """What tokgate runs with: the tree's own package, and a home folder of its own."""
        paths = [str(ROOT / "addons"), os.environ.get("PYTHONPATH", "")]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "HOME": str(self.home)}

    @property
    def confdir(self) -> Path:
        """Its folder, as its options say."""
        said = self.options[self.options.index("--confdir") + 1] if "--confdir" in self.options else None
        return Path(said or self.home / ".tokgate")

    def __enter__(self) -> Self:
        began = time.monotonic()
        self.home.mkdir(exist_ok=True)
        if self.mode in RULESETS:
            self.load_ruleset()
        command = self._mitmdump() if self.stock else self._run()
        self.process = self.namespace.start(*command, output=self.narration, env=self.environment)
        try:
            wait_until("tokgate listens", self._started, every=0.03)
        except BaseException:
            self._end()
            raise
        self.pace = time.monotonic() - began
        return self

    def soon(self, seconds: float) -> Instant:
        """An instant that many seconds from now; later where the machine would not have read a policy by then."""
        return Instant.now().add(seconds=max(seconds, 2 * self.pace))

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()
        if kind is None:
            self._audit()

    def _end(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(DEADLINE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.namespace.run("nft", "delete", "table", "inet", "tokgate", check=False)
        self.namespace.run("ip", "rule", "del", "priority", "745", check=False)
        for option in ("-4", "-6"):
            self.namespace.run("ip", option, "rule", "del", "priority", "746", check=False)
            self.namespace.run("ip", option, "route", "flush", "table", "29803", check=False)
        self.namespace.forget()

    def _run(self) -> list[str]:
        files = ("--policies", self.policies, "--log", self.log)
        mode = ("--gateway",) if self.mode == KERNEL_TOO else ("--mode", self.mode)
        return self.command("run", *AS_WE_ARE, "--openers", "1", *mode, *files, *END, *self.options)

    def _mitmdump(self) -> list[str]:
        options = {"tokgate_policies": self.policies, "tokgate_log": self.log, "confdir": self.home}
        settings = [word for name, value in options.items() for word in ("--set", f"{name}={value}")]
        program = Path(sys.executable).with_name("mitmdump")
        return [
            str(program),
            "-q",
            "-s",
            str(ROOT / "addons/tokgate_addon.py"),
            "--mode",
            self.mode,
            *settings,
            *map(str, self.options),
        ]

    def _audit(self) -> None:
        """However a test used it: tokgate ended well, failed nowhere inside, and wrote only what its schema has."""
        assert self.process
        ends = {0}
        if self.stock and self.mode == "dns":  # mitmproxy's threads for UDP crash in an interpreter that is taken down
            ends |= {-signal.SIGSEGV, -signal.SIGABRT}
        assert self.process.returncode in ends, f"exit {self.process.returncode}: {self.narrated()}"
        assert "Traceback" not in self.narrated(), self.narrated()
        self.check(self.log)
        actions = [record["event"]["action"] for record in self.records()]
        actions = [action for action in actions if not action.startswith("log-")]  # what the log says of itself
        assert "internal-error" not in actions
        begins = actions[0] if not any(archived(self.log)) else "started"  # else a test has set the clock
        assert (begins, actions[-1]) == ("started", "stopped"), actions

    def listens(self) -> bool:
        """Whether all the proxy's ports are open."""
        return self.namespace.listening().issuperset(self.ports)

    def _started(self) -> bool:
        if self.process is None or self.process.poll() is not None:
            raise RuntimeError(f"tokgate ended:\n{self.narrated()}")
        if not self.listens() or (self.mode == KERNEL_TOO and "\ntokgate: gate: " not in self.narrated()):
            return False
        if not self.mode.startswith("gate") and self.mode != KERNEL_TOO:
            return True
        told = ask(self.confdir, ControlRequest.STATUS)  # plain HTTP waits for an opener, which starts for a while
        return told is not None and all(each["condition"] != Condition.STARTING for each in told["workers"])

    def ruleset(self) -> str:
        """What `tokgate ruleset` prints for the policy, without a process of its own."""
        with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.redirect_stderr(io.StringIO()) as told:
            code = main(["ruleset", "--policies", str(self.policies), *RULESETS[self.mode]])
        if code or "to_gate" not in printed.getvalue():
            raise RuntimeError(f"exit {code}: {told.getvalue()}")
        return printed.getvalue()

    def load_ruleset(self) -> None:
        """Load what `tokgate ruleset` prints, in place as `tokgate gateway up` does it, and the routes in its comments.

        With `nft -f` all sets are new, and empty for a moment: what begins just then is reset (docs/gateway.md).
        """
        printed, kernel = self.ruleset(), Kernel(TableOptions(), self.folder / "gateway.json")
        name, loaded = TABLE, self.namespace.inside(kernel.loaded) or TableState()
        _, _, wanted = printed.partition(f"delete table inet {name}\n")
        for transaction in changing(name, wanted, loaded):
            self.namespace.run("nft", "-f", "-", given=transaction)
        for line in printed.splitlines():
            if line.startswith("#   ip "):
                self.namespace.run(*line[1:].split(), check=False)  # a rule may be there already

    def reload(self) -> None:
        """Ask for a reload, as `systemctl reload` does."""
        assert self.process
        self.process.send_signal(signal.SIGHUP)

    def enforces(self, policy: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Replace the policy, or what it refers to was replaced; the answer once each process has it."""
        if policy is not None:
            self.write_policy(policy)
        answer = self._control(ControlRequest.RELOAD)
        assert answer["ok"], answer
        return answer

    def asked(self, *words: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
        """A command of tokgate's on the gateway, which finds the process where the options of its start say."""
        where = ("--confdir", self.confdir) if "--confdir" in self.options else ()
        return self.namespace.run(*self.command(*words, *where), env=self.environment, check=check)

    def status(self) -> dict[str, Any]:
        """Its answer to `tokgate status`."""
        return self._control(ControlRequest.STATUS)

    def _control(self, request: ControlRequest) -> dict[str, Any]:
        return present(wait_until("the control socket is there", lambda: ask(self.confdir, request)))

    def narrated(self) -> str:
        """What tokgate said on stderr so far."""
        return self.narration.read_text(errors="replace") if self.narration.exists() else ""

    def records(self) -> list[Record]:
        """The whole lines of the log so far."""
        if not self.log.exists():
            return []
        return [json.loads(line) for line in self.log.read_bytes().split(b"\n")[:-1]]

    def wait_for_record(self, what: str, matches: Callable[[Record], bool]) -> Record:
        """The newest record that matches, as soon as there is one."""

        def newest() -> Record | None:
            return next((record for record in reversed(self.records()) if matches(record)), None)

        return present(wait_until(what, newest))


def refuses(name: str, client: str, action: str = "tls-handshake-refused") -> Callable[[Record], bool]:
    """Matches the record of a refused name and client; of a shared gateway others' records stand before it."""
    return lambda record: (
        record["event"]["action"] == action
        and record.get("destination", {}).get("domain") == name
        and record["source"]["ip"] == client
    )


def got_round(lab: Lab, gateway: Gateway, *families: str) -> list[str]:
    """What `tokgate evasion` gets past a gateway from the client's network, to the banned service's own server."""
    chosen = [word for family in families for word in ("--family", family)]
    words = ("--via", "route", "--name", BANNED, "--server", Lab.BANNED[4], "--allowed", ALLOWED, "--json", *chosen)
    done = lab.client.run(*gateway.command("evasion", *words), env=gateway.environment, check=False, seconds=120)
    assert done.returncode in (0, 1), done.stderr
    return [each["attempt"] for each in json.loads(done.stdout)["attempts"] if each["verdict"] == "passed"]


def refused_over_http3(lab: Lab, origin: Origin, gateway: Gateway, family: int) -> Record:
    """The record of a banned name asked for over HTTP/3: refused at once, before anything reached the origin."""
    with origin.watch() as seen:
        code, output = http3(lab.client, origin, BANNED, family)

    assert (code, output) == (7, "")  # told so: curl has not run out of patience
    assert to_banned(seen) == 0
    record = gateway.wait_for_record("the refusal is logged", refuses(BANNED, Lab.CLIENT[family], "quic-refused"))
    assert (record["network"]["transport"], record["network"]["protocol"]) == ("udp", "quic")
    return record


type MakeGateway = Callable[..., Gateway]


def kernel(lab: Lab) -> list[str]:
    """What is loaded in the gateway."""
    commands = ("nft -s list ruleset", "ip rule", "ip -6 rule", "ip route show table 29803")
    return [lab.gateway.run(*command.split(), check=False).stdout for command in commands]


@contextlib.contextmanager
def nothing_left(lab: Lab) -> Iterator[None]:
    """Whatever the block does, the gateway's kernel is afterwards as it was."""
    before = kernel(lab)
    yield
    after = kernel(lab)
    if after != before:  # or the next tests would fail as well
        lab.gateway.run("nft", "flush", "ruleset")
        for version, priority in itertools.product(("-4", "-6"), ("700", "746", "747")):
            lab.gateway.run("ip", version, "rule", "del", "priority", priority, check=False)
    assert after == before


def refused(lab: Lab, origin: Origin, family: int, who: str = "client") -> bool:
    """Whether a network gets TLS's alert for the banned name."""
    return python(getattr(lab, who), BANNED, family, False, origin.authority).error == UNRECOGNIZED_NAME


def reaches(lab: Lab, origin: Origin, name: str, family: int, who: str = "client") -> bool:
    """Whether a network gets the origin's own certificate for a name."""
    answer = python(getattr(lab, who), name, family, False, origin.authority)
    return answer.certificate == origin.fingerprints[name]
