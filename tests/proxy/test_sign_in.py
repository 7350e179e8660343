"""Users of an explicit proxy in mitmproxy's own modes: who they are is asked, checked, and decides what they may."""

import base64
from pathlib import Path

import bcrypt
import pytest
from mitmproxy.addons.proxyauth import ProxyAuth as StockProxyAuth
from proxy_lab import ALLOWED, BANNED, Client, Lab, ban, client

import builders
from tokgate.policy.bans import ProxyAuth
from tokgate.policy.networks import Network
from tokgate.policy.snapshot import Snapshot
from tokgate.proxy.sign_in import ask_in_socks


def policy(proxy_auth: ProxyAuth | None, network: Network) -> Snapshot:
    """Clips are banned for a network of people, wherever they are."""
    return builders.snapshot(
        ban(networks=("people",)),
        services=(builders.service("clips", "suffix:clips.example.org"),),
        networks=(builders.network("loop", "127.0.0.0/8"), network),
        proxy_auth=proxy_auth,
    )


@pytest.fixture
def asking(tmp_path: Path) -> Snapshot:
    """Clips are banned for the press, which Alice is in and Bob is not; both have to say so."""
    lines = (f"{user}:{bcrypt.hashpw(b'secret', bcrypt.gensalt(4)).decode()}\n" for user in ("alice", "bob"))
    (tmp_path / "htpasswd").write_text("".join(lines))
    (tmp_path / "groups").write_text("press: alice\n")
    stated = ProxyAuth(htpasswd=str(tmp_path / "htpasswd"), groups=str(tmp_path / "groups"))
    return policy(stated, Network("people", (), groups=("press",)))


def basic(user: str, password: str = "secret") -> dict[str, str]:
    """The header that says who asks."""
    said = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Proxy_Authorization": f"Basic {said}"}


async def test_connect(lab: Lab, asking: Snapshot) -> None:
    """Asked without an answer, wrong, then right: on one connection; what is in the tunnel is the user's too."""
    origin = await lab.web_origin(ALLOWED)
    proxy = await lab.proxy(asking)
    async with client(proxy.port) as guest:
        reply = await guest.connect(f"{ALLOWED}:{origin.port}")
        assert (reply.status, reply.headers["proxy-authenticate"]) == (407, 'Basic realm="tokgate", charset="UTF-8"')
        assert (await guest.connect(f"{ALLOWED}:{origin.port}", **basic("alice", "wrong"))).status == 407
        assert (await guest.connect(f"{ALLOWED}:{origin.port}", **basic("alice"))).status == 200
        await guest.tls(lab.authority.client(), ALLOWED)
        assert (await guest.get(ALLOWED)).status == 200
    assert origin.connections == 1
    assert lab.records.all == []
    assert proxy.counters.wrong_passwords == 1


async def test_who_asks_decides(lab: Lab, asking: Snapshot) -> None:
    """Alice is refused and named in the record, Bob at the same address is not."""
    origin = await lab.web_origin()
    proxy = await lab.proxy(asking)
    async with client(proxy.port) as guest:
        assert (await guest.connect(f"{BANNED}:{origin.port}", **basic("alice"))).status == 451
    async with client(proxy.port) as guest:
        assert (await guest.connect(f"{BANNED}:{origin.port}", **basic("bob"))).status == 200
        await guest.tls(lab.authority.client(), BANNED)
        assert (await guest.get(BANNED)).status == 200
    (record,) = lab.records.all
    assert record["user"] == {"name": "alice"}
    assert record["tokgate"]["groups"] == ["press"]
    assert "secret" not in str(record)


async def test_each_request_has_its_own_user(lab: Lab, asking: Snapshot) -> None:
    """Requests outside tunnels are asked one by one, and the password does not go to the destination."""
    origin = await lab.web_origin(tls=False)
    proxy = await lab.proxy(asking)
    host = f"{BANNED}:{origin.port}"
    async with client(proxy.port) as guest:
        for user, status in (("bob", 200), ("alice", 451), ("bob", 200)):
            assert (await _absolute(guest, host, **basic(user))) == status
        assert (await _absolute(guest, host)) == 407
    assert origin.received.count(b"GET ") == 2
    assert b"authorization" not in origin.received.lower()


async def _absolute(guest: Client, host: str, **headers: str) -> int:
    return (await guest.get(host, f"http://{host}/", **headers)).status


