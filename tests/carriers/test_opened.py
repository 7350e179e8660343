"""Requests that a server might read otherwise than the carrier: refused under a ban, or forwarded in one reading."""

import contextlib
import json
import logging
import re
import socket
import ssl
import subprocess
from pathlib import Path
from shutil import which

import h2.config
import h2.connection
import h2.events
import pytest

from labs.carriers import OPENING, Kind, Lab, Way
from labs.gate_lab import exactly, read_all, until
from labs.proxy_lab import ALLOWED, BANNED, STORE, ban, policy
from labs.raw_client import RawClient

APP = "org.example.clips"
HIDDEN = f"GET / HTTP/1.1\r\nHost: {BANNED}\r\n\r\n".encode()


pytestmark = pytest.mark.usefixtures("no_crash")


def keeps(lab: Lab, answer: bytes = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\norigin") -> tuple[int, bytearray]:
    """An origin that answers a request once its end is there, and keeps all that it got."""
    got = bytearray()

    def serve(sock: socket.socket) -> None:
        said = bytearray()
        while piece := sock.recv(1 << 16):
            got.extend(piece)
            said.extend(piece)
            if is_whole(said):
                sock.sendall(answer)
                said.clear()

    return lab.origin(serve).port, got


def is_whole(said: bytes | bytearray) -> bool:
    """Whether all of a request is there: its head, which may come alone, and its body, by length or chunks."""
    head, end, body = said.partition(b"\r\n\r\n")
    if stated := re.search(rb"(?i)content-length: *(\d+)", head):
        return len(body) >= int(stated[1])
    return body.endswith(b"\r\n\r\n") if b"chunked" in head else bool(end)


def request(method: str, *fields: str, body: bytes = b"", host: str = ALLOWED) -> bytes:
    head = [f"{method} / HTTP/1.1", f"Host: {host}", *fields, "", ""]
    return "\r\n".join(head).encode("latin-1") + body


def length(body: bytes) -> str:
    return f"Content-Length: {len(body)}"


@OPENING
def test_trailers_pass(lab: Lab) -> None:
    """Fields behind a chunked body arrive at the origin, and those of its answer at the client; none frames."""
    answer = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 2\r\nContent-Length: 9\r\n\r\n"
    )
    port, got = keeps(lab, answer)
    lab.start()
    body = b"5\r\nhello\r\n0\r\nX-Sum: 1\r\nHost: www.clips.example.org\r\n\r\n"
    with lab.reach(Way.REDIRECTED, port) as client:
        for _ in range(2):
            client.send(request("POST", "Transfer-Encoding: chunked", "Trailer: X-Sum", body=body))
            end = b"2\r\nok\r\n0\r\nX-Sum: 2\r\n\r\n"
            received = b""
            while not received.endswith(end):
                received += exactly(client.sock, 1)
    assert got.count(b"\r\n0\r\nX-Sum: 1\r\n\r\n") == 2
    assert b"clips" not in got


NODE = """
const http = require("http");
http.createServer((request, response) => {
  request.resume();
  request.on("end", () => {
    response.writeHead(200, {Trailer: "X-Got"});
    response.write("body");
    response.addTrailers({"X-Got": request.trailers["x-sum"] || "none"});
    response.end();
  });
}).listen(0, "0.0.0.0", function () { console.log(this.address().port); });
"""
ASKING = """
const [port, host] = process.argv.slice(1);
const http = require("http");
const options = {port, host: "127.0.0.1", method: "POST", headers: {Host: host, Trailer: "X-Sum"}};
const asked = http.request(options, (response) => {
  response.resume();
  response.on("end", () => console.log(JSON.stringify([response.statusCode, response.trailers])));
});
asked.write("hello");
asked.addTrailers({"X-Sum": "abc"});
asked.end();
"""


