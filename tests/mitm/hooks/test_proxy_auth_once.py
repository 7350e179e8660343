"""Who has said who they are: not asked again, and not believed because something failed."""

import base64
from pathlib import Path

import bcrypt
import pytest
from mitmproxy.addons.proxyauth import ProxyAuth as StockProxyAuth
from mitmproxy.test import tflow

from labs import builders
from labs.proxy_lab import ALLOWED, Lab, client
from tokgate.accounts.htpasswd import FileAccounts
from tokgate.gate.handoff import Handover
from tokgate.mitm.hooks.proxy_auth import ProxyAuthHooks, ask_in_socks
from tokgate.mitm.layers.raw_sockets import ClientSockets
from tokgate.policy.membership import Identity
from tokgate.policy.observation import Endpoint
from tokgate.policy.settings import ProxyAuth
from tokgate.policy.snapshot import Snapshot
from tokgate.traffic.seen import Arrival

ALICE = {"Proxy_Authorization": f"Basic {base64.b64encode(b'alice:secret').decode()}"}


@pytest.fixture
def asking(tmp_path: Path) -> Snapshot:
    """Everyone has to say who they are."""
    (tmp_path / "htpasswd").write_text(f"alice:{bcrypt.hashpw(b'secret', bcrypt.gensalt(4)).decode()}\n")
    return builders.snapshot(
        builders.ban(),
        networks=(builders.network("office", "127.0.0.0/8"),),
        proxy_auth=ProxyAuth(htpasswd=str(tmp_path / "htpasswd")),
    )


async def test_nobody_is_asked_inside_a_tunnel(lab: Lab, asking: Snapshot) -> None:
    """What is in the tunnel is meant for the destination: its requests carry no password for the proxy."""
    origin = await lab.web_origin(tls=False)
    proxy = await lab.proxy(asking)
    async with client(proxy.port) as guest:
        assert (await guest.connect(f"{ALLOWED}:{origin.port}", **ALICE)).status == 200
        assert (await guest.get(ALLOWED)).status == 200


async def test_a_check_that_fails_lets_nobody_in_by_socks(
    lab: Lab, asking: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug in checking a password isn't a right password, even where stock mitmproxy takes any."""
    proxy = await lab.proxy(asking, mode="socks5", before=(StockProxyAuth(),), proxyauth="any")
    ask_in_socks(proxy.master.options, wanted=True)
    monkeypatch.setattr(FileAccounts, "identify", lambda accounts, credentials: 1 / 0)
    async with client(proxy.port) as guest:
        await guest.send(b"\x05\x01\x02\x01\x05alice\x06secret")
        assert (await guest.to_end()).startswith(b"\x05\x02\x01\x01")
    assert lab.records.actions == ["internal-error"]


async def test_whom_a_gate_has_checked_is_not_checked_again(
    lab: Lab, asking: Snapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connection that a gate hands over comes with who it is: no second check, whose failure would be a 407."""
    proxy = await lab.proxy(asking)
    monkeypatch.setattr(FileAccounts, "identify", lambda accounts, credentials: None)
    flow = tflow.tflow()
    arrival = Arrival(client=Endpoint("127.0.0.1", 50000), identity=Identity("alice"))
    proxy.traffic.connections.begin(flow.client_conn, ClientSockets(None)).take_over(
        Handover(arrival, False, True, b"")
    )
    flow.request.headers["Proxy-Authorization"] = ALICE["Proxy_Authorization"]
    await ProxyAuthHooks(proxy.traffic).http_connect(flow)
    assert flow.response is None
    assert "Proxy-Authorization" not in flow.request.headers
    assert proxy.traffic.connections.of(flow.client_conn).identity == Identity("alice")
