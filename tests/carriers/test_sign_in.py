"""Users of an explicit proxy prove who they are, by CONNECT, SOCKS 5 or request, and that decides what they may."""

import base64
from dataclasses import replace
from pathlib import Path

import pytest

from labs.carriers import ALERT, EXPLICIT, OPENING, Lab, Way
from labs.gate_lab import until
from labs.hello_builder import hello_for
from labs.proxy_lab import ALLOWED, BANNED
from labs.raw_client import RawClient, Reply
from labs.sign_in import entry
from tokgate.policy.snapshot import Snapshot, compile_policy

HELLO = hello_for(BANNED)


def basic(said: str | None) -> dict[str, str]:
    """The header that says who asks, by `user:password`."""
    return {} if said is None else {"Proxy_Authorization": f"Basic {base64.b64encode(said.encode()).decode()}"}


def asks(client: RawClient, way: Way, who: str, host: str, port: int) -> bool:
    if way is Way.CONNECT:
        return client.connect(host, port, **basic(who)).status == 200
    user, _, password = who.partition(":")
    return client.socks(host, port, user, password) == 0


@pytest.mark.parametrize("said", [None, "alice:wrong", "eve:secret", "alice", ":secret"])
def test_nobody_passes_without_a_right_password(lab: Lab, asking: Snapshot, said: str | None) -> None:
    """They are asked for it, and no destination hears of them."""
    origin = lab.origin()
    carrier = lab.start(asking)
    with lab.dial(Way.CONNECT) as client:
        reply = client.connect(ALLOWED, origin.port, **basic(said))
    assert reply.status == 407
    assert reply.headers["proxy-authenticate"] == 'Basic realm="tokgate", charset="UTF-8"'
    assert (origin.accepted, lab.records.all) == (0, [])
    assert carrier.counters.wrong_passwords == (said in ("alice:wrong", "eve:secret"))


@pytest.mark.parametrize("who", ["", "bob:wrong", "eve:secret"])
def test_nobody_passes_by_socks(lab: Lab, asking: Snapshot, who: str) -> None:
    """A wrong password, or a client that won't say who it is, is rejected before any destination is named."""
    lab.start(asking)
    with lab.dial(Way.SOCKS) as client:
        user, _, password = who.partition(":")
        assert client.socks(ALLOWED, 443, user, password) == 255


@EXPLICIT
def test_who_asks_decides(lab: Lab, way: Way, asking: Snapshot) -> None:
    """The same bytes from the same address: refused to Alice, who is in the record, and carried for Bob."""
    origin = lab.origin()
    lab.start(asking)
    for who, expected in (("alice:secret", ALERT), ("bob:secret", HELLO), ("alice:secret", ALERT)):
        with lab.dial(way) as client:
            assert asks(client, way, who, "127.0.0.1", origin.port)
            assert client.answer(HELLO) == expected
    assert origin.accepted == 1
    (record,) = lab.records.all
    assert (record["user"], record["related"]["user"]) == ({"name": "alice"}, ["alice"])
    assert (record["tokgate"]["network"], record["tokgate"]["groups"]) == ("press", ["press"])
    assert "secret" not in str(record)


@EXPLICIT
def test_a_banned_tunnel_is_refused_to_whom_the_ban_names(lab: Lab, way: Way, asking: Snapshot) -> None:
    """And granted to others; two users of one address are two events, the same user again is a repeat."""
    origin = lab.origin()
    lab.start(asking)
    for who in ("alice:secret", "bob:secret", "alice:secret"):
        with lab.dial(way) as client:
            granted = asks(client, way, who, BANNED, origin.port)
            assert (granted and client.answer(HELLO) == HELLO) == who.startswith("bob")
    assert origin.accepted == 1
    assert {record["user"]["name"] for record in lab.records.all} == {"alice"}


@EXPLICIT
def test_a_ban_that_begins_cuts_whom_it_names(lab: Lab, way: Way, asking: Snapshot) -> None:
    """Live connections are judged again by who asked for them."""
    origin = lab.origin()
    carrier = lab.start(compile_policy(replace(asking.policy, bans={})))
    with lab.dial(way) as alice, lab.dial(way) as bob:
        for client, who in ((alice, "alice:secret"), (bob, "bob:secret")):
            assert asks(client, way, who, ALLOWED, origin.port)
            assert client.echoes(HELLO)
        carrier.holder.snapshot = asking
        assert alice.is_reset()
        assert bob.echoes(b"more")
    (record,) = until(lambda: list(lab.records.all))
    assert (record["event"]["action"], record["user"]["name"]) == ("connection-cut", "alice")


def test_accounts_change_while_it_runs(lab: Lab, asking: Snapshot, tmp_path: Path) -> None:
    """A user who is put into the file can sign in a moment later, without a reload; one who is taken out can't."""
    lab.start(asking)

    def granted(who: str) -> bool:
        with lab.dial(Way.CONNECT) as client:
            return asks(client, Way.CONNECT, who, "127.0.0.1", 443)

    assert granted("bob:secret")
    assert not granted("carol:fresh")
    (tmp_path / "htpasswd").write_text(entry("alice") + entry("carol", "fresh"))
    assert until(lambda: granted("carol:fresh"))
    assert until(lambda: not granted("bob:secret"))


def test_accounts_that_are_away(lab: Lab, asking: Snapshot, tmp_path: Path) -> None:
    """A file that is gone is not the client's mistake: they are told to come again, and the log says why."""
    (tmp_path / "htpasswd").unlink()
    lab.start(asking)
    for _ in range(2):
        with lab.dial(Way.CONNECT) as client:
            assert client.connect(ALLOWED, 443, **basic("alice:secret")).status == 503
    (record,) = lab.records.all
    assert (record["event"]["action"], record["tokgate"]["where"]) == ("internal-error", "proxy-auth")
    assert "secret" not in str(record)


def test_redirected_clients_are_asked_nothing(lab: Lab, asking: Snapshot) -> None:
    """They don't know that there is a proxy: they have no user, and the networks that name users don't hold them."""
    origin = lab.origin()
    lab.start(asking)
    assert lab.heard(Way.REDIRECTED, origin.port, HELLO) == HELLO


@OPENING
def test_each_request_has_its_own_user(lab: Lab, asking: Snapshot) -> None:
    """Requests outside tunnels are asked one by one, and the password does not go to the destination."""
    origin = lab.web(tls=False)
    lab.start(asking)
    host = f"{BANNED}:{origin.port}"

    def ask(client: RawClient, who: str | None) -> Reply:
        return client.get(host, f"http://{host}/", **basic(who))

    with lab.dial(Way.CONNECT) as client:
        got = [ask(client, who).status for who in ("bob:secret", "alice:secret", "bob:secret", None)]
    assert got == [200, 451, 200, 407]
    assert len(origin.heads) == 2
    assert b"authorization" not in b"".join(origin.heads).lower()