@OPENING
@pytest.mark.skipif(which("node") is None, reason="node is not installed")
def test_trailers_of_node(lab: Lab, tmp_path: Path) -> None:
    with subprocess.Popen(["node", "-e", NODE], stdout=subprocess.PIPE, text=True) as origin:
        try:
            assert origin.stdout is not None
            lab.start()
            lab.destination = ("127.0.0.1", int(origin.stdout.readline()))
            door = lab.carrier.door(Way.REDIRECTED)
            said = ["node", "-e", ASKING.replace("127.0.0.1", door[0]), str(door[1]), ALLOWED]
            answer = subprocess.run(said, capture_output=True, text=True, timeout=60, check=True)
        finally:
            origin.kill()
    assert json.loads(answer.stdout) == [200, {"x-got": "abc"}]


@OPENING
@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE", "POST", "PUT"])
@pytest.mark.parametrize("prefix", [b"", b"\r\n\r\n", b" \t"])
def test_a_body_that_is_a_request(lab: Lab, method: str, prefix: bytes) -> None:
    """What a server that ignores the body would serve as the banned host's page never arrives there."""
    port, got = keeps(lab)
    lab.start()
    body = prefix + HIDDEN
    said = request(method, length(body), body=body)
    with lab.reach(Way.REDIRECTED, port) as client:
        client.send(*(said[at : at + 7] for at in range(0, len(said), 7)))
        assert client.to_end().startswith(b"HTTP/1.1 400 ")
    assert b"clips" not in got
    assert lab.records.actions == ["unreadable-refused"]


@OPENING
def test_text_that_begins_like_a_request(lab: Lab) -> None:
    """What somebody wrote to a server that is under no ban is refused under none, in the log and on the page."""
    terms = {"title": "TikTok on work devices", "authority": "Council", "basis": "Circular 1"}
    port, got = keeps(lab)
    lab.start(policy(ban(**terms, reference="https://example.org/circular", contact="desk@example.net")))
    body, kinds = b"GET / is what I am writing", ("application/json", "text/html", "text/plain")
    for kind in kinds:
        with lab.reach(Way.REDIRECTED, port) as client:
            client.send(request("POST", length(body), f"Accept: {kind}", "Accept-Language: en", body=body))
            answer = client.reply()
            assert answer.status == 400
            for word in (b"could not be understood", b"desk@example.net", lab.records.all[0]["event"]["id"].encode()):
                assert word in answer.body, kind
            for word in (*terms.values(), "circular", ALLOWED, "127.0.0.1"):
                assert word.encode() not in answer.body, (kind, word)
    assert b"what I am" not in got
    (record,) = lab.records.all
    assert (record["event"]["action"], record["event"]["code"]) == ("unreadable-refused", "unreadable")
    assert record["destination"] == {"port": port}
    assert record["network"] == {
        "transport": "tcp",
        "protocol": "http",
        "type": "ipv4",
        "direction": "outbound",
        "name": "office",
    }
    assert record["tokgate"].keys() <= {"reason", "network", "policy", "stage", "visibility", "connection"}
    text = json.dumps(record | {"observer": None})
    for word in (*terms.values(), "example.", "rule", '"url"', '"ban"'):
        assert word not in text, word
    assert lab.got(Way.REDIRECTED, port, BANNED).status == 451, "a banned host is the ban's refusal"
    record = lab.records.all[-1]
    assert record["event"]["action"] == "http-request-blocked"
    assert record["rule"]["name"] == terms["title"]
    assert (record["tokgate"]["authority"], record["tokgate"]["basis"]) == (terms["authority"], terms["basis"])
    assert (record["url"]["domain"], record["destination"]["domain"]) == (BANNED, BANNED)
    assert {kind.outcome for kind, n in lab.carrier.counters.decisions.items() if n} >= {"unreadable", "block"}


