"""HTTP that can be read, plain and opened: each request is decided for itself, by every name that it shows."""

import contextlib
import json
import socket
import ssl

import h2.config
import h2.connection
import h2.events
import pytest

from labs.carriers import OPENING, Lab, Way
from labs.gate_lab import exactly, read_all, read_head
from labs.proxy_lab import ALLOWED, BANNED, BANNED_ADDRESS, STORE, ban, policy

pytestmark = OPENING
TUNNELLED = pytest.mark.parametrize("way", [Way.REDIRECTED, Way.CONNECT])


def test_keep_alive_with_changing_hosts(lab: Lab, way: Way) -> None:
    """On one connection each request is decided for itself, and nothing of a banned one goes on."""
    origin = lab.web(tls=False)
    with lab.reach(way, origin.port) as client:
        got = [client.get(host).status for host in (ALLOWED, BANNED, ALLOWED, BANNED, ALLOWED)]
    assert got == [200, 451, 200, 451, 200]
    assert len(origin.heads) == 3
    assert BANNED.encode() not in b"".join(origin.heads)


SPELLINGS = [BANNED.upper(), f"{BANNED}.", f"{BANNED}:80", f"{BANNED}:8080", "clips.example.org", BANNED_ADDRESS]


@TUNNELLED
@pytest.mark.parametrize(
    ("host", "status"),
    [*((host, 451) for host in SPELLINGS), ("notclips.example.org.test", 200), ("xclips.example.org", 200)],
)
def test_spellings(lab: Lab, way: Way, host: str, status: int) -> None:
    """Case, dot and port make no difference; a name that only looks like a banned one passes."""
    origin = lab.web(tls=False)
    assert lab.got(way, origin.port, host).status == status


