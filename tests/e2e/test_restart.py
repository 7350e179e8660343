"""`tokgate restart` on a gateway: another program takes over the kernel's part, connections and flows of QUIC."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from labs.clients import UNRECOGNIZED_NAME, Download, downloading, http3, python, seen_from
from labs.gateway import KERNEL_TOO, Gateway, office_policy, refused_over_http3
from labs.netns import Lab, wait_until
from labs.origin import ALLOWED, BANNED, LARGE, Origin

SIZE = 4 << 20


@pytest.mark.parametrize("user", ["root", "nobody"])
def test_nobody_notices(
    lab: Lab, origin: Origin, any_gateway: Callable[..., Gateway], nobodys_folder: Path, user: str
) -> None:
    """Downloads over TCP and QUIC go on, what is banned stays refused, and the new program keeps the kernel in step.

    Origins see clients' own addresses: through gates, through openers and over HTTP/3, before and after.
    """
    options = ("--user", user, "--workers", "2", "--confdir", nobodys_folder / "keys")
    with any_gateway(nobodys_folder, policy=office_policy(), mode=KERNEL_TOO, options=options) as gateway:
        check_addresses(lab, origin)
        flow = Download(lab.client, origin, ALLOWED)
        with downloading(lab.client, origin.authority, SIZE) as stream:
            wait_until("the kernel forwards the flow", lambda: Lab.ALLOWED[4] in _flows(lab))
            for _ in range(2 if user == "root" else 1):
                done = gateway.asked("restart", check=False)
                assert done.returncode == 0, done.stderr + gateway.narrated()
                # What the kernel has forgotten comes to the gates: the new ones know it.
                lab.gateway.run("nft", "flush", "set", "inet", "tokgate", "quic4")
                for family in (4, 6):
                    assert python(lab.client, BANNED, family, False, origin.authority).error == UNRECOGNIZED_NAME
                    refused_over_http3(lab, origin, gateway, family)
                    certificate = python(lab.client, ALLOWED, family, False, origin.authority).certificate
                    assert certificate == origin.fingerprints[ALLOWED]
                check_addresses(lab, origin)
            assert len(stream.read()) == SIZE
        flow.join()
        assert (flow.code, flow.octets) == (0, LARGE)
        words = ("doctor", "--gateway", "--json", "--policies", gateway.policies, "--log", gateway.log)
        told = {
            each["subject"]: each["ok"] for each in json.loads(gateway.asked(*words, check=False).stdout)["results"]
        }
        assert [told[each] for each in ("IPv4 forwarding", "kernel", "next start")] == [True] * 3
        assert "gateway-differs" not in [record["event"]["action"] for record in gateway.records()]
        lab.gateway.run("nft", "flush", "chain", "inet", "tokgate", "to_gate")
        wait_until("it is restored", lambda: "tproxy" in _chain(lab))
        assert python(lab.client, BANNED, 4, False, origin.authority).error == UNRECOGNIZED_NAME
        assert "chain to_gate lacks" in str(gateway.status()["gateway"])
    assert lab.gateway.run("nft", "list", "ruleset").stdout == ""


def check_addresses(lab: Lab, origin: Origin) -> None:
    """All clients are seen from their own addresses."""
    for family in (4, 6):
        for scheme in ("https", "http"):
            assert seen_from(lab.client, origin, ALLOWED, family, scheme) == Lab.CLIENT[family]
        assert seen_from(lab.guest, origin, BANNED, family) == Lab.GUEST[family]
        assert http3(lab.client, origin, ALLOWED, family, path="/who") == (0, f"{Lab.CLIENT[family]}\n")


def _flows(lab: Lab) -> str:
    return lab.gateway.run("nft", "list", "set", "inet", "tokgate", "quic4").stdout


def _chain(lab: Lab) -> str:
    return lab.gateway.run("nft", "list", "chain", "inet", "tokgate", "to_gate").stdout
