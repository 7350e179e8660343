"""Who may look: the link, passwords, the proxy's header; and what every request must be."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_network
from pathlib import Path
from urllib.parse import quote

import pytest
from anyio import to_thread
from starlette.datastructures import Headers

from labs.builders import present
from labs.records import Monotonic
from labs.review_page import BASE, COOKIE, OpenPage, Page, hashed, passwords
from tokgate.accounts.htpasswd import Htpasswd
from tokgate.webui import sign_in
from tokgate.webui.auth import (
    FAILURE_SECONDS,
    IDLE,
    LIFETIME,
    MAX_FAILURES,
    MAX_FAILURES_OF_ADDRESS,
    MAX_SESSIONS,
    SLOW_SECONDS,
    Authenticator,
    HeaderAuthenticator,
    LinkAuthenticator,
    PasswordAuthenticator,
    Sessions,
    client_address,
    site_of,
)
from tokgate.webui.middleware import AuthMiddleware, is_loopback
from tokgate.webui.sign_in import own_path

PAGES = ("/", "/lines", "/lines.csv", "/counts.csv?by=client", "/live", "/live/stream")
EVENT = "/event/01862000-0000-7000-8000-000000000001"
HOUR = 3600.0


@pytest.mark.parametrize("url", [*PAGES, EVENT, "/events", "/nothing"])
def test_nothing_is_shown_to_strangers(open_page: OpenPage, url: str) -> None:
    """They are sent to sign in, and nothing is recorded as a look."""
    with open_page() as page:
        answer = page.get(url)
        assert answer.status_code == 303
        assert answer.headers["location"] == f"/sign-in?next={quote(url, safe='')}"
        assert "192.0.2" not in answer.text
        assert page.get(answer.headers["location"]).status_code == 200
        page.client.cookies.set(COOKIE, "guessed")
        assert page.get(url).status_code == 303
        assert page.told == []


def test_the_link_opens_once(open_page: OpenPage) -> None:
    """It becomes a session, in a cookie that scripts and other sites don't get; then it is worth nothing."""
    with open_page() as page:
        answer = page.client.get(f"/enter?token={page.tokens[0]}")
        assert answer.status_code == 200
        (cookie,) = answer.headers.get_list("set-cookie")
        assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(cookie.split("; "))
        assert page.tokens[0] not in cookie
        assert page.get("/").status_code == 200
        page.client.cookies.clear()
        for used in (f"/enter?token={page.tokens[0]}", "/enter?token=", "/enter"):
            answer = page.client.get(used)
            assert (answer.status_code, "This link was used already" in answer.text) == (403, True)
            assert page.get("/").status_code == 303
        assert len(page.tokens) == 1


@pytest.mark.parametrize("token", ["", "x", "é", "0" * 43])
def test_other_links_open_nothing(open_page: OpenPage, token: str) -> None:
    """And don't use up the right one."""
    with open_page() as page:
        assert page.client.get("/enter", params={"token": token}).status_code == 403
        page.sign_in()
        assert page.get("/").status_code == 200


def test_a_browser_that_looks_ahead_does_not_use_the_link_up(open_page: OpenPage) -> None:
    """Nor does HEAD, with which links are probed."""
    with open_page() as page:
        url = f"/enter?token={page.tokens[0]}"
        assert page.client.get(url, headers={"Sec-Purpose": "prefetch;prerender"}).status_code == 503
        assert page.client.head(url).status_code == 405
        page.sign_in()


def test_signing_out_ends_the_session_and_gives_a_new_link(page: Page) -> None:
    token = page.client.cookies[COOKIE]
    assert "Sign out" in page.get("/").text
    origin = {"Origin": "http://127.0.0.1:8090", "Sec-Fetch-Site": "same-origin"}
    answer = page.client.post("/sign-out", headers=origin)
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
    (cookie,) = answer.headers.get_list("set-cookie")
    assert {"HttpOnly", "SameSite=strict", "Path=/", "Max-Age=0"} <= set(cookie.split("; "))
    page.client.cookies.set(COOKIE, token)
    assert page.get("/").status_code == 303
    assert len(page.tokens) == 2
    page.client.cookies.clear()
    page.sign_in()
    assert page.get("/").status_code == 200


