"""The addon's own affairs: options it requires, health, upkeep; and hooks in isolation."""

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mitmproxy import exceptions
from mitmproxy.addons import proxyserver, tlsconfig
from mitmproxy.connection import ConnectionState
from mitmproxy.proxy import context as proxy_context
from mitmproxy.proxy import layer
from mitmproxy.proxy.layers.modes import TransparentProxy
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.proxy.server_hooks import ServerConnectionHookData
from mitmproxy.test import taddons, tflow
from proxy_lab import NOW, Holder, Records, policy

from tokgate.blocklog.stamp import Observer
from tokgate.gate.enforcer import Enforcer
from tokgate.gate.phases import passed
from tokgate.proxy.addon import PolicyRefused, Tokgate
from tokgate.proxy.announcement import announcement
from tokgate.proxy.guard import Guard
from tokgate.proxy.relay import Refusal
from tokgate.proxy.traffic import Traffic

POLICY = """\
version: 1
services: {clips: {title: Clips, names: {suffix: [clips.example.org]}}}
networks: {here: {cidrs: [127.0.0.0/8], timezone: Europe/Brussels}}
bans: {clips-2023: {title: Clips, services: [clips], networks: [here], starts: 2023-03-10T00:00, duration: P6M}}
"""


@pytest.fixture
def addon(tmp_path: Path) -> Iterator[tuple[Tokgate, Any]]:
    """The addon in a master of mitmproxy's test tools, beside the addons whose options it sets."""
    tokgate = Tokgate(now=lambda: NOW)
    (tmp_path / "policy.yaml").write_text(POLICY)
    with taddons.context(proxyserver.Proxyserver(), tlsconfig.TlsConfig(), tokgate) as context:
        yield tokgate, context
        tokgate.done()


def opened(context: Any, tokgate: Tokgate, folder: Path) -> None:
    """Give the addon its policy and log."""
    context.configure(tokgate, tokgate_policies=str(folder / "policy.yaml"), tokgate_log=str(folder / "block.ndjson"))


