"""Single hooks: without a policy nothing passes, and nothing is kept of what passes."""

import pytest
from mitmproxy.test import tflow, tutils

from labs.proxy_lab import BANNED
from tokgate.mitm.hooks.http import HttpHooks
from tokgate.mitm.hooks.traffic import Traffic


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
