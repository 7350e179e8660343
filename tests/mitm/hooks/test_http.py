"""The hooks of requests beside other addons, and by themselves."""

from dataclasses import replace

import pytest
from mitmproxy.http import HTTPFlow
from mitmproxy.test import tflow, tutils

from labs import builders
from labs.proxy_lab import ALLOWED, BANNED, Lab, ban, client
from tokgate.mitm.hooks.http import HttpHooks
from tokgate.mitm.hooks.traffic import Traffic
from tokgate.policy.values import Language


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


@pytest.mark.parametrize(("asked", "language"), [(None, "nl"), ("ja", "nl"), ("fr", "fr")])
async def test_the_language_of_a_network(lab: Lab, asked: str | None, language: str) -> None:
    """Who prefers no language that the page has reads it in the network's own."""
    networks = (replace(builders.network("office", "127.0.0.0/8"), language=Language.NL),)
    service = builders.service("clips", "suffix:clips.example.org")
    proxy = await lab.proxy(builders.snapshot(ban(), services=(service,), networks=networks))
    async with client(proxy.port) as guest:
        reply = await guest.get(BANNED, f"http://{BANNED}/", **({"Accept_Language": asked} if asked else {}))
    assert (reply.status, reply.headers["content-language"]) == (451, language)


@pytest.mark.parametrize("hook", ["http_connect", "requestheaders", "request"])
def test_without_a_policy_no_request_passes(hook: str) -> None:
    """A proxy that could not read its policy is no open proxy."""
    flow = tflow.tflow(req=tutils.treq(host=BANNED))
    flow.live = True
    getattr(HttpHooks(Traffic()), hook)(flow)
    assert flow.error is not None
    assert not flow.live
