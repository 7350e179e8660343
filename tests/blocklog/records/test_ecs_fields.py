"""What a record says of an observation, field by field, in the words of ECS."""

from dataclasses import replace
from typing import Any

import pytest

from labs.samples import NAME, judged, seen
from tokgate.blocklog.records.ecs_fields import common, described, folded_name, observed
from tokgate.blocklog.records.record import EventAction
from tokgate.policy.decide import Sighting
from tokgate.policy.decision import Signal
from tokgate.policy.membership import Identity
from tokgate.policy.observation import Carried, DnsSeen, Endpoint, HttpSeen, Observation, Stage, TlsSeen

DOMAIN = {"domain": NAME, "registered_domain": "example.org", "subdomain": "www.clips", "top_level_domain": "org"}
ALICE = Identity(user="alice", device="00:53:00:00:00:0a")
FIELDS: list[tuple[Observation, EventAction, dict[str, Any]]] = [
    (
        seen(
            Stage.HTTP,
            (Signal.HTTP_HOST, f"{NAME}:8443"),
            (Signal.URL, f"https://bob:secret@{NAME}/watch?v=private#top"),
            client=Endpoint("2001:db8::7", 51234),
            identity=ALICE,
            connection="c-1",
            opened=True,
        ),
        EventAction.HTTP_REQUEST_BLOCKED,
        {
            "source": {"ip": "2001:db8::7", "port": 51234, "mac": "00-53-00-00-00-0A"},
            "destination": {"ip": "203.0.113.5", "port": 443} | DOMAIN,
            "network": {"transport": "tcp", "protocol": "http", "type": "ipv6", "direction": "outbound"},
            "tls": {"established": True},
            "http": {"version": "2", "request": {"method": "GET"}, "response": {"status_code": 451}},
            "url": {
                "scheme": "https", "domain": NAME, "registered_domain": "example.org", "port": 443, "path": "/watch",
            },
            "user_agent": {"original": "curl/8"},
            "user": {"name": "alice"},
            "related": {"ip": ["2001:db8::7", "203.0.113.5"], "hosts": [NAME], "user": ["alice"]},
            "tokgate": {
                "stage": "http",
                "visibility": "decrypted",
                "connection": "c-1",
                "names": {"http-host": [f"{NAME}:8443"], "url": [f"https://{NAME}/watch"]},
            },
        },
    ),
    (
        seen(Stage.DNS),
        EventAction.DNS_QUERY_BLOCKED,
        {
            "source": {"ip": "192.0.2.7", "port": 51234},
            "destination": {"ip": "203.0.113.5", "port": 443} | DOMAIN,
            "network": {
                "transport": "udp", "protocol": "dns", "type": "ipv4", "direction": "outbound", "name": "office",
            },
            "dns": {
                "id": "7",
                "type": "answer",
                "response_code": "NXDOMAIN",
                "question": {"name": NAME, "type": "HTTPS", "class": "IN", "registered_domain": "example.org"},
            },
            "related": {"ip": ["192.0.2.7", "203.0.113.5"], "hosts": [NAME]},
            "tokgate": {"stage": "dns", "visibility": "dns", "names": {"dns-name": [NAME]}},
        },
    ),
    (
        seen(Stage.QUIC, carried=Carried(30, 12)),
        EventAction.QUIC_REFUSED,
        {
            "source": {"ip": "192.0.2.7", "port": 51234, "bytes": 30},
            "destination": {"ip": "203.0.113.5", "port": 443, "bytes": 12} | DOMAIN,
            "network": {
                "transport": "udp", "protocol": "quic", "type": "ipv4", "direction": "outbound", "name": "office",
                "bytes": 42,
            },
            "tls": {"client": {"server_name": NAME}, "established": False},
            "related": {"ip": ["192.0.2.7", "203.0.113.5"], "hosts": [NAME]},
            "tokgate": {
                "stage": "quic",
                "visibility": "quic-sni",
                "names": {"quic-sni": [NAME]},
                "alpn": ["h2", "http/1.1"],
                "ja4": "t13d1516h2_8daaf6152771_02713d6af862",
                "ech": True,
            },
        },
    ),
]  # fmt: skip


@pytest.mark.parametrize(("observation", "action", "fields"), FIELDS, ids=lambda value: getattr(value, "stage", ""))
def test_all_fields(observation: Observation, action: EventAction, fields: dict[str, Any]) -> None:
    """Nothing is left out, nothing is added, and nothing private is in it."""
    assert observed(observation, judged(observation), action) == fields


