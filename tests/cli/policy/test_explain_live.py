"""Explain against live traffic: for hosts in all spellings, by what the carriers themselves read off the wire."""

import itertools
import re
import struct
from pathlib import Path

import pytest
from mitmproxy.http import Headers, Request
from mitmproxy.test import tflow
from whenever import Instant

from labs.builders import policy_in
from labs.command_line import POLICY, explained
from tokgate.blocklog.records.record import Observer
from tokgate.evasion.hello import hello, records, server_name
from tokgate.mitm import http_request
from tokgate.mitm.client_connection import ClientConnection
from tokgate.mitm.raw_sockets import ClientSockets
from tokgate.policy.decide import decide
from tokgate.policy.decision import Verdict
from tokgate.policy.observation import Endpoint
from tokgate.policy.snapshot import Snapshot, compile_policy
from tokgate.traffic.actions import AskCertificate, Refuse
from tokgate.traffic.admission import Admission, admit
from tokgate.traffic.client_messages import FirstBytesReader
from tokgate.traffic.enforcer import Enforcer
from tokgate.traffic.seen import Arrival, Connect, DnsArrival, DnsQuestion, Hello
from tokgate.wire.dns_message.query import QueryError, read_query
from tokgate.wire.proxy_request import ConnectReader, ConnectRequestError

AT = Instant.from_utc(2023, 5, 2, 8)
CLIENTS = ("192.0.2.7", "192.0.2.9", "198.51.100.7", "203.0.113.200")
"""Under a ban that blocks, exempt from it, under one that monitors, in no network."""
# What is typed, and what a client then sends for it (UTS 46, RFC 5890); None: it is an address.
HOSTS: dict[str, str | None] = {
    "www.clips.example.org": "www.clips.example.org",
    "WWW.Clips.Example.ORG": "www.clips.example.org",
    "clips.example.org.": "clips.example.org.",
    "static.example.net": "static.example.net",
    "ｃｌｉｐｓ.example.org": "clips.example.org",
    "notclips.example.org": "notclips.example.org",
    "a_b.-c.example": "a_b.-c.example",
    "münchen.example": "xn--mnchen-3ya.example",
    "xn--mnchen-3ya.example": "xn--mnchen-3ya.example",
    "münchen.clips.example.org": "xn--mnchen-3ya.clips.example.org",
    "use-application-dns.net": "use-application-dns.net",
    "_dns.resolver.arpa": "_dns.resolver.arpa",
    "mun..chen.example": "mun..chen.example",
    "a..clips.example.org": "a..clips.example.org",
    ".clips.example.org": ".clips.example.org",
    "a!b.clips.example.org": "a!b.clips.example.org",
    "a!b.example": "a!b.example",
    "a b.example": "a b.example",
    "%77ww.example.org": "%77ww.example.org",
    f"{'a' * 64}.example": f"{'a' * 64}.example",
    f"{'a.' * 130}example": f"{'a.' * 130}example",
    "1.0x7f": "1.0x7f",
    "127.1": "127.1",
    "2130706433": "2130706433",
    "203.0.113.300": "203.0.113.300",
    "203.0.113.3": None,
    "198.51.100.77": None,
    "[2001:db8::1]": None,
    "[::ffff:203.0.113.3]": None,
}
SPELLINGS = ("{}", "{}:8443", "user:secret@{}", "https://{}/", "https://u@{}:8443/a/@b?c#d", "http://{}/", "//{}/x")
MODES = (
    ("refuse", "check-address", "allow"),
    ("refuse", "check-certificate", "allow"),
    ("refuse", "block", "allow"),
    ("refuse", "allow", "block"),
    ("page", "check-address", "allow"),
)


class Source:
    """A policy that is in force, and a log that keeps nothing."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot

    def put(self, _: object) -> bool:
        return True


@pytest.fixture(params=MODES, ids="-".join)
def snapshot(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Snapshot:
    """The small policy with a mode's settings, which explain then decides by."""
    response, missing, unknown = request.param
    text = POLICY.replace("    duration: P6M\n", f"    duration: P6M\n    response: {response}\n")
    (tmp_path / "policy.yaml").write_text(
        f"{text[: text.index('tests:')]}settings: {{missing_sni: {missing}, unknown_clients: {unknown}}}\n"
    )
    compiled = compile_policy(policy_in(tmp_path, AT))
    monkeypatch.setattr("tokgate.cli.policy.explain.open_source", lambda *_: compiled)
    return compiled