async def test_accounts_that_are_away(lab: Lab, asking: Snapshot, tmp_path: Path) -> None:
    """Nobody gets in, and the client is told to come again."""
    (tmp_path / "htpasswd").unlink()
    proxy = await lab.proxy(asking)
    async with client(proxy.port) as guest:
        assert (await guest.connect(f"{ALLOWED}:443", **basic("alice"))).status == 503
    assert lab.records.actions == ["internal-error"]


async def test_what_fails_lets_nobody_in(lab: Lab, asking: Snapshot, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug in signing in is not a way past it."""
    origin = await lab.web_origin()
    proxy = await lab.proxy(asking)
    monkeypatch.setattr("tokgate.proxy.sign_in.read_basic", lambda said: 1 / 0)
    async with client(proxy.port) as guest:
        await guest.send(f"CONNECT {ALLOWED}:{origin.port} HTTP/1.1\r\n\r\n".encode())
        assert b"200" not in await guest.to_end()
    assert origin.connections == 0
    assert lab.records.actions == ["internal-error"]


async def test_transparent_clients_are_asked_nothing(lab: Lab, asking: Snapshot) -> None:
    """They don't know that there is a proxy."""
    origin = await lab.web_origin(tls=False)
    proxy = await lab.proxy(asking, destination=("127.0.0.1", origin.port))
    async with client(proxy.port) as guest:
        assert (await guest.get(BANNED)).status == 200


@pytest.mark.parametrize(("user", "passes"), [("alice", False), ("bob", True)])
async def test_socks(lab: Lab, asking: Snapshot, user: str, passes: bool) -> None:
    """mitmproxy's SOCKS layer asks, we check, and the connection is the user's."""
    origin = await lab.web_origin()
    proxy = await lab.proxy(asking, mode="socks5")
    ask_in_socks(proxy.master.options, wanted=True)
    async with client(proxy.port) as guest:
        await guest.send(b"\x05\x01\x02")
        assert await guest.exactly(2) == b"\x05\x02"
        await guest.send(b"\x01" + bytes([len(user)]) + user.encode() + b"\x06secret")
        assert await guest.exactly(2) == b"\x01\x00"
        await guest.send(b"\x05\x01\x00\x01\x7f\x00\x00\x01" + origin.port.to_bytes(2))
        assert (await guest.exactly(10))[1] == 0
        if passes:
            await guest.tls(lab.authority.client(), BANNED)
            assert (await guest.get(BANNED)).status == 200
        else:
            with pytest.raises(OSError, match="UNRECOGNIZED_NAME"):
                await guest.tls(lab.authority.client(), BANNED)
    assert [record["user"]["name"] for record in lab.records.all] == ([] if passes else ["alice"])


async def test_socks_with_a_wrong_password(lab: Lab, asking: Snapshot) -> None:
    """Rejected before any destination is named; so is a client that won't say who it is."""
    proxy = await lab.proxy(asking, mode="socks5")
    ask_in_socks(proxy.master.options, wanted=True)
    async with client(proxy.port) as guest:
        await guest.send(b"\x05\x01\x02\x01\x05alice\x05wrong")
        assert (await guest.to_end()).startswith(b"\x05\x02\x01\x01")
    async with client(proxy.port) as guest:
        await guest.send(b"\x05\x01\x00")
        assert (await guest.to_end()).startswith(b"\x05\xff")


@pytest.mark.parametrize(("user", "status"), [("alice", 451), ("bob", 200)])
async def test_mitmproxys_own_users(lab: Lab, user: str, status: int) -> None:
    """Where the policy names no accounts, who has proved to stock mitmproxy who they are is taken at its word."""
    origin = await lab.web_origin()
    people = policy(None, Network("people", (), users=("Alice",)))
    proxy = await lab.proxy(people, before=(StockProxyAuth(),), proxyauth="any")
    async with client(proxy.port) as guest:
        assert (await guest.connect(f"{BANNED}:{origin.port}", **basic(user))).status == status


async def test_both_ask(lab: Lab, asking: Snapshot) -> None:
    """Stock mitmproxy that takes any password, as it must for SOCKS, has not the last word."""
    origin = await lab.web_origin()
    proxy = await lab.proxy(asking, before=(StockProxyAuth(),), proxyauth="any")
    async with client(proxy.port) as guest:
        assert (await guest.connect(f"{BANNED}:{origin.port}", **basic("bob", "wrong"))).status == 407
        assert (await guest.connect(f"{BANNED}:{origin.port}", **basic("alice"))).status == 451
        assert (await guest.connect(f"{BANNED}:{origin.port}", **basic("bob"))).status == 200
