"""The kernel follows the policy and the clock; what somebody else changes is put back, recorded and shown."""

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from whenever import Instant

from labs.builders import at, ban, network, snapshot, wall
from labs.waiting import DEADLINE
from tokgate.blocklog.records.record import Record, Stamp, new_stamp, this_observer
from tokgate.gateway import GatewayError, nftables
from tokgate.gateway.canary.canary import Change
from tokgate.gateway.canary.definition import Clients
from tokgate.gateway.kernel import Differences, HostProblems
from tokgate.gateway.libnftables import TableState
from tokgate.gateway.ruleset import Ruleset, TableOptions
from tokgate.policy.settings import CanarySettings, GatewaySettings, Passage
from tokgate.policy.snapshot import Snapshot
from tokgate.service.gateway import gateway_keeper
from tokgate.service.gateway.gateway_keeper import AT_ONCE, LONGEST_DELAY, LOOK, SHARE, SHOWN, GatewayKeeper

NOON = at("2023-06-01T12:00:00Z")
FLUSHED = Differences(table=("table inet tokgate is not loaded",))


class FakeKernel:
    """A kernel that remembers what it was told."""

    def __init__(self) -> None:
        self.options = TableOptions()
        self.differs = Differences()
        self.error: GatewayError | None = None
        self.told: list[str] = []
        self.rules: Ruleset | None = None
        self.counted = {"quic": 5}
        self.settings = {"net.ipv4.ip_forward": "1"}
        self.limits = ()
        self.drops: list[str] = []
        self.takes: Callable[[], None] = lambda: None
        """What happens while it is loaded or compared."""

    def refused(self) -> dict[str, int]:
        if self.error is not None:
            raise self.error
        return self.counted

    def up(self, rules: Ruleset) -> Mapping[str, str]:
        self.load(rules)
        self.told[-1] = "up"
        return {"net.ipv4.ip_forward": "0"}

    def load(self, rules: Ruleset) -> None:
        if self.error is not None:
            raise self.error
        self.takes()
        self.told.append("load")
        self.rules, self.differs = rules, Differences()

    def repair(self, rules: Ruleset) -> None:
        self.load(rules)
        self.told[-1] = "repair"

    def down(self) -> Mapping[str, str]:
        self.told.append("down")
        return {"net.ipv4.ip_forward": "0"}

    @property
    def loaded_rules(self) -> Ruleset:
        assert self.rules is not None
        return self.rules

    @property
    def holds(self) -> tuple[list[str], list[str]]:
        """The networks whose clients come to the gates, and those under a ban that acts."""
        return [each.name for each in self.loaded_rules.clients], [each.name for each in self.loaded_rules.under_ban]

    def wanted(self, rules: Ruleset) -> TableState:
        return TableState(ours=True)

    def differences(self, wanted: TableState) -> Differences:
        self.takes()
        return self.differs

    def dropping(self) -> list[str]:
        return self.drops


class FakeCanary:
    """A canary that says what it is told to."""

    socket = object()

    def __init__(self) -> None:
        self.settings: CanarySettings | None = None
        self.clients: Clients = {}
        self.change: Change | None = None
        self.problems: tuple[str, ...] = ()
        self.closed = False

    def follow(self, settings: CanarySettings, clients: Clients) -> None:
        self.settings, self.clients = settings, clients

    def look(self, _: Instant) -> Change | None:
        change, self.change = self.change, None
        if change is not None:
            self.problems = change.problems if change.failed else ()
        return change

    def hear(self) -> None:
        pass

    def due(self) -> float:
        return math.inf

    def state(self) -> dict[str, Any]:
        return {"ok": not self.problems}

    def stop(self) -> None:
        self.settings = None

    def let_go(self) -> None:
        self.closed = True


class FakeLock:
    """A lock of the network namespace that somebody else may have."""

    def __init__(self) -> None:
        self.held_by: str | None = None
        self.closed = False

    def take(self) -> None:
        if self.held_by is not None:
            raise GatewayError(f"{self.held_by} keeps the gateway here")

    def close(self) -> None:
        self.closed = True