@OPENING
@pytest.mark.parametrize(
    ("method", "body"),
    [
        ("GET", b'{"query": {"match_all": {}}}'),
        ("GET", b'\n{"index": "a"}\n{"query": {}}'),
        ("DELETE", b'{"query": "GET / HTTP/1.1"}'),
        ("POST", b"please say hello"),
        ("POST", b"DELETE FROM rows where hello"),
        ("PUT", b"GET well soon, hello"),
    ],
)
def test_ordinary_bodies_pass(lab: Lab, method: str, body: bytes) -> None:
    """A search engine's GET with a body, and texts that begin with a word, arrive as they were sent."""
    port, got = keeps(lab)
    with lab.reach(Way.REDIRECTED, port) as client:
        client.send(request(method, length(body), body=body))
        assert client.reply().body == b"origin"
    assert until(lambda: got.endswith(b"\r\n\r\n" + body))


@OPENING
def test_no_ban_no_suspicion(lab: Lab) -> None:
    """For a client under no ban nothing changes: the body passes whatever it begins with."""
    port, got = keeps(lab)
    lab.start(policy(networks=("192.0.2.0/24",)))
    with lab.reach(Way.REDIRECTED, port) as client:
        client.send(request("GET", length(HIDDEN), body=HIDDEN))
        assert client.reply().body == b"origin"
    assert until(lambda: got.endswith(HIDDEN))


ODD = {
    "length-and-chunks": ("POST", "Content-Length: 5", "Transfer-Encoding: chunked"),
    "identity": ("POST", "Transfer-Encoding: chunked, identity"),
    "chunked-twice": ("POST", "Transfer-Encoding: chunked", "Transfer-Encoding: chunked"),
    "nearly-chunked": ("POST", "Transfer-Encoding: xchunked"),
    "spaced-name": ("POST", "Transfer-Encoding : chunked"),
    "two-lengths": ("POST", "Content-Length: 0", "Content-Length: 5"),
    "two-lengths-in-one": ("POST", "Content-Length: 0, 5"),
    "plus": ("POST", "Content-Length: +5"),
    "folded": ("POST", "X: a\r\n b", "Content-Length: 0"),
    "lone-cr": ("GET", "X: a\rHost: www.clips.example.org"),
    "nul": ("GET", "X: a\0b"),
    "no-colon": ("GET", "X"),
    "two-hosts": ("GET", "Host: www.example.net"),
}
ODD_HOSTS = ["a b.example.org", "user@www.example.org", "www%2eexample.org", "www.example.org:x", "2130706433", "a/"]


@OPENING
@pytest.mark.parametrize(
    "said",
    [*(request(*fields) for fields in ODD.values()), *(request("GET", host=host) for host in ODD_HOSTS)],
    ids=[*ODD, *ODD_HOSTS],
)
def test_odd_requests_are_refused_and_recorded(lab: Lab, said: bytes) -> None:
    """What one server reads in one way and another in another, or a Host that is none, reaches no server."""
    port, got = keeps(lab)
    with lab.reach(Way.REDIRECTED, port) as client:
        client.send(said)
        assert client.reply().status == 400
    assert not got
    assert until(lambda: lab.records.actions)
    assert lab.records.actions == ["unreadable-refused"]
    assert lab.records.all[0]["event"]["code"] == "unreadable"


TARGETS = {
    b"http://HOST?q=1": b"http://HOST/?q=1",
    b"http://HOST?@www.clips.example.org/": b"http://HOST/?@www.clips.example.org/",
    b"http://HOST/caf\xe9?\xff": b"http://HOST/caf\xe9?\xff",
    b"/caf\xe9": b"/caf\xe9",
}


@OPENING
@pytest.mark.parametrize(("said", "passed"), TARGETS.items())
def test_targets_of_which_the_host_is_certain(lab: Lab, said: bytes, passed: bytes) -> None:
    """A URL without a path, and octets behind the host that should have been escaped: servers read both alike."""
    port, got = keeps(lab)
    lab.start()
    said, passed = (each.replace(b"HOST", ALLOWED.encode()) for each in (said, passed))
    with lab.reach(Way.REDIRECTED, port) as client:
        client.send(b"GET " + said + f" HTTP/1.1\r\nHost: {ALLOWED}\r\n\r\n".encode())
        assert client.reply().body == b"origin"
    assert got.startswith(b"GET " + passed + b" HTTP/1.1\r\n")