def test_signing_out_once_more_leads_to_a_page_that_exists(page: Page) -> None:
    """After an idle hour the button leads to the sign-in page, and that must not lead back to signing out."""
    page.client.cookies.clear()
    answer = page.client.post("/sign-out", headers={"Origin": "http://127.0.0.1:8090", "Sec-Fetch-Site": "same-origin"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")


@pytest.mark.parametrize(("pause", "ends"), [(2 * HOUR - 1, False), (2 * HOUR + 1, True)])
def test_an_idle_session_ends(page: Page, pause: float, ends: bool) -> None:
    """On either side of what docs/review.md says."""
    page.clock.now += pause
    assert page.get("/").status_code == (303 if ends else 200)


def test_no_session_goes_on_for_ever(page: Page) -> None:
    """However busy it is: after twelve hours it ends."""
    while page.clock.now < 1000 + 12 * HOUR - 1000:
        page.clock.now += 1000
        assert page.get("/lines").status_code == 200
    page.clock.now += 2000
    assert page.get("/").status_code == 303


def test_passwords(open_page: OpenPage, users: Path) -> None:
    """The right one begins a session and leads on; a wrong one says nothing about which part was wrong."""
    origin = {"Origin": "http://127.0.0.1:8090"}
    with open_page(authenticator=passwords(users), secure=True) as page:
        form = page.get("/sign-in?next=/lines%3Fban%3Dx")
        assert 'name="next" value="/lines?ban=x"' in form.text
        wrong = {
            page.client.post("/sign-in", data={"user": user, "password": password}, headers=origin).text
            for user, password in (("alice", "wrong"), ("nobody", "correct horse"), ("alice", "")
                                   , ("bob", "x" * 73), ("", ""))
        }  # fmt: skip
        assert len(wrong) == 1
        right = {"user": "alice", "password": "correct horse", "next": "/lines?ban=x"}
        answer = page.client.post("/sign-in", data=right, headers=origin)
        assert (answer.status_code, answer.headers["location"]) == (303, "/lines?ban=x")
        assert "Secure" in answer.headers["set-cookie"]
        page.client.cookies.clear()  # the test's client speaks no TLS, so it keeps no secure cookie
        session = answer.headers["set-cookie"].partition("=")[2].partition(";")[0]
        assert page.get("/", Cookie=f"{COOKIE}={session}").status_code == 200
        users.write_text(f"bob:{hashed('x')}\n")
        assert page.get("/", Cookie=f"{COOKIE}={session}").status_code == 303  # taken out of the file


def test_signing_in_is_recorded(open_page: OpenPage, users: Path, tmp_path: Path) -> None:
    """Also where it failed; a name that nobody has is not kept, for it may be a password in the wrong field."""
    origin = {"Origin": "http://127.0.0.1:8090"}
    path = tmp_path / "access.ndjson"
    with open_page(authenticator=passwords(users), access_log=path) as page:
        for user, password in (("alice", "wrong"), ("hunter2", ""), ("alice", "correct horse")):
            page.client.post("/sign-in", data={"user": user, "password": password}, headers=origin)
    said = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(one["user"]["name"], one["event"]["action"], one["event"]["outcome"]) for one in said] == [
        ("alice", "review-sign-in", "failure"),
        ("(unknown)", "review-sign-in", "failure"),
        ("alice", "review-sign-in", "success"),
    ]
    for word in ("hunter2", "wrong", "correct horse"):
        assert word not in path.read_text() + "".join(page.told)


def test_opening_the_link_is_recorded(open_page: OpenPage, tmp_path: Path) -> None:
    """By whom the link was for, also where it was used already; a page for other authenticators has none to record."""
    path = tmp_path / "access.ndjson"
    with open_page(access_log=path) as page:
        for token in ("wrong", page.tokens[0], page.tokens[0]):
            page.client.get(f"/enter?token={token}")
    said = [json.loads(line)["event"] for line in path.read_text().splitlines()]
    assert [(one["action"], one["outcome"]) for one in said] == [
        ("review-sign-in", "failure"),
        ("review-sign-in", "success"),
        ("review-sign-in", "failure"),
    ]


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that attempts had to wait, which they don't here."""
    made: list[float] = []

    async def wait(seconds: float) -> None:
        made.append(seconds)

    monkeypatch.setattr(sign_in, "sleep", wait)
    return made


def attempt(page: Page, user: str, password: str, client: str = "") -> int:
    """Send the form, behind a proxy that says for which client; the status."""
    headers = {"Origin": "http://127.0.0.1:8090"} | ({"X-Forwarded-For": client} if client else {})
    said = {"user": user, "password": password}
    return int(page.client.post("/sign-in", data=said, headers=headers).status_code)


def test_wrong_passwords_cost_time(open_page: OpenPage, users: Path, waits: list[float]) -> None:
    """After ten for one user from one address each takes seconds, also the right one; nobody else waits."""
    with open_page(authenticator=passwords(users)) as page:
        for _ in range(MAX_FAILURES):
            assert attempt(page, "alice", "wrong") == 403
        assert attempt(page, "bob", "x" * 72) == 303
        assert waits == []
        assert attempt(page, "alice", "wrong") == 403
        assert attempt(page, "alice", "correct horse") == 303
        assert waits == [SLOW_SECONDS] * 2
        assert attempt(page, "alice", "wrong") == 403
        assert len(waits) == 2


def test_one_behind_a_proxy_slows_no_other(open_page: OpenPage, users: Path, waits: list[float]) -> None:
    """Behind a proxy that is named, wrong passwords are counted by client, for the same user and for all."""
    authenticator = lambda sessions, clock: PasswordAuthenticator(sessions, Htpasswd(users), clock)  # noqa: E731
    with open_page(authenticator=authenticator, proxies=(ip_network("127.0.0.1/32"),)) as page:
        for number in range(MAX_FAILURES_OF_ADDRESS):
            attempt(page, "alice" if number < MAX_FAILURES else f"user-{number}", "wrong", "198.51.100.7")
        assert attempt(page, "alice", "correct horse", "198.51.100.8") == 303
        assert attempt(page, "bob", "x" * 72, "203.0.113.9, 198.51.100.8") == 303
        assert waits == []
        assert attempt(page, "alice", "wrong", "203.0.113.9, 198.51.100.7") == 403  # whatever it says of itself
        assert waits == [SLOW_SECONDS]
        assert any("alice at 198.51.100.8 signs in" in line for line in page.told)


def test_a_header_of_anybody_is_not_believed(open_page: OpenPage, users: Path, waits: list[float]) -> None:
    """Without a proxy that is named, a new address in each request is still one client."""
    with open_page(authenticator=passwords(users)) as page:
        for number in range(MAX_FAILURES + 1):
            attempt(page, "alice", "wrong", f"198.51.100.{number}")
        assert waits == [SLOW_SECONDS]


def test_guesses_at_once_are_no_more(open_page: OpenPage, users: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sends many before the first has failed gets one more compared while the others are turned away."""
    turned_away = threading.Event()

    async def wait(seconds: float) -> None:
        assert seconds == SLOW_SECONDS
        assert await to_thread.run_sync(turned_away.wait, 30)

    monkeypatch.setattr(sign_in, "sleep", wait)
    with open_page(authenticator=passwords(users)) as page:
        answers = Counter[int]()

        def guess(_: int) -> None:
            answers[attempt(page, "alice", "wrong")] += 1
            if answers[429] == 2 * MAX_FAILURES - 1:
                turned_away.set()

        with ThreadPoolExecutor(3 * MAX_FAILURES) as pool:
            list(pool.map(guess, range(3 * MAX_FAILURES)))
        assert answers == {403: MAX_FAILURES + 1, 429: 2 * MAX_FAILURES - 1}
        turned_away.set()
        assert attempt(page, "alice", "correct horse") == 303  # nobody waits any more


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Origin": "null"},
        {"Origin": "http://evil.example"},
        {"Origin": "http://127.0.0.1:8091"},
        {"Origin": "http://127.0.0.1:8090", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "http://127.0.0.1:8090", "Sec-Fetch-Site": "same-site"},
    ],
)
@pytest.mark.parametrize("path", ["/sign-in", "/sign-out"])
def test_no_other_site_signs_anybody_in_or_out(
    open_page: OpenPage, users: Path, headers: dict[str, str], path: str
) -> None:
    """A form has to come from this very page."""
    with open_page(authenticator=passwords(users)) as page:
        answer = page.client.post(path, data={"user": "alice", "password": "correct horse"}, headers=headers)
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    ("peer", "headers", "user"),
    [
        ("127.0.0.1", [("x-remote-user", "carol")], "carol"),
        ("127.0.0.1", [("X-Remote-User", "carol")], "carol"),
        ("127.0.0.1", [("x-remote-user", " ")], None),
        ("127.0.0.1", [("x-remote-user", "x" * 256)], "x" * 256),
        ("127.0.0.2", [("x-remote-user", "carol")], None),
        ("::1", [("x-remote-user", "carol")], None),
        ("not an address", [("x-remote-user", "carol")], None),
        ("127.0.0.1", [], None),
        ("127.0.0.1", [("x-remote-user", "")], None),
        ("127.0.0.1", [("x-remote-user", "admin"), ("x-remote-user", "carol")], None),
        ("127.0.0.1", [("x-remote-user", "x" * 257)], None),
        ("127.0.0.1", [("x_remote_user", "carol")], None),
    ],
)
def test_the_header_is_believed_of_the_proxy_alone(
    open_page: OpenPage, peer: str, headers: list[tuple[str, str]], user: str | None
) -> None:
    """By the address that the connection comes from, and only where one name is given once."""
    with open_page(
        authenticator=lambda *_: HeaderAuthenticator("X-Remote-User", [ip_network("127.0.0.1/32")]), peer=peer
    ) as page:
        answer = page.client.get("/", headers=headers)
        assert answer.status_code == (200 if user else 403)
        assert len(page.told) == bool(user)
        assert page.client.get("/sign-in").status_code == 200
        if user:
            assert f" {user} at 127.0.0.1 looks at overview" in page.told[0]
            assert "Sign out" not in answer.text
            assert f"<span>{user}</span>" in answer.text


def test_a_look_behind_the_proxy_is_of_its_client(open_page: OpenPage) -> None:
    """Recorded is the last address that the proxy forwards."""
    proxy = (ip_network("127.0.0.1/32"),)
    behind = HeaderAuthenticator("X-Remote-User", proxy)
    with open_page(authenticator=lambda *_: behind, peer="127.0.0.1", proxies=proxy) as page:
        headers = [
            ("X-Remote-User", "carol"),
            *(("X-Forwarded-For", f"{net}.8") for net in ("203.0.113", "198.51.100")),
        ]
        assert page.client.get("/", headers=headers).status_code == 200
        assert " carol at 198.51.100.8 looks at overview" in page.told[0]


def test_a_tab_of_the_time_before_the_proxy(open_page: OpenPage) -> None:
    """Who signs out there with a session that the page had of its own is led on, and sees no error."""
    behind = HeaderAuthenticator("X-Remote-User", [ip_network("127.0.0.1/32")])
    with open_page(authenticator=lambda *_: behind, peer="127.0.0.1") as page:
        page.client.cookies.set(COOKIE, "earlier")
        headers = {"X-Remote-User": "carol", "Origin": "http://127.0.0.1:8090"}
        answer = page.client.post("/sign-out", headers=headers)
        assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")


@pytest.mark.parametrize(
    ("host", "fine"),
    [
        ("127.0.0.1:8090", True),
        ("localhost:8090", True),
        ("localhost", True),
        ("LOCALHOST:9999", True),
        ("[::1]:8090", True),
        ("review.example.org", True),
        ("review.example.org:443", True),
        ("evil.example:8090", False),
        ("127.0.0.1.evil.example:8090", False),
        ("localhost.evil.example", False),
        ("evil.localhost:8090", False),
        ("review.example.org.evil.example", False),
        ("", False),
        ("::1", False),
        ("localhost:x", False),
        ("127.0.0.1:8090, evil.example", False),
    ],
)
def test_a_name_that_was_made_to_lead_here_gets_nothing(open_page: OpenPage, host: str, fine: bool) -> None:
    """DNS rebinding: the browser believes that it talks to that name's owner."""
    with open_page(hosts=("review.example.org",)) as page:
        answer = page.client.get("/sign-in", headers={"Host": host})
        assert answer.status_code == (200 if fine else 421)


@pytest.mark.parametrize(
    ("headers", "fine"),
    [
        ({}, True),
        ({"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, True),
        ({"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}, True),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, True),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"}, False),
        ({"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}, False),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://127.0.0.1:8090", "Sec-Fetch-Site": "same-origin"}, True),
    ],
)
def test_other_sites_get_nothing(page: Page, headers: dict[str, str], fine: bool) -> None:
    """Not as a picture, a frame or a script, nor by fetch; a person may follow a link here."""
    answer = page.client.get("/lines.csv", headers=headers)
    assert answer.status_code == (200 if fine else 403)
    assert not any(name.startswith("access-control") for name in answer.headers)
    if not fine:
        assert "192.0.2.7" not in answer.text


@pytest.mark.parametrize("hosts", [("127.0.0.1:8090", "evil.example"), ("evil.example", "127.0.0.1:8090")])
def test_a_request_with_two_hosts_gets_nothing(page: Page, hosts: tuple[str, str]) -> None:
    """Of two Host fields a proxy in front may have gone by the other one (RFC 9112 §3.2)."""
    assert page.client.get("/sign-in", headers=[("Host", host) for host in hosts]).status_code == 421


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"])
def test_the_page_only_reads(page: Page, method: str) -> None:
    """A page need not think of other methods: there is nothing to change but who is signed in, by one method."""
    for path in ("/", "/lines", EVENT, "/static/review.css", "/enter", "/nothing", "/sign-in", "/sign-out"):
        if method != "POST" or not path.startswith("/sign-"):
            answer = page.client.request(method, path, headers={"Origin": "http://127.0.0.1:8090"})
            assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    ("host", "here"),
    [("localhost", True), ("127.0.0.2", True), ("[::1]", True), ("0.0.0.0", False), ("review.example.org", False)],
)
def test_what_only_this_machine_reaches(host: str, here: bool) -> None:
    """A page for others needs passwords; one at `localhost` may begin with a link."""
    assert is_loopback(host) is here


async def test_a_web_socket_reaches_no_page() -> None:
    """Nothing is asked of the application, and nobody is asked for."""
    guard = AuthMiddleware(None, None, hosts=(), cookie=COOKIE)  # type: ignore[arg-type]
    await guard({"type": "websocket"}, None, None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url", [*PAGES[:-1], EVENT, "/sign-in", "/enter?token=x", "/static/live.js", "/nothing", "/event/x"]
)
def test_every_answer_is_armoured(page: Page, url: str) -> None:
    """No script or style but the page's own files, no frame, no guessing of types, nothing kept by caches."""
    answer = page.get(url)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cross-origin-resource-policy"] == "same-origin"
    assert "server" not in answer.headers
    if not url.startswith("/static"):
        assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    [
        "/static/../sessions.py", "/static/..%2fsessions.py", "/static/%2e%2e/%2e%2e/engine.py", "/static//etc/passwd",
        "/static/review.css%00", "/static/", "/event/../lines", "/event/..%2f..%2fblock.ndjson", "/static/REVIEW.CSS",
    ],
)  # fmt: skip
def test_no_path_leads_to_another_file(page: Page, path: str) -> None:
    """Files are served by name from a list; events by id from the log."""
    answer = page.client.get(path, headers={"Sec-Fetch-Site": "same-origin"})
    assert answer.status_code in (404, 405) or answer.headers["content-type"].startswith("text/html")
    assert "import" not in answer.text
    assert "root:" not in answer.text


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("/lines?ban=x", "/lines?ban=x"),
        ("//evil.example", "/"),
        ("/\\evil.example", "/"),
        ("/lines\\..\\x", "/"),
        ("https://evil.example", "/"),
        ("javascript:alert(1)", "/"),
        ("/a\r\nb", "/"),
        ("", "/"),
    ],
)
def test_signing_in_leads_nowhere_else(target: str, path: str) -> None:
    """Whatever somebody wrote into the link to the form."""
    assert own_path(target) == path


