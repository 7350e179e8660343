"""What a running tokgate tells beside traffic: each thing once, at its instant, whichever carrier it has."""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from whenever import Instant, TimeDelta

from labs.builders import at, present
from labs.proxy_lab import eventually
from labs.records import Records
from tokgate.blocklog.paths import notified_path_for
from tokgate.blocklog.records.record import Observer, Record, Stamp, new_stamp
from tokgate.config.reload.holder import PolicyHolder, open_policy
from tokgate.policy.decision import Verdict
from tokgate.policy.observation import Visibility
from tokgate.policy.settings import LogSettings
from tokgate.runtime.instance import Instance
from tokgate.service.reload_answer import answer_of
from tokgate.service.status import state_of, worker_of
from tokgate.traffic.counters import DECISION, Key

POLICY = """\
version: 1
services: {clips: {title: Clips, names: {suffix: [clips.example.org]}}}
networks: {here: {cidrs: [127.0.0.0/8], timezone: Europe/Brussels}}
bans: {clips-2023: {title: Clips, services: [clips], networks: [here], starts: 2023-03-10T00:00, duration: P6M}}
"""
OBSERVER = Observer(hostname="gateway.example.org", version="0")
START, END = at("2023-03-09T23:00:00Z"), at("2023-09-09T22:00:00Z")
WEEK_BEFORE = at("2023-09-02T22:00:00Z")


class Running:
    """An instance whose clock is turned by hand, and what it tells."""

    def __init__(self, folder: Path, records: Records, now: Instant) -> None:
        (folder / "policy.yaml").write_text(POLICY)
        self.now = now
        self.log = folder / "block.ndjson"
        self.records = records
        self.counts: Counter[Key] = Counter()
        self.holder: PolicyHolder = open_policy(folder / "policy.yaml", now)
        self.instance = Instance(
            self.holder,
            self.log,
            self._write,
            lambda: self.counts,
            version="0",
            log_kept=LogSettings,
            now=lambda: self.now,
        )

    def _write(self, build: Callable[[Stamp], Record]) -> None:
        self.records.put(build(new_stamp(self.now, OBSERVER)))

    def told(self) -> list[str]:
        told = [record["event"]["action"] for record in self.records.all]
        self.records.all.clear()
        return told

    def tick(self, now: Instant) -> list[str]:
        """What is told at an instant."""
        self.now = now
        self.instance.tick()
        return self.told()

    def phases(self, now: Instant) -> int:
        return self.tick(now).count("phase-changed")


@pytest.fixture
def running(tmp_path: Path, records: Records) -> Callable[[Instant], Running]:
    return partial(Running, tmp_path, records)


TICK = TimeDelta(nanoseconds=1)


@pytest.mark.parametrize(
    ("since", "now", "told", "due"),
    [
        (START - TICK, START, 1, 1.0),
        (START, START + TICK, 0, 1.0),
        (START.subtract(seconds=1), START - TICK, 0, 0.0),
        (START.subtract(seconds=1), START.subtract(milliseconds=250), 0, 0.25),
        (START.subtract(hours=1), START.subtract(hours=1), 0, 1.0),
        (START.subtract(seconds=1), END, 2, 1.0),
        (END, START, 0, 1.0),
        (END, END.add(hours=1), 0, 1.0),
    ],
)
def test_a_phase_is_told_at_its_instant(
    running: Callable[[Instant], Running], since: Instant, now: Instant, told: int, due: float
) -> None:
    """What lies after the last look and not after this one, once; a clock that goes back passes nothing."""
    one = running(since)
    assert one.phases(now) == told
    assert one.instance.due() == pytest.approx(due, abs=1e-6)
    assert one.phases(now) == 0


def test_a_transition_between_two_ticks_is_not_missed(running: Callable[[Instant], Running]) -> None:
    """While a policy was read nobody looked: it is due at once, and told then."""
    one = running(START.subtract(seconds=1))
    one.now = START.add(seconds=5)
    assert one.instance.due() == 0.0
    assert one.phases(one.now) == 1


def test_a_jump_over_years_is_bounded(running: Callable[[Instant], Running], monkeypatch: pytest.MonkeyPatch) -> None:
    """However much lies between, only so much is reported at once."""
    monkeypatch.setattr("tokgate.runtime.instance.MAX_AT_ONCE", 1)
    assert running(START.subtract(seconds=1)).phases(END) == 1


