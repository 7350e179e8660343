"""Which requests are a browser's navigation, and which button is a page's own."""

import pytest
from mitmproxy.http import Headers, Request
from whenever import Instant

from tokgate.block_page.continue_form import PATH, Button, presses_button, read_form, target_of
from tokgate.mitm.navigation import from_a_browser, is_navigation, is_own_form
from tokgate.traffic.warning_state import Person

NOW = Instant.from_utc(2023, 4, 1, 12)
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


BUTTON = Button(Person("192.0.2.7"), "ban", "www.example.org", "/a?b=c")
KEY = bytes(32)


def test_a_token_holds_for_its_hour() -> None:
    """From when it was made, up to but not including an hour later."""
    token = BUTTON.token(KEY, NOW)

    assert BUTTON.made(token, KEY, NOW)
    assert BUTTON.made(token, KEY, NOW.add(hours=1).subtract(seconds=1))
    assert not BUTTON.made(token, KEY, NOW.add(hours=1))
    assert not BUTTON.made(token, KEY, NOW.subtract(seconds=1))  # made in what is now the future


@pytest.mark.parametrize(
    "other",
    [
        Button(Person("192.0.2.8"), "ban", "www.example.org", "/a?b=c"),
        Button(Person("192.0.2.7", "alice"), "ban", "www.example.org", "/a?b=c"),
        Button(Person("192.0.2.7"), "another", "www.example.org", "/a?b=c"),
        Button(Person("192.0.2.7"), "ban", "evil.example", "/a?b=c"),
        Button(Person("192.0.2.7"), "ban", "www.example.org", "/"),
        Button(Person("192.0.2.7"), "ban\0www.example.org", "", "/a?b=c"),
    ],
)
def test_a_token_is_for_one_client_ban_name_and_target(other: Button) -> None:
    """Nothing in it can be exchanged."""
    assert not other.made(BUTTON.token(KEY, NOW), KEY, NOW)


def test_a_token_can_not_be_forged() -> None:
    """Not with another key, not by moving its end, not by cutting or adding."""
    token = BUTTON.token(KEY, NOW)
    end, _, digest = token.partition("-")
    forged = [f"{int(end) + 1}-{digest}", f"{end}-{'0' * 64}", token[:-1], token + "0", f" {token}", digest, "", "-"]
    forged.append(f"{end}-{digest.upper()}" if digest.upper() != digest else "")

    assert not BUTTON.made(token, bytes(31) + b"\1", NOW)
    assert [each for each in forged if BUTTON.made(each, KEY, NOW)] == []


@pytest.mark.parametrize(
    ("body", "token", "target"),
    [
        (b"token=t&target=%2Fa%3Fb%3Dc", "t", "/a?b=c"),
        (b"token=t&target=%2F%2Fevil.example", "t", "//evil.example"),
        (b"token=t&target=https%3A%2F%2Fevil.example", "t", "/"),
        (b"token=t&target=%2Fa%0D%0ASet-Cookie%3A+x", "t", "/"),
        (b"token=t&target=%2F%C3%A9", "t", "/"),
        (b"token=t&target=%2F" + b"a" * 9000, "t", "/"),
        (b"token=a&token=b", "a", "/"),
        (b"a&b=1&c=2&d=3&e=4&f=5&g=6", "", "/"),
        (b"\xff", "", "/"),
        (b"", "", "/"),
        (None, "", "/"),
    ],
)
def test_forms(body: bytes | None, token: str, target: str) -> None:
    """A target is a path of this origin in plain characters; all else is the root."""
    form = read_form(body)

    assert (form.token, form.target) == (token, target)


@pytest.mark.parametrize(
    ("method", "path", "pressed", "target"),
    [
        ("POST", PATH, True, "/"),
        ("GET", PATH, False, "/"),
        ("GET", f"{PATH}?token=x", False, "/"),
        ("POST", f"{PATH}/x", False, f"{PATH}/x"),
        ("POST", f"{PATH}?x", False, "/"),
        ("GET", "/a?b=c", False, "/a?b=c"),
        ("OPTIONS", "*", False, "/"),
    ],
)
def test_the_buttons_address(method: str, path: str, pressed: bool, target: str) -> None:
    """Only a POST to exactly that path; a page asked for there leads on to the root."""
    made = request(method)
    made.path = path

    assert presses_button(made) is pressed
    assert target_of(made) == target