def test_each_look_is_recorded(open_page: OpenPage, tmp_path: Path) -> None:
    """Who, when, from where, at what, by which filters: on stderr, and in a file that others can't read."""
    path = tmp_path / "access.ndjson"
    with open_page(access_log=path) as page:
        page.sign_in()
        page.get("/lines?client=192.0.2.7&ban=a%0Ab%1b[31m")
        page.get(EVENT)
        page.get("/counts.csv?by=client")
        page.get("/static/review.css")
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    assert entries.pop(0)["event"]["action"] == "review-sign-in"
    assert [entry["tokgate"]["review"] for entry in entries] == [
        {"page": "lines", "filters": {"client": "192.0.2.7"}},
        {"page": "event", "filters": {"event": EVENT.removeprefix("/event/")}},
        {"page": "counts.csv", "filters": {"by": "client"}},
    ]
    assert {entry["user"]["name"] for entry in entries} == {"alice"}
    assert path.stat().st_mode & 0o007 == 0
    assert len(page.told) == 4
    assert page.told[1].endswith('alice at 127.0.0.1 looks at lines client="192.0.2.7"')


@pytest.mark.parametrize("url", [*PAGES, EVENT])
def test_what_can_not_be_recorded_is_not_shown(open_page: OpenPage, tmp_path: Path, url: str) -> None:
    """A full disk is no way to look unseen."""
    path = tmp_path / "folder" / "access.ndjson"
    path.parent.mkdir()
    with open_page(access_log=path) as page:
        page.sign_in()
        path.unlink()
        path.mkdir()
        answer = page.get(url)
        assert answer.status_code == 503
        assert "192.0.2" not in answer.text
        assert "can&#39;t be recorded" in answer.text