def test_what_is_in_force_is_kept_when_the_clock_goes_back(
    running: Callable[[Instant], Running], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a ban that was over by a wrong clock, and is not, could be deleted without anybody's lifting it."""
    kept: list[Instant] = []
    monkeypatch.setattr(PolicyHolder, "keep", lambda _, now: kept.append(now))
    one, right = running(START.subtract(hours=1)), START.subtract(minutes=30)
    for now in (right, START.add(hours=48), right, right.add(seconds=1)):
        one.tick(now)
    assert kept == [START.add(hours=48), right]


def test_coverage_is_told_with_the_hour_and_at_the_end(running: Callable[[Instant], Running]) -> None:
    one = running(at("2023-03-15T09:59:59Z"))
    one.instance.gateway = lambda: {"refused": {"quic": 7}}
    one.counts[DECISION, "here", Visibility.SNI, Verdict.ALLOW] = 3
    assert one.tick(at("2023-03-15T09:59:59.9Z")) == []
    one.now = at("2023-03-15T10:00:00Z")
    one.instance.tick()
    (record,) = one.records.all
    assert record["tokgate"]["coverage"] == {"here": {"sni": 3}}
    assert record["tokgate"]["gateway"] == {"refused": {"quic": 7}}
    one.counts[DECISION, "here", Visibility.SNI, Verdict.ALLOW] = 5
    one.records.all.clear()
    one.instance.stop("asked to")
    assert one.records.all[0]["tokgate"]["coverage"] == {"here": {"sni": 2}}
    assert one.told() == ["coverage-counted", "stopped"]


@pytest.mark.parametrize(
    ("broken", "others"),
    [
        ("tokgate.runtime.instance.transitions", ["ban-near-expiry", "coverage-counted"]),
        ("tokgate.runtime.notified.due_reminders", ["coverage-counted"]),
        ("tokgate.runtime.instance.decisions_in", ["ban-near-expiry"]),
    ],
)
def test_what_fails_is_told_once_and_stops_nothing_else(
    running: Callable[[Instant], Running],
    broken: str,
    others: list[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever goes wrong beside traffic, nobody who calls it fails; it is in the log once."""
    one = running(WEEK_BEFORE.subtract(seconds=1))

    def fail(*_: object) -> Any:
        raise RuntimeError("broken on purpose")

    monkeypatch.setattr(broken, fail)
    with caplog.at_level(logging.ERROR):
        assert sorted(one.tick(WEEK_BEFORE)) == sorted(["internal-error", *others])
    assert one.tick(WEEK_BEFORE.add(milliseconds=1)) == []


async def test_following(running: Callable[[Instant], Running]) -> None:
    """In an event loop it tells by itself, and keeps what it told."""
    one = running(WEEK_BEFORE)
    kept = present(notified_path_for(one.log))
    task = asyncio.create_task(one.instance.follow())
    await eventually("the reminder is kept", kept.exists)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert one.told() == ["ban-near-expiry"]
    assert running(WEEK_BEFORE).tick(WEEK_BEFORE.add(seconds=1)) == []


async def test_a_reading_is_told_and_counted(running: Callable[[Instant], Running]) -> None:
    """Whoever carries traffic, a policy that was read is in the log, in the answer and in the metrics."""
    one = running(START.add(hours=1))
    one.instance.start()
    assert one.told() == ["started"]
    one.holder.path.write_text(POLICY.replace("P6M", "P7M"))
    reloaded = await one.holder.reload()
    assert one.told() == ["policy-loaded"]
    worker = worker_of("proxy", 1, 1.0, reloaded.snapshot.version, {})
    behind = worker_of("gate-0", 2, 1.0, "other", {})
    assert answer_of(one.instance, reloaded, [worker])["ok"]
    assert answer_of(one.instance, reloaded, [worker, behind])["missing"] == ["gate-0"]
    assert one.instance.reloads.succeeded == 1
    assert state_of(one.instance, [worker])["policy"]["version"] == reloaded.snapshot.version


async def test_an_invalid_edit_is_told_once(
    running: Callable[[Instant], Running], caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody reloads files that were read already: nothing is new. Another edit, or the same one later, is."""
    one, broken = running(START.add(hours=1)), f"{POLICY}nonsense: 1\n"
    one.instance.start()
    for text, told in ((broken, 1), (None, 1), (f"{broken}# still\n", 2), (POLICY, 3), (broken, 4), (None, 4)):
        if text is not None:
            one.holder.path.write_text(text)
        reloaded = await one.holder.reload()
        assert reloaded.ok == (text == POLICY)
        assert reloaded.diagnostics or reloaded.ok  # whoever asked is told again
        assert len(one.records.all) == 1 + told
    failed = "policy-load-failed"
    assert one.told() == ["started", failed, failed, "policy-loaded", failed]
    assert caplog.text.count("the new policy has errors") == 3
