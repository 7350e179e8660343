"""Early demultiplexing: off where TPROXY brings clients to gates, and no obstacle where it can't be changed."""

import json
import socket
from pathlib import Path

import pytest

from labs.ruleset_lab import CLIENT, ORIGIN, PORT, Host, Lab
from labs.waiting import until
from tokgate.gateway import checks, sysctls
from tokgate.gateway.ruleset import Redirect, TableOptions, Tproxy
from tokgate.gateway.sysctls import EARLY_DEMUX


def connected(lab: Lab, version: int, patience: float) -> socket.socket:
    """A connection to the origin from a chosen port."""
    return lab.client.connect(ORIGIN[version], 443, patience, source=(CLIENT[version], 40001))


@pytest.mark.parametrize("version", [4, 6])
def test_a_port_that_a_gate_has_served(lab: Lab, tmp_path: Path, version: int) -> None:
    """Once its network is under no ban a client's port reaches the server at once; with early demultiplexing not."""
    host = Host(lab.gateway, tmp_path, TableOptions(forwarded=Tproxy(PORT)))
    host.up(host.rules(CLIENT[version]))
    with lab.gateway.listen(version, PORT) as gate, connected(lab, version, 20) as client:
        gate.accept()[0].close()  # first, and so it keeps the ports in TIME_WAIT
        assert client.recv(1) == b""
    until("the gate's end is in TIME_WAIT", lambda: ":40001" in lab.gateway.output("ss", "-Htn", "state", "time-wait"))
    host.load(host.rules("198.51.100.9"))
    with lab.origin.listen(version, 443):
        lab.gateway.sysctl(f"{EARLY_DEMUX}=1")
        with pytest.raises(TimeoutError):
            connected(lab, version, 1)
        host.repair(host.rules("198.51.100.9"))
        connected(lab, version, 20).close()


def early_demux(host: Host) -> str | None:
    """The setting of now."""
    return host.namespace.inside(lambda: sysctls.read(EARLY_DEMUX))


def test_redirection_leaves_it(host: Host) -> None:
    """The gateway's own address is not the server's: there it does no harm."""
    host = Host(host.namespace, host.folder, TableOptions(forwarded=Redirect()))
    assert EARLY_DEMUX not in host.up()
    assert (early_demux(host), host.kernel.limits) == ("1", ())


def test_where_it_is_right_already(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the admin has switched off stays so after tokgate's end, and is no limit where it can't be changed."""
    host.namespace.sysctl(f"{EARLY_DEMUX}=0")
    assert EARLY_DEMUX not in host.up()
    assert EARLY_DEMUX not in host.down()
    assert early_demux(host) == "0"
    monkeypatch.setattr(sysctls, "writable", lambda _: False)
    assert host.namespace.inside(lambda: host.kernel.limits) == ()


def test_where_it_can_not_be_read(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container may not see all of /proc/sys: all else is loaded, and it is told, with what helps."""
    name = "net.ipv4.none_such"
    monkeypatch.setattr(sysctls, "EARLY_DEMUX", name)
    monkeypatch.setattr(sysctls, "writable", lambda _: False)
    host.namespace.sysctl("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    assert host.namespace.inside(lambda: checks.problems(host.rules())) == []
    assert host.up() == {}
    (limit,) = host.namespace.inside(lambda: host.kernel.limits)
    assert limit.startswith(f"{name} can not be read here, ")
    assert limit.endswith(f": sysctl -w {name}=0 on the machine")
    assert host.differences().settings == ()
    assert host.down() == {}


def test_settings_of_an_earlier_start(host: Host) -> None:
    """What a machine had before its power went is no setting of now: who set it since keeps it."""
    host.up()
    kept = json.loads(host.kernel.state.read_text())
    host.kernel.state.write_text(json.dumps(kept | {"holds_for": ["another start", kept["holds_for"][1]]}))
    assert host.down() == {}
    assert host.namespace.inside(lambda: sysctls.read("net.ipv4.ip_forward")) == "1"