class Live:
    """The carriers' own readers before `admit`."""

    def __init__(self, snapshot: Snapshot, client: str) -> None:
        source = Source(snapshot)
        self.enforcer = Enforcer(source, source, Observer(hostname="", version=""), now=lambda: AT)
        self.client = Endpoint(client, 50123)

    def tls(self, name: str | None, address: str | None) -> bool:
        """Whether a ClientHello is refused; without a name where it is for an address (RFC 6066 §3)."""
        message = hello(*(() if name is None else (server_name(name.encode()),)))
        arrival = Arrival(client=self.client, destination=None if address is None else Endpoint(address, 443))
        seen = FirstBytesReader().feed(records(message))
        assert seen is not None
        admission = admit(self.enforcer, arrival, seen)
        if isinstance(admission.action, AskCertificate):
            assert isinstance(seen, Hello)
            admission = admit(self.enforcer, arrival, Hello(seen.hello, certificate=()))
        return _refused(admission)

    def http(self, host: str, address: str | None) -> bool:
        """Whether a plain request is refused, or answered with 400."""
        made = Request.make("GET", "http://198.51.100.80/", b"", Headers(host=host))
        made.data.headers = Headers([(b"Host", host.encode())])
        made.data.host = address or "198.51.100.80"
        flow = tflow.tflow(req=made)
        flow.client_conn.sni = None
        connection = ClientConnection(self.client, "client", ClientSockets(None))
        seen = http_request.seen(flow, connection)
        return seen.ambiguous or _refused(admit(self.enforcer, http_request.arrival(flow, connection), seen))

    def connect(self, host: str) -> bool:
        """Whether CONNECT is refused, or answered with 400."""
        try:
            asked = ConnectReader().feed(f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n".encode())
        except ConnectRequestError:
            return True
        assert asked is not None
        return _refused(admit(self.enforcer, Arrival(client=self.client), Connect(asked.host)))

    def dns(self, name: str) -> bool | None:
        """Whether a question is refused; None if none can hold the name."""
        labels = [label.encode() for label in name.removesuffix(".").split(".")]
        if not all(0 < len(label) < 64 for label in labels):
            return None
        question = b"".join(bytes((len(label),)) + label for label in labels) + struct.pack("!BHH", 0, 1, 1)
        try:
            query = read_query(struct.pack("!6H", 1, 0x100, 1, 0, 0, 0) + question)
        except QueryError:
            return None
        return _refused(
            admit(self.enforcer, Arrival(client=self.client), DnsQuestion(DnsArrival(client=self.client, query=query)))
        )


def _refused(admission: Admission) -> bool:
    """Also by a page, for which the connection is opened."""
    return isinstance(admission.action, Refuse) or admission.ruling.blocks


def test_explain_agrees_with_the_carriers(snapshot: Snapshot) -> None:
    """It never allows what one of them refuses, nor blocks what all pass; of each it says what that does."""
    asked, refused, decided_otherwise = 0, 0, 0
    for client, (typed, sent), spelling in itertools.product(CLIENTS, HOSTS.items(), SPELLINGS):
        live = Live(snapshot, client)
        address = None if sent is not None else re.sub(r"[][]|::ffff:", "", typed)
        shown = sent or typed
        found: dict[str, bool | None] = {}
        if not spelling.startswith("http:"):
            found |= {"tls": live.tls(sent, address)}
        if not spelling.startswith(("https:", "//")):
            found |= {"http": live.http(shown, address)}
        if not spelling.startswith("http:"):
            found |= {"connect": live.connect(shown)}
        if sent is not None:
            found |= {"dns": live.dns(sent)}
        expected = {carrier: refusal for carrier, refusal in found.items() if refusal is not None}
        said = explained(f"--client={client}", f"--host={spelling.format(typed)}", "--at", AT.format_iso())
        got = {each["carrier"]: each["verdict"] == "block" for each in said["carriers"]}
        assert got == expected, (client, spelling.format(typed), said["carriers"])
        assert (said["verdict"] == "block") is any(expected.values())
        asked += 1
        refused += any(expected.values())
        alone = decide(snapshot, client, typed, AT).verdict is Verdict.BLOCK
        decided_otherwise += alone is not any(expected.values())
    assert asked == len(CLIENTS) * len(HOSTS) * len(SPELLINGS)
    assert 0 < refused < asked or snapshot.settings.unknown_clients == "block"
    assert decided_otherwise > 100  # the name alone does not tell
