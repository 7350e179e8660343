"""Plain and decrypted HTTP: what each request gets, by every name that it shows."""

import asyncio
import json
import ssl
from typing import Any

import h2.config
import h2.connection
import h2.events
import pytest
from proxy_lab import ALLOWED, BANNED, DEADLINE, STORE, Client, Lab, ban, client, policy


async def test_keep_alive_with_changing_hosts(lab: Lab) -> None:
    """On one connection each request is decided for itself."""
    origin = await lab.web_origin(tls=False)
    proxy = await lab.proxy(destination=("127.0.0.1", origin.port))

    async with client(proxy.port) as guest:
        statuses = [(await guest.get(host)).status for host in (ALLOWED, BANNED, ALLOWED, BANNED, ALLOWED)]

    assert statuses == [200, 451, 200, 451, 200]
    assert origin.received.count(b"\r\n\r\n") == 3
    assert BANNED.encode() not in origin.received


@pytest.mark.parametrize(
    "host", [BANNED.upper(), f"{BANNED}.", f"{BANNED}:80", f"{BANNED}:8080", "clips.example.org", "127.0.0.2"]
)
async def test_spellings_of_a_banned_host(lab: Lab, host: str) -> None:
    """Case, dot and port make no difference."""
    proxy = await lab.proxy(destination=("127.0.0.1", 1))

    async with client(proxy.port) as guest:
        assert (await guest.get(host)).status == 451


@pytest.mark.parametrize("host", ["notclips.example.org.test", "xclips.example.org"])
async def test_lookalikes_pass(lab: Lab, host: str) -> None:
    """A name that only looks like a banned one passes."""
    origin = await lab.web_origin(tls=False)
    proxy = await lab.proxy(destination=("127.0.0.1", origin.port))

    async with client(proxy.port) as guest:
        assert (await guest.get(host)).status == 200


@pytest.mark.parametrize(
    "head",
    [
        f"GET / HTTP/1.1\r\nHost: {ALLOWED}\r\nHost: {BANNED}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: {ALLOWED}@{BANNED}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: {BANNED}/\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: 2130706433\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: {ALLOWED}\r\nX: y\rHost: {BANNED}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: {ALLOWED}\r\nX: y\r\n Host: {BANNED}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: {ALLOWED}\r\nX: y\0z\r\n\r\n",
    ],
)
async def test_invalid_authorities(lab: Lab, head: str) -> None:
    """Hosts, and ends of lines, that proxy and origin might read differently are answered with 400."""
    origin = await lab.web_origin(tls=False)
    proxy = await lab.proxy(destination=("127.0.0.1", origin.port))

    async with client(proxy.port) as guest:
        await guest.send(head.encode())
        assert (await guest.response()).status == 400

    assert origin.connections == 0


@pytest.mark.parametrize("prefix", [b"", b"\r\n", b"\r\n\r\n"])
async def test_request_in_single_octets(lab: Lab, prefix: bytes) -> None:
    """A request that comes octet by octet, or after empty lines, is still read as one."""
    origin = await lab.web_origin(tls=False)
    proxy = await lab.proxy(destination=("127.0.0.1", origin.port))

    async with client(proxy.port) as guest:
        for octet in prefix + f"GET / HTTP/1.1\r\nHost: {BANNED}\r\n\r\n".encode():
            await guest.send(bytes([octet]))
        assert (await guest.response()).status == 451

    assert origin.connections == 0


async def test_head_has_no_body(lab: Lab) -> None:
    """HEAD gets the headers of the page, its length too, and no body; the connection serves on."""
    proxy = await lab.proxy(destination=("127.0.0.1", 1))

    async with client(proxy.port) as guest:
        await guest.send(f"HEAD / HTTP/1.1\r\nHost: {BANNED}\r\n\r\n".encode())
        head = await guest.response(bodiless=True)
        got = await guest.get(BANNED)

    assert head.status == got.status == 451
    assert head.headers["content-length"] == str(len(got.body))


