"""Drill: the clock is days off for a while, with the kernel's real tables: what they hold is right as soon as it is."""

from pathlib import Path
from typing import Any

import pytest
from whenever import Instant

from labs.netns import Namespace
from tokgate.config.reload.holder import open_policy
from tokgate.gateway import nftables
from tokgate.gateway.kernel import GatewayLock, Kernel
from tokgate.gateway.ruleset import TableOptions, ruleset_of
from tokgate.policy.snapshot import Snapshot
from tokgate.service.gateway.gateway_keeper import GatewayKeeper

BAN = "title: No clips, services: [clips], starts: 2023-06-01T06:00Z, expires: 2023-06-01T18:00Z"
POLICY = f"""\
services:
  clips:
    names: {{suffix: [clips.example.org]}}
    addresses: [203.0.113.20, "2001:db8:f::20"]
networks:
  office: {{cidrs: [192.0.2.0/24, "2001:db8:c::/48"]}}
  shop: {{interfaces: [eth7]}}
  laptops: {{devices: {{file: laptops.csv}}}}
  hall: {{interfaces: [eth8], except: [198.51.100.0/25, "2001:db8:9::/64"]}}
  lab: {{cidrs: [198.51.100.128/25, "2001:db8:9:1::/64"], except: [shop]}}
bans:
  clips: {{{BAN}, networks: [office, shop, laptops, hall, lab]}}
settings: {{gateway: {{canary: {{enabled: false}}}}}}
"""
NOON = Instant.from_utc(2023, 6, 1, 12)


class Clock:
    """A wall clock that somebody sets."""

    def __init__(self, days: int) -> None:
        self.now = NOON.add(hours=24 * days)


class NoCanary:
    """A canary that is switched off."""

    problems = ()

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


@pytest.fixture
def snapshot(tmp_path: Path) -> Snapshot:
    """A ban from six in the morning to six in the evening, for networks of each kind."""
    (tmp_path / "laptops.csv").write_text("name,mac\none,02:00:00:00:00:01\n")
    (tmp_path / "policy.yaml").write_text(POLICY)
    return open_policy(tmp_path, NOON).snapshot


def held(namespace: Namespace, kernel: Kernel) -> dict[str, int]:
    """The sets that the policy fills, as the kernel has them, and how many elements each has."""
    loaded = namespace.inside(kernel.loaded)
    assert loaded is not None
    return {name: len(elements) for name, elements in loaded.elements.items() if name != "ports"}


@pytest.mark.parametrize("days", [2, -2], ids=["ahead", "behind"])
@pytest.mark.parametrize("first", [False, True], ids=["after the start", "before the start"])
def test_the_clock_is_days_off(
    request: pytest.FixtureRequest,
    namespace: Namespace,
    snapshot: Snapshot,
    tmp_path: Path,
    days: int,
    first: bool,
) -> None:
    """Each set follows it and comes back within a second, and so do the rules for the next start; nothing is red."""
    kernel = Kernel(TableOptions(), tmp_path / "keys" / "gateway.json")
    clock, boot_file = Clock(days if first else 0), tmp_path / "rules.nft"
    canary: Any = NoCanary()
    keeper = GatewayKeeper(
        kernel,
        lambda: snapshot,
        lambda _: pytest.fail("what the clock calls for is no difference"),
        lambda _: None,
        canary=canary,
        lock=GatewayLock(),
        now=lambda: clock.now,
        boot_file=boot_file,
    )
    request.addfinalizer(keeper.let_go)
    namespace.inside(keeper.up)
    seen = []
    for offset in (days, 0, days, 0):
        clock.now = NOON.add(hours=24 * offset)
        namespace.inside(keeper.look)
        rules = ruleset_of(snapshot, clock.now, kernel.options)
        assert namespace.inside(lambda: kernel.differences(kernel.wanted(rules))).repairable == ()  # noqa: B023
        assert boot_file.read_text() == nftables.boot_rules(rules)
        seen.append(held(namespace, kernel))
    wrong, right = seen[:2]
    assert seen == [wrong, right] * 2
    assert not any(wrong.values())
    assert all(right.values())
    kinds = {name.rstrip("46") for name in right}
    assert kinds >= {"clients", "clients_interfaces", "clients_hardware", "clients_part1_except", "under_ban"}
    assert kinds >= {"addresses", "banned1_clients", "banned1_addresses", "clients_part2_from"}
