"""A gate in one process with mitmproxy behind nftables `tproxy`: the destination is the socket's own address."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from labs.clients import UNRECOGNIZED_NAME, python
from labs.gateway import Gateway, got_round, office_policy, refuses
from labs.netns import Lab
from labs.origin import ALLOWED, BANNED, Origin, to_banned


@pytest.fixture(scope="module")
def gateway(any_gateway: Callable[..., Gateway], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with what `tokgate ruleset` prints. The carrier `gates` of all other tests has it in many processes."""
    folder = tmp_path_factory.mktemp("tproxy")
    with any_gateway(folder, policy=office_policy(), mode="gate:tproxy", single=True) as running:
        yield running


def test_allowed_and_banned(lab: Lab, origin: Origin, gateway: Gateway, family: int) -> None:
    """The allowed name comes with the origin's own certificate; the banned one is refused and the origin untouched."""
    with origin.watch() as seen:
        refused = python(lab.client, BANNED, family, False, origin.authority)
        allowed = python(lab.client, ALLOWED, family, False, origin.authority)

    assert refused.error == UNRECOGNIZED_NAME
    assert allowed.certificate == origin.fingerprints[ALLOWED]
    assert to_banned(seen) == 0
    record = gateway.wait_for_record("the refusal is recorded", refuses(BANNED, Lab.CLIENT[family]))
    assert record["destination"]["ip"] == Lab.BANNED[family]


def test_another_network_passes(lab: Lab, origin: Origin, gateway: Gateway, family: int) -> None:
    """A client whose packets no rule takes reaches the same name."""
    answer = python(lab.guest, BANNED, family, False, origin.authority)
    assert answer.certificate == origin.fingerprints[BANNED]


def test_nobody_gets_round_it(lab: Lab, origin: Origin, gateway: Gateway) -> None:
    """Nothing that plays with records and hellos reaches the banned service's own server."""
    assert got_round(lab, gateway, "tls-records", "two-hellos", "segments") == []
