"""A transparent gateway, seen by real clients: what is allowed passes untouched, what is banned never gets out."""

from __future__ import annotations

import pytest

from labs.clients import UNRECOGNIZED_NAME, Client, browser, curl
from labs.gateway import Gateway, refuses
from labs.netns import Lab
from labs.origin import ALLOWED, BANNED, LOOKALIKE, Origin, to_banned


@pytest.mark.parametrize("http2", [False, True], ids=["http1", "http2"])
def test_allowed_name_gets_the_origins_own_certificate(
    lab: Lab, origin: Origin, gateway: Gateway, fetch: Client, family: int, http2: bool
) -> None:
    """Every client reads the origin's page over TLS that ends at the origin, whatever the family and the protocol."""
    with origin.watch() as seen:
        answer = fetch(lab.client, ALLOWED, family, http2, origin.authority)

    assert answer.error == ""
    assert answer.certificate == origin.fingerprints[ALLOWED]
    assert answer.protocol == ("h2" if http2 else "http/1.1")
    if answer.body:
        assert answer.body.strip() == f"origin of {ALLOWED} over {'HTTP/2.0' if http2 else 'HTTP/1.1'}"
    assert seen["allowed-tcp443"] > 0


def test_banned_name_is_refused_before_anything_is_sent(
    lab: Lab, origin: Origin, gateway: Gateway, fetch: Client, family: int
) -> None:
    """Every client gets alert 112 for the banned name, the origin gets no packet, and the log gets a line."""
    with origin.watch() as seen:
        answer = fetch(lab.client, BANNED, family, True, origin.authority)
        # The control is also a barrier: what the gateway might have sent before this answer would have arrived.
        control = curl(lab.client, ALLOWED, family, True, origin.authority)

    assert answer.error == UNRECOGNIZED_NAME
    assert control.certificate == origin.fingerprints[ALLOWED]
    assert to_banned(seen) == 0
    # Within a minute of another attempt on this name this one is only counted: the record may be that one's.
    record = gateway.wait_for_record("a record of the refusal", refuses(BANNED, Lab.CLIENT[family]))
    assert record["event"]["action"] == "tls-handshake-refused"
    assert record["tls"]["client"]["server_name"] == BANNED
    assert record["rule"]["id"] == "office-ban"


def test_other_network_reaches_the_banned_name(
    lab: Lab, origin: Origin, gateway: Gateway, fetch: Client, family: int
) -> None:
    """A client of a network that is in no ban reads the same name from the origin itself."""
    with origin.watch() as seen:
        answer = fetch(lab.guest, BANNED, family, True, origin.authority)

    assert answer.error == ""
    assert answer.certificate == origin.fingerprints[BANNED]
    assert seen["banned-tcp443"] > 0


def test_lookalike_is_another_name(lab: Lab, origin: Origin, gateway: Gateway, family: int) -> None:
    """A name that only ends in the same letters is not the banned one."""
    answer = curl(lab.client, LOOKALIKE, family, True, origin.authority)

    assert answer.certificate == origin.fingerprints[LOOKALIKE]


def test_certificate_check_would_notice_an_opened_connection(lab: Lab, origin: Origin, gateway: Gateway) -> None:
    """The control of this file: a client that doesn't trust the origin's authority gets nothing through the gateway."""
    with browser(lab.client) as browse:
        page = browse(f"https://{ALLOWED}/")

    assert page.error == "ERR_CERT_AUTHORITY_INVALID"
