"""The hooks of connections: loops are recognised, links tell clients apart, and nothing is kept of what passes."""

import pytest
from mitmproxy.addons import proxyserver
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import context as proxy_context
from mitmproxy.proxy import layer
from mitmproxy.proxy.layers.modes import TransparentProxy
from mitmproxy.proxy.server_hooks import ServerConnectionHookData
from mitmproxy.test import tflow

from labs import builders
from labs.addon_context import addon_context
from labs.proxy_lab import BANNED, Lab, ban, client, policy
from labs.records import Records, enforcer_of
from tokgate.mitm.hooks.connection import ConnectionHooks, ServerHooks
from tokgate.mitm.hooks.http import HttpHooks
from tokgate.mitm.hooks.traffic import Traffic
from tokgate.mitm.layers.first_bytes import FirstBytesLayer
from tokgate.mitm.layers.relay import RefusalLayer
from tokgate.policy.networks import Network


def traffic(records: Records) -> Traffic:
    """What hooks share, with a policy."""
    shared = Traffic()
    shared.enforcer = enforcer_of(policy(), records)
    return shared


def asked(peer: tuple[str, int], local: tuple[str, int]) -> layer.NextLayer:
    """mitmproxy's question for the first layer of a redirected client."""
    client = tflow.tclient_conn()
    client.peername, client.sockname = peer, local
    with addon_context(proxyserver.Proxyserver()) as tctx:
        made = proxy_context.Context(client, tctx.options)
    made.server.address = ("198.51.100.1", 443)
    TransparentProxy(made)
    return layer.NextLayer(made)


@pytest.mark.parametrize(
    ("local", "expected"), [(("198.51.100.1", 443), RefusalLayer), (("198.51.100.2", 443), FirstBytesLayer)]
)
async def test_loops_are_known_by_both_ends(records: Records, local: tuple[str, int], expected: type) -> None:
    """Only a connection with both ends of one of ours is ours: a port alone can serve a client too."""
    shared, server = traffic(records), tflow.tserver_conn()
    hooks, servers = ConnectionHooks(shared), ServerHooks(shared)
    server.sockname, server.peername = ("192.0.2.1", 40000), ("198.51.100.1", 443)
    server.state = ConnectionState.OPEN
    servers.server_connected(ServerConnectionHookData(server, tflow.tclient_conn()))

    question = asked(("192.0.2.1", 40000), local)
    hooks.next_layer(question)
    assert isinstance(question.layer, expected)

    servers.server_disconnected(ServerConnectionHookData(server, tflow.tclient_conn()))
    question = asked(("192.0.2.1", 40000), local)
    hooks.next_layer(question)
    assert isinstance(question.layer, FirstBytesLayer)


async def test_other_addons_come_first(records: Records) -> None:
    """A layer or an answer that another addon has set stays."""
    shared = traffic(records)
    question = asked(("192.0.2.1", 40000), ("198.51.100.1", 443))
    question.layer = other = RefusalLayer(question.context, b"")
    ConnectionHooks(shared).next_layer(question)
    flow = tflow.tflow(resp=True)
    answer = flow.response
    HttpHooks(shared).requestheaders(flow)
    HttpHooks(shared).http_connect(flow)

    assert question.layer is other
    assert flow.response is answer
    assert not records.all


def test_messages_of_an_upgraded_connection_are_not_kept() -> None:
    """Nor does any other protocol that a request was upgraded to."""
    flow = tflow.ttcpflow()
    assert len(flow.messages) > 1
    ConnectionHooks(Traffic()).tcp_message(flow)
    assert len(flow.messages) == 1


@pytest.mark.parametrize(("interface", "status"), [("lo", 451), ("eth9", 200)])
async def test_a_ban_by_interface(lab: Lab, interface: str, status: int) -> None:
    """Whoever comes by the guests' interface is refused, though no network names their address."""
    held = builders.snapshot(
        ban(networks=("guests",)),
        services=(builders.service("clips", "suffix:clips.example.org"),),
        networks=(builders.network("office", "127.0.0.0/8"), Network("guests", (), interfaces=(interface,))),
    )
    origin = await lab.web_origin()
    proxy = await lab.proxy(held)
    async with client(proxy.port) as guest:
        assert (await guest.connect(f"{BANNED}:{origin.port}")).status == status
