"""What never reaches the pages: other methods, strangers, other names. Also of pages that are yet to be written."""

from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from tokgate.webui.auth import LinkAuthenticator, Sessions
from tokgate.webui.middleware import WRITES, AuthMiddleware, is_loopback

COOKIE = "tokgate-8090"


class Site:
    """A guard before an application that would answer anything with 200."""

    def __init__(self) -> None:
        links: list[str] = []
        authenticator = LinkAuthenticator(Sessions(lambda: 0.0), "alice", links.append)
        self.session = authenticator.open(links[0])
        self.reached: list[str] = []
        self._guard = AuthMiddleware(self._application, authenticator, hosts=("review.example.org",), cookie=COOKIE)

    async def _application(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.reached.append(f"{scope['method']} {scope['path']}")
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def ask(self, method: str, path: str, *hosts: str, signed_in: bool = True, **fields: str) -> int:
        """The status of the answer to a request."""
        headers = [("host", host) for host in hosts or ("localhost",)]
        headers += [(name.replace("_", "-"), value) for name, value in fields.items()]
        if signed_in:
            headers.append(("cookie", f"{COOKIE}={self.session}"))
        scope: dict[str, Any] = {
            "type": "http", "method": method, "path": path, "query_string": b"", "client": ("127.0.0.1", 50000),
            "headers": [(name.encode(), value.encode()) for name, value in headers],
        }  # fmt: skip
        told: list[Message] = []

        async def send(message: Message) -> None:
            told.append(message)

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        await self._guard(scope, receive, send)
        return int(told[0]["status"])


@pytest.fixture
def site() -> Site:
    """The guard."""
    return Site()


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "POST"])
async def test_no_page_gets_to_see_what_would_change_something(site: Site, method: str) -> None:
    """Reading is all that there is: a page need not think of other methods, and a new one can't forget to."""
    for path in ("/", "/lines", "/nothing", *(WRITES if method != "POST" else ())):
        assert await site.ask(method, path, origin="http://localhost") == 405
    assert site.reached == []
    assert await site.ask("POST", "/sign-out", origin="http://localhost") == 200


@pytest.mark.parametrize("path", ["/", "/lines", "/event/x", "/events", "/live/stream", "/static", "/counts.csv"])
async def test_no_page_is_open_to_strangers(site: Site, path: str) -> None:
    """Whatever its address, unless it stands on the short list of what anyone may see."""
    assert await site.ask("GET", path, signed_in=False) == 303
    assert await site.ask("POST", "/sign-out", signed_in=False, origin="http://localhost") == 303
    assert site.reached == []
    assert await site.ask("GET", path) == 200
    assert await site.ask("GET", path, origin="http://localhost") == 200, "scripts of ours may say where they are"


@pytest.mark.parametrize("hosts", [("localhost", "evil.example"), ("evil.example", "localhost")])
async def test_two_hosts_are_none(site: Site, hosts: tuple[str, ...]) -> None:
    """Of two Host fields a proxy in front may have gone by the other one (RFC 9112 §3.2)."""
    assert await site.ask("GET", "/", *hosts) == 421
    assert site.reached == []


@pytest.mark.parametrize(
    ("host", "here"),
    [("localhost", True), ("127.0.0.2", True), ("[::1]", True), ("0.0.0.0", False), ("review.example.org", False)],
)
def test_what_only_this_machine_reaches(host: str, here: bool) -> None:
    """A page for others needs passwords; one at `localhost` may begin with a link."""
    assert is_loopback(host) is here


async def test_what_is_neither_a_request_nor_the_server_itself(site: Site) -> None:
    """A web socket reaches no page."""
    await site._guard({"type": "websocket"}, None, None)  # type: ignore[arg-type]
    assert site.reached == []
