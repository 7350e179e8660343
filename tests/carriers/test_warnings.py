"""A ban that warns with a page: who gets the page, what its button does, and what passes without."""

import contextlib
import re
import ssl
from collections.abc import Iterator
from html import unescape
from typing import Any
from urllib.parse import urlencode

import h2.config
import h2.connection
import h2.events
import pytest

from labs import builders
from labs.carriers import OPENING, Kind, Lab, Way
from labs.hello_builder import hello_for, openssl_hello
from labs.proxy_lab import ALLOWED, BANNED, ban, policy
from labs.raw_client import RawClient, Reply
from tokgate.policy.snapshot import Snapshot

PATH = "/.tokgate/continue"
_HEADERS, _GOAWAY = 1, 7
"""Types of frames: RFC 9113 §6."""
NAVIGATES = {
    "Accept": "text/html,application/xhtml+xml",
    "User_Agent": "Mozilla/5.0 (X11; Linux x86_64)",
    "Sec_Fetch_Mode": "navigate",
    "Sec_Fetch_Dest": "document",
}


def warning(**stated: Any) -> Snapshot:
    return policy(ban(**({"action": "warn", "response": "page"} | stated)))


def fields_of(page: Reply) -> dict[str, str]:
    text = page.body.decode()
    assert f'<form method="post" action="{PATH}"' in text
    return {name: unescape(value) for name, value in re.findall(r'name="(token|target)" value="([^"]*)"', text)}


def press(client: RawClient, page: Reply, /, *, host: str = BANNED, **headers: str) -> Reply:
    return send_form(client, fields_of(page), host=host, **headers)


def send_form(client: RawClient, fields: dict[str, str], /, *, host: str = BANNED, **headers: str) -> Reply:
    body = urlencode(fields).encode()
    sent = {"Content_Type": "application/x-www-form-urlencoded", "Sec_Fetch_Site": "same-origin"} | headers
    return client.request("POST", PATH, host, body, Content_Length=str(len(body)), **sent)


@pytest.fixture
def warned(lab: Lab) -> Iterator[RawClient]:
    """A redirected client whose connection was opened to show it the page."""
    origin = lab.web()
    lab.start(warning())
    with lab.tls(lab.trusting(), BANNED, Way.REDIRECTED, origin.port) as client:
        yield client


@OPENING
def test_the_page_and_its_button(lab: Lab, way: Way) -> None:
    """The button leads on, and from then on the origin's own certificate is seen, until `continue_for` is over."""
    origin = lab.web()
    carrier = lab.start(warning(continue_for=builders.duration("PT30M")))
    with lab.tls(lab.trusting(), BANNED, way, origin.port) as client:
        assert client.is_opened
        page = client.get(BANNED, "/@someone?lang=en", **NAVIGATES)
        assert (page.status, origin.accepted) == (403, 0)
        onward = press(client, page, Origin=f"https://{BANNED}")
    assert (onward.status, onward.headers["location"]) == (303, f"https://{BANNED}/@someone?lang=en")
    assert (onward.headers["connection"], page.headers["cache-control"], "link" in page.headers) == (
        "close",
        "no-store",
        False,
    )
    assert page.headers["tokgate-event"] == lab.records.all[1]["event"]["id"]
    with lab.tls(lab.trusting(), BANNED, way, origin.port) as client:
        assert not client.is_opened
        assert client.get(BANNED, **NAVIGATES).body == b"origin"
    continued, passed = lab.records.all[-2:]
    assert (continued["event"]["action"], continued["source"]["ip"]) == ("warning-continued", "127.0.0.1")
    assert f"continues to {BANNED} past the warning" in continued["message"]
    assert "not shown again until 2023-04-01 14:30 Europe/Brussels" in continued["message"]
    assert continued["tokgate"]["continued_until"] == "2023-04-01T12:30:00.000000Z"
    assert (passed["event"]["action"], passed["tokgate"]["passed"]) == ("connection-warned", "continued")
    lab.clock.set("2023-04-01T12:30:00Z")
    with lab.tls(lab.trusting(), BANNED, way, origin.port) as client:
        press(client, client.get(BANNED, **NAVIGATES))
    carrier.holder.snapshot = policy(ban(response="page"))  # whoever has continued is refused like everyone else then
    with lab.tls(lab.trusting(), BANNED, way, origin.port) as client:
        assert client.get(BANNED, **NAVIGATES).status == 451


@OPENING
def test_a_tunnel_by_name(lab: Lab) -> None:
    """CONNECT to the name that is warned of is granted, and its ClientHello decides what becomes of it."""
    origin = lab.web()
    lab.start(warning())
    for opened in (True, False):
        with lab.tls(lab.trusting(), BANNED, Way.CONNECT, origin.port, BANNED) as client:
            assert client.is_opened is opened
            if opened:
                press(client, client.get(BANNED, **NAVIGATES))


