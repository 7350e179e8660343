"""The hooks of requests beside other addons, and by themselves."""

import dataclasses

import pytest
from mitmproxy.http import HTTPFlow
from mitmproxy.test import tflow, tutils

from labs.proxy_lab import ALLOWED, BANNED, Lab, client, policy
from tokgate.mitm.hooks.http import HttpHooks
from tokgate.mitm.hooks.traffic import Traffic


class Others:
    """An addon of somebody else's, which keeps the flows that it meets."""

    def __init__(self) -> None:
        self.flows: list[HTTPFlow] = []

    def response(self, flow: HTTPFlow) -> None:
        self.flows.append(flow)


@pytest.mark.parametrize("keeps", [False, True])
async def test_bodies_are_kept_where_others_want_them(lab: Lab, keeps: bool) -> None:
    """With `tokgate_keep_bodies` a dump has the content of what passed; without it, tokgate keeps nothing."""
    origin, others = await lab.web_origin(tls=False), Others()
    proxy = await lab.proxy(before=(others,))
    proxy.traffic.context = dataclasses.replace(proxy.traffic.context, keeps_bodies=keeps)
    host = f"{ALLOWED}:{origin.port}"
    async with client(proxy.port) as guest:
        await guest.send(f"POST http://{host}/ HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\n\r\nhello".encode())
        assert (await guest.response()).body == b"origin"
    (flow,) = others.flows
    assert flow.response is not None
    kept = (flow.request.raw_content, flow.response.raw_content)
    assert kept == ((b"hello", b"origin") if keeps else (None, None))


@pytest.mark.parametrize("keeps", [False, True])
async def test_a_body_that_is_a_request_is_refused_all_the_same(lab: Lab, keeps: bool) -> None:
    """Whether bodies are kept or not: to a client under a ban no request passes in a body of another."""
    origin = await lab.web_origin(tls=False)
    proxy = await lab.proxy()
    proxy.traffic.context = dataclasses.replace(proxy.traffic.context, keeps_bodies=keeps)
    host = f"{ALLOWED}:{origin.port}"
    body = f"GET / HTTP/1.1\r\nHost: {BANNED}\r\n\r\n"
    async with client(proxy.port) as guest:
        head = f"GET http://{host}/ HTTP/1.1\r\nHost: {host}\r\nContent-Length: {len(body)}\r\n\r\n"
        await guest.send((head + body).encode())
        guest.writer.write_eof()
        assert b" 200 " not in await guest.to_end()
    assert BANNED.encode() not in origin.received


async def test_refused_flows_are_marked(lab: Lab) -> None:
    """In mitmweb a refused request stands out, and says by which ban; what passes doesn't."""
    origin, others = await lab.web_origin(tls=False), Others()
    proxy = await lab.proxy(policy(), before=(others,))
    for host, status in ((BANNED, 451), (f"{ALLOWED}:{origin.port}", 200)):
        async with client(proxy.port) as guest:
            assert (await guest.get(host, f"http://{host}/")).status == status
    refused, passed = others.flows
    assert refused.marked == ":no_entry:"
    assert refused.comment.startswith("tokgate: block, ban-block. ")
    assert (passed.marked, passed.comment) == ("", "")


@pytest.mark.parametrize("hook", ["http_connect", "requestheaders", "request"])
def test_without_a_policy_no_request_passes(hook: str) -> None:
    """A proxy that could not read its policy is no open proxy."""
    flow = tflow.tflow(req=tutils.treq(host=BANNED))
    flow.live = True
    getattr(HttpHooks(Traffic()), hook)(flow)
    assert flow.error is not None
    assert not flow.live


def test_messages_of_a_web_socket_are_not_kept() -> None:
    """A chat that stays open for days takes no memory for what was said in it."""
    flow = tflow.twebsocketflow()
    assert flow.websocket is not None
    assert len(flow.websocket.messages) > 1
    HttpHooks(Traffic()).websocket_message(flow)
    assert len(flow.websocket.messages) == 1
