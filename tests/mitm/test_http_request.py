"""Requests as policy and page see them: navigations, what is asked for in tunnels, bodies that begin like requests."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy.http import Headers, Request

from labs import builders
from labs.proxy_lab import BANNED, BANNED_ADDRESS, Lab, ban, client
from tokgate.block_page.continue_form import PATH
from tokgate.mitm.http_request import BodyStart, from_a_browser, is_navigation, is_own_form
from tokgate.policy.bans import Action

HTML = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
BROWSER = "Mozilla/5.0 (Windows NT 10.0; Win64; x64)"


def request(method: str = "GET", path: str = "/", **headers: str) -> Request:
    made = Request.make(method, f"https://www.example.org{path}")
    made.headers = Headers([(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()])
    return made


@pytest.mark.parametrize(
    ("method", "headers", "navigation"),
    [
        ("GET", {"Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}, True),
        ("GET", {"Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document", "Accept": "*/*"}, True),
        ("GET", {"Accept": HTML, "User_Agent": BROWSER}, True),
        ("HEAD", {"Accept": HTML, "User_Agent": BROWSER}, False),
        ("POST", {"Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}, False),
        ("GET", {"Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"}, False),
        ("GET", {"Sec_Fetch_Mode": "navigate"}, False),
        (
            "GET",
            {"Sec_Fetch_Mode": "no-cors", "Sec_Fetch_Dest": "script", "Accept": HTML, "User_Agent": BROWSER},
            False,
        ),
        ("GET", {"Sec_Fetch_Mode": "websocket", "Sec_Fetch_Dest": "empty"}, False),
        ("GET", {"Accept": "image/webp,*/*", "User_Agent": BROWSER}, False),
        ("GET", {"Accept": HTML, "User_Agent": "curl/8.14.1"}, False),
        ("GET", {"Accept": "*/*", "User_Agent": "okhttp/4"}, False),
        ("GET", {}, False),
    ],
)
def test_navigations(method: str, headers: dict[str, str], navigation: bool) -> None:
    """What a tab will show, by Fetch Metadata; by what it accepts for browsers that send none."""
    assert is_navigation(request(method, **headers)) is navigation


@pytest.mark.parametrize(
    ("headers", "browser"),
    [
        ({"Sec_Fetch_Mode": "cors"}, True),
        ({"Sec_Fetch_Dest": "image"}, True),
        ({"User_Agent": BROWSER}, True),
        ({"User_Agent": "okhttp/4 Mozilla/5.0"}, False),
        ({}, False),
    ],
)
def test_browsers(headers: dict[str, str], browser: bool) -> None:
    """A browser says so, in one way or the other."""
    assert from_a_browser(request(**headers)) is browser


@pytest.mark.parametrize(
    ("headers", "same"),
    [
        ({}, True),
        ({"Origin": "https://www.example.org"}, True),
        ({"Origin": "https://WWW.example.org"}, True),
        ({"Origin": "https://www.example.org", "Sec_Fetch_Site": "same-origin"}, True),
        ({"Origin": "http://www.example.org"}, False),
        ({"Origin": "https://example.org"}, False),
        ({"Origin": "https://www.example.org:444"}, False),
        ({"Origin": "null"}, False),
        ({"Sec_Fetch_Site": "none"}, False),
        ({"Sec_Fetch_Site": "same-site"}, False),
        ({"Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document", "Sec_Fetch_Site": "same-origin"}, True),
        ({"Sec_Fetch_Mode": "cors", "Sec_Fetch_Dest": "empty", "Sec_Fetch_Site": "same-origin"}, False),
        ({"Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe", "Sec_Fetch_Site": "same-origin"}, False),
    ],
)
def test_own_forms(headers: dict[str, str], same: bool) -> None:
    """A form of another origin is none of ours, nor is what a script sends, however the browser says so."""
    assert is_own_form(request("POST", PATH, **headers), "www.example.org") is same


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
    lab.names[BANNED] = (BANNED_ADDRESS, "127.0.0.1")
    async with client(proxy.port) as guest:
        assert (await guest.connect(f"{BANNED}:{origin.port}")).status == 200
        assert (await guest.get("www.example.net", User_Agent="test")).status == 200

    warned = [r for r in lab.records.all if r["event"]["action"] == "http-request-warned"]
    assert [record["tokgate"]["names"]["http-host"] for record in warned] == [["www.example.net", BANNED]]


METHODS = st.sampled_from(["GET", "get", "DELETE", "POST", "PUT"])


def passed(method: str, pieces: list[bytes]) -> bytes | None:
    """What passes of a body in pieces, up to its end; None if it begins like a request."""
    start, got = BodyStart(method), b""
    for piece in [*filter(None, pieces), b""]:
        passing = start.feed(piece)
        if passing is None:
            return None
        got += passing
    return got


@given(METHODS, st.lists(st.binary(max_size=6), max_size=40))
def test_pieces_make_no_difference(method: str, pieces: list[bytes]) -> None:
    """A body in pieces passes as it would in one, octet for octet."""
    whole = b"".join(pieces)
    assert passed(method, pieces) == passed(method, [whole])
    assert passed(method, [whole]) in (None, whole)


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize(
    "body",
    [
        b"GET / HTTP/1.1\r\nHost: www.clips.example.org\r\n\r\n",
        b"\r\n \t\0\x0bPOST\t/ HTTP/1.1\r\n",
        b"CONNECT www.clips.example.org:443 HTTP/1.1\r\n",
        b"OPTIONS * HTTP/1.1\r\n",
        b"GET   HTTP://www.clips.example.org/",
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_requests(method: str, body: bytes, size: int) -> None:
    """A request is found behind whatever servers pass over, however it is cut."""
    assert passed(method, [body[at : at + size] for at in range(0, len(body), size)]) is None


def test_unknown_methods() -> None:
    """Any word may be a method where a body means nothing; elsewhere it is a text."""
    assert passed("GET", [b"BREW /pot HTTP/1.1\r\n"]) is None
    assert passed("POST", [b"BREW /pot HTTP/1.1\r\n"]) == b"BREW /pot HTTP/1.1\r\n"


@pytest.mark.parametrize(
    ("method", "piece"), [("POST", b"hello"), ("GET", b"{"), ("PUT", b"GET well soon"), ("GET", b"q=1")]
)
def test_nothing_is_held_for_long(method: str, piece: bytes) -> None:
    """Uploads pass as they come: a first piece that can't become a request doesn't wait for the second."""
    start = BodyStart(method)
    assert start.feed(piece) == piece


def test_what_is_held_is_bounded() -> None:
    """A target without an end doesn't fill the memory."""
    start = BodyStart("POST")
    got = b"".join(start.feed(b"GET" + b" " * 20) or b"" for _ in range(100))
    assert len(got) > 2000
