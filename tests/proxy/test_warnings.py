"""A ban that warns with a page: who gets the page, what its button does, and what passes without."""

import asyncio
import re
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from html import unescape
from urllib.parse import urlencode

import h2.config
import h2.connection
import h2.events
import pytest
from proxy_lab import BANNED, DEADLINE, NOW, Client, Lab, Proxy, Reply, ban, client, eventually, policy
from whenever import Instant

import builders
from tokgate.policy.decision import Response
from tokgate.proxy.continuing import PATH

NAVIGATES = {
    "Accept": "text/html,application/xhtml+xml",
    "User_Agent": "Mozilla/5.0 (X11; Linux x86_64)",
    "Sec_Fetch_Mode": "navigate",
    "Sec_Fetch_Dest": "document",
}
FORM = {"Content-Type": "application/x-www-form-urlencoded", "Sec-Fetch-Site": "same-origin"}


@dataclass
class Clock:
    """The wall clock of a test."""

    at: Instant = field(default=NOW)

    def __call__(self) -> Instant:
        return self.at


def warning(**stated: object) -> Callable[..., object]:
    """A policy whose ban warns with a page."""
    return policy(ban(**({"action": "warn", "response": "page"} | stated)))  # type: ignore[arg-type]


def button(page: Reply) -> dict[str, str]:
    """The fields that the form of a page would send."""
    text = page.body.decode()
    assert f'<form method="post" action="{PATH}"' in text
    return {name: unescape(value) for name, value in re.findall(r'name="(token|target)" value="([^"]*)"', text)}


async def press(guest: Client, fields: dict[str, str], host: str = BANNED, **headers: str) -> Reply:
    """Send the form."""
    body = urlencode(fields)
    sent = FORM | {name.replace("_", "-"): value for name, value in headers.items()}
    lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    await guest.send(
        f"POST {PATH} HTTP/1.1\r\nHost: {host}\r\n{lines}Content-Length: {len(body)}\r\n\r\n{body}".encode()
    )
    return await guest.response()


async def trusting(lab: Lab, proxy: Proxy, *alpn: str) -> ssl.SSLContext:
    """A client that trusts the page's authority, and the origin's."""
    await eventually("the authority is there", proxy.ca.exists)
    return lab.authority.client(proxy.ca, alpn=alpn)


@pytest.fixture
def clock() -> Clock:
    """A wall clock to move."""
    return Clock()


async def test_the_page_and_its_button(lab: Lab, clock: Clock) -> None:
    """A navigation gets the page; its button leads on, and from then on the origin's own certificate is seen."""
    origin = await lab.web_origin()
    proxy = await lab.proxy(warning(), destination=("127.0.0.1", origin.port), now=clock)

    async with client(proxy.port) as guest:
        await guest.tls(await trusting(lab, proxy), BANNED)
        assert "mitmproxy" in guest.issuer
        page = await guest.get(BANNED, "/@someone?lang=en&x=%22", **NAVIGATES)
        assert page.status == 403
        assert page.headers["cache-control"] == "no-store"
        assert "link" not in page.headers
        assert origin.connections == 0
        onward = await press(guest, button(page))
        assert onward.status == 303
        assert onward.headers["location"] == f"https://{BANNED}/@someone?lang=en&x=%22"
        assert onward.headers["connection"] == "close"
        assert await guest.to_end() == b""

    async with client(proxy.port) as guest:
        await guest.tls(await trusting(lab, proxy), BANNED)
        assert "mitmproxy" not in guest.issuer
        assert (await guest.get(BANNED, "/@someone", **NAVIGATES)).body == b"origin"

    assert lab.records.actions == ["tls-opened", "http-request-warned", "warning-continued", "connection-warned"]
    shown, continued, passed = lab.records.all[1:]
    assert shown["http"]["response"]["status_code"] == 403
    assert page.headers["tokgate-event"] == shown["event"]["id"]
    assert (continued["source"]["ip"], continued["tokgate"]["ban"]) == ("127.0.0.1", "ban")
    assert continued["tokgate"]["continued_until"] == "2023-04-01T20:00:00.000000Z"
    assert "not shown again until 2023-04-01 22:00 Europe/Brussels" in continued["message"]
    assert passed["tokgate"]["passed"] == "continued"


