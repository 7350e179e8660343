"""A proxy in dns mode and its name server."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from labs.dns_lab import Dns, HostsFile, Resolver, Start, Upstream, name_server
from labs.proxy_lab import Lab
from tokgate.mitm.layers import dns


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    """A name server, over UDP and TCP at one port."""
    async with name_server(Upstream()) as made:
        yield made


@pytest.fixture
def hosts(monkeypatch: pytest.MonkeyPatch) -> HostsFile:
    """Puts a name into the hosts file, in which else there is none."""
    monkeypatch.setattr(dns, "names_host", lambda name: False)
    return lambda known: monkeypatch.setattr(dns, "names_host", lambda name: name == known)


@pytest.fixture
def start(lab: Lab, upstream: Upstream, hosts: HostsFile) -> Start:
    """Starts a proxy in dns mode."""

    async def begin(snapshot: Any = None, **options: Any) -> Dns:
        proxy = await lab.proxy(snapshot, mode="dns", **options)
        resolver = Resolver(upstream.port)
        proxy.master.addons.add(resolver)
        return Dns(lab, proxy, upstream, resolver)

    return begin
