"""The explicit proxy: CONNECT, tunnels and absolute-form requests; each refusal beside one that passes."""

import pytest
from proxy_lab import ALLOWED, BANNED, BANNED_ADDRESS, Lab, ban, client, client_hello, eventually, policy

from tokgate.gate.origin_certificate import OriginCertificates

ALERT = bytes.fromhex("15030300020270")


async def test_connect_for_a_banned_name(lab: Lab) -> None:
    """CONNECT for a banned name is answered with 451 and the reason, before any tunnel."""
    origin = await lab.web_origin()
    proxy = await lab.proxy()

    async with client(proxy.port) as guest:
        reply = await guest.connect(f"{BANNED}:{origin.port}")

    assert reply.status == 451
    assert b"Circular 716" in reply.body
    assert reply.headers["tokgate-ban"] == "ban"
    record = lab.records.all[0]
    assert record["event"]["action"] == "connect-refused"
    assert record["event"]["id"] == reply.headers["tokgate-event"]
    assert record["http"]["response"]["status_code"] == 451
    assert origin.connections == 0


async def test_connection_serves_on_after_a_refused_connect(lab: Lab) -> None:
    """After a refusal the same connection can ask for an allowed name."""
    origin = await lab.web_origin(ALLOWED)
    proxy = await lab.proxy()

    async with client(proxy.port) as guest:
        assert (await guest.connect(f"{BANNED}:{origin.port}")).status == 451
        assert (await guest.connect(f"{ALLOWED}:{origin.port}")).status == 200
        await guest.tls(lab.authority.client(), ALLOWED)
        assert (await guest.get(ALLOWED)).body == b"origin"


async def test_allowed_tunnel_keeps_the_origins_certificate(lab: Lab) -> None:
    """A tunnel to an allowed name shows the origin's certificate."""
    origin = await lab.web_origin(ALLOWED)
    proxy = await lab.proxy()

    async with client(origin.port) as direct, client(proxy.port) as guest:
        await direct.tls(lab.authority.client(), ALLOWED)
        assert (await guest.connect(f"{ALLOWED}:{origin.port}")).status == 200
        await guest.tls(lab.authority.client(), ALLOWED)
        assert guest.fingerprint == direct.fingerprint

    assert lab.records.all == []


async def test_banned_name_inside_an_allowed_tunnel(lab: Lab) -> None:
    """A tunnel that was asked for under an allowed name is refused when the SNI is banned; the log tells of it."""
    origin = await lab.sink_origin()
    proxy = await lab.proxy()

    async with client(proxy.port) as guest:
        assert (await guest.connect(f"{ALLOWED}:{origin.port}")).status == 200
        await guest.send(client_hello(BANNED))
        assert await guest.to_end() == ALERT

    assert origin.connections == 0
    record = lab.records.all[0]
    assert record["tokgate"]["mismatch"] is True
    assert record["tokgate"]["names"] == {"sni": [BANNED], "http-host": [ALLOWED]}


async def test_connect_to_a_banned_address(lab: Lab) -> None:
    """CONNECT for an address of a banned service is refused by the address."""
    proxy = await lab.proxy()

    async with client(proxy.port) as guest:
        assert (await guest.connect(f"{BANNED_ADDRESS}:443")).status == 451

    assert lab.records.all[0]["tokgate"]["signal"] == "address"


async def test_absolute_form(lab: Lab) -> None:
    """A proxied plain request gets the page or the origin's answer, by the host of its URL."""
    origin = await lab.web_origin(tls=False)
    proxy = await lab.proxy()

    async with client(proxy.port) as guest:
        refused = await guest.get(f"{BANNED}:{origin.port}", f"http://{BANNED}:{origin.port}/watch?q=secret")
        passed = await guest.get(f"{ALLOWED}:{origin.port}", f"http://{ALLOWED}:{origin.port}/")

    assert (refused.status, passed.status, passed.body) == (451, 200, b"origin")
    assert origin.connections == 1
    record = lab.records.all[0]
    assert record["event"]["action"] == "http-request-blocked"
    assert record["url"]["path"] == "/watch"
    assert "secret" not in str(record)