class Setting:
    """A keeper, its kernel and its clocks."""

    def __init__(self, folder: Path, *bans: Any, **settings: Any) -> None:
        self.kernel = FakeKernel()
        self.policy = self.made(*(bans or (ban(),)), **settings)
        self.now, self.monotonic = NOON, 1000.0
        self.records: list[Record] = []
        self.said: list[str] = []
        kernel: Any = self.kernel
        self.boot_file = folder / "tokgate" / "rules.nft"
        self.canary = FakeCanary()
        canary: Any = self.canary
        self.meanwhile: Callable[[], None] = lambda: None
        self.lock = FakeLock()
        lock: Any = self.lock
        self.keeper = GatewayKeeper(
            kernel,
            lambda: self.policy,
            self.write,
            self.said.append,
            canary=canary,
            lock=lock,
            now=lambda: self.now,
            boot_file=self.boot_file,
            meanwhile=lambda: self.meanwhile(),
        )

    def made(self, *bans: Any, **settings: Any) -> Snapshot:
        return snapshot(*bans, networks=(network("office", "192.0.2.0/24"),), **settings)

    def write(self, build: Callable[[Stamp], Record]) -> None:
        self.records.append(build(new_stamp(NOON, this_observer())))

    def passes(self, seconds: float) -> None:
        self.monotonic += seconds
        self.now = self.now.add(seconds=seconds)
        self.keeper.look()

    @property
    def actions(self) -> list[str]:
        return [record["event"]["action"] for record in self.records]


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Setting]:
    """A keeper that has loaded the kernel's part, without the kernel's notifications."""
    monkeypatch.setattr(
        gateway_keeper, "Notifications", lambda: SimpleNamespace(sockets=[], drain=lambda: True, close=lambda: None)
    )

    def begun(*bans: Any, **settings: Any) -> Setting:
        setting = Setting(tmp_path, *bans, **settings)
        monkeypatch.setattr(gateway_keeper, "time", SimpleNamespace(monotonic=lambda: setting.monotonic))
        setting.keeper.up()
        return setting

    return begun


@pytest.fixture
def setting(begin: Callable[..., Setting]) -> Setting:
    """One under the usual ban."""
    return begin()


def test_rules_are_kept_for_the_next_start(setting: Setting) -> None:
    """Those of now are on the disk, whatever becomes of the file; while that fails all goes on, and status says so."""
    kept = setting.boot_file.read_text()
    assert kept == nftables.boot_rules(setting.kernel.loaded_rules)
    assert setting.boot_file.stat().st_mode & 0o777 == 0o600
    setting.boot_file.write_text("")
    setting.passes(LOOK)
    assert setting.boot_file.read_text() == kept
    setting.boot_file.unlink()
    setting.boot_file.mkdir()
    setting.passes(LOOK)
    state = setting.keeper.state()
    assert (state["ok"], "can't be kept for the machine's next start" in state["problems"][0]) == (False, True)
    setting.boot_file.rmdir()
    setting.passes(LOOK)
    assert (setting.boot_file.read_text(), setting.keeper.state()["ok"]) == (kept, True)
    setting.keeper.drain()
    assert setting.boot_file.read_text() == kept
    assert setting.kernel.told == ["up", "load"]


def test_a_table_that_takes_long(begin: Callable[..., Setting]) -> None:
    """It is due at its second. Whoever asks meanwhile is answered, and sees which policy the kernel has."""
    setting = begin(ban(starts=wall("2023-06-02T14:00:05")))
    assert setting.keeper.due() == pytest.approx(5)
    loaded, seen = threading.Event(), list[dict[str, Any]]()

    def takes() -> None:
        assert loaded.wait(DEADLINE)
        setting.monotonic += 1

    setting.kernel.takes = takes

    def asks() -> None:
        setting.now = setting.now.add(seconds=1)
        setting.keeper.look()
        seen.append(setting.keeper.state())
        if len(seen) == 5:
            loaded.set()

    setting.meanwhile = asks
    setting.passes(5)
    began = NOON.add(seconds=5)
    late = f"the kernel takes the table that is due, since {began}: the one before holds"
    assert [state["problems"] for state in seen[:5]] == [[], [], [late], [late], [late]]
    assert {state["until"] for state in seen[:3]} == {str(began)}
    assert setting.kernel.told == ["up", "load"]
    setting.meanwhile = lambda: None
    assert setting.keeper.state()["problems"] == []
    setting.kernel.differs = FLUSHED  # who asks does not wait for a look that takes as long
    assert setting.keeper.state()["restored"]["count"] == 0
    setting.passes(LOOK + SHARE)
    assert setting.kernel.told == ["up", "load", "repair"]