PROXIES = [ip_network("127.0.0.1/32"), ip_network("192.0.2.0/28"), ip_network("2001:db8:f::/64")]


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("127.0.0.1", ["198.51.100.7"], "198.51.100.7"),
        ("127.0.0.1", ["203.0.113.9, 198.51.100.7"], "198.51.100.7"),  # the left one is the client's own word
        ("127.0.0.1", ["203.0.113.9", "198.51.100.7"], "198.51.100.7"),
        ("127.0.0.1", ["198.51.100.7, 192.0.2.5"], "198.51.100.7"),  # two proxies of ours
        ("2001:db8:f::1", ["2001:db8:1::7"], "2001:db8:1::7"),
        ("127.0.0.1", ["[2001:db8:1::7]:4711"], "2001:db8:1::7"),
        ("127.0.0.1", ["198.51.100.7:4711"], "198.51.100.7"),
        ("127.0.0.1", ["::ffff:198.51.100.7"], "198.51.100.7"),
        ("127.0.0.1", ["192.0.2.5"], "192.0.2.5"),
        ("127.0.0.1", [], "127.0.0.1"),
        ("127.0.0.1", [""], "127.0.0.1"),
        ("127.0.0.1", ["198.51.100.7, unknown"], "127.0.0.1"),
        ("127.0.0.1", ["198.51.100.7, unknown, 192.0.2.5"], "192.0.2.5"),
        ("192.0.2.16", ["198.51.100.7"], "192.0.2.16"),  # no proxy of ours
        ("198.51.100.7", ["203.0.113.9"], "198.51.100.7"),
        ("", ["198.51.100.7"], ""),
    ],
)
def test_the_client_behind_proxies(peer: str, forwarded: list[str], client: str) -> None:
    """Else an attacker counts as somebody new at each guess, or everybody as one."""
    assert client_address(peer, forwarded, PROXIES) == client


