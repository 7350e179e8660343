"""`tokgate run` and the addon in plain mitmdump, as processes: start, signals, options, policy and log on disk."""

import asyncio
import json
import os
import re
import signal
import socket
import stat
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from labs.hello_builder import openssl_hello
from labs.proxy_lab import ALLOWED, BANNED, DEADLINE, Client, Lab, client, eventually
from labs.running_lab import AS_WE_ARE
from tokgate.gate.handoff import Handover
from tokgate.mitm.gate_mode import GateInstance, GateMode
from tokgate.policy.observation import Endpoint
from tokgate.runtime.control_socket import ControlRequest, ask
from tokgate.service.mitmproxy_process import Drain
from tokgate.traffic.seen import Arrival

ROOT = Path(__file__).parents[2]
START = 60.0
"""Seconds: importing mitmproxy takes a while where several tests share few cores."""
POLICY = """\
version: 1
services:
  clips: {title: Clips, names: {suffix: [clips.example.org]}}
networks:
  here: {cidrs: [127.0.0.0/8], timezone: Europe/Brussels}
bans:
  clips-2023:
    title: Clips on work devices
    authority: The Council
    basis: Circular 716
    services: [clips]
    networks: [here]
    starts: 2023-03-10T00:00
"""
WITHOUT_BAN = POLICY.partition("bans:")[0] + "lifted: {ban: clips-2023, reason: Repealed}\n"
PORT = re.compile(r"(?:listening on|listening at) 127\.0\.0\.1:(\d+)")


@dataclass
class Process:
    """A proxy in a process of its own."""

    process: asyncio.subprocess.Process
    output: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.output)

    async def port(self) -> int:
        await self.says(PORT.pattern)
        found = PORT.search(self.text)
        assert found is not None
        return int(found[1])

    async def says(self, pattern: str) -> None:
        async with asyncio.timeout(START):
            while not re.search(pattern, self.text):
                assert self.process.returncode is None or not self.text.endswith("\0"), self.text
                if self.process.returncode is not None:
                    pytest.fail(f"ended with {self.process.returncode}: {self.text}")
                await asyncio.sleep(0.02)

    async def ended(self) -> int:
        async with asyncio.timeout(START):
            return await self.process.wait()


class Setup:
    """Starts proxies on files in one folder."""

    def __init__(self, folder: Path, check_lines: Callable[..., list[dict[str, Any]]]) -> None:
        self.folder = folder
        self.policy = folder / "policy.yaml"
        self.policy.write_text(POLICY)
        self.log = folder / "block.ndjson"
        self.confdir = folder / "confdir"
        self.check = check_lines

    def records(self) -> list[dict[str, Any]]:
        """What the log says, but for the checkpoints, which come as time passes."""
        return [r for r in self.check(self.log) if r["event"]["action"] != "log-checkpoint"]

    def actions(self) -> list[str]:
        """What is in the log so far, also while it is written."""
        lines = self.log.read_text().splitlines(keepends=True) if self.log.exists() else []
        actions = [json.loads(line)["event"]["action"] for line in lines if line.endswith("\n")]
        return [action for action in actions if action != "log-checkpoint"]

    def loaded_at(self) -> str:
        """When the policy was read, as `tokgate status` says; nothing as long as nobody answers."""
        state = ask(self.confdir, ControlRequest.STATUS)
        return "" if state is None else str(state["policy"]["loaded_at"])

    @asynccontextmanager
    async def run(self, *extra: str) -> AsyncIterator[Process]:
        """`tokgate run`, mitmproxy alone unless told."""
        mode = () if "--mode" in extra else ("--mode", "regular")
        said = ("run", "--policies", str(self.policy), "--log", str(self.log), "--confdir", str(self.confdir))
        async with self._process("-m", "tokgate", *said, *AS_WE_ARE, "--listen-port", "0", *mode, *extra) as process:
            yield process

    @asynccontextmanager
    async def mitmdump(self, *extra: str) -> AsyncIterator[Process]:
        """`mitmdump -s addons/tokgate_addon.py`."""
        code = "from mitmproxy.tools.main import mitmdump; mitmdump()"
        said = ("-s", str(ROOT / "addons/tokgate_addon.py"), "--listen-host", "127.0.0.1", "--listen-port", "0")
        options = (f"tokgate_policies={self.policy}", f"tokgate_log={self.log}", f"confdir={self.confdir}")
        sets = [word for option in options for word in ("--set", option)]
        async with self._process("-c", code, *said, *sets, *extra) as process:
            yield process

    @asynccontextmanager
    async def _process(self, *words: str) -> AsyncIterator[Process]:
        environment = os.environ | {"PYTHONPATH": str(ROOT / "addons"), "HOME": str(self.folder)}
        environment["PYTHONUNBUFFERED"] = "1"  # mitmdump tells of its port on stdout, a pipe here
        started = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-W", "ignore", *words),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            env=environment,
        )
        process = Process(started)
        reading = asyncio.create_task(self._read(process))
        try:
            yield process
        finally:
            if started.returncode is None:
                started.kill()
            await started.wait()
            await reading

    async def _read(self, process: Process) -> None:
        assert process.process.stdout is not None
        while line := await process.process.stdout.readline():
            process.output.append(line.decode())


