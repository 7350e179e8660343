"""`tokgate evasion`: an admin learns what gets round the gateway, and isn't told so where nothing was tried."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from evasion.servers import BANNED, Server, Servers, running_servers
from labs.command_line import Command
from labs.gate_lab import DEADLINE, Origin, RunningGate
from labs.parent_proxy import copy

OPTIONS = ("--name", BANNED, "--http-port", "1")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A web server for the banned name and for all others."""
    with running_servers(tmp_path_factory.mktemp("servers")) as servers:
        yield _address(servers)


def _address(servers: Servers) -> str:
    return f"127.0.0.1:{servers.port(Server.PYTHON, tls=True)}"


def carry(client: socket.socket) -> None:
    """Refuse tunnels whose first segment has the banned name in one piece, and carry everything else."""
    host, _, port = client.recv(65536).split()[1].decode().rpartition(":")
    client.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    first = client.recv(65536)
    if BANNED.encode() in first:
        return
    with socket.create_connection((host, int(port)), DEADLINE) as upstream:
        upstream.sendall(first)
        back = threading.Thread(target=copy, args=(upstream, client), daemon=True)
        back.start()
        copy(client, upstream)
        back.join(DEADLINE)


@pytest.fixture
def naive() -> Iterator[str]:
    """An address of a proxy that is easily got round."""
    with closing(Origin(carry)) as proxy:
        yield f"127.0.0.1:{proxy.port}"


def test_what_is_stopped(tokgate: Command, start_gate: Callable[..., RunningGate], server: str) -> None:
    """Through a gate of ours, by CONNECT and by SOCKS, nothing of this family passes: exit code 0."""
    host, port = start_gate().explicit
    ways = ("--via", f"{host}:{port}", "--via", f"socks5://{host}:{port}")
    outcome = tokgate("evasion", *ways, *OPTIONS, "--server", server, "--family", "segments")
    assert outcome.code == 0, outcome.out + outcome.err
    assert outcome.out.endswith("14 stopped, 0 documented, 0 passed\n")
    assert "no plain HTTP at 127.0.0.1:1 by socks" in outcome.err


def test_what_passes(tokgate: Command, naive: str, server: str) -> None:
    """A proxy that looks for the name in one piece is got round by small records: exit code 1, and it says so."""
    chosen = ("--via", naive, *OPTIONS, "--server", server, "--family", "segments")
    outcome = tokgate("evasion", *chosen, "--json")
    assert outcome.code == 1
    told = json.loads(outcome.out)
    passed = {each["attempt"] for each in told["attempts"] if each["verdict"] == "passed"}
    assert "octet-records-in-segments" in passed
    assert "hello-and-more" not in passed
    assert told["passed"] == len(passed)
    assert "hello-and-more" not in tokgate("evasion", *chosen, "--quiet").out


def test_what_is_documented(tokgate: Command, start_gate: Callable[..., RunningGate], server: str) -> None:
    """What the documentation names counts only with --strict, and the answer says where to read on."""
    host, port = start_gate().explicit
    chosen = ("--via", f"{host}:{port}", *OPTIONS, "--server", server, "--family", "hidden-names")
    told = json.loads(tokgate("evasion", *chosen, "--json").out)
    documented = {each["attempt"]: each["documented"] for each in told["attempts"] if each["verdict"] == "documented"}
    assert documented["fronting"] == "docs/cannot-see.md#another-name-inside-tls"
    assert tokgate("evasion", *chosen, "--strict").code == 1


def test_a_name_that_is_not_banned(tokgate: Command, server: str) -> None:
    """Where the name is served plainly the attempts would show nothing: exit code 3, and the reason."""
    outcome = tokgate("evasion", "--via", "route", *OPTIONS, "--server", server)
    assert (outcome.code, outcome.out) == (3, "")
    assert f"{BANNED} is not banned for this client by route" in outcome.err


def test_a_server_that_is_not_reached(tokgate: Command) -> None:
    """Nor do they where nobody answers: a firewall that drops everything is no proof."""
    outcome = tokgate("evasion", "--via", "route", *OPTIONS, "--server", "127.0.0.1:1")
    assert outcome.code == 3
    assert "www.example.org at 127.0.0.1:1 is not reached by route" in outcome.err


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("--via", "route"), id="no name"),
        pytest.param(("--via", "ftp://192.0.2.1:21", *OPTIONS, "--server", "192.0.2.2"), id="scheme"),
        pytest.param(("--via", "192.0.2.1", *OPTIONS, "--server", "192.0.2.2"), id="no port"),
        pytest.param(("--via", "route", *OPTIONS, "--server", "192.0.2.2:0"), id="port 0"),
        pytest.param(("--via", "route", *OPTIONS, "--server", "192.0.2.2", "--family", "x"), id="family"),
    ],
)
def test_usage(tokgate: Command, arguments: tuple[str, ...]) -> None:
    """What makes no sense is exit code 2, before anything is sent."""
    assert tokgate("evasion", *arguments).code == 2


def test_lists(tokgate: Command) -> None:
    """The attempts can be read without making any."""
    listed = json.loads(tokgate("evasion", "--list", "--json").out)
    assert len(listed) >= 300
    assert "other-name" in tokgate("evasion", "--list", "--family", "two-hellos").out
