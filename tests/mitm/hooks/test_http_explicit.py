"""The explicit proxy: CONNECT, tunnels and absolute-form requests; each refusal beside one that passes."""

import pytest

from labs.hello_builder import openssl_hello
from labs.proxy_lab import ALLOWED, BANNED, Lab, ban, client, eventually, policy
from tokgate.mitm.origin_certificate import OriginCertificates
from tokgate.traffic.limits import ProbeLimits


async def test_tls_to_the_proxy_itself(lab: Lab) -> None:
    """A client may speak TLS to the proxy; requests and tunnels are decided as ever, and show origins' certificates."""
    plain, secure = await lab.web_origin(tls=False), await lab.web_origin(ALLOWED)
    proxy = await lab.proxy()

    async with client(proxy.port) as guest:
        await guest.tls(lab.authority.client(proxy.ca), "127.0.0.1")
        assert (await guest.connect(f"{BANNED}:443")).status == 451
        assert (await guest.get(f"{ALLOWED}:{plain.port}", f"http://{ALLOWED}:{plain.port}/")).status == 200
    async with client(proxy.port) as guest:
        await guest.tls(lab.authority.client(proxy.ca), "127.0.0.1")
        assert (await guest.connect(f"{ALLOWED}:{secure.port}")).status == 200
        await guest.tls(lab.authority.client(), ALLOWED)
        assert "mitmproxy" not in guest.issuer
        assert (await guest.get(ALLOWED)).body == b"origin"


@pytest.mark.parametrize("name", ["xn--mnchen-3ya", "xn--strae-oqa", "XN--MNCHEN-3YA"])
async def test_internationalised_hosts(lab: Lab, name: str) -> None:
    """A name with A-labels is tunnelled, fetched and refused as any other, and refusals are in the log.

    `xn--strae-oqa` is valid in IDNA 2008 alone.
    """
    origin = await lab.web_origin(tls=False)
    proxy = await lab.proxy()
    allowed, banned = f"{name}.{ALLOWED}:{origin.port}", f"{name}.{BANNED}"

    async with client(proxy.port) as guest:
        assert (await guest.get(allowed, f"http://{allowed}/")).status == 200
    async with client(proxy.port) as guest:
        assert (await guest.connect(allowed)).status == 200
        assert (await guest.get(allowed)).status == 200
    assert not lab.records.all
    async with client(proxy.port) as guest:
        assert (await guest.get(banned, f"http://{banned}/")).status == 451
    async with client(proxy.port) as guest:
        assert (await guest.connect(f"{banned}:443")).status == 451
    assert [r["tokgate"]["names"]["http-host"] for r in lab.records.all] == [[banned], [banned]]


async def test_an_internationalised_sni(lab: Lab) -> None:
    """A page for a name that IDNA 2008 alone has comes with a certificate for it, and the record says that name."""
    proxy, name = await lab.proxy(policy(ban(response="page"))), f"xn--strae-oqa.{BANNED}"

    async with client(proxy.port) as guest:
        assert (await guest.connect(f"{name}:443")).status == 200
        await guest.tls(lab.authority.client(proxy.ca), name)
        assert (await guest.get(name)).status == 451
    assert lab.records.all[-1]["tokgate"]["names"] == {"http-host": [name], "sni": [name], "url": [f"https://{name}/"]}


async def test_what_comes_while_the_guard_asks(lab: Lab) -> None:
    """What a client sends, and its end, while the origin is asked for its certificate arrives in order."""
    origin = await lab.sink_origin(b"through")
    proxy = await lab.proxy(policy(networks=("192.0.2.0/24",), missing_sni="check-certificate"))
    proxy.traffic.certificates = OriginCertificates(ProbeLimits(deadline=0.2))
    hello = openssl_hello(None)

    async with client(proxy.port) as guest:
        assert (await guest.connect(f"127.0.0.1:{origin.port}")).status == 200
        await guest.send(hello)
        await eventually("the origin is asked", lambda: origin.connections)
        await guest.send(b"and more")
        guest.writer.write_eof()
        assert await guest.to_end() == b"through"

    assert bytes(origin.received).endswith(hello + b"and more")


async def test_proxy_asked_for_itself(lab: Lab) -> None:
    """A request that would lead back to the proxy ends instead of going round."""
    proxy = await lab.proxy()

    async with client(proxy.port) as guest:
        reply = await guest.get(f"loop.example.org:{proxy.port}", f"http://loop.example.org:{proxy.port}/")

    assert reply.status == 502
    assert proxy.counters.loops == 1