async def test_small_body_gets_the_page(lab: Lab) -> None:
    """A request with a small body is answered once that has come."""
    proxy = await lab.proxy(destination=("127.0.0.1", 1))

    async with client(proxy.port) as guest:
        await guest.send(f"POST / HTTP/1.1\r\nHost: {BANNED}\r\nContent-Length: 5\r\n\r\nhello".encode())
        assert (await guest.response()).status == 451


@pytest.mark.parametrize("fields", ["Content-Length: 100000000", "Transfer-Encoding: chunked"])
async def test_large_body_is_cut_off(lab: Lab, fields: str) -> None:
    """The sender of a large or endless body is cut off instead of being listened to."""
    origin = await lab.web_origin(tls=False)
    proxy = await lab.proxy(destination=("127.0.0.1", origin.port))

    async with client(proxy.port) as guest:
        await guest.send(f"POST / HTTP/1.1\r\nHost: {BANNED}\r\n{fields}\r\n\r\n".encode())
        assert await guest.to_end() == b""

    assert origin.connections == 0
    assert lab.records.actions == ["http-request-blocked"]


async def test_json_for_programs(lab: Lab) -> None:
    """`Accept: application/json` gets the same facts as a problem document."""
    proxy = await lab.proxy(destination=("127.0.0.1", 1))

    async with client(proxy.port) as guest:
        reply = await guest.get(BANNED, Accept="application/json")

    facts = json.loads(reply.body)
    assert (facts["status"], facts["ban"], facts["basis"]) == (451, "ban", "Circular 716")
    assert facts["event"] == lab.records.all[0]["event"]["id"]


async def test_without_a_mandate_it_is_403(lab: Lab) -> None:
    """A ban that names no authority and no basis is answered with 403."""
    proxy = await lab.proxy(policy(ban(authority=None, basis=None)), destination=("127.0.0.1", 1))

    async with client(proxy.port) as guest:
        assert (await guest.get(BANNED)).status == 403


@pytest.mark.parametrize(
    ("action", "logged"),
    [("monitor", "would-block"), ("warn", "http-request-warned"), ("block", "http-request-blocked")],
)
async def test_milder_verdicts_pass_and_are_logged(lab: Lab, action: str, logged: str) -> None:
    """A monitored or warned request is answered by the origin and leaves a record; a blocked one is not."""
    origin = await lab.web_origin(tls=False)
    proxy = await lab.proxy(policy(ban(action=action)), destination=("127.0.0.1", origin.port))

    async with client(proxy.port) as guest:
        assert (await guest.get(BANNED)).status == (451 if action == "block" else 200)

    assert lab.records.actions == [logged]


async def test_raw_bytes_by_address(lab: Lab) -> None:
    """What is neither TLS nor HTTP passes, or is closed, by the destination's address."""
    origin = await lab.sink_origin(b"through")
    for address, expected in (("127.0.0.1", b"through"), ("127.0.0.2", b"")):
        proxy = await lab.proxy(destination=(address, origin.port))
        async with client(proxy.port) as guest:
            await guest.send(b"\x00\x01binary")
            guest.writer.write_eof()
            assert await guest.to_end() == expected

    assert origin.connections == 1
    assert lab.records.actions == ["connection-refused"]


async def opened(lab: Lab, proxy: Any, guest: Client, name: str, *, alpn: tuple[str, ...] = ()) -> None:
    """TLS that ends at the proxy."""
    await guest.tls(lab.authority.client(proxy.ca, alpn=alpn), name)
    assert "mitmproxy" in guest.issuer