@pytest.mark.parametrize("host", [ALLOWED, ""])
@pytest.mark.parametrize(
    ("target", "status"),
    [
        (f"//{BANNED}/", 451),
        (f"/\\\\{BANNED}:80", 451),
        (f"//user:secret@{BANNED}?x", 451),
        (f"//{BANNED.replace('.', '%2e')}/", 451),
        ("//a!b.clips.example.org/", 400),
        (f"//{ALLOWED}/", 200),
        ("//images//logo.png", 200),
        (f"/go/http://{BANNED}/", 200),
    ],
)
def test_paths_that_name_a_host(lab: Lab, host: str, target: str, status: int) -> None:
    """Servers that resolve a target like a reference take its host; a folder behind two slashes is none."""
    origin = lab.web(tls=False)
    with lab.reach(Way.REDIRECTED, origin.port) as client:
        client.send(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert client.reply().status == status
    assert bool(origin.heads) is (status == 200)


@TUNNELLED
@pytest.mark.parametrize("size", [1, 1 << 16])
@pytest.mark.parametrize("prefix", [b"", b"\r\n\r\n"])
def test_a_request_in_pieces(lab: Lab, way: Way, prefix: bytes, size: int) -> None:
    """A request that comes octet by octet, or after empty lines, is still read as one."""
    origin = lab.web(tls=False)
    lab.start()
    said = prefix + f"GET / HTTP/1.1\r\nHost: {BANNED}\r\n\r\n".encode()
    with lab.reach(way, origin.port) as client:
        client.send(*(said[at : at + size] for at in range(0, len(said), size)))
        assert client.reply().status == 451
    assert origin.accepted == 0


@TUNNELLED
@pytest.mark.parametrize(
    ("action", "logged", "status"),
    [("monitor", "would-block", 200), ("warn", "http-request-warned", 200), ("block", "http-request-blocked", 451)],
)
def test_what_the_ban_does(lab: Lab, way: Way, action: str, logged: str, status: int) -> None:
    """A monitored or warned request is answered by the origin and leaves a record; a blocked one is not."""
    origin = lab.web(tls=False)
    lab.start(policy(ban(action=action)))
    assert lab.got(way, origin.port, BANNED).status == status
    assert lab.records.actions == [logged]


def test_what_the_page_says(lab: Lab, way: Way) -> None:
    """Status, mandate, and the id of the record; as JSON for programs; 403 where nobody has mandated it."""
    carrier = lab.start()
    with lab.reach(way, 1) as client:
        page = client.get(BANNED, Accept="text/html", Accept_Language="nl-BE")
        facts = json.loads(client.get(BANNED, Accept="application/json").body)
        head, plain = client.request("HEAD", "/", BANNED), client.get(BANNED)
        carrier.holder.snapshot = policy(ban(authority=None, basis=None))
        assert client.get(BANNED).status == 403
    assert (page.status, page.headers["content-language"], page.headers["cache-control"]) == (451, "nl", "no-store")
    assert page.headers["link"] == '<mailto:desk@example.org>; rel="blocked-by"'
    assert b"Circular 716" in page.body
    assert page.headers["tokgate-event"] == lab.records.all[0]["event"]["id"]
    assert (facts["status"], facts["ban"], facts["basis"]) == (451, "ban", "Circular 716")
    assert (head.status, head.body, head.headers["content-length"]) == (451, b"", str(len(plain.body)))


def test_absolute_form(lab: Lab) -> None:
    """A proxied request gets the page or the origin's answer, by the host of its URL; queries are not logged."""
    origin = lab.web(tls=False)
    with lab.dial(Way.CONNECT) as client:
        refused = client.get(f"{BANNED}:{origin.port}", f"http://{BANNED}:{origin.port}/watch?q=secret")
        passed = client.get(f"{ALLOWED}:{origin.port}", f"http://{ALLOWED}:{origin.port}/")
    assert (refused.status, passed.status, passed.body) == (451, 200, b"origin")
    assert origin.accepted == 1
    (record,) = lab.records.all
    assert (record["event"]["action"], record["url"]["path"]) == ("http-request-blocked", "/watch")
    assert "secret" not in str(record)
    for host in ("2130706433", "0x7f.1", "127.1", "0177.0.0.1"):  # which only a resolver reads as an address
        with lab.dial(Way.CONNECT) as client:
            assert client.get(ALLOWED, f"http://{host}:{origin.port}/").status == 400
    assert origin.accepted == 1


@pytest.mark.parametrize(
    "head",
    [
        f"GET / HTTP/1.1\r\nHost: {ALLOWED}\r\nHost: {ALLOWED}",
        f"GET / HTTP/1.1\r\nHost: {ALLOWED}\r\nX: a\r\n b",
        f"GET / http/1.1\r\nHost: {ALLOWED}",
        f"POST / HTTP/1.1\r\nHost: {ALLOWED}\r\nContent-Length: 0\r\ncontent-length: 0",
    ],
    ids=["host-twice", "folded", "lower-case", "length-twice"],
)
def test_odd_requests_of_clients_under_no_ban(lab: Lab, head: str) -> None:
    """What has one reading is put right and passes; of two hosts the client is told in words."""
    origin = lab.web(tls=False)
    lab.start(policy(networks=("192.0.2.0/24",)))
    with lab.dial(Way.CONNECT) as client:
        client.send(head.replace(" /", f" http://{ALLOWED}:{origin.port}/", 1).encode() + b"\r\n\r\n")
        assert client.reply().status == 200
    with lab.dial(Way.CONNECT) as client:
        client.send(f"GET http://{ALLOWED}/ HTTP/1.1\r\nHost: {ALLOWED}\r\nHost: example.com\r\n\r\n".encode())
        reply = client.reply()
    assert (reply.status, b"no host name as everybody writes it" in reply.body) == (400, True)


@pytest.mark.parametrize("banned", [True, False])
def test_requests_of_http_0_9(lab: Lab, banned: bool) -> None:
    """Without a version and a host some servers serve them: of clients under a ban none passes, and it has a record."""
    asked: list[bytes] = []

    def serve(sock: socket.socket) -> None:
        asked.append(sock.recv(1 << 16))
        sock.sendall(b"hello")

    port = lab.origin(serve).port
    lab.start(policy() if banned else policy(networks=("192.0.2.0/24",)))
    with lab.reach(Way.REDIRECTED, port) as client:
        client.send(b"GET /\r\n")
        assert client.to_end() == (b"" if banned else b"hello")
    assert asked == ([] if banned else [b"GET /\r\n"])
    assert lab.records.actions == (["unreadable-refused"] if banned else [])


@pytest.mark.parametrize(("url", "field"), [(ALLOWED, BANNED), (BANNED, ALLOWED)])
def test_url_and_host_disagree(lab: Lab, url: str, field: str) -> None:
    """Whichever of URL and Host is banned, the request is refused and the mismatch logged."""
    origin = lab.web(tls=False)
    with lab.dial(Way.CONNECT) as client:
        assert client.get(field, f"http://{url}:{origin.port}/").status == 451
    assert origin.accepted == 0
    assert lab.records.all[0]["tokgate"]["mismatch"] is True


def test_a_page_inside_tls(lab: Lab, way: Way) -> None:
    """Under a ban with a page the banned name alone is decrypted, and shows it; the origin hears nothing."""
    origin = lab.web()
    lab.start(policy(ban(response="page")))
    with lab.tls(lab.trusting(), BANNED, way, origin.port) as client:
        assert client.is_opened
        page = client.get(BANNED)
        assert client.get(ALLOWED).status == 451  # the name of the connection stays banned
    assert (page.status, page.headers["tokgate-event"]) == (451, lab.records.all[1]["event"]["id"])
    assert lab.records.actions[:2] == ["tls-opened", "http-request-blocked"]
    with lab.reach(way, origin.port) as client, pytest.raises(ssl.SSLCertVerificationError):
        client.tls(lab.authority.client(), BANNED)
    assert origin.accepted == 0
    with lab.tls(lab.trusting(), ALLOWED, way, origin.port) as client:
        assert not client.is_opened
        assert client.get(ALLOWED).body == b"origin"


def test_connect_to_a_banned_name_for_its_page(lab: Lab) -> None:
    """Under a ban with a page CONNECT is granted, so that the page can be shown inside."""
    origin = lab.web()
    lab.start(policy(ban(response="page")))
    with lab.tls(lab.trusting(), BANNED, Way.CONNECT, origin.port, BANNED) as client:
        assert (client.is_opened, client.get(BANNED).status) == (True, 451)
    assert origin.accepted == 0


def test_stores(lab: Lab, way: Way) -> None:
    """Only under `inspect_stores` a store's host is opened: the banned app's listing gets 451, others pass."""
    origin = lab.web(STORE)
    carrier = lab.start(policy(ban(inspect_stores=True)))
    with lab.tls(lab.trusting(), STORE, way, origin.port) as client:
        assert client.is_opened
        page = client.get(STORE, "/store/apps/details?id=org.example.clips")
        assert (page.status, b"app stores" in page.body) == (451, True)  # it doesn't claim that nothing else is opened
        assert client.get(STORE, "/store/apps/details?id=org.example.mail").body == b"origin"
    assert lab.records.actions == ["http-request-blocked"]
    carrier.holder.snapshot = policy()
    with lab.tls(lab.trusting(), STORE, way, origin.port) as client:
        assert not client.is_opened


def test_other_protocols_stay_out_of_an_opened_connection(lab: Lab) -> None:
    """What is no HTTP inside a connection that was opened for the page reaches nobody."""
    origin = lab.origin()
    lab.start(policy(ban(response="page")))
    with lab.tls(lab.trusting(), BANNED, Way.REDIRECTED, origin.port) as client:
        client.send(b"\x00\x01\x02\x03 not http\r\n\r\n")
        assert b"400" in client.to_end()
    assert origin.accepted == 0


def test_bodies(lab: Lab) -> None:
    """A small one is awaited and answered with the page; who sends a large or endless one is cut off instead."""
    origin = lab.web(tls=False)
    with lab.reach(Way.REDIRECTED, origin.port) as client:
        assert client.request("POST", "/", BANNED, b"hello", Content_Length="5").status == 451
    for fields in ("Content-Length: 100000000", "Transfer-Encoding: chunked"):
        with lab.reach(Way.REDIRECTED, origin.port) as client:
            client.send(f"POST / HTTP/1.1\r\nHost: {BANNED}\r\n{fields}\r\n\r\n".encode())
            assert client.to_end() == b""
    assert origin.accepted == 0
    assert set(lab.records.actions) == {"http-request-blocked"}


def test_a_page_over_http2(lab: Lab, way: Way) -> None:
    lab.start(policy(ban(response="page")))
    with lab.tls(lab.trusting("h2", "http/1.1"), BANNED, way, 1) as client:
        http = h2.connection.H2Connection(h2.config.H2Configuration())
        http.initiate_connection()
        head = [(":method", "GET"), (":scheme", "https"), (":authority", BANNED), (":path", "/")]
        http.send_headers(1, head, end_stream=True)
        client.send(http.data_to_send())
        seen: list[h2.events.Event] = []
        while not any(isinstance(event, h2.events.StreamEnded) for event in seen):
            seen += http.receive_data(client.sock.recv(65536))
    (headers,) = (dict(event.headers or ()) for event in seen if isinstance(event, h2.events.ResponseReceived))
    assert (headers[b":status"], headers[b"cache-control"]) == (b"451", b"no-store")
    assert b"Circular 716" in b"".join(e.data or b"" for e in seen if isinstance(e, h2.events.DataReceived))


@TUNNELLED
def test_answers_and_uploads_pass_as_they_come(lab: Lab, way: Way) -> None:
    """The first event of an endless answer arrives before the second is sent, and so does what a client sends."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n6\r\nfirst\n\r\n"

    def serve(sock: socket.socket) -> None:
        got = b""
        while not got.endswith(b"\r\n\r\nhello"):
            got += sock.recv(1000)
        sock.sendall(head)
        if exactly(sock, 5) == b"world":
            sock.sendall(b"7\r\nsecond\n\r\n0\r\n\r\n")

    origin = lab.origin(serve)
    with lab.reach(way, origin.port) as client:
        client.send(f"POST / HTTP/1.1\r\nHost: {ALLOWED}\r\nContent-Length: 10\r\n\r\nhello".encode())
        got = b""
        while not got.endswith(b"first\n\r\n"):
            got += client.sock.recv(1000)
        client.send(b"world")
        assert client.exactly(17) == b"7\r\nsecond\n\r\n0\r\n\r\n"


@TUNNELLED
def test_websockets_pass(lab: Lab, way: Way) -> None:
    """A WebSocket to an allowed host is upgraded and carries frames both ways."""

    def serve(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        if len(exactly(sock, 10)) == 10:  # masked anew on its way
            sock.sendall(b"\x81\x04pong")
        sock.recv(1)

    origin = lab.origin(serve)
    lab.start()
    asking = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    asking += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    with lab.reach(way, origin.port) as client:
        client.send(f"GET / HTTP/1.1\r\nHost: {ALLOWED}\r\n{asking}\r\n".encode())
        assert b" 101 " in read_head(client.sock)
        client.send(b"\x81\x84\0\0\0\0ping")
        assert client.exactly(6) == b"\x81\x04pong"


@pytest.mark.parametrize("before", ["", f"GET / HTTP/1.1\r\nHost: {ALLOWED}\r\n\r\n"], ids=["head", "pipelined"])
def test_an_endless_head(lab: Lab, before: str) -> None:
    """A head, or requests sent ahead, are not buffered without limit."""
    origin = lab.origin(read_all)
    with lab.reach(Way.REDIRECTED, origin.port) as client:
        client.send(before.encode() + b"GET / HTTP/1.1\r\n")
        filler = (b"X-Filler: " + b"x" * 4000 + b"\r\n") * 1000
        with pytest.raises(OSError):  # noqa: PT011 - a reset, or a broken pipe
            client.send(*[filler] * 100)
    assert lab.settled()


@pytest.mark.parametrize(("cookies", "comes"), [(60, True), (1000, False)], ids=["long", "endless"])
def test_the_head_of_a_response(lab: Lab, cookies: int, comes: bool) -> None:
    """A head as long as browsers accept arrives whole, from a server with many cookies; an endless one is cut off."""

    def serve(client: socket.socket) -> None:
        client.recv(65536)
        with contextlib.suppress(OSError):  # cut off
            client.sendall(b"HTTP/1.1 200 OK\r\n" + b"Set-Cookie: a=%s\r\n" % (b"x" * 4000) * cookies)
            client.sendall(b"Content-Length: 4\r\n\r\nbody")

    origin = lab.origin(serve)
    with lab.reach(Way.REDIRECTED, origin.port) as client:
        client.send(f"GET / HTTP/1.1\r\nHost: {ALLOWED}\r\nConnection: close\r\n\r\n".encode())
        got = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := client.sock.recv(65536):
                got += piece
    assert (got.count(b"Set-Cookie:") == cookies and got.endswith(b"body")) == comes
    assert lab.settled()


def serve_http2(client: socket.socket) -> None:
    """An origin that speaks HTTP/2 without TLS and nothing else, as for gRPC."""
    server = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
    server.initiate_connection()
    while data := client.recv(65536):
        for event in server.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                server.send_headers(event.stream_id, [(":status", "200")])
                server.send_data(event.stream_id, b"origin", end_stream=True)
        client.sendall(server.data_to_send())


@TUNNELLED
@pytest.mark.parametrize(("host", "status"), [(ALLOWED, b"200"), (BANNED, b"451")])
def test_http2_without_tls(lab: Lab, way: Way, host: str, status: bytes) -> None:
    """HTTP/2 with prior knowledge (RFC 9113 §3.3) is carried in HTTP/2, and each request is decided for itself."""
    origin = lab.origin(serve_http2)
    lab.start()
    asking = h2.connection.H2Connection()
    asking.initiate_connection()
    fields = [(":method", "GET"), (":scheme", "http"), (":authority", host), (":path", "/")]
    asking.send_headers(1, fields, end_stream=True)
    seen: dict[bytes, bytes] = {}
    with lab.reach(way, origin.port) as client:
        client.send(asking.data_to_send())
        while b":status" not in seen:
            for event in asking.receive_data(client.sock.recv(65536)):
                if isinstance(event, h2.events.ResponseReceived):
                    seen |= {bytes(name): bytes(value) for name, value in event.headers or ()}
    assert seen[b":status"] == status
    assert origin.accepted == (status == b"200")
