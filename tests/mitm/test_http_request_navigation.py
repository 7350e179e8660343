"""Which requests are a browser's navigation, and which form is a page's own."""

import pytest
from mitmproxy.http import Headers, Request

from tokgate.block_page.continue_form import PATH
from tokgate.mitm.http_request import from_a_browser, is_navigation, is_own_form

HTML = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
BROWSER = "Mozilla/5.0 (Windows NT 10.0; Win64; x64)"


def request(method: str = "GET", path: str = "/", **headers: str) -> Request:
    """A request with these headers."""
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