def test_a_socks_request_without_a_name() -> None:
    """It is no HTTP, and has an address for a name."""
    observation = seen(Stage.CONNECT, (Signal.ADDRESS, "203.0.113.5"), http=None)
    judgement = judged(observation)
    fields = observed(observation, judgement, EventAction.CONNECT_REFUSED)
    assert fields["network"]["protocol"] == "socks"
    assert "http" not in fields
    assert "url" not in fields
    assert described(observation, judgement) == "203.0.113.5"


@pytest.mark.parametrize(
    ("dns", "names", "fields"),
    [
        (
            DnsSeen(id=None, type="A", response_code=None),
            [(Signal.DNS_NAME, NAME)],
            {
                "type": "query",
                "question": {"name": NAME, "type": "A", "class": "IN", "registered_domain": "example.org"},
            },
        ),
        (
            DnsSeen(id=0, type="NS", response_code="NOERROR"),
            [(Signal.DNS_NAME, "")],
            {
                "id": "0",
                "type": "answer",
                "response_code": "NOERROR",
                "question": {"name": ".", "type": "NS", "class": "IN"},
            },
        ),
        (
            DnsSeen(id=1, type="PTR", response_code="REFUSED"),
            [(Signal.ADDRESS, "203.0.113.5")],
            {"id": "1", "type": "answer", "response_code": "REFUSED", "question": {"type": "PTR", "class": "IN"}},
        ),
    ],
    ids=["not answered", "the root", "without a name"],
)
def test_questions(dns: DnsSeen, names: list[tuple[Signal, str]], fields: dict[str, Any]) -> None:
    """What was asked, and what was answered, as far as it is known."""
    observation = seen(Stage.DNS, *names, dns=dns)
    judgement = judged(seen(Stage.DNS))
    assert observed(observation, judgement, EventAction.DNS_QUERY_BLOCKED)["dns"] == fields


def test_a_request_that_says_little() -> None:
    """Without a path, an agent, a port: it has no such fields."""
    observation = seen(Stage.HTTP, (Signal.HTTP_HOST, NAME), http=HttpSeen(method="GET"), destination=None)
    fields = observed(observation, judged(observation), EventAction.HTTP_REQUEST_BLOCKED)
    assert fields["url"] == {"domain": NAME, "registered_domain": "example.org"}
    assert fields["http"] == {"request": {"method": "GET"}}
    assert "user_agent" not in fields
    assert "tls" not in fields
    assert fields["related"]["ip"] == ["192.0.2.7"]


def test_a_name_that_is_seen_twice() -> None:
    """It stands once; in another spelling it is another thing that was seen."""
    names = [(Signal.SNI, NAME), (Signal.SNI, NAME), (Signal.SNI, NAME.upper()), (Signal.SNI, "")]
    observation = seen(Stage.TLS, *names)
    judgement = replace(judged(observation), sighting=Sighting(Signal.ADDRESS, "203.0.113.9"))
    fields = observed(observation, judgement, EventAction.TLS_HANDSHAKE_REFUSED)
    assert fields["tokgate"]["names"] == {"address": ["203.0.113.9"], "sni": [NAME, NAME.upper()]}
    assert fields["related"] == {"ip": ["192.0.2.7", "203.0.113.5", "203.0.113.9"], "hosts": [NAME]}


def test_a_hello_that_says_little() -> None:
    """Without ALPN, and one whose fingerprint is unknown, it has no such fields."""
    observation = seen(Stage.TLS, tls=TlsSeen())
    said = observed(observation, judged(observation), EventAction.TLS_HANDSHAKE_REFUSED)["tokgate"]
    assert not {"alpn", "ja4"} & set(said)


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("http://[x/watch?v=private#top", "http://[x/watch"),
        ("http://[x/#top?v=private", "http://[x/"),
        ("http://bob:secret@[x/watch", "http://[x/watch"),
    ],
)
def test_a_malformed_url(url: str, kept: str) -> None:
    """It stands as it was sent, but for what may be private; the host is the one that was named beside it."""
    observation = seen(Stage.HTTP, (Signal.URL, url), (Signal.HTTP_HOST, NAME))
    judgement = replace(judged(observation), sighting=observation.names[0])
    fields = observed(observation, judgement, EventAction.HTTP_REQUEST_BLOCKED)
    assert fields["tokgate"]["names"]["url"] == [kept]
    assert fields["url"]["domain"] == NAME
    assert "private" not in str(fields)
    assert "domain" not in fields["destination"]
    assert folded_name(observation, judgement).endswith(" 203.0.113.5")
    assert common(observation, judgement).destination == Endpoint("203.0.113.5")
    assert described(observation, judgement) == "203.0.113.5"
    assert described(replace(observation, destination=None), judgement) == "a host without a name"