@OPENING
def test_a_client_that_does_not_trust_us(lab: Lab, way: Way) -> None:
    """Its first connection fails; the next ones reach the origin unopened."""
    origin = lab.web()
    lab.start(warning())
    with lab.reach(way, origin.port) as client, pytest.raises(ssl.SSLCertVerificationError):
        client.tls(lab.authority.client(), BANNED)
    assert lab.settled()
    with lab.tls(lab.authority.client(), BANNED, way, origin.port) as client:
        assert client.get(BANNED, **NAVIGATES).body == b"origin"
    assert lab.records.actions == ["tls-opened", "connection-warned"]
    assert lab.records.all[1]["tokgate"]["passed"] == "no-page"


@OPENING
@pytest.mark.parametrize("way", [Way.REDIRECTED, Way.CONNECT])
def test_plain_http(lab: Lab, way: Way) -> None:
    """The same over plain HTTP, where every request stays readable: it passes with a warning."""
    origin = lab.web(tls=False)
    lab.start(warning())
    with lab.reach(way, origin.port) as client:
        page = client.get(BANNED, "//evil.example/x", **NAVIGATES)
        onward = press(client, page, Origin=f"http://{BANNED}")
    assert (onward.status, onward.headers["location"]) == (303, f"http://{BANNED}//evil.example/x")
    assert lab.got(way, origin.port, BANNED, **NAVIGATES).status == 200
    assert lab.records.actions == ["http-request-warned", "warning-continued", "http-request-warned"]


@OPENING
def test_programs_are_left_alone(lab: Lab, way: Way, monkeypatch: pytest.MonkeyPatch) -> None:
    """What no browser sends passes, and later connections of the same software aren't opened at all."""
    monkeypatch.setattr("tokgate.traffic.warning_state.SLOTS", 1 << 32)  # of a few slots, two programs might share one
    origin = lab.web()
    lab.start(warning())
    for opened, alpn in ((True, ()), (False, ()), (True, ("h2", "http/1.1"))):
        with lab.tls(lab.trusting(*alpn), BANNED, way, origin.port) as client:
            assert client.is_opened is opened
            if not alpn:
                assert client.get(BANNED, User_Agent="okhttp/4.12.0").status == 200
    assert [record["tokgate"].get("passed") for record in lab.records.all] == [None, "no-page", "no-page"]


@OPENING
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
def test_what_is_no_navigation_passes(lab: Lab, warned: RawClient, method: str, headers: dict[str, str]) -> None:
    """Parts of pages, frames, forms and calls reach the origin with a warning; pages are shown on."""
    assert warned.request(method, "/x", BANNED, **headers).status == 200
    assert warned.get(BANNED, **NAVIGATES).status == 403
    assert lab.records.all[1]["tokgate"]["passed"] == "no-navigation"


@OPENING
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
        ({}, {"host": "other.clips.example.org"}),
    ],
)
def test_what_others_send_does_not_continue(
    lab: Lab, warned: RawClient, spoilt: dict[str, str], headers: dict[str, Any]
) -> None:
    """Without the token, from another site or for another name, nothing is remembered, and the page is shown again."""
    fields = fields_of(warned.get(BANNED, **NAVIGATES))
    refused = send_form(warned, fields | spoilt, **headers)
    assert (refused.status, fields_of(refused)["target"]) == (403, (fields | spoilt)["target"])
    link = warned.get(BANNED, f"{PATH}?{urlencode(fields)}", **NAVIGATES)  # or a prefetch
    assert (link.status, fields_of(link)["target"]) == (403, "/")
    assert "warning-continued" not in lab.records.actions
    assert send_form(warned, fields, Origin=f"https://{BANNED}").status == 303  # the real one still works


@OPENING
def test_an_oversized_form_is_cut_off(lab: Lab, warned: RawClient) -> None:
    warned.send(f"POST {PATH} HTTP/1.1\r\nHost: {BANNED}\r\nContent-Length: 10000000\r\n\r\n".encode())
    assert warned.to_end() == b""


@OPENING
def test_connections_that_were_open_when_somebody_continued(lab: Lab, way: Way) -> None:
    """On them parts of pages pass, a page is to be asked for anew, and a page left open still leads on."""
    origin = lab.web()
    lab.start(warning())
    with contextlib.ExitStack() as stack:
        first, second, third = (stack.enter_context(lab.reach(way, origin.port)) for _ in range(3))
        for client in (first, second, third):
            client.tls(lab.trusting(), BANNED)
        left = second.get(BANNED, "/b", **NAVIGATES)
        press(first, first.get(BANNED, "/a", **NAVIGATES))
        again = press(second, left)
        assert (again.status, again.headers["location"]) == (303, f"https://{BANNED}/b")
        assert third.get(BANNED, "/part", User_Agent="okhttp/4").body == b"origin"
        anew = third.get(BANNED, "/c?d", **NAVIGATES)
    assert (anew.status, anew.headers["location"]) == (307, f"https://{BANNED}/c?d")
    assert anew.headers["connection"] == "close"
    assert lab.records.actions.count("warning-continued") == 1
    assert lab.records.all[-1]["tokgate"]["passed"] == "continued"