@pytest.fixture
def setup(tmp_path: Path, check_lines: Callable[..., list[dict[str, Any]]]) -> Setup:
    """Policy, log and keys in a folder of the test's own."""
    return Setup(tmp_path, check_lines)


async def answer(port: int, origin_port: int, name: str) -> bytes:
    """What a client gets that opens a tunnel by address and says hello to a name."""
    async with client(port) as guest:
        reply = await guest.connect(f"127.0.0.1:{origin_port}")
        assert reply.status == 200
        await guest.send(openssl_hello(name))
        guest.writer.write_eof()
        return await guest.to_end()


async def test_run(lab: Lab, setup: Setup) -> None:
    """It says where it listens, what is in force and how to try it; it refuses, passes, logs, and ends on SIGTERM.

    The folder and the key of its authority are for their owner only, also where they were not before.
    """
    origin = await lab.sink_origin(b"through")
    setup.confdir.mkdir(mode=0o755)
    async with setup.run() as process:
        port = await process.port()
        assert await answer(port, origin.port, ALLOWED) == b"through"
        assert await answer(port, origin.port, BANNED) == bytes.fromhex("15030300020270")
        await process.says(f"curl -v -x http://127.0.0.1:{port} https://clips.example.org/")
        process.process.send_signal(signal.SIGTERM)
        assert await process.ended() == 0

    assert "block: Clips on work devices [clips-2023] for here" in process.text
    records = setup.records()
    refused, counted, stopped = records[1:]
    assert [record["event"]["action"] for record in records] == [
        "started",
        "tls-handshake-refused",
        "coverage-counted",
        "stopped",
    ]
    assert refused["tokgate"]["ban"] == "clips-2023"
    assert counted["tokgate"]["coverage"]["here"]["sni"] >= 1
    assert stopped["event"]["reason"] == "SIGTERM"
    assert origin.connections == 1
    assert stat.S_IMODE(setup.confdir.stat().st_mode) == 0o700
    assert stat.S_IMODE((setup.confdir / "mitmproxy-ca.pem").stat().st_mode) == 0o600


MODES = {"regular": ("--mode", "regular"), "gate": ("--mode", "gate:explicit@127.0.0.1:0", "--workers", "1")}


@pytest.mark.parametrize("mode", MODES)
async def test_invalid_policy_at_start(setup: Setup, mode: str) -> None:
    """Without a valid policy it doesn't start, and shows every error with its place."""
    setup.policy.write_text(POLICY.replace("[clips]", "[clipz]").replace("[here]", "[there]"))
    async with setup.run(*MODES[mode]) as process:
        assert await process.ended() == 1

    assert process.text.count("policy.yaml:") >= 2
    assert "clients on" not in process.text
    assert "clipz" in process.text
    assert "there" in process.text
    assert "Traceback" not in process.text