async def test_continuing_ends(lab: Lab, clock: Clock) -> None:
    """After `continue_for` the page is shown again."""
    snapshot = warning(continue_for=builders.duration("PT30M"))
    proxy = await lab.proxy(snapshot, destination=("127.0.0.1", 1), now=clock)
    async with client(proxy.port) as guest:
        await guest.tls(await trusting(lab, proxy), BANNED)
        await press(guest, button(await guest.get(BANNED, **NAVIGATES)))

    clock.at = NOW.add(minutes=30)

    async with client(proxy.port) as guest:
        await guest.tls(await trusting(lab, proxy), BANNED)
        assert (await guest.get(BANNED, **NAVIGATES)).status == 403


async def test_http2_is_told_to_leave(lab: Lab, clock: Clock) -> None:
    """Over HTTP/2 a GOAWAY that ends no stream comes with the redirection: browsers begin no new stream then."""
    proxy = await lab.proxy(warning(), destination=("127.0.0.1", 1), now=clock)
    async with client(proxy.port) as guest:
        await guest.tls(await trusting(lab, proxy, "h2"), BANNED)
        http = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        http.initiate_connection()
        navigates = [(name.lower().replace("_", "-"), value) for name, value in NAVIGATES.items()]
        http.send_headers(1, _head("GET", "/", navigates), end_stream=True)
        await guest.send(http.data_to_send())
        seen: list[h2.events.Event] = []
        while not any(isinstance(event, h2.events.StreamEnded) for event in seen):
            seen += http.receive_data(await guest.reader.read(65536))
        page = b"".join(event.data or b"" for event in seen if isinstance(event, h2.events.DataReceived))
        body = urlencode(button(Reply(403, {}, page))).encode()
        fields = [("content-length", str(len(body))), ("origin", f"https://{BANNED}")]
        http.send_headers(3, _head("POST", PATH, fields))
        http.send_data(3, body, end_stream=True)
        await guest.send(http.data_to_send())
        frames = await _frames(guest, 3)

    assert frames[_GOAWAY] == bytes.fromhex("7fffffff 00000000")
    assert dict(http.decoder.decode(frames[_HEADERS]))[":status"] == "303"


_HEADERS, _GOAWAY = 1, 7


def _head(method: str, path: str, fields: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(":method", method), (":path", path), (":scheme", "https"), (":authority", BANNED), *fields]


async def _frames(guest: Client, stream: int) -> dict[int, bytes]:
    """The payload of the last frame of each type, until the stream has ended. `h2` reads none after a GOAWAY."""
    frames: dict[int, bytes] = {}
    while True:
        head = await guest.exactly(9)
        frames[head[3]] = await guest.exactly(int.from_bytes(head[:3]))
        if int.from_bytes(head[5:]) == stream and head[3] in (0, _HEADERS) and head[4] & 1:
            return frames