@OPENING
@pytest.mark.parametrize("target", [f"http://{BANNED}?q=1", f"http://{BANNED}?@{ALLOWED}/", f"http://{BANNED}/caf\xe9"])
def test_such_targets_of_a_banned_host(lab: Lab, target: str) -> None:
    """The same reading refuses them."""
    port, got = keeps(lab)
    with lab.reach(Way.REDIRECTED, port) as client:
        client.send(f"GET {target} HTTP/1.1\r\nHost: {BANNED}\r\n\r\n".encode("latin-1"))
        assert client.reply().status == 451
    assert not got


@OPENING
@pytest.mark.parametrize("upgrade", ["h2c", "H2C", "websocket, h2c", "TLS/1.2", "HTTP/2.0"])
@pytest.mark.parametrize("body", [b"", b"hello"])
def test_no_upgrade_to_other_http(lab: Lab, upgrade: str, body: bytes) -> None:
    """A connection can't be upgraded to what names hosts unread; the request itself is answered."""
    port, got = keeps(lab)
    lab.start()
    fields = f"Upgrade: {upgrade}", "Connection: keep-alive, Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABk"
    with lab.reach(Way.REDIRECTED, port) as client:
        client.send(request("POST", *fields, length(body), body=body))
        assert client.reply().body == b"origin"
    assert b"h2c" not in got.lower()
    assert b"tls/" not in got.lower()
    assert b"http2" not in got.lower()
    assert (b"upgrade: websocket" in got.lower()) is ("websocket" in upgrade)


def _h2(client: RawClient, headers: list[tuple[str, str]], body: bytes = b"") -> tuple[str, list[type]]:
    """A request over HTTP/2: the status of its answer, or the kinds of events that came instead."""
    sock = client.sock
    talk = h2.connection.H2Connection(
        h2.config.H2Configuration(validate_outbound_headers=False, normalize_outbound_headers=False)
    )
    talk.initiate_connection()
    talk.send_headers(1, headers, end_stream=not body)
    if body:
        talk.send_data(1, body, end_stream=True)
    sock.sendall(talk.data_to_send())
    kinds: list[type] = []
    while piece := sock.recv(1 << 16):
        for event in talk.receive_data(piece):
            kinds.append(type(event))
            if isinstance(event, h2.events.ResponseReceived):
                return dict(event.headers or [])[b":status"].decode(), kinds
            if isinstance(event, h2.events.StreamReset | h2.events.ConnectionTerminated):
                return "", kinds
    return "", kinds


def head(path: str = "/", authority: str = STORE, method: str = "GET") -> list[tuple[str, str]]:
    return [(":method", method), (":scheme", "https"), (":authority", authority), (":path", path)]


H2 = {
    "url-in-path": head(f"http://{BANNED}/"),
    "no-slash": head("x"),
    "path-with-a-line": head(f"/ HTTP/1.1\r\nHost: {BANNED}\r\nX: "),
    "path-with-a-space": head("/ HTTP/1.1"),
    "host-beside": [*head(), ("host", BANNED)],
    "authority-banned": head(authority=BANNED),
    "connect": [(":method", "CONNECT"), (":authority", f"{BANNED}:443")],
    "connect-websocket": [*head(authority=STORE, method="CONNECT"), (":protocol", "websocket")],
    "odd-method": head(method="GET /x"),
    "chunked": [*head(method="POST"), ("transfer-encoding", "chunked")],
}


@OPENING
@pytest.mark.parametrize("headers", H2.values(), ids=list(H2))
def test_http2_that_becomes_another_request(lab: Lab, headers: list[tuple[str, str]]) -> None:
    """What a header of HTTP/2 would turn into on its way to a server of HTTP/1 is not sent there."""
    origin = lab.web(STORE)
    lab.start(policy(ban(inspect_stores=True)))
    with lab.tls(lab.trusting("h2"), STORE, Way.REDIRECTED, origin.port) as client:
        assert isinstance(client.sock, ssl.SSLSocket)
        assert client.sock.selected_alpn_protocol() == "h2"
        status, _ = _h2(client, headers)
    assert status in ("", "400", "451")
    assert not origin.heads