@OPENING
@pytest.mark.parametrize("shakes_hands", [True, False])
def test_clients_that_go_without_a_word(lab: Lab, shakes_hands: bool) -> None:
    """One interruption says nothing; three in a row say that the certificate isn't what the software expects."""
    origin = lab.web()
    lab.start(warning())
    for opened in (True, True, True, False):
        with lab.reach(Way.REDIRECTED, origin.port) as client:
            if shakes_hands or not opened:
                client.tls(lab.trusting(), BANNED)
                assert client.is_opened is opened
            else:
                client.send(openssl_hello(BANNED))
                client.exactly(1)
        assert lab.settled()


@OPENING
def test_a_warning_without_a_page(lab: Lab) -> None:
    """With `response: refuse` nothing is opened, and the button's path is the origin's."""
    origin = lab.web(tls=False)
    lab.start(warning(response="refuse"))
    with lab.reach(Way.REDIRECTED, origin.port) as client:
        assert client.get(BANNED, **NAVIGATES).status == 200
        assert client.request("POST", PATH, BANNED, b"token=x", Content_Length="7").status == 200


@OPENING
def test_http2_is_told_to_leave(lab: Lab) -> None:
    """Over HTTP/2 a GOAWAY that ends no stream comes with the redirection: browsers begin no new stream then."""
    lab.start(warning())
    with lab.tls(lab.trusting("h2"), BANNED, Way.REDIRECTED, 1) as client:
        http = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        http.initiate_connection()
        head = [(":scheme", "https"), (":authority", BANNED)]
        navigates = [(name.lower().replace("_", "-"), value) for name, value in NAVIGATES.items()]
        http.send_headers(1, [(":method", "GET"), (":path", "/"), *head, *navigates], end_stream=True)
        client.send(http.data_to_send())
        seen: list[h2.events.Event] = []
        while not any(isinstance(event, h2.events.StreamEnded) for event in seen):
            seen += http.receive_data(client.sock.recv(65536))
        page = b"".join(event.data or b"" for event in seen if isinstance(event, h2.events.DataReceived))
        body = urlencode(fields_of(Reply(403, {}, page))).encode()
        fields = [("content-length", str(len(body))), ("origin", f"https://{BANNED}")]
        http.send_headers(3, [(":method", "POST"), (":path", PATH), *head, *fields])
        http.send_data(3, body, end_stream=True)
        client.send(http.data_to_send())
        frames: dict[int, bytes] = {}  # the payload of the last of each type: `h2` reads none after a GOAWAY
        ended = False
        while not ended:
            said = client.exactly(9)
            frames[said[3]] = client.exactly(int.from_bytes(said[:3]))
            ended = int.from_bytes(said[5:]) == 3 and said[3] in (0, _HEADERS) and bool(said[4] & 1)
    assert frames[_GOAWAY] == bytes.fromhex("7fffffff 00000000")
    assert dict(http.decoder.decode(frames[_HEADERS], raw=True))[b":status"] == b"303"


@OPENING
def test_other_names_are_never_opened(lab: Lab, way: Way) -> None:
    """Beside the warning, other names carry the origin's own certificate."""
    origin = lab.web()
    lab.start(warning())
    with lab.tls(lab.trusting(), ALLOWED, way, origin.port) as client:
        assert not client.is_opened
    assert lab.records.all == []


@OPENING
def test_the_ban_begins_to_block_meanwhile(lab: Lab) -> None:
    """Continuing ends where blocking begins, which the page says; a button pressed after that gets the refusal."""
    start = builders.wall("2023-04-01T15:00")  # 13:00Z, an hour after now
    lab.start(warning(action="block", warn_from=builders.wall("2023-03-20T00:00"), starts=start))
    with lab.tls(lab.trusting(), BANNED, Way.REDIRECTED, 1) as client:
        page = client.get(BANNED, **NAVIGATES)
        assert b"not shown again until 1 April 2023, 15:00 (Europe/Brussels)" in page.body
        lab.clock.set("2023-04-01T13:00:00Z")
        assert client.is_reset()
    with lab.tls(lab.trusting(), BANNED, Way.REDIRECTED, 1) as client:
        assert press(client, page).status == 451
    assert "connection-cut" in lab.records.actions


@pytest.mark.parametrize("lab", [Kind.GATE], indirect=True)
@pytest.mark.parametrize(("action", "passes"), [("warn", True), ("block", False)])
def test_nobody_who_can_show_a_page(lab: Lab, way: Way, action: str, passes: bool) -> None:
    """Without one a warning is no refusal, and a ban is one."""
    origin, said = lab.origin(), hello_for(BANNED)
    lab.start(policy(ban(action=action, response="page")))
    assert (lab.heard(way, origin.port, said) == said) is passes
    (record,) = lab.records.all
    assert record["event"]["action"] == ("connection-warned" if passes else "tls-handshake-refused")
    assert record["tokgate"].get("passed") == ("no-page" if passes else None)
