"""What a record says of an observation, field by field, in the words of ECS."""

from dataclasses import replace
from typing import Any

import pytest

from labs.samples import NAME, judged, seen
from tokgate.blocklog.records.ecs_fields import common, described, folded_name, observed
from tokgate.blocklog.records.record import EventAction
from tokgate.policy.decision import Signal
from tokgate.policy.identity import Identity
from tokgate.policy.observation import Carried, Endpoint, Observation, Stage

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
    (
        seen(Stage.ADDRESS),
        EventAction.CONNECTION_REFUSED,
        {
            "source": {"ip": "192.0.2.7", "port": 51234},
            "destination": {"ip": "203.0.113.5", "port": 443},
            "network": {"transport": "tcp", "type": "ipv4", "direction": "outbound", "name": "office"},
            "related": {"ip": ["192.0.2.7", "203.0.113.5"]},
            "tokgate": {"stage": "address", "visibility": "address", "names": {"address": ["203.0.113.5"]}},
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


def test_what_repeats_have_in_common() -> None:
    """Ports, paths and fingerprints differ between repeats; the address differs where there is a name."""
    page, address = seen(Stage.HTTP, connection="c-1"), seen(Stage.ADDRESS)
    same = common(page, judged(page))
    assert (same.client, same.destination, same.tls, same.connection) == (Endpoint("192.0.2.7"), None, None, None)
    assert same.http is not None
    assert (same.http.method, same.http.path, same.http.user_agent) == ("GET", None, None)
    assert common(address, judged(address)).destination == Endpoint("203.0.113.5")
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
