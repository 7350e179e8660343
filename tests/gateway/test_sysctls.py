"""Early demultiplexing: off where TPROXY brings clients to gates, and no obstacle where it can't be changed."""

import json
import socket
from pathlib import Path

import pytest
from whenever import Instant

from labs.builders import ban, network, snapshot
from labs.netns import Namespace
from labs.ruleset_lab import CLIENT, ORIGIN, PORT, Lab
from labs.waiting import until
from tokgate.gateway import checks, sysctls
from tokgate.gateway.kernel import Kernel
from tokgate.gateway.ruleset import Redirect, Ruleset, TableOptions, Tproxy, ruleset_of
from tokgate.gateway.sysctls import EARLY_DEMUX

SEEN_BY_ALL = ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")


def rules(options: TableOptions, *clients: str) -> Ruleset:
    """A ban for clients."""
    return ruleset_of(snapshot(ban(), networks=(network("office", *clients),)), Instant.from_utc(2023, 6, 1), options)


def connected(lab: Lab, version: int, patience: float) -> socket.socket:
    """A connection to the origin from a chosen port."""
    return lab.client.connect(ORIGIN[version], 443, patience, source=(CLIENT[version], 40001))


@pytest.mark.parametrize("version", [4, 6])
def test_a_port_that_a_gate_has_served(lab: Lab, tmp_path: Path, version: int) -> None:
    """Once its network is under no ban a client's port reaches the server at once; with early demultiplexing not."""
    kernel = Kernel(TableOptions(forwarded=Tproxy(PORT)), tmp_path / "gateway.json")
    lab.gateway.inside(lambda: kernel.up(rules(kernel.options, CLIENT[version])))
    with lab.gateway.listen(version, PORT) as gate, connected(lab, version, 20) as client:
        gate.accept()[0].close()  # first, and so it keeps the ports in TIME_WAIT
        assert client.recv(1) == b""
    until("the gate's end is in TIME_WAIT", lambda: ":40001" in lab.gateway.output("ss", "-Htn", "state", "time-wait"))
    lab.gateway.inside(lambda: kernel.load(rules(kernel.options, "198.51.100.9")))
    with lab.origin.listen(version, 443):
        lab.gateway.sysctl(f"{EARLY_DEMUX}=1")
        with pytest.raises(TimeoutError):
            connected(lab, version, 1)
        lab.gateway.inside(lambda: kernel.repair(rules(kernel.options, "198.51.100.9")))
        connected(lab, version, 20).close()


def test_redirection_leaves_it(namespace: Namespace, tmp_path: Path) -> None:
    """The gateway's own address is not the server's: there it does no harm."""
    kernel = Kernel(TableOptions(forwarded=Redirect()), tmp_path / "gateway.json")
    assert EARLY_DEMUX not in namespace.inside(lambda: kernel.up(rules(kernel.options, "192.0.2.0/24")))
    assert (namespace.inside(lambda: sysctls.read(EARLY_DEMUX)), kernel.limits) == ("1", ())


def test_where_it_is_right_already(namespace: Namespace, tmp_path: Path) -> None:
    """What the admin has switched off stays so after tokgate's end."""
    namespace.sysctl(f"{EARLY_DEMUX}=0")
    kernel = Kernel(TableOptions(), tmp_path / "gateway.json")
    assert EARLY_DEMUX not in namespace.inside(lambda: kernel.up(rules(kernel.options, "192.0.2.0/24")))
    assert EARLY_DEMUX not in namespace.inside(kernel.down)
    assert namespace.inside(lambda: sysctls.read(EARLY_DEMUX)) == "0"


@pytest.mark.parametrize("name", [EARLY_DEMUX, "net.ipv4.none_such"])
def test_where_it_can_not_be_changed(
    namespace: Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A container sees /proc/sys but may not write there, or not all of it: all else is loaded, and it is told."""
    monkeypatch.setattr(sysctls, "EARLY_DEMUX", name)
    monkeypatch.setattr(sysctls, "writable", lambda _: False)
    namespace.sysctl(*(f"{each}=1" for each in SEEN_BY_ALL))
    kernel = Kernel(TableOptions(), tmp_path / "gateway.json")
    wanted = rules(kernel.options, "192.0.2.0/24")
    assert namespace.inside(lambda: checks.problems(wanted)) == []
    assert namespace.inside(lambda: kernel.up(wanted)) == {}
    (limit,) = namespace.inside(lambda: kernel.limits)
    assert limit.startswith(f"{name} {'is 1' if name == EARLY_DEMUX else 'can not be read here'}, ")
    assert limit.endswith(f": sysctl -w {name}=0 on the machine")
    loaded = namespace.inside(lambda: kernel.wanted(wanted))
    assert namespace.inside(lambda: kernel.differences(loaded)).settings == ()
    namespace.sysctl(f"{EARLY_DEMUX}=0")  # as told
    assert namespace.inside(lambda: kernel.limits) == (() if name == EARLY_DEMUX else (limit,))
    assert namespace.inside(kernel.down) == {}
    assert namespace.inside(lambda: sysctls.read(EARLY_DEMUX)) == "0"


def test_settings_of_an_earlier_start(namespace: Namespace, tmp_path: Path) -> None:
    """What a machine had before its power went is no setting of now: who set it since keeps it."""
    kernel = Kernel(TableOptions(), tmp_path / "gateway.json")
    namespace.inside(lambda: kernel.up(rules(kernel.options, "192.0.2.0/24")))
    kept = json.loads(kernel.state.read_text())
    kernel.state.write_text(json.dumps(kept | {"holds_for": ["another start", kept["holds_for"][1]]}))
    assert namespace.inside(kernel.down) == {}
    assert namespace.inside(lambda: sysctls.read("net.ipv4.ip_forward")) == "1"
