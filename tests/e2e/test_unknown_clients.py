"""Clients in no network of the policy, where they are refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from labs.gateway import CARRIERS, Gateway, office_policy, refuses
from labs.netns import Lab
from labs.origin import ADDRESSES, ALLOWED, Origin
from labs.other_ports import REFUSED_BY_ALERT, curl, greeted


def test_clients_of_no_network(
    lab: Lab, origin: Origin, any_gateway: Callable[..., Gateway], tmp_path: Path, family: int
) -> None:
    """An address in no network is no way round, on no port; the clients of the policy keep what they had."""
    policy = office_policy() | {"settings": {"unknown_clients": "block"}}
    del policy["networks"]["visitors"]
    with any_gateway(tmp_path, policy=policy, **CARRIERS["gates"]) as gateway:
        with origin.watch(*ADDRESSES) as seen:
            refused, _ = curl(lab.guest, origin, f"https://{ALLOWED}:8443/", family)
            with lab.guest.connect(Lab.ALLOWED[family], 22, 20) as silent:
                assert silent.recv(64) == b""
            with lab.guest.datagrams(Lab.ALLOWED[family], 5228) as sender:
                sender.send(b"anything")
                with pytest.raises(ConnectionRefusedError):
                    sender.recv(1)
        allowed = curl(lab.client, origin, f"https://{ALLOWED}:8443/", family)

        assert refused == REFUSED_BY_ALERT
        assert not seen
        assert allowed == (0, f"origin of {ALLOWED} over HTTP/2.0\n200")
        assert greeted(lab, lab.client, Lab.ALLOWED[family], 22)
        gateway.wait_for_record("the refusal", refuses(ALLOWED, Lab.GUEST[family]))