async def test_requests_on_an_open_connection_after_continuing(lab: Lab, clock: Clock) -> None:
    """On a connection that was opened before, parts of pages pass, and a page is to be asked for anew."""
    origin = await lab.web_origin()
    proxy = await lab.proxy(warning(), destination=("127.0.0.1", origin.port), now=clock)
    async with client(proxy.port) as first, client(proxy.port) as second, client(proxy.port) as third:
        for guest in (first, second, third):
            await guest.tls(await trusting(lab, proxy), BANNED)
        left = await second.get(BANNED, "/b", **NAVIGATES)
        await press(first, button(await first.get(BANNED, "/a", **NAVIGATES)))
        again = await press(second, button(left))
        assert (again.status, again.headers["location"]) == (303, f"https://{BANNED}/b")
        part = await third.get(BANNED, "/part", User_Agent="okhttp/4")
        assert (part.status, part.body) == (200, b"origin")
        anew = await third.get(BANNED, "/c?d", **NAVIGATES)
        assert (anew.status, anew.headers["location"]) == (307, f"https://{BANNED}/c?d")
        assert anew.headers["connection"] == "close"

    assert lab.records.actions.count("warning-continued") == 1
    assert lab.records.all[-1]["tokgate"]["passed"] == "continued"

    async with client(proxy.port) as guest:  # the very next connection isn't opened any more
        await guest.tls(await trusting(lab, proxy), BANNED)
        assert "mitmproxy" not in guest.issuer


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("POST", NAVIGATES | {"Content_Length": "0"}),
        ("HEAD", NAVIGATES),
        ("GET", NAVIGATES | {"Sec_Fetch_Mode": "cors", "Sec_Fetch_Dest": "empty"}),
        ("GET", NAVIGATES | {"Sec_Fetch_Dest": "iframe"}),
        ("GET", {"User_Agent": "Mozilla/5.0", "Accept": "image/avif,*/*"}),
    ],
)
async def test_what_is_no_navigation_passes(lab: Lab, method: str, headers: dict[str, str]) -> None:
    """Parts of pages, frames, forms and calls reach the origin with a warning; pages are shown on."""
    origin = await lab.web_origin()
    proxy = await lab.proxy(warning(), destination=("127.0.0.1", origin.port))
    async with client(proxy.port) as guest:
        await guest.tls(await trusting(lab, proxy), BANNED)
        fields = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        await guest.send(f"{method} /x HTTP/1.1\r\nHost: {BANNED}\r\n{fields}\r\n".encode())
        assert (await guest.response(bodiless=method == "HEAD")).status == 200
        assert (await guest.get(BANNED, **NAVIGATES)).status == 403

    assert f"{method} /x".encode() in origin.received
    assert lab.records.all[1]["tokgate"]["passed"] == "no-navigation"