async def test_options(addon: tuple[Tokgate, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What a filter needs is set; where someone had said otherwise, with a warning."""
    tokgate, context = addon
    context.options.update(ignore_hosts=["example"])

    opened(context, tokgate, tmp_path)

    assert context.options.connection_strategy == "lazy"
    assert context.options.ignore_hosts == []
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert any("ignore_hosts" in message for message in warned)
    assert not any("connection_strategy" in message for message in warned)
    context.options.update(validate_inbound_headers=False)
    assert context.options.validate_inbound_headers is True


async def test_compromised_keys(addon: tuple[Tokgate, Any], tmp_path: Path) -> None:
    """An option that signs with a public key is refused at any time."""
    tokgate, context = addon
    opened(context, tokgate, tmp_path)

    with pytest.raises(exceptions.OptionsError, match="compromised"):
        context.options.update(emudhra=True)
    assert context.options.emudhra is False


async def test_no_second_policy(addon: tuple[Tokgate, Any], tmp_path: Path) -> None:
    """Policy and log stay what they were at the start."""
    tokgate, context = addon
    opened(context, tokgate, tmp_path)

    with pytest.raises(exceptions.OptionsError, match="can't change"):
        context.options.update(tokgate_policies="elsewhere")
    assert tokgate.holder is not None


async def test_invalid_policy(addon: tuple[Tokgate, Any], tmp_path: Path) -> None:
    """An invalid policy is refused with its diagnostics, and no client gets through."""
    tokgate, context = addon
    (tmp_path / "policy.yaml").write_text("bans: {a: {}}")

    with pytest.raises(PolicyRefused, match=r"policy\.yaml:1"):
        opened(context, tokgate, tmp_path)

    client = tflow.tclient_conn()
    client.error = None
    tokgate.traffic.client_connected(client)
    assert client.error


async def test_health(addon: tuple[Tokgate, Any], tmp_path: Path) -> None:
    """Health tells of the policy, the log and the errors."""
    tokgate, context = addon
    opened(context, tokgate, tmp_path)

    assert tokgate.health().ok
    assert tokgate.health().policy_error is None
    tokgate.counters.errors["decide"] += 1
    assert not tokgate.health().ok


async def test_upkeep_that_fails(addon: tuple[Tokgate, Any], tmp_path: Path) -> None:
    """A background task that fails is counted, and the rest goes on."""
    tokgate, context = addon
    opened(context, tokgate, tmp_path)

    async def broken() -> None:
        raise RuntimeError("broken on purpose")

    tokgate._keep(broken())
    while not tokgate.counters.errors:
        await asyncio.sleep(0)
    assert tokgate.counters.errors == {"upkeep": 1}


def traffic(records: Records) -> Traffic:
    """The hooks alone."""
    hooks = Traffic()
    hooks.enforcer = Enforcer(Holder(policy()), records, Observer(hostname="gateway.example.org", version="0"))
    return hooks


def asked(peer: tuple[str, int], local: tuple[str, int]) -> layer.NextLayer:
    """mitmproxy's question for the first layer of a redirected client."""
    client = tflow.tclient_conn()
    client.peername, client.sockname = peer, local
    with taddons.context(proxyserver.Proxyserver()) as tctx:
        made = proxy_context.Context(client, tctx.options)
    made.server.address = ("198.51.100.1", 443)
    TransparentProxy(made)
    return layer.NextLayer(made)


@pytest.mark.parametrize(("local", "expected"), [(("198.51.100.1", 443), Refusal), (("198.51.100.2", 443), Guard)])
async def test_loops_are_known_by_both_ends(records: Records, local: tuple[str, int], expected: type) -> None:
    """Only a connection with both ends of one of ours is ours: a port alone can serve a client too."""
    hooks, server = traffic(records), tflow.tserver_conn()
    server.sockname, server.peername = ("192.0.2.1", 40000), ("198.51.100.1", 443)
    server.state = ConnectionState.OPEN
    hooks.server_connected(ServerConnectionHookData(server, tflow.tclient_conn()))

    question = asked(("192.0.2.1", 40000), local)
    hooks.next_layer(question)
    assert isinstance(question.layer, expected)

    hooks.server_disconnected(ServerConnectionHookData(server, tflow.tclient_conn()))
    question = asked(("192.0.2.1", 40000), local)
    hooks.next_layer(question)
    assert isinstance(question.layer, Guard)


async def test_other_addons_come_first(records: Records) -> None:
    """A layer or an answer that another addon has set stays."""
    hooks = traffic(records)
    question = asked(("192.0.2.1", 40000), ("198.51.100.1", 443))
    question.layer = other = Refusal(question.context, b"")
    hooks.next_layer(question)
    flow = tflow.tflow(resp=True)
    answer = flow.response
    hooks.requestheaders(flow)
    hooks.http_connect(flow)

    assert question.layer is other
    assert flow.response is answer
    assert not records.all


def test_announcement() -> None:
    """Where it listens, what is in force, and a line to try; nothing to try where nothing is banned."""
    listening = [
        (ProxyMode.parse("regular"), [("127.0.0.1", 8080)]),
        (ProxyMode.parse("transparent"), [("0.0.0.0", 8081), ("::", 8081)]),
    ]

    said = list(announcement(policy(), listening, NOW))
    before = list(announcement(policy(), listening, NOW.subtract(hours=24 * 365)))

    assert said[0] == "regular: listening on 127.0.0.1:8080"
    assert said[1] == "transparent: listening on *:8081"
    assert "  block: The ban [ban] for office" in said
    assert said[-1] == "try it: curl -v -x http://127.0.0.1:8080 https://clips.example.org/"
    assert "no ban is in force" in before[-1]
    assert passed(policy(), NOW, NOW) == []