def test_a_site_of_ipv6_is_one() -> None:
    """Whoever has a /64 could guess from another address each time."""
    assert site_of("2001:db8:1::7") == site_of("2001:db8:1:0:ffff::1") != site_of("2001:db8:1:1::7")
    assert site_of("198.51.100.7") == "198.51.100.7"


RIGHT = {"user": "alice", "password": "correct horse"}
ORIGIN = {"Origin": BASE}


def follows(authenticator: Authenticator, token: str | None) -> bool:
    """Whether a live page that is left open goes on."""
    return authenticator.viewer("192.0.2.1", Headers(), token, awake=False) is not None


@pytest.fixture
def clock() -> Monotonic:
    return Monotonic()


@pytest.fixture
def authenticator(users: Path, clock: Monotonic) -> PasswordAuthenticator:
    return PasswordAuthenticator(Sessions(clock), Htpasswd(users), clock)


@pytest.fixture
def password_page(open_page: OpenPage, users: Path) -> Iterator[Page]:
    with open_page(authenticator=passwords(users)) as page:
        yield page


def test_who_reads_stays_signed_in_and_who_only_follows_does_not(
    authenticator: PasswordAuthenticator, clock: Monotonic
) -> None:
    """A session lasts while pages are asked for, and ends though a live page is left open."""
    token = authenticator.sign_in("192.0.2.1", **RIGHT)
    for _ in range(2):
        clock.now += IDLE - 1
        assert authenticator.viewer("192.0.2.1", Headers(), token) == "alice"
    clock.now += IDLE - 1
    assert follows(authenticator, token)
    clock.now += 2
    assert not follows(authenticator, token)