async def test_page_inside_tls(lab: Lab) -> None:
    """Under a ban with a page the banned name alone is decrypted, and shows the page."""
    origin = await lab.web_origin(ALLOWED)
    proxy = await lab.proxy(policy(ban(response="page")), destination=("127.0.0.1", origin.port))

    async with client(proxy.port) as guest, client(proxy.port) as other:
        await opened(lab, proxy, guest, BANNED)
        page = await guest.get(BANNED, Accept_Language="nl-BE", Accept="text/html")
        elsewhere = await guest.get(ALLOWED)  # the name of the connection stays banned
        assert origin.connections == 0
        await other.tls(lab.authority.client(), ALLOWED)
        assert (await other.get(ALLOWED)).body == b"origin"

    assert (page.status, page.headers["content-language"]) == (451, "nl")
    assert b"app-winkels" not in page.body
    assert page.headers["link"] == '<mailto:desk@example.org>; rel="blocked-by"'
    assert page.headers["cache-control"] == "no-store"
    assert elsewhere.status == 451


async def test_other_protocols_stay_out_of_an_opened_connection(lab: Lab) -> None:
    """What is no HTTP inside a connection that was opened for the page reaches nobody."""
    origin = await lab.sink_origin()
    proxy = await lab.proxy(policy(ban(response="page")), destination=("127.0.0.1", origin.port))

    async with client(proxy.port) as guest:
        await opened(lab, proxy, guest, BANNED)
        await guest.send(b"\x00\x01\x02\x03 not http\r\n\r\n")
        assert b"400" in await guest.to_end()

    assert origin.connections == 0


async def test_page_over_http2(lab: Lab) -> None:
    """The page comes over HTTP/2 too."""
    proxy = await lab.proxy(policy(ban(response="page")), destination=("127.0.0.1", 1))

    async with client(proxy.port) as guest:
        await opened(lab, proxy, guest, BANNED, alpn=("h2", "http/1.1"))
        assert guest.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        headers, body = await http2_get(guest, BANNED, "/")

    assert headers[":status"] == "451"
    assert headers["cache-control"] == "no-store"
    assert b"Circular 716" in body


async def test_store_is_inspected(lab: Lab) -> None:
    """Under `inspect_stores` a store's host is opened: the banned app's listing gets 451, others pass."""
    origin = await lab.web_origin(STORE)
    proxy = await lab.proxy(policy(ban(inspect_stores=True)), destination=("127.0.0.1", origin.port))

    async with client(proxy.port) as guest:
        await opened(lab, proxy, guest, STORE)
        banned = await guest.get(STORE, "/store/apps/details?id=org.example.clips")
        other = await guest.get(STORE, "/store/apps/details?id=org.example.mail")

    assert (banned.status, other.status, other.body) == (451, 200, b"origin")
    assert b"app stores" in banned.body  # the page doesn't claim that nothing else is opened
    assert lab.records.actions == ["http-request-blocked"]


async def test_store_stays_closed_without_inspection(lab: Lab) -> None:
    """Without `inspect_stores` the store's own certificate is seen."""
    origin = await lab.web_origin(STORE)
    proxy = await lab.proxy(destination=("127.0.0.1", origin.port))

    async with client(proxy.port) as guest:
        await guest.tls(lab.authority.client(), STORE)
        assert "mitmproxy" not in guest.issuer


async def test_opened_connection_needs_our_ca(lab: Lab) -> None:
    """A client that doesn't trust the CA sees an error, not a page."""
    proxy = await lab.proxy(policy(ban(response="page")), destination=("127.0.0.1", 1))

    async with client(proxy.port) as guest:
        with pytest.raises(ssl.SSLCertVerificationError):
            await guest.tls(lab.authority.client(), BANNED)


async def http2_get(guest: Client, host: str, path: str) -> tuple[dict[str, str], bytes]:
    """One request over HTTP/2."""
    connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    connection.initiate_connection()
    fields = [(":method", "GET"), (":scheme", "https"), (":authority", host), (":path", path)]
    connection.send_headers(1, fields, end_stream=True)
    await guest.send(connection.data_to_send())
    headers: dict[str, str] = {}
    body = b""
    while True:
        async with asyncio.timeout(DEADLINE):
            data = await guest.reader.read(65536)
        assert data, "the connection ended"
        for event in connection.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                headers = dict(event.headers)
            elif isinstance(event, h2.events.DataReceived):
                body += event.data
            elif isinstance(event, h2.events.StreamEnded):
                return headers, body
