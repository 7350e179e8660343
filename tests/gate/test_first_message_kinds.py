"""What a client's first bytes must not get past the gate, and must not cost it, where names are hidden, cut or late."""

import socket
from functools import partial
from typing import Any

import bcrypt
import pytest

from labs.builders import ban, network, service
from labs.gate_lab import (
    ALLOWED,
    BANNED,
    DEADLINE,
    ESTABLISHED,
    REFUSED,
    Clock,
    RunningGate,
    StartGate,
    StartOrigin,
    connect_request,
    dial,
    exactly,
    policy,
    read_all,
    until,
)
from labs.hello_builder import hello_for
from labs.waiting import readable
from tokgate.evasion.hello import EARLY_DATA, hello, records, supported_versions
from tokgate.policy.decision import Response
from tokgate.policy.networks import Network
from tokgate.policy.schedule import Schedule
from tokgate.policy.settings import MissingSni, ProxyAuth
from tokgate.traffic.limits import Limits

NAMELESS = records(hello(supported_versions(0x0304)))
ELSEWHERE = (network("loop", "127.0.0.0/8", "::1/128"), network("other", "198.51.100.0/24"))


def through(gate: RunningGate, port: int, said: bytes, host: str = "localhost", *fields: str) -> bytes:
    """What comes back of a CONNECT tunnel in which somebody says something and ends."""
    with dial(gate.explicit, connect_request(host, port, *fields)) as client:
        assert exactly(client, len(ESTABLISHED)) == ESTABLISHED
        client.sendall(said)
        client.shutdown(socket.SHUT_WR)
        return read_all(client)


def test_hiding_a_name_is_no_way_past_a_ban_of_one_person(
    start_gate: StartGate, start_origin: StartOrigin, tmp_path: Any
) -> None:
    """Without SNI and by a bare address: refused to Alice, whom the ban names, and carried for Bob."""
    lines = (f"{user}:{bcrypt.hashpw(b'secret', bcrypt.gensalt(4)).decode()}\n" for user in ("alice", "bob"))
    (tmp_path / "htpasswd").write_text("".join(lines))
    held = policy(
        ban(networks=("people",)),
        networks=(network("loop", "127.0.0.0/8"), Network("people", (), users=("alice",))),
        proxy_auth=ProxyAuth(htpasswd=str(tmp_path / "htpasswd")),
        missing_sni=MissingSni.BLOCK,
    )
    gate, port = start_gate(snapshot=held), start_origin().address[1]
    for said, expected in (("YWxpY2U6c2VjcmV0", REFUSED), ("Ym9iOnNlY3JldA==", NAMELESS)):
        who = f"Proxy-Authorization: Basic {said}"
        assert through(gate, port, NAMELESS, "127.0.0.1", who) == expected


def test_a_failure_about_a_hidden_name_is_no_pass(
    start_gate: StartGate, start_origin: StartOrigin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`on_error: block` holds there too: a banned service's address gets no bytes, though it is banned for others."""
    held = partial(
        policy,
        ban("here", networks=("loop",), services=("notes",)),
        ban("there", networks=("other",)),
        services=(
            service("clips", "suffix:clips.example.org", addresses=("127.0.0.1/32",)),
            service("notes", "suffix:notes.example.org"),
        ),
        networks=ELSEWHERE,
        missing_sni=MissingSni.BLOCK,
    )
    gate = start_gate(origin := start_origin(), held())
    with dial(gate.redirected, ALLOWED) as client:
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == ALLOWED
    gate.pause()
    gate.holder.snapshot = held()  # one that has decided nothing yet
    monkeypatch.setattr(Schedule, "state_at", lambda self, at: 1 / 0)
    with dial(gate.redirected, NAMELESS) as client:
        assert gate.serves(lambda: gate.sink.records)
        assert exactly(client, len(REFUSED)) == REFUSED
    assert origin.accepted == 1
    assert gate.sink.records[0]["event"]["action"] == "internal-error"


def test_an_innocent_name_in_a_tunnel_to_a_banned_one(start_gate: StartGate, start_origin: StartOrigin) -> None:
    """A ban that begins between CONNECT and ClientHello holds, whatever name the hello shows."""
    clock = Clock("2023-03-09T22:59:59Z")
    named = {"services": (service("clips", "exact:localhost"),)}
    gate = start_gate(snapshot=policy(ban(networks=("loop",)), **named), now=clock)
    with dial(gate.explicit, connect_request("localhost", start_origin().address[1])) as client:
        assert exactly(client, len(ESTABLISHED)) == ESTABLISHED
        gate.pause()  # nobody looks at live connections between the two
        clock.set("2023-03-10T00:00:00Z")
        client.sendall(ALLOWED)
        assert gate.serves(lambda: gate.sink.records)
        assert exactly(client, len(ALLOWED)) == REFUSED
    assert gate.sink.records[0]["tokgate"]["mismatch"] is True


def test_a_page_is_shown_again(start_gate: StartGate, start_origin: StartOrigin) -> None:
    """A refusal while nobody could show the page keeps no one from the page a moment later."""
    gate = start_gate(start_origin(), policy(ban(networks=("loop",), response=Response.PAGE)))
    gate.opener.willing = False
    with dial(gate.redirected, BANNED) as client:
        assert read_all(client) == REFUSED
    gate.opener.willing = True
    with dial(gate.redirected, BANNED):
        assert until(lambda: gate.opener.adopted)


def test_a_refusal_is_read_by_who_has_said_more(start_gate: StartGate, start_origin: StartOrigin) -> None:
    """The alert tells a browser what happened; a reset for what it sent behind its hello would overtake that."""
    gate = start_gate(start_origin(), limits=Limits(parting=DEADLINE))
    gate.pause()
    with dial(gate.redirected, BANNED + b"\x17\x03\x03" + bytes(200_000)) as client:
        client.shutdown(socket.SHUT_WR)
        assert gate.serves(lambda: not gate.gate.acceptor.open_connections)
        assert read_all(client) == REFUSED


def test_a_refusal_is_read_by_who_is_about_to_say_more(start_gate: StartGate, start_origin: StartOrigin) -> None:
    """A client that announced early data goes on sending it: it isn't broken off while it does."""
    gate = start_gate(start_origin(), limits=Limits(parting=DEADLINE))
    with dial(gate.redirected, hello_for("www.clips.example.org", (EARLY_DATA, b""))) as client:
        assert readable(client, DEADLINE)
        for _ in range(3):
            client.sendall(b"\x17\x03\x03" + bytes(1000))
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == REFUSED