def test_who_is_no_user_any_more_follows_no_more(authenticator: PasswordAuthenticator, users: Path) -> None:
    """Taken out of the file, an analyst doesn't see another line on the page that is still open."""
    token = authenticator.sign_in("192.0.2.1", **RIGHT)
    assert follows(authenticator, token)
    kept = [line for line in users.read_text().splitlines(keepends=True) if not line.startswith("alice:")]
    users.write_text("".join(kept))
    assert not follows(authenticator, token)


def test_an_own_account_is_no_way_to_guess_on(authenticator: PasswordAuthenticator) -> None:
    """Who signs in with a right password between guesses at other names is slowed down for these as before."""
    for number in range(MAX_FAILURES_OF_ADDRESS):
        assert authenticator.sign_in("192.0.2.1", f"user{number}", "wrong") is None
    assert authenticator.sign_in("192.0.2.1", **RIGHT) is not None
    assert authenticator.is_slowed("192.0.2.1", "bob")
    assert not authenticator.is_slowed("192.0.2.2", "bob")


def test_a_right_password_wipes_the_slate_clean(authenticator: PasswordAuthenticator, clock: Monotonic) -> None:
    """Whoever mistypes now and then over a morning isn't locked out by mistakes from before they signed in."""
    for _ in range(2):
        for _ in range(MAX_FAILURES - 1):
            assert authenticator.sign_in("192.0.2.1", "alice", "wrong") is None
            clock.now += FAILURE_SECONDS / (4 * MAX_FAILURES)
        assert not authenticator.is_slowed("192.0.2.1", "alice")
        assert authenticator.sign_in("192.0.2.1", **RIGHT) is not None


