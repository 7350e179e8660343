"""Clients told apart by the interface by which they come and by their hardware address."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from labs.gateway import CARRIERS, Gateway, MakeGateway, office_policy
from labs.netns import Lab, Namespace, wait_until
from labs.origin import ALLOWED, BANNED, Origin, to_banned
from labs.other_ports import REFUSED_BY_ALERT, curl

START = {"timezone": "Europe/Brussels"}


def hardware_of(namespace: Namespace) -> str:
    """The hardware address of a client's eth0."""
    (link,) = json.loads(namespace.run("ip", "-j", "link", "show", "eth0").stdout)
    address: str = link["address"]
    return address


@pytest.fixture(scope="module", params=["mitmproxy", "gates"])
def gateway(
    request: pytest.FixtureRequest, lab: Lab, any_gateway: MakeGateway, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """TikTok is banned by interface and by hardware address, each for one name; nothing is known by prefix."""
    folder = tmp_path_factory.mktemp("links")
    policy: dict[str, Any] = office_policy(networks=["by-interface"])
    policy["services"]["other"] = {"names": {"suffix": ["tiktokcdn.com"]}}
    policy["networks"] = {
        "by-interface": {"interfaces": ["client0"], **START},
        "by-hardware": {"devices": {"file": str(folder / "devices.csv"), "paid_by": ["federal"]}, **START},
    }
    second = policy["bans"]["office-ban"] | {"services": ["tiktok"], "networks": ["by-hardware"], "title": "Devices"}
    policy["bans"]["device-ban"] = second
    (folder / "devices.csv").write_text(
        f"name,mac,paid_by\nphone,{hardware_of(lab.guest)},federal\nother,00:53:00:00:00:99,federal\n"
    )
    with any_gateway(folder, policy=policy, **CARRIERS[request.param]) as running:
        yield running


@pytest.mark.parametrize("who", ["client", "guest"])
def test_banned_by_link(lab: Lab, origin: Origin, gateway: Gateway, family: int, who: str) -> None:
    """The client is under the ban of its interface, the guest under that of its device; the record says by what."""
    namespace: Namespace = getattr(lab, who)
    with origin.watch() as seen:
        code, _ = curl(namespace, origin, f"https://{BANNED}:443/", family)
    assert code == REFUSED_BY_ALERT
    assert to_banned(seen) == 0
    assert curl(namespace, origin, f"https://{ALLOWED}:443/", family)[1][-3:] == "200"
    address = (Lab.CLIENT if who == "client" else Lab.GUEST)[family]
    record = gateway.wait_for_record(
        "the refusal is logged", lambda record: record.get("source", {}).get("ip") == address
    )
    assert record["tokgate"]["network"] == ("by-interface" if who == "client" else "by-hardware")
    assert record["observer"]["ingress"] == {"interface": {"name": f"{who}0"}}
    assert record["source"]["mac"] == hardware_of(namespace).upper().replace(":", "-")


def test_another_device_at_the_same_link(lab: Lab, origin: Origin, gateway: Gateway) -> None:
    """The guest with another hardware address is another device, which no ban concerns, from its next connection on."""
    before = hardware_of(lab.guest)
    try:
        lab.guest.run("ip", "link", "set", "eth0", "address", "02:53:00:00:00:42")
        lab.gateway.run("ip", "neigh", "flush", "dev", "guest0")
        lab.guest.run("ip", "route", "replace", "default", "via", "198.51.100.1")
        lab.guest.run("ping", "-c1", "-W5", "198.51.100.1", check=False)

        def passes() -> bool:
            return curl(lab.guest, origin, f"https://{BANNED}:443/", 4)[1][-3:] == "200"

        wait_until("the gateway has forgotten the device", passes, 30, 0.5)
    finally:
        lab.guest.run("ip", "link", "set", "eth0", "address", before)
        lab.guest.run("ip", "route", "replace", "default", "via", "198.51.100.1")
        lab.guest.run("ip", "-6", "route", "replace", "default", "via", "2001:db8:9::1")
        lab.gateway.run("ip", "neigh", "flush", "dev", "guest0")
