"""Requests in a tunnel whose CONNECT named one host and whose Host field names another."""

import asyncio
import socket
from typing import Any

from labs import builders
from labs.proxy_lab import BANNED, BANNED_ADDRESS, Lab, ban, client
from tokgate.policy.bans import Action


async def test_what_connect_named_is_judged_with_every_request(lab: Lab) -> None:
    """A tunnel to a name that is warned of is in the log for each request in it, whatever its Host field says.

    One of the name's addresses is banned, so that the tunnel leads to the other, and the name stands nowhere else.
    """
    held = builders.snapshot(
        ban(action="warn"),
        builders.ban("addresses", services=("other",), action=Action.BLOCK),
        services=(
            builders.service("clips", "suffix:clips.example.org"),
            builders.service("other", "suffix:other.example.org", addresses=(f"{BANNED_ADDRESS}/32",)),
        ),
        networks=(builders.network("office", "127.0.0.0/8"),),
    )
    origin = await lab.web_origin(tls=False)
    proxy = await lab.proxy(held)
    loop = asyncio.get_running_loop()
    real = loop.getaddrinfo

    async def getaddrinfo(host: Any, port: Any, **options: Any) -> Any:
        if host != BANNED:
            return await real(host, port, **options)
        ends = [(address, port or 0) for address in (BANNED_ADDRESS, "127.0.0.1")]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", end) for end in ends]

    lab.monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    async with client(proxy.port) as guest:
        assert (await guest.connect(f"{BANNED}:{origin.port}")).status == 200
        assert (await guest.get("www.example.net", User_Agent="test")).status == 200

    warned = [r for r in lab.records.all if r["event"]["action"] == "http-request-warned"]
    assert [record["tokgate"]["names"]["http-host"] for record in warned] == [["www.example.net", BANNED]]