@pytest.mark.parametrize(("url", "field"), [(ALLOWED, BANNED), (BANNED, ALLOWED)])
async def test_url_and_host_disagree(lab: Lab, url: str, field: str) -> None:
    """Whichever of URL and Host is banned, the request is refused and the mismatch logged."""
    origin = await lab.web_origin(tls=False)
    proxy = await lab.proxy()

    async with client(proxy.port) as guest:
        reply = await guest.get(field, f"http://{url}:{origin.port}/")

    assert reply.status == 451
    assert origin.connections == 0
    assert lab.records.all[0]["tokgate"]["mismatch"] is True


async def test_page_needs_the_tunnel(lab: Lab) -> None:
    """Under a ban with a page, CONNECT is accepted and the page shown inside TLS; nothing goes to the origin."""
    origin = await lab.web_origin()
    proxy = await lab.proxy(policy(ban(response="page")))

    async with client(proxy.port) as guest:
        assert (await guest.connect(f"{BANNED}:{origin.port}")).status == 200
        await guest.tls(lab.authority.client(proxy.ca), BANNED)
        assert "mitmproxy" in guest.issuer
        reply = await guest.get(BANNED)

    assert reply.status == 451
    assert origin.connections == 0
    assert lab.records.actions == ["tls-opened", "http-request-blocked"]
    assert lab.records.all[1]["event"]["id"] == reply.headers["tokgate-event"]


async def test_plain_http_in_a_tunnel(lab: Lab) -> None:
    """A plain request inside a tunnel is decided by its Host."""
    origin = await lab.web_origin(tls=False)
    proxy = await lab.proxy()

    async with client(proxy.port) as guest:
        assert (await guest.connect(f"{ALLOWED}:{origin.port}")).status == 200
        assert (await guest.get(ALLOWED)).body == b"origin"
        assert (await guest.get(BANNED)).status == 451


async def test_tls_to_the_proxy_itself(lab: Lab) -> None:
    """A client may speak TLS to the proxy; its requests are decided as ever."""
    origin = await lab.web_origin(tls=False)
    proxy = await lab.proxy()

    async with client(proxy.port) as guest:
        await guest.tls(lab.authority.client(proxy.ca), "127.0.0.1")
        refused = await guest.connect(f"{BANNED}:443")
        passed = await guest.get(f"{ALLOWED}:{origin.port}", f"http://{ALLOWED}:{origin.port}/")

    assert (refused.status, passed.status) == (451, 200)


async def test_tunnel_through_tls_to_the_proxy(lab: Lab) -> None:
    """A tunnel inside TLS to the proxy shows the origin's certificate too."""
    origin = await lab.web_origin(ALLOWED)
    proxy = await lab.proxy()

    async with client(proxy.port) as guest:
        await guest.tls(lab.authority.client(proxy.ca), "127.0.0.1")
        assert (await guest.connect(f"{ALLOWED}:{origin.port}")).status == 200
        await guest.tls(lab.authority.client(), ALLOWED)
        assert "mitmproxy" not in guest.issuer
        assert (await guest.get(ALLOWED)).body == b"origin"


async def test_what_comes_while_the_guard_asks(lab: Lab) -> None:
    """What a client sends, and its end, while the origin is asked for its certificate arrives in order."""
    origin = await lab.sink_origin(b"through")
    proxy = await lab.proxy(policy(missing_sni="check-certificate"))
    proxy.traffic.certificates = OriginCertificates(deadline=0.2)
    hello = client_hello(None)

    async with client(proxy.port) as guest:
        assert (await guest.connect(f"127.0.0.1:{origin.port}")).status == 200
        await guest.send(hello)
        await eventually("the origin is asked", lambda: origin.connections == 1)
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


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "127.1", "0177.0.0.1"])
async def test_addresses_that_only_a_resolver_reads(lab: Lab, host: str) -> None:
    """An address in a spelling that policy doesn't know is not dialled, whether for a tunnel or for a request."""
    origin = await lab.web_origin(tls=False)
    proxy = await lab.proxy()

    async with client(proxy.port) as guest:
        assert (await guest.connect(f"{host}:{origin.port}")).status == 400
    async with client(proxy.port) as guest:
        assert (await guest.get(ALLOWED, f"http://{host}:{origin.port}/")).status == 400

    assert origin.connections == 0