@pytest.mark.parametrize("takes_over", [False, True], ids=["later", "at a takeover"])
@pytest.mark.parametrize("why", ["there is a table of that name", "process 7 (tokgate.service) keeps the gateway here"])
def test_what_fails_is_tried_again(setting: Setting, why: str, takes_over: bool) -> None:
    """The rules from before hold meanwhile, gates serve on, status says why, and it comes right by itself."""
    if why.startswith("process"):
        setting.lock.held_by = "process 7 (tokgate.service)"
    else:
        setting.kernel.error = HostProblems([why])
    if takes_over:
        setting.keeper.take_over()
    setting.kernel.differs = FLUSHED
    setting.passes(LONGEST_DELAY)
    setting.passes(LONGEST_DELAY)
    assert setting.kernel.told == ["up"]
    assert why in setting.keeper.state()["problems"][0]
    assert setting.actions == ["gateway-differs"] * len(setting.actions)
    assert sum(why in str(record) for record in setting.records) == 1
    setting.lock.held_by = setting.kernel.error = None
    setting.passes(LONGEST_DELAY)
    assert setting.kernel.told == ["up", "repair"]
    assert setting.actions[-1] == "gateway-restored"
    setting.passes(SHOWN)
    assert setting.keeper.state()["ok"]


def test_without_a_notification(setting: Setting) -> None:
    """Settings change without the kernel telling: all is looked at every ten seconds, and whenever somebody asks."""
    setting.kernel.differs = Differences(settings=("net.ipv4.ip_forward is 0",))
    setting.passes(LOOK)
    assert setting.actions == ["gateway-differs", "gateway-restored"]
    setting.passes(LOOK)
    setting.kernel.differs = FLUSHED
    assert setting.keeper.state()["restored"]["count"] == 2


def test_a_fight_is_given_time(setting: Setting) -> None:
    """With another program that flushes all the time tokgate doesn't take turns a thousand times a second."""
    times = []
    for _ in range(200):
        setting.kernel.differs = FLUSHED
        setting.keeper.noticed()
        count = len(setting.kernel.told)
        setting.passes(0.5)
        if len(setting.kernel.told) > count:
            times.append(setting.monotonic - 1000)
    assert times[:6] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0]
    assert {later - earlier for earlier, later in pairwise(times[5:])} == {LONGEST_DELAY}


def test_nobody_listens(setting: Setting) -> None:
    """That is shown and recorded once; loading rules again would not change it."""
    setting.kernel.differs = Differences(listeners=("IPv4: nothing listens at port 8080",))
    for _ in range(3):
        setting.passes(LOOK)
    assert setting.kernel.told == ["up"]
    assert setting.actions == ["gateway-differs"]
    assert setting.keeper.state()["problems"] == ["IPv4: nothing listens at port 8080"]
    setting.kernel.differs = Differences()
    setting.passes(LOOK)
    assert setting.keeper.state()["ok"]


def test_what_only_others_can_put_right(begin: Callable[..., Setting]) -> None:
    """A VPN's policy rule beside a flushed table is never called put back, and shown until it goes."""
    setting, theirs = begin(), "the IPv4 policy rule 700 sends packets of mark 0x746b to table 254"
    setting.kernel.differs = replace(FLUSHED, conflicts=(theirs,))
    setting.passes(LOOK)
    setting.kernel.differs = Differences(conflicts=(theirs,))
    assert setting.keeper.state()["problems"][0] == theirs
    setting.passes(LOOK)
    assert setting.actions == ["gateway-differs", "gateway-restored"]
    state = setting.keeper.state()
    assert (state["problems"][0], state["restored"]["what"]) == (theirs, [*FLUSHED.table])
    setting.kernel.differs = Differences()
    setting.passes(SHOWN)
    assert setting.keeper.state()["ok"]


