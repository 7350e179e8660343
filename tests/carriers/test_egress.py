"""Where a name that an explicit client gives leads: banned addresses behind it, and the proxy's own machine."""

from dataclasses import replace

import pytest

from labs.carriers import ALERT, EXPLICIT, OPENING, Kind, Lab, Way
from labs.gate_lab import until
from labs.hello_builder import hello_for
from labs.proxy_lab import ALLOWED, BANNED_ADDRESS, ban, policy
from labs.raw_client import RawClient
from tokgate.policy.snapshot import Snapshot, compile_policy

HELLO = hello_for(ALLOWED)
OWN = "own.example.net"
"""A client's own name for something."""


def refused(client: RawClient, way: Way, host: str, port: int) -> bool:
    """Whether a destination is refused when it is asked for, or at the ClientHello."""
    if way is Way.CONNECT:
        return client.connect(host, port).status in (403, 451)
    reply = client.socks(host, port)
    return reply == 2 or client.answer(HELLO) in (ALERT, b"")


@EXPLICIT
def test_a_name_for_a_banned_address(lab: Lab, way: Way) -> None:
    """It is answered as a banned name is, with name and address in the record; another name passes."""
    origin = lab.origin()
    lab.start()
    lab.names[OWN] = (BANNED_ADDRESS,)
    with lab.dial(way) as client:
        assert refused(client, way, OWN, origin.port)
    assert origin.accepted == 0
    (record,) = lab.records.all
    assert record["event"]["type"][-1] == "denied"
    assert (record["tokgate"]["signal"], record["destination"]["ip"]) == ("address", BANNED_ADDRESS)
    assert record["tokgate"]["names"]["http-host"] == [OWN]
    assert lab.heard(way, origin.port, HELLO, at=ALLOWED) == HELLO


@EXPLICIT
def test_the_allowed_one_of_several_addresses(lab: Lab, way: Way) -> None:
    """Of a name's addresses the banned ones are passed over."""
    origin = lab.origin()
    lab.start()
    lab.names[OWN] = (BANNED_ADDRESS, "127.0.0.1")
    assert lab.heard(way, origin.port, HELLO, at=OWN) == HELLO
    assert lab.records.all == []


@EXPLICIT
def test_a_watched_address_is_recorded(lab: Lab, way: Way) -> None:
    """A ban that monitors lets the tunnel pass, and records it once, with the address."""
    origin = lab.origin()
    lab.start(policy(ban(action="monitor")))
    lab.names[OWN] = (BANNED_ADDRESS,)
    assert lab.heard(way, origin.port, HELLO, at=OWN) == HELLO
    (record,) = lab.records.all
    assert (record["event"]["action"], record["destination"]["ip"]) == ("would-block", BANNED_ADDRESS)
    assert record["tokgate"]["names"]["http-host"] == [OWN]


def without_addresses() -> Snapshot:
    """The policy before the service's address was known."""
    stated = policy().policy
    clips = replace(stated.services["clips"], addresses=())
    return compile_policy(replace(stated, services={"clips": clips}))


@EXPLICIT
@pytest.mark.parametrize("said", [b"", HELLO], ids=["silent", "hello"])
def test_an_address_that_becomes_banned(lab: Lab, way: Way, said: bytes) -> None:
    """An open tunnel by name ends when the address that it has reached comes under a ban."""
    if not said and lab.kind is Kind.MITMPROXY:
        said = b"\x00"  # it connects when there is something to send
    origin = lab.origin()
    carrier = lab.start(without_addresses())
    lab.names[OWN] = (BANNED_ADDRESS,)
    with lab.reach(way, origin.port, OWN) as client:
        assert until(lambda: not said or client.echoes(said))
        carrier.holder.snapshot = policy()
        assert client.is_reset()
    (record,) = until(lambda: list(lab.records.all))
    assert (record["event"]["action"], record["tokgate"]["signal"]) == ("connection-cut", "address")


OWN_ADDRESS = "198.51.100.200"
"""An address of the gateway's besides loopback, for `test_the_gateway_itself`."""


@EXPLICIT
@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "169.254.169.254", OWN_ADDRESS, ALLOWED, "[::1]"])
def test_the_gateway_itself(lab: Lab, way: Way, host: str) -> None:
    """Clients from elsewhere reach nothing on the gateway's loopback, links and other addresses, by address or name."""
    if way is Way.SOCKS:
        host = host.strip("[]")
    origin = lab.origin()
    carrier = lab.start()
    lab.clients_are_elsewhere()
    for place in ("gate.connecting", "mitm.hooks.explicit_targets"):
        lab.patch.setattr(f"tokgate.{place}.is_here", {OWN_ADDRESS}.__contains__)
    with lab.dial(way) as client:
        if way is Way.CONNECT:
            reply = client.connect(host, origin.port)
            assert reply.status == 403
            assert b"what only the proxy's own machine can reach" in reply.body
        else:
            assert refused(client, way, host, origin.port)
    assert (origin.accepted, carrier.counters.loops, lab.records.all) == (0, 1, [])


@OPENING
def test_not_even_a_certificate_of_the_gateways_own(lab: Lab) -> None:
    """Under `check-certificate` a nameless tunnel there asks nobody for a certificate."""
    origin = lab.origin()
    lab.start(policy(missing_sni="check-certificate"))
    lab.clients_are_elsewhere()
    with lab.dial(Way.SOCKS) as client:
        assert refused(client, Way.SOCKS, "127.0.0.1", origin.port)
    assert origin.accepted == 0


@OPENING
def test_a_page_for_a_banned_address(lab: Lab) -> None:
    """Under a ban with a page the tunnel is opened and the page shown, as to redirected clients."""
    origin = lab.web()
    lab.start(policy(ban(response="page")))
    lab.names[OWN] = (BANNED_ADDRESS,)
    with lab.tls(lab.trusting(), OWN, Way.CONNECT, origin.port, OWN) as client:
        assert client.get(OWN).status == 451
    assert origin.accepted == 0
    assert lab.records.actions == ["tls-opened", "http-request-blocked"]


@OPENING
def test_requests_in_absolute_form(lab: Lab) -> None:
    """Each is judged by where its own name leads; an allowed address is taken, and the request keeps its name."""
    origin = lab.web(tls=False)
    lab.start()
    lab.names |= {OWN: (BANNED_ADDRESS,), "cdn.example.net": (BANNED_ADDRESS, "127.0.0.1")}
    with lab.dial(Way.CONNECT) as client:
        names = (OWN, "cdn.example.net", ALLOWED)
        got = [client.get(f"{name}:{origin.port}", f"http://{name}:{origin.port}/").status for name in names]
    assert got == [451, 200, 200]
    assert all(f"Host: {name}:".encode() in head for name, head in zip(names[1:], origin.heads, strict=True))
    assert lab.records.all[0]["destination"]["ip"] == BANNED_ADDRESS


@OPENING
def test_the_gateway_itself_in_absolute_form(lab: Lab) -> None:
    origin = lab.web(tls=False)
    lab.start()
    lab.clients_are_elsewhere()
    for host in ("127.0.0.1", "[::1]", "169.254.169.254", ALLOWED):
        with lab.dial(Way.CONNECT) as client:
            reply = client.get(f"{host}:{origin.port}", f"http://{host}:{origin.port}/")
        assert (reply.status, b"what only the proxy's own machine can reach" in reply.body) == (403, True)
    assert origin.accepted == 0