def test_failures_of_many_fill_no_memory(authenticator: PasswordAuthenticator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the latest are remembered: an old failure gives way, and what was tried last still counts."""
    monkeypatch.setattr("tokgate.webui.auth._MAX_REMEMBERED", 4)
    monkeypatch.setattr(Htpasswd, "knows", lambda users, user, password: False)
    for _ in range(MAX_FAILURES):
        authenticator.sign_in("192.0.2.1", "alice", "wrong")
    assert authenticator.is_slowed("192.0.2.1", "alice")
    for number in range(4):
        authenticator.sign_in(f"192.0.2.{10 + number}", "alice", "wrong")
    assert not authenticator.is_slowed("192.0.2.1", "alice")
    for _ in range(MAX_FAILURES - 1):
        authenticator.sign_in("192.0.2.13", "alice", "wrong")
    assert authenticator.is_slowed("192.0.2.13", "alice")


def test_who_goes_on_guessing_is_forgotten_last(
    authenticator: PasswordAuthenticator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Failures elsewhere push out those of whoever has stopped, and not the first that ever failed."""
    monkeypatch.setattr("tokgate.webui.auth._MAX_REMEMBERED", 4)
    monkeypatch.setattr(Htpasswd, "knows", lambda users, user, password: False)
    for host in (*[1] * (MAX_FAILURES - 1), 2, 1, 3):
        authenticator.sign_in(f"192.0.2.{host}", "alice", "wrong")
    assert authenticator.is_slowed("192.0.2.1", "alice")


def test_old_failures_fill_no_memory(authenticator: PasswordAuthenticator, clock: Monotonic) -> None:
    """Who guesses for days, slowly, is remembered by the last minutes alone."""
    for _ in range(3):
        authenticator.sign_in("192.0.2.1", "alice", "wrong")
        clock.now += FAILURE_SECONDS / 2
        authenticator.is_slowed("192.0.2.1", "alice")
    assert [len(times) for times in authenticator._failures.values()] == [1, 1]
    clock.now += FAILURE_SECONDS
    assert not authenticator.is_slowed("192.0.2.1", "alice")
    assert not authenticator._failures


def test_where_strangers_sign_in(password_page: Page, page: Page) -> None:
    """With passwords they are led to the form; where a link opens the page, the form opens nothing."""
    answer = password_page.client.get("/lines", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in?next=%2Flines")
    assert page.client.post("/sign-in", data=RIGHT, headers=ORIGIN).status_code == 400


def test_a_form_without_an_end_is_not_read(password_page: Page) -> None:
    """The sign-in form is a name and a password; nobody fills the server's memory through it."""
    for size, status in ((8000, 303), (9000, 400)):
        body = f"user=alice&password=correct+horse&next=%2F&more={'x' * size}"
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        assert password_page.client.post("/sign-in", content=body, headers=ORIGIN | kind).status_code == status


def test_sessions_are_bounded(clock: Monotonic) -> None:
    """Signing in again and again takes no more memory: the session that was longest unused ends for a new one."""
    sessions = Sessions(clock)
    first, second = sessions.begin("alice"), sessions.begin("bob")
    for _ in range(MAX_SESSIONS - 2):
        sessions.begin("carol")
    clock.now += 1
    assert sessions.user(first) == "alice"
    sessions.begin("dave")
    assert len(sessions) == MAX_SESSIONS
    assert sessions.user(first) == "alice"
    assert sessions.user(second) is None


def test_what_has_ended_makes_room_first(clock: Monotonic, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session that is over ends for a new one, and not one that was used less and still lasts."""
    monkeypatch.setattr("tokgate.webui.auth.MAX_SESSIONS", 2)
    sessions = Sessions(clock)
    old = sessions.begin("alice")
    for _ in range(11):
        clock.now += LIFETIME / 12
        assert sessions.user(old) == "alice"
    quiet = sessions.begin("bob")
    clock.now += LIFETIME / 12
    assert sessions.user(old) == "alice"
    clock.now += 1
    sessions.begin("carol")
    assert (sessions.user(quiet), sessions.user(old)) == ("bob", None)


def test_an_unused_link_stays(clock: Monotonic) -> None:
    """Signing out with some cookie makes no other link while nobody has used the one that was told."""
    told: list[str] = []
    authenticator = LinkAuthenticator(Sessions(clock), "alice", told.append)
    authenticator.leave("anything")
    assert len(told) == 1
    session = present(authenticator.open(told[0]))
    authenticator.renew()
    assert len(told) == 1
    authenticator.leave(session)
    assert len(told) == 2


def test_a_session_that_ended_by_itself_leaves_a_new_link(clock: Monotonic) -> None:
    """Otherwise whoever comes back from lunch would have to start the page again."""
    told: list[str] = []
    authenticator = LinkAuthenticator(Sessions(clock), "alice", told.append)
    assert authenticator.open(told[0]) is not None
    clock.now += IDLE + 1
    authenticator.renew()
    assert len(told) == 2