@OPENING
def test_a_body_of_http2_has_a_length_in_http1(lab: Lab) -> None:
    """A body without a length, over HTTP/2, arrives in chunks: unframed it would be the server's next request."""
    got = bytearray()
    context = lab.authority.server(STORE)

    def serve(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as tls:
            while not got.endswith(b"0\r\n\r\n"):
                got.extend(tls.recv(1 << 16))
            tls.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            read_all(tls)

    origin = lab.origin(serve)
    lab.start(policy(ban(inspect_stores=True)))
    with lab.tls(lab.trusting("h2"), STORE, Way.REDIRECTED, origin.port) as client:
        assert _h2(client, head("/log", method="POST"), b"hello")[0] == "200"
    assert got.lower().count(b"transfer-encoding: chunked\r\n") == 1
    assert got.endswith(b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n")


@pytest.mark.parametrize("lab", [Kind.MITMPROXY], indirect=True)  # whose log is this process's
def test_whose_tls_failed(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    """A warning names the host, once, though it passes through the layers of both sides."""
    lab.start(policy(ban(inspect_stores=True)))
    with pytest.raises(ssl.SSLCertVerificationError), lab.tls(ssl.create_default_context(), STORE, Way.REDIRECTED, 1):
        pass

    def warned() -> list[str]:
        said = [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]
        return [each for each in said if "TLS handshake failed" in each]

    (told,) = until(warned)
    assert told.count("[host ") == told.count(f"[host {STORE}]") == 1


BATCH = "/_/PlayStoreUi/data/batchexecute?rpcids=Ws7gDc"


@OPENING
@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (BATCH, f"f.req=%5B%5B%22{APP}%22%2C7%5D%5D&", 451),
        (BATCH, "f.req=%5B%22org.example.cl\\u0069ps%22%5D&", 451),
        (BATCH, "f.req=%5B%22org.example.other%22%5D&", 200),
        (BATCH, f"f.req=%5B%22{APP}.other%22%5D&", 200),
        ("/log?format=json", f"[{APP}]", 200),
    ],
)
def test_what_a_stores_page_asks_for_in_a_body(lab: Lab, path: str, body: str, status: int) -> None:
    """A link followed inside the store's own page is refused like its URL; other apps and other requests pass."""
    origin = lab.web(STORE)
    lab.start(policy(ban(inspect_stores=True)))
    with lab.tls(lab.trusting(), STORE, Way.REDIRECTED, origin.port) as client:
        said = f"POST {path} HTTP/1.1\r\nHost: {STORE}\r\n{length(body.encode())}\r\nConnection: close\r\n\r\n{body}"
        client.send(said.encode())
        assert client.reply().status == status
    assert lab.records.actions == ([] if status == 200 else ["http-request-blocked"])
    assert len(origin.heads) == (status == 200)


@OPENING
@pytest.mark.parametrize("fields", [length(b"x" * 70000), "Transfer-Encoding: chunked"])
def test_a_body_too_long_to_be_read(lab: Lab, fields: str) -> None:
    """Where nobody can say what is asked for, the store is not asked."""
    origin = lab.web(STORE)
    lab.start(policy(ban(inspect_stores=True)))
    with lab.tls(lab.trusting(), STORE, Way.REDIRECTED, origin.port) as client:
        client.send(f"POST {BATCH} HTTP/1.1\r\nHost: {STORE}\r\n{fields}\r\n\r\n".encode())
        assert client.is_over()
    assert lab.records.actions == ["unreadable-refused"]
    assert not origin.heads


@OPENING
@pytest.mark.parametrize(
    "rest", [b"", b"hello\n", b"GET / HTTP/1.1\r\nHost: www.example.org\r\n\r\n", b"\x16\x03\x01\x00\x05abcde"]
)
@pytest.mark.parametrize(
    "said",
    [
        b"\x05\x01\x00\x05\x01\x00\x03\x07a b.\0.c\x01\xbb",
        b"\x05\x01\x00\x05\x01\x00\x03\x0a2130706433\x01\xbb",
        b"\x05\x01\x00\x05\x02\x00\x01\x7f\0\0\1\0\1",
        b"\x04\x01\x00\x50",
    ],
)
def test_a_socks_request_that_is_none(lab: Lab, said: bytes, rest: bytes) -> None:
    """A client that says all at once, and nothing that makes sense, is refused instead of waiting for ever."""
    lab.start()
    for _ in range(5):
        with lab.dial(Way.SOCKS) as client:
            client.send(said + rest)
            client.end()
            with contextlib.suppress(ConnectionResetError):
                answer = client.to_end()
                refusals = (b"\x05\x00",) if said[0] == 5 else (b"\x00\x5b", b"HTTP/1.1 400 ")  # SOCKS 4, or no SOCKS
                assert answer == b"" or answer.startswith(refusals), answer


@OPENING
@pytest.mark.parametrize("version", ["1.1", "2.0"])
@pytest.mark.parametrize("method", ["GET", "PRI", "CONNECT"])
@pytest.mark.parametrize("fields", ["", "Content-Length: 100000\r\n", "Transfer-Encoding: chunked\r\n"])
def test_the_end_behind_a_refused_request(lab: Lab, method: str, version: str, fields: str) -> None:
    """A client whose FIN comes with its request is answered, or not, and its connection closed: it doesn't wait."""
    lab.start()
    head = f"{method} {'*' if method == 'PRI' else '/'} HTTP/{version}\r\nHost: a\r\nHost: b\r\n"
    said = f"{head}{fields}\r\nSM\r\n\r\n".encode()
    for _ in range(10):
        with lab.reach(Way.REDIRECTED, 1) as client, contextlib.suppress(ConnectionResetError):
            client.answer(said)
    assert lab.settled()


@OPENING
def test_everything_at_once(lab: Lab) -> None:
    """CONNECT, the bytes inside and the end of them in one segment: the connection comes to an end."""
    origin = lab.web()
    lab.start()
    for _ in range(5):
        with lab.dial(Way.CONNECT) as client:
            client.send(
                f"CONNECT {BANNED}:{origin.port} HTTP/1.1\r\nHost: {BANNED}\r\n\r\n\x16\x03\x01\x00\x05abcde".encode()
            )
            client.end()
            client.to_end()
    assert lab.settled()
    assert origin.accepted == 0


def test_nothing_is_logged_as_a_crash(caplog: pytest.LogCaptureFixture) -> None:
    """The check of this file's tests sees what it looks for: mitmproxy's own word."""
    logging.getLogger("test").error("mitmproxy has crashed!")
    assert "crashed" in caplog.text
    caplog.clear()


@OPENING
def test_only_protocols_of_http_are_offered_on(lab: Lab) -> None:
    """gRPC's clients offer `grpc-exp` too, and its servers prefer it: inside an opened connection they get HTTP."""
    chosen: list[str | None] = []
    context = lab.authority.server(STORE, alpn=("grpc-exp", "http/1.1"))

    def serve(sock: socket.socket) -> None:
        with context.wrap_socket(sock, server_side=True) as stream:
            chosen.append(stream.selected_alpn_protocol())
            said = b""
            while not is_whole(said):
                said += stream.recv(1 << 16)
            stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\norigin")

    origin = lab.origin(serve)
    lab.start(policy(ban(inspect_stores=True)))
    with lab.reach(Way.REDIRECTED, origin.port) as client:
        client.tls(lab.trusting("grpc-exp", "http/1.1"), STORE)
        assert (client.is_opened, client.get(STORE).body) == (True, b"origin")
    assert chosen == ["http/1.1"]