async def test_port_in_use(setup: Setup) -> None:
    """A port that is taken ends it with 3 and a line that says so."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with setup.run("--mode", f"regular@127.0.0.1:{port}") as process:
            assert await process.ended() == 3

    assert f"failed to listen on 127.0.0.1:{port}" in process.text
    assert "Traceback" not in process.text


async def test_log_of_another_process(setup: Setup) -> None:
    """Two proxies can't write one log: the second one, of either kind, says so and opens nothing."""
    async with setup.run() as first:
        await first.port()
        for mode in MODES.values():
            async with setup.run(*mode) as second:
                assert await second.ended() == 3
            assert "another process writes this log" in second.text
            assert "Traceback" not in second.text
            assert "clients on" not in second.text


async def test_reload(lab: Lab, setup: Setup) -> None:
    """A changed policy is in force without a restart; a wrong one isn't, and the last good one stays.

    SIGHUP reads the policy again and opens the log anew.
    """
    origin = await lab.sink_origin(b"through")
    async with setup.run() as process:
        port = await process.port()
        assert await answer(port, origin.port, BANNED) != b"through"
        setup.policy.write_text(WITHOUT_BAN)
        await eventually("the new policy is in force", lambda: "policy-loaded" in setup.actions())
        assert await answer(port, origin.port, BANNED) == b"through"
        setup.policy.write_text("bans: [")
        await eventually("the error is logged", lambda: "policy-load-failed" in setup.actions())
        await process.says("has errors")
        assert await answer(port, origin.port, BANNED) == b"through"
        setup.policy.write_text(POLICY)
        await eventually("the old policy is back", lambda: setup.actions().count("policy-loaded") == 2)
        moved = setup.log.rename(setup.folder / "moved.ndjson")
        await eventually("it answers", setup.loaded_at)
        loaded_at = setup.loaded_at()
        process.process.send_signal(signal.SIGHUP)
        await eventually("the log is made anew", setup.log.exists)
        await eventually("the policy was read", lambda: setup.loaded_at() != loaded_at)
        assert await answer(port, origin.port, BANNED) != b"through"
        await eventually("the new file is written", lambda: "tls-handshake-refused" in setup.actions())

    setup.check(moved)


async def test_reload_drops_no_connection(lab: Lab, setup: Setup) -> None:
    """While the policy changes again and again, no allowed connection fails and old ones go on."""
    origin = await lab.sink_origin(b"through")
    async with setup.run() as process:
        port = await process.port()
        async with client(port) as old:
            assert (await old.connect(f"127.0.0.1:{origin.port}")).status == 200
            await old.send(openssl_hello(ALLOWED))
            answers: list[bytes] = []
            for round_ in range(3):
                setup.policy.write_text((WITHOUT_BAN, POLICY)[round_ % 2] + f"# {round_}\n")
                while setup.actions().count("policy-loaded") <= round_:
                    answers += await asyncio.gather(*(answer(port, origin.port, ALLOWED) for _ in range(8)))
            old.writer.write_eof()
            assert await old.to_end() == b"through"

    assert len(answers) > 24
    assert set(answers) == {b"through"}


async def test_drain(lab: Lab, setup: Setup) -> None:
    """SIGTERM takes no new connections, lets open ones finish, and waits for no more; a second one ends them."""
    async with setup.run("--drain", "3600") as process:
        port = await process.port()
        async with relayed(lab, port) as guest, relayed(lab, port):
            process.process.send_signal(signal.SIGTERM)
            await refused(port)
            assert process.process.returncode is None
            guest.writer.write_eof()
            assert await guest.to_end() == b"through"
            assert process.process.returncode is None
            process.process.send_signal(signal.SIGTERM)
            assert await process.ended() == 0

    assert setup.actions()[-1] == "stopped"


@pytest.mark.parametrize("deadline", ["0.1", "3600"])
async def test_drain_ends(lab: Lab, setup: Setup, deadline: str) -> None:
    """The deadline, or the end of the last open connection, is the end."""
    async with setup.run("--drain", deadline) as process:
        port = await process.port()
        async with relayed(lab, port) as guest:
            process.process.send_signal(signal.SIGTERM)
            if deadline == "3600":
                guest.writer.write_eof()
            assert await process.ended() == 0

    assert setup.actions()[-1] == "stopped"


