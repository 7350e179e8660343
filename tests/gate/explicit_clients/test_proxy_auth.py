"""Explicit clients who have to say who they are: CONNECT and SOCKS 5 through a gate, and what it tells openers."""

import base64
import json
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from whenever import Instant

from labs.gate_lab import (
    BANNED,
    REFUSED,
    StartGate,
    StartOrigin,
    connect_request,
    dial,
    exactly,
    read_all,
    until,
)
from tokgate.gate.handoff import Handover
from tokgate.policy.membership import Identity
from tokgate.policy.networks import Network
from tokgate.policy.observation import Endpoint
from tokgate.policy.snapshot import Snapshot, compile_policy
from tokgate.runtime.banner import overview
from tokgate.traffic.seen import Arrival


def asks(port: int, said: str, host: str = "localhost") -> bytes:
    """A CONNECT request of a `user:password`."""
    return connect_request(host, port, f"Proxy-Authorization: Basic {base64.b64encode(said.encode()).decode()}")


def test_repeats_are_told_apart_by_who_asks(start_gate: StartGate, asking: Snapshot, tmp_path: Path) -> None:
    """Two users of one address are two events; the same user again is a repeat."""
    (tmp_path / "groups").write_text("press: alice bob\n")
    gate = start_gate(snapshot=asking)
    gate.opener.willing = False
    for user in ("alice", "bob", "alice", "bob"):
        with dial(gate.explicit, socks(f"{user}:secret", "www.clips.example.org", 443)) as client:
            read_all(client)
    assert gate.settled()
    assert [record["user"]["name"] for record in gate.sink.records] == ["alice", "bob"]


def test_openers_are_told_who_asks(start_gate: StartGate, asking: Snapshot) -> None:
    """A refused CONNECT goes to an opener with whom it is from; the hand-over carries all of it."""
    gate = start_gate(snapshot=asking)
    with dial(gate.explicit, asks(443, "alice:secret", "www.clips.example.org")):
        ((_, arrival, received, tls, explicit),) = until(lambda: gate.opener.adopted)
    assert arrival.identity == Identity("alice", frozenset({"press", "staff"}))
    assert received.startswith(b"CONNECT ")
    handed = Handover.decode(Handover(arrival, tls, explicit, received).encode())
    assert handed.arrival == arrival


# -- SOCKS 5 (RFC 1928, RFC 1929) -------------------------------------------------------------------------------------

CHOSEN, ACCEPTED, REJECTED = b"\x05\x02", b"\x01\x00", b"\x01\x01"
SUCCEEDED = b"\x05\x00\x00\x01" + bytes(6)


def socks(said: str, host: str, port: int) -> bytes:
    """All that a client says, without waiting for any answer."""
    user, _, password = said.encode().partition(b":")
    who = b"\x01" + bytes([len(user)]) + user + bytes([len(password)]) + password
    return b"\x05\x02\x00\x02" + who + b"\x05\x01\x00\x03" + bytes([len(host)]) + host.encode() + port.to_bytes(2)


@pytest.mark.parametrize("pieces", [1, 2, 1000])
def test_socks(start_gate: StartGate, start_origin: StartOrigin, asking: Snapshot, pieces: int) -> None:
    """However it comes: the user is known before a destination is, and the tunnel is theirs."""
    gate, origin = start_gate(snapshot=asking), start_origin()
    said = socks("bob:secret", "localhost", origin.address[1])
    size = -(-len(said) // pieces)
    with dial(gate.explicit, *(said[at : at + size] for at in range(0, len(said), size))) as client:
        expected = CHOSEN + ACCEPTED + SUCCEEDED
        assert exactly(client, len(expected)) == expected
        client.sendall(BANNED)
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == BANNED
    with dial(gate.explicit, socks("alice:secret", "localhost", origin.address[1])) as client:
        exactly(client, len(expected))
        client.sendall(BANNED)
        assert read_all(client) == REFUSED
    assert gate.settled()


@pytest.mark.parametrize("stated", [None, [], {"user": "alice", "groups": ["press"], "interface": "eth1"}])
def test_handovers_that_make_no_sense(stated: Any) -> None:
    """Who it is is there whole, or not at all."""
    said = Handover(Arrival(client=Endpoint("192.0.2.1", 1)), True, False, b"x").encode()
    head = json.loads(said.partition(b"\n")[0])
    head[0]["identity"] = stated
    changed = json.dumps(head).encode() + b"\nx"
    if stated == []:
        with pytest.raises(ValueError, match="identity"):
            Handover.decode(changed)
    else:
        identity = Handover.decode(changed).arrival.identity
        assert identity == (stated and Identity("alice", frozenset({"press"}), interface="eth1"))


def test_the_start_says_where_users_sign_in(asking: Snapshot, tmp_path: Path) -> None:
    """And that nobody can, when the file is not there: whoever starts it should not learn that from users."""
    assert f"users of an explicit proxy sign in by {tmp_path / 'htpasswd'}" in list(overview(asking, Instant.now()))
    (tmp_path / "htpasswd").unlink()
    assert any(line.startswith("  nobody can: ") for line in overview(asking, Instant.now()))


def test_the_start_says_whom_networks_name_in_vain(asking: Snapshot) -> None:
    """A group that nobody is in, a user that no file has, an interface that isn't there: none of it is an error."""
    vain = Network("vain", (), users=("eve", "Bob"), groups=("Press", "pres"), interfaces=("lo", "no-such.20"))
    found = list(overview(compile_policy(replace(asking.policy, networks={"vain": vain}, bans={})), Instant.now()))
    at = found.index(f"users of an explicit proxy sign in by {asking.settings.proxy_auth.htpasswd}")  # type: ignore[union-attr]
    assert found[at + 1 :] == [
        "  no such user: eve",
        "  nobody is in the group: pres",
        "no interface is called no-such.20 here: network vain holds nobody by it",
    ]


def test_a_complaint_stands_in_the_journal(
    start_gate: StartGate, asking: Snapshot, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in the block log alone: when nobody gets in, whoever looks at the service has to see why."""
    (tmp_path / "htpasswd").write_text("alice:$apr1$abc$def\n")
    gate = start_gate(snapshot=asking)
    with dial(gate.explicit, asks(443, "alice:secret")) as client:
        assert read_all(client).startswith(b"HTTP/1.1 407 ")
    assert gate.settled()
    assert "users can't sign in: " in caplog.text
    assert "`alice`" in caplog.text
