"""A proxy in dns mode and its name server."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from labs.dns_lab import Dns, Resolver, Start
from labs.proxy_lab import Lab
from labs.resolver import Upstream, name_server


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    """A name server, over UDP and TCP at one port."""
    async with name_server(Upstream()) as made:
        yield made


@pytest.fixture
def start(lab: Lab, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> Start:
    async def begin(snapshot: Any = None, **options: Any) -> Dns:
        proxy = await lab.proxy(snapshot, mode="dns", **options)
        return Dns(lab, proxy, upstream, Resolver(upstream.port, monkeypatch))

    return begin


@pytest.fixture
async def running(start: Start) -> Dns:
    """A proxy in dns mode, under the usual ban."""
    made: Dns = await start()
    return made