@asynccontextmanager
async def relayed(lab: Lab, port: int) -> AsyncIterator[Client]:
    """A client whose tunnel through the process at `port` has reached its origin."""
    origin = await lab.sink_origin(b"through")
    async with client(port) as guest:
        assert (await guest.connect(f"127.0.0.1:{origin.port}")).status == 200
        await guest.send(openssl_hello(ALLOWED))
        await eventually("it is relayed", lambda: origin.connections == 1)
        yield guest


async def refused(port: int) -> None:
    """Wait until a port takes no connections."""
    async with asyncio.timeout(DEADLINE):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                return
            except ConnectionResetError:  # taken into the queue of a listener that closed
                continue
            writer.transport.abort()
            await asyncio.sleep(0.01)


async def test_plain_mitmdump(lab: Lab, setup: Setup) -> None:
    """As a script of mitmdump the addon refuses and passes the same, whatever options would weaken it."""
    origin = await lab.web_origin(ALLOWED)
    async with setup.mitmdump("--set", "ignore_hosts=.*", "--set", "connection_strategy=eager") as process:
        port = await process.port()
        async with client(port) as guest:
            assert (await guest.connect(f"{BANNED}:443")).status == 451
        assert (await answer(port, origin.port, BANNED)) == bytes.fromhex("15030300020270")
        assert origin.connections == 0
        async with client(port) as guest:
            assert (await guest.connect(f"127.0.0.1:{origin.port}")).status == 200
            await guest.tls(lab.authority.client(), ALLOWED)
            assert (await guest.get(ALLOWED)).body == b"origin"
        await process.says("needs the option ignore_hosts")
        process.process.send_signal(signal.SIGTERM)
        assert await process.ended() == 0

    assert [r["event"]["action"] for r in setup.records()] == [
        "started",
        "connect-refused",
        "tls-handshake-refused",
        "coverage-counted",
        "stopped",
    ]


async def test_mitmdump_with_a_compromised_key(setup: Setup) -> None:
    """Options that sign with a key that is public are refused."""
    async with setup.mitmdump("--set", "emudhra_old=true") as process:
        assert await process.ended() != 0

    assert "compromised" in process.text


async def test_mitmdump_without_a_policy(setup: Setup) -> None:
    """Without a valid policy mitmdump doesn't start either."""
    setup.policy.write_text("bans: [")
    async with setup.mitmdump() as process:
        assert await process.ended() != 0

    assert "policy.yaml:" in process.text


class Served(dict[str, Any]):
    """The connections that mitmproxy serves: none, and whether somebody has looked."""

    looked = False

    def values(self) -> Any:
        """Take note of it."""
        self.looked = True
        return super().values()


async def test_one_that_was_handed_over_and_has_not_had_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """An opener that retires serves it as well: no other has it."""
    instance, served = GateInstance(GateMode.parse("gate"), SimpleNamespace(connections={})), Served()
    turn = asyncio.Event()
    happened: dict[str, None] = {}

    class Client(socket.socket):
        """A client's connection, whose settings are made as serving begins."""

        def setblocking(self, flag: bool) -> None:
            happened.setdefault("served")
            super().setblocking(flag)

    class Servers(list[GateInstance]):
        """What mitmproxy listens with."""

        async def update(self, modes: list[object]) -> None:
            self.clear()

    monkeypatch.setattr(instance, "turns", SimpleNamespace(turn=lambda who: turn.wait()))
    servers: Any = SimpleNamespace(connections=served, servers=Servers([instance]))
    master: Any = SimpleNamespace(shutdown=lambda: happened.setdefault("ended"))
    drain = Drain(master, servers, SimpleNamespace(), 3600.0)  # type: ignore[arg-type]
    with Client() as client:
        arrival = Arrival(client=Endpoint("192.0.2.1", 50_000))
        instance.adopt(Handover(arrival, tls=False, explicit=True, received=b""), client)
        drain.retire()
        while not served.looked:
            await asyncio.sleep(0)
        assert not happened
        turn.set()
        while "ended" not in happened:
            await asyncio.sleep(0)
    assert [*happened] == ["served", "ended"]