def test_what_the_kernel_refuses_is_counted(setting: Setting) -> None:
    """Since the start, also where a lost table began anew; a kernel that can't be asked adds nothing."""
    assert set(setting.keeper.state()["refused"].values()) == {0}
    setting.kernel.counted = {"quic": 7}
    setting.passes(LOOK)
    setting.kernel.counted = {"quic": 1, "udp_to_addresses": 4}
    refused = setting.keeper.state()["refused"]
    assert {kind: number for kind, number in refused.items() if number} == {"quic": 3, "udp_to_addresses": 4}
    setting.kernel.error = GatewayError("no")
    assert setting.keeper.state()["refused"] == refused


def test_a_firewall_that_drops_is_told_with_the_canary(begin: Callable[..., Setting]) -> None:
    """What stops the canary's packets is known, and what helps; where the canary is well it stops nobody's."""
    setting, told = begin(), "chain input of table inet filter drops what is delivered to the gates: add …"
    setting.kernel.drops = [told]
    setting.passes(LOOK)
    assert setting.keeper.state()["ok"]
    setting.canary.change = Change(True, ("IPv4: the banned test name had no answer",))
    setting.passes(1)
    expected = [f"canary: {told}", "canary: IPv4: the banned test name had no answer"]
    assert setting.keeper.state()["problems"] == expected
    assert told in str(setting.records[-1])
    setting.canary.change = Change(False, ("IPv4: the banned test name had no answer",))
    setting.passes(1)
    assert setting.keeper.state()["ok"]


def test_what_is_changed_soon_after_a_look(begin: Callable[..., Setting]) -> None:
    """A table that is put to sleep is awake again within a second, though looks are long; changes without end wait."""
    setting, looks = begin(), list[float]()

    def takes() -> None:
        looks.append(setting.monotonic)
        setting.monotonic += 0.2

    setting.kernel.takes = takes
    for _ in range(1000):
        setting.keeper.noticed()
        setting.passes(0.05)
    assert looks[1] - looks[0] < 1
    assert len(looks) * 0.2 * SHARE < looks[-1] - looks[0] + AT_ONCE + 0.2 * SHARE


def test_the_canary_ends_with_its_gateway(setting: Setting) -> None:
    """What is taken out on purpose is no alarm."""
    setting.keeper.look()
    setting.keeper.drain()
    setting.keeper.look()
    assert setting.canary.settings is None
    setting.keeper.let_go()
    assert setting.canary.closed


def test_a_stop_opens(setting: Setting) -> None:
    """While open connections end new ones pass; then nothing stays."""
    setting.keeper.drain()
    setting.kernel.differs = FLUSHED
    setting.passes(LOOK)
    assert setting.keeper.state()["refused"]
    assert setting.kernel.holds == ([], [])
    setting.keeper.down()
    assert setting.kernel.told == ["up", "load", "down"]
    assert "net.ipv4.ip_forward is 0 again" in setting.said


@pytest.mark.parametrize("restarts", [False, True])
def test_a_stop_that_stays_closed(begin: Callable[..., Setting], restarts: bool) -> None:
    """The rules stay, where the policy says so, with how to take them out; or for a start that is seconds away."""
    setting = begin(gateway=GatewaySettings(on_stop=Passage.OPEN if restarts else Passage.CLOSED))
    setting.keeper.drain(restarts=restarts)
    setting.keeper.down()
    assert setting.kernel.told == ["up"]
    assert ("next start" if restarts else "tokgate gateway down") in setting.said[-1]


def test_a_stop_with_a_kernel_that_refuses(setting: Setting) -> None:
    """It is said, and the rest of the stop goes on."""
    setting.kernel.error = GatewayError("no")
    setting.keeper.drain()
    assert setting.said[-1] == "the gateway's rules: no"