async def test_programs_are_left_alone(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """What no browser sends passes, and later connections of the same software aren't opened at all."""
    monkeypatch.setattr("tokgate.gate.warned.SLOTS", 1 << 32)  # of a few slots, two programs might share one
    origin = await lab.web_origin()
    proxy = await lab.proxy(warning(), destination=("127.0.0.1", origin.port))
    async with client(proxy.port) as guest:
        await guest.tls(await trusting(lab, proxy), BANNED)
        reply = await guest.get(BANNED, User_Agent="okhttp/4.12.0")
        assert (reply.status, reply.headers["connection"]) == (200, "close")

    async with client(proxy.port) as guest:
        await guest.tls(await trusting(lab, proxy), BANNED)
        assert "mitmproxy" not in guest.issuer
    async with client(proxy.port) as guest:  # other software of the same client
        await guest.tls(await trusting(lab, proxy, "h2", "http/1.1"), BANNED)
        assert "mitmproxy" in guest.issuer

    assert [record["tokgate"].get("passed") for record in lab.records.all] == [None, "no-page", "no-page"]


async def test_a_client_that_does_not_trust_us(lab: Lab) -> None:
    """Its first connection fails; the next ones reach the origin unopened."""
    origin = await lab.web_origin()
    proxy = await lab.proxy(warning(), destination=("127.0.0.1", origin.port))

    def rejects() -> None:
        with (
            socket.create_connection(("127.0.0.1", proxy.port), DEADLINE) as sock,
            pytest.raises(ssl.SSLCertVerificationError),
        ):
            lab.authority.client().wrap_socket(sock, server_hostname=BANNED)

    await asyncio.to_thread(rejects)
    await eventually("the proxy has heard the alert", lambda: not proxy.connections)
    async with client(proxy.port) as guest:
        await guest.tls(lab.authority.client(), BANNED)
        assert (await guest.get(BANNED, **NAVIGATES)).body == b"origin"

    assert lab.records.actions == ["tls-opened", "connection-warned"]
    assert lab.records.all[1]["tokgate"]["passed"] == "no-page"


@pytest.mark.parametrize("shakes_hands", [True, False])
async def test_clients_that_go_without_a_word(lab: Lab, shakes_hands: bool) -> None:
    """One interruption says nothing; three in a row say that the certificate isn't what the software expects."""
    origin = await lab.web_origin()
    proxy = await lab.proxy(warning(), destination=("127.0.0.1", origin.port))
    context = await trusting(lab, proxy)
    for _ in range(3):
        async with client(proxy.port) as guest:
            if shakes_hands:
                await guest.tls(context, BANNED)
                assert "mitmproxy" in guest.issuer
            else:
                await guest.send(_hello(context))
                await guest.reader.read(1)
        await eventually("it is gone", lambda: not proxy.connections)

    async with client(proxy.port) as guest:
        await guest.tls(context, BANNED)
        assert "mitmproxy" not in guest.issuer


def _hello(context: ssl.SSLContext) -> bytes:
    outgoing = ssl.MemoryBIO()
    shaking = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=BANNED)
    with pytest.raises(ssl.SSLWantReadError):
        shaking.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize(
    ("spoilt", "headers"),
    [
        ({"token": ""}, {}),
        ({"token": "99999999999-" + 64 * "0"}, {}),
        ({"target": "/elsewhere"}, {}),
        ({}, {"Origin": "https://evil.example"}),
        ({}, {"Origin": "null"}),
        ({}, {"Sec_Fetch_Site": "cross-site"}),
        ({}, {"Sec_Fetch_Site": "same-site"}),
    ],
)
async def test_what_others_send_does_not_continue(lab: Lab, spoilt: dict[str, str], headers: dict[str, str]) -> None:
    """Without the token, or from another site, nothing is remembered, and the page is shown again."""
    proxy = await lab.proxy(warning(), destination=("127.0.0.1", 1))
    async with client(proxy.port) as guest:
        await guest.tls(await trusting(lab, proxy), BANNED)
        fields = button(await guest.get(BANNED, **NAVIGATES))
        refused = await press(guest, fields | spoilt, **headers)
        assert refused.status == 403
        assert button(refused)["target"] == (fields | spoilt)["target"]
        assert (await press(guest, fields, Origin=f"https://{BANNED}")).status == 303  # the real one still works

    assert lab.records.actions.count("warning-continued") == 1


async def test_a_token_is_good_for_one_name_and_an_hour(lab: Lab, clock: Clock) -> None:
    """The token of one host is nothing on another; an hour later it is nothing at all."""
    proxy = await lab.proxy(warning(), destination=("127.0.0.1", 1), now=clock)
    async with client(proxy.port) as guest:
        fields = button(await guest.get(BANNED, **NAVIGATES))
        assert (await press(guest, fields, host="other.clips.example.org")).status == 403
        clock.at = NOW.add(hours=1)
        assert (await press(guest, fields)).status == 403

    assert "warning-continued" not in lab.records.actions


@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_only_a_form_continues(lab: Lab, method: str) -> None:
    """The button's address asked for by a link or a prefetch shows the page; the target is then the root."""
    proxy = await lab.proxy(warning(), destination=("127.0.0.1", 1))
    async with client(proxy.port) as guest:
        fields = button(await guest.get(BANNED, **NAVIGATES))
        page = await guest.get(BANNED, f"{PATH}?{urlencode(fields)}", **NAVIGATES)
        assert (page.status, button(page)["target"]) == (403, "/")

    assert "warning-continued" not in lab.records.actions


