"""`tokgate run --gateway` while it runs: the kernel follows policy, inventories, overrides and clock."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from whenever import Instant

from labs.clients import downloading
from labs.gateway import KERNEL_TOO, Gateway, MakeGateway, kernel, nothing_left, office_policy, reaches, refused
from labs.netns import Lab, wait_until
from labs.origin import BANNED, LARGE, Origin


@pytest.fixture(scope="module")
def running(lab: Lab, any_gateway: MakeGateway) -> Iterator[Gateway]:
    """One for all tests here; at its end nothing of it is left."""
    policy, options = office_policy(), ("--metrics", "9300")
    with nothing_left(lab), any_gateway(policy=policy, mode=KERNEL_TOO, options=options) as gateway:
        yield gateway


@pytest.fixture
def gateway(running: Gateway) -> Iterator[Gateway]:
    """The same with the office's policy alone, which it has again afterwards."""
    yield running
    running.enforces(office_policy())
    for path in (each for each in running.policies.rglob("*") if each.is_file() and each.name != "policy.yaml"):
        path.unlink()
    running.enforces()


def test_a_ban_that_begins(lab: Lab, origin: Origin, gateway: Gateway) -> None:
    """A network that no ban concerned yet is blocked at the second at which its ban begins, without anybody's doing.

    What is open to the banned name is reset then.
    """
    gateway.enforces(office_policy(starts="2098-01-01T00:00"))
    assert reaches(lab, origin, BANNED, 4)
    assert "192.0.2.0/24" not in lab.gateway.run("nft", "list", "table", "inet", "tokgate").stdout
    gateway.enforces(office_policy(starts=str(Instant.now().add(hours=1))))
    assert "192.0.2.0/24" in lab.gateway.run("nft", "list", "set", "inet", "tokgate", "clients4").stdout
    assert not _under_ban(lab)
    assert reaches(lab, origin, BANNED, 4)
    starts = gateway.soon(4)
    gateway.enforces(office_policy(starts=str(starts)))
    wait_until("the ban is near", lambda: Instant.now() >= starts.subtract(seconds=3))
    with downloading(lab.client, origin.authority, LARGE, BANNED) as stream, pytest.raises(ConnectionResetError):
        stream.read()
    assert Instant.now() >= starts
    wait_until("the kernel has it", lambda: _under_ban(lab), (starts - Instant.now()).total("seconds") + 5)
    assert refused(lab, origin, 4)


def test_inventories_and_overrides(lab: Lab, origin: Origin, gateway: Gateway) -> None:
    """A device that an inventory gains is blocked, and whom an override exempts the kernel lets pass as well."""
    policy = office_policy(networks=["office", "laptops"])
    policy["networks"]["laptops"] = {"devices": {"file": "laptops.csv"}, "timezone": "Europe/Brussels"}
    policy["services"]["tiktok"]["addresses"] = [Lab.BANNED[4]]
    inventory = gateway.policies / "laptops.csv"
    inventory.write_text("name,address\none,192.0.2.77\n")
    gateway.enforces(policy)
    assert reaches(lab, origin, BANNED, 4, "guest")
    inventory.write_text(f"name,address\none,192.0.2.77\ntwo,{Lab.GUEST[4]}\n")
    gateway.enforces()
    assert Lab.GUEST[4] in lab.gateway.run("nft", "list", "set", "inet", "tokgate", "clients4").stdout
    assert refused(lab, origin, 4, "guest")
    chain = ("nft", "list", "chain", "inet", "tokgate", "banned1_udp")
    assert Lab.CLIENT[4] not in lab.gateway.run(*chain).stdout
    words = ("--ban", "office-ban", "--client", Lab.CLIENT[4], "--for", "1h", "--reason", "Test")
    gateway.asked("override", "add", *words, "--policies", gateway.policies)
    gateway.enforces()
    assert f"ip saddr {Lab.CLIENT[4]}" in lab.gateway.run(*chain).stdout
    assert reaches(lab, origin, BANNED, 4)


def _under_ban(lab: Lab) -> bool:
    return "192.0.2.0/24" in lab.gateway.run("nft", "list", "set", "inet", "tokgate", "under_ban4").stdout


def test_a_second_one(lab: Lab, origin: Origin, gateway: Gateway, tmp_path: Path) -> None:
    """Another tokgate in the same network namespace changes nothing, nor does `gateway down`, and both say why."""
    assert gateway.process is not None
    wait_until("the canary has asked", lambda: gateway.status()["gateway"]["canary"]["at"] is not None)
    before, restored = kernel(lab), gateway.status()["gateway"]["restored"]
    more = ("run", "--gateway", "--user", "root", "--mode", "gate:tproxy@8090", "--policies", gateway.policies)
    for words in ((*more, "--log", tmp_path / "second.ndjson"), ("gateway", "down")):
        done = lab.gateway.run(*gateway.command(*words), env=gateway.environment, check=False)
        assert done.returncode == 3
        assert f"process {gateway.process.pid}" in done.stderr
    assert kernel(lab) == before
    assert refused(lab, origin, 4)
    assert gateway.status()["gateway"]["restored"] == restored
