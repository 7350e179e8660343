"""The hooks of requests beside other addons, and by themselves."""

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


async def test_no_bodies_are_kept(lab: Lab) -> None:
    """Nothing has the content of what passed, whoever else looks at flows."""
    origin, others = await lab.web_origin(tls=False), Others()
    proxy = await lab.proxy(before=(others,))
    host = f"{ALLOWED}:{origin.port}"
    async with client(proxy.port) as guest:
        await guest.send(f"POST http://{host}/ HTTP/1.1\r\nHost: {host}\r\nContent-Length: 5\r\n\r\nhello".encode())
        assert (await guest.response()).body == b"origin"
    (flow,) = others.flows
    assert flow.response is not None
    assert (flow.request.raw_content, flow.response.raw_content) == (None, None)


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