async def test_plain_http(lab: Lab) -> None:
    """The same over plain HTTP, where every request stays readable: it passes with a warning."""
    origin = await lab.web_origin(tls=False)
    proxy = await lab.proxy(warning(), destination=("127.0.0.1", origin.port))
    old = {"User_Agent": "Mozilla/5.0 (X11)", "Accept": "text/html,*/*;q=0.8"}
    async with client(proxy.port) as guest:
        page = await guest.get(BANNED, "//evil.example/x", **old)
        assert page.status == 403
        onward = await press(guest, button(page), Origin=f"http://{BANNED}")
        assert (onward.status, onward.headers["location"]) == (303, f"http://{BANNED}//evil.example/x")
    async with client(proxy.port) as guest:
        assert (await guest.get(BANNED, **old)).status == 200

    assert lab.records.actions == ["http-request-warned", "warning-continued", "http-request-warned"]


async def test_a_tunnel(lab: Lab) -> None:
    """In a CONNECT tunnel it is the same."""
    origin = await lab.web_origin()
    proxy = await lab.proxy(warning())
    async with client(proxy.port) as guest:
        assert (await guest.connect(f"{BANNED}:{origin.port}")).status == 200
        await guest.tls(await trusting(lab, proxy), BANNED)
        host = f"{BANNED}:{origin.port}"
        onward = await press(guest, button(await guest.get(host, **NAVIGATES)), host)
        assert onward.headers["location"] == f"https://{host}/"
    async with client(proxy.port) as guest:
        await guest.connect(f"{BANNED}:{origin.port}")
        await guest.tls(await trusting(lab, proxy), BANNED)
        assert "mitmproxy" not in guest.issuer


async def test_the_ban_begins_to_block_meanwhile(lab: Lab, clock: Clock) -> None:
    """Continuing ends where blocking begins, which the page says; a button pressed after that gets the refusal."""
    start = builders.wall("2023-04-01T15:00")  # 13:00Z, an hour after now
    snapshot = warning(action="block", warn_from=builders.wall("2023-03-20T00:00"), starts=start)
    proxy = await lab.proxy(snapshot, destination=("127.0.0.1", 1), now=clock)
    async with client(proxy.port) as guest:
        await guest.tls(await trusting(lab, proxy), BANNED)
        page = await guest.get(BANNED, **NAVIGATES)
        assert b"Blocked from" in page.body
        assert b"not shown again until 1 April 2023, 15:00 (Europe/Brussels)" in page.body
        clock.at = NOW.add(hours=1)
        assert (await press(guest, button(page))).status == 451
        assert (await guest.get(BANNED, **NAVIGATES)).status == 451


async def test_a_warning_without_a_page(lab: Lab) -> None:
    """With `response: refuse` nothing is opened, and the button's path is the origin's."""
    origin = await lab.web_origin(tls=False)
    proxy = await lab.proxy(warning(response=Response.REFUSE), destination=("127.0.0.1", origin.port))
    async with client(proxy.port) as guest:
        assert (await guest.get(BANNED, **NAVIGATES)).status == 200
        assert (await press(guest, {"token": "x"})).status == 200


async def test_an_oversized_form_is_cut_off(lab: Lab) -> None:
    """Nobody waits for a form that is far too long."""
    proxy = await lab.proxy(warning(), destination=("127.0.0.1", 1))
    async with client(proxy.port) as guest:
        await guest.send(f"POST {PATH} HTTP/1.1\r\nHost: {BANNED}\r\nContent-Length: 10000000\r\n\r\n".encode())
        assert await guest.to_end() == b""


async def test_other_names_are_never_opened(lab: Lab) -> None:
    """Beside the warning, other names carry the origin's own certificate."""
    origin = await lab.web_origin()
    proxy = await lab.proxy(warning(), destination=("127.0.0.1", origin.port))
    async with client(proxy.port) as guest:
        await guest.tls(await trusting(lab, proxy), "www.example.org")
        assert "mitmproxy" not in guest.issuer

    assert lab.records.all == []