def test_what_a_client_sends_is_cut() -> None:
    """Each text has its bound, to which it is whole: no client fills the log with one request."""

    def fields(more: int) -> list[int]:
        observation = seen(
            Stage.HTTP,
            tls=TlsSeen(alpn=("a" * (64 + more),) * 20, ja4="j" * (64 + more)),
            http=HttpSeen(method="M" * (32 + more), path="/"),
            identity=Identity(user="u" * (256 + more)),
            connection="c" * (64 + more),
        )
        found = observed(observation, judged(observation), EventAction.HTTP_REQUEST_BLOCKED)
        own = found["tokgate"]
        texts = [own["alpn"][0], own["ja4"], own["connection"], found["http"]["request"]["method"]]
        texts += [found["user"]["name"], found["related"]["user"][0]]
        assert all(text.endswith("…") is bool(more) for text in texts)
        return [len(own["alpn"]), *map(len, texts)]

    assert fields(0) == fields(1) == [16, 64, 64, 64, 32, 256, 256]


@pytest.mark.parametrize(("names", "shown"), [(15, 16), (16, 17), (17, 17)])
def test_as_many_names_as_are_kept(names: int, shown: int) -> None:
    """Sixteen, and the one that was decided about, wherever it stands."""
    others = [(Signal.HTTP_HOST, f"n{number}.example") for number in range(names)]
    observation = seen(Stage.TLS, *others, (Signal.SNI, NAME))
    found = observed(observation, judged(observation), EventAction.TLS_HANDSHAKE_REFUSED)
    kept = found["tokgate"]["names"]
    assert kept["sni"] == [NAME]
    assert sum(map(len, kept.values())) == len(found["related"]["hosts"]) == shown


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("shop.example.net", f"shop.example.net, which leads to {NAME}"),
        (r"\000x.shop.example.net", rf"\000x.shop.example.net, which leads to {NAME}"),
        (rf"\000x.{NAME}", NAME),
        (f"x.{NAME}", f"x.{NAME}, which leads to {NAME}"),
        (NAME, NAME),
    ],
)
def test_a_name_that_leads_to_another(asked: str, said: str) -> None:
    """Both are said, unless odd octets before the name are all that was asked for beside it."""
    observation = seen(Stage.DNS, (Signal.DNS_NAME, asked), (Signal.DNS_NAME, NAME))
    assert described(observation, replace(judged(observation), sighting=Sighting(Signal.DNS_NAME, NAME))) == said


def test_what_repeats_have_in_common() -> None:
    """Ports, paths and fingerprints differ between repeats; the address differs where there is a name."""
    page, address = seen(Stage.HTTP, connection="c-1"), seen(Stage.ADDRESS)
    same = common(page, judged(page))
    assert (same.client, same.destination, same.tls, same.connection) == (Endpoint("192.0.2.7"), None, None, None)
    assert same.http is not None
    assert (same.http.method, same.http.path, same.http.user_agent) == ("GET", None, None)
    assert common(address, judged(address)).destination == Endpoint("203.0.113.5")
    nowhere = seen(Stage.CONNECT, (Signal.HTTP_HOST, "203.0.113.5"), destination=None)
    assert common(nowhere, judged(nowhere)).destination is None
    asked = seen(Stage.DNS)
    told = common(asked, judged(asked)).dns
    assert told is not None
    assert (told.id, told.type) == (None, "HTTPS")


def test_what_is_folded_together() -> None:
    """Repeats of one name, whatever its spelling and address; of one address; of one name that leads to another."""
    one, other = seen(Stage.TLS, (Signal.SNI, NAME)), seen(Stage.TLS, (Signal.SNI, NAME.upper()))
    elsewhere = replace(other, destination=Endpoint("203.0.113.6", 443))
    assert {folded_name(each, judged(each)) for each in (one, other, elsewhere)} == {NAME}
    alias = seen(Stage.DNS, (Signal.DNS_NAME, "Shop.example.net"), (Signal.DNS_NAME, NAME))
    assert folded_name(alias, judged(alias)) == f"{NAME} shop.example.net"
    address = seen(Stage.ADDRESS)
    assert folded_name(address, judged(address)).endswith(" 203.0.113.5")
