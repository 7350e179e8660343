"""Who hangs, what is wrong, and who is started again when, from reports and times alone."""

import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest

from labs.running_lab import stat, until
from tokgate.service.children import Child, Role
from tokgate.service.process_health import (
    DYING_SECONDS,
    FIRST_DELAY,
    HANGS,
    KEEPS_DYING,
    LONGEST_DELAY,
    OPENER_HANGS,
    PAUSED,
    STARTING,
    STEADY,
    STILL,
    Heartbeat,
    Restarts,
    RestartState,
    faults,
    processor_use,
)
from tokgate.service.status import SILENT

WANTED = [(Role.COLLECTOR, 0), (Role.OPENER, 0), (Role.GATE, 0)]


def child(role: Role, heard: float, **report: object) -> Child:
    """A process that was started at 1 and has last reported at `heard`; 0 for never."""
    return Child(role, 0, 7, 1.0, "x", report=report, heard=heard)


def untold(pid: int) -> tuple[float, float]:
    """A kernel that does not tell what a process does."""
    return 0.0, 0.0


def _hanging(one: Child, *, at: float, use: Callable[[int], tuple[float, float]] = untold) -> bool:
    """Whether it hangs at that time, by somebody who looks often."""
    heartbeat, now = Heartbeat(1.0, use=use), 1.0
    while now < at:
        now = min(at, now + PAUSED / 2)
        found = heartbeat.hanging([one], now)
    return found == [one]


@pytest.mark.parametrize(
    ("role", "heard", "silence"),
    [
        (Role.GATE, 5.0, HANGS),
        (Role.COLLECTOR, 5.0, HANGS),
        (Role.OPENER, 5.0, OPENER_HANGS),
        (Role.OPENER, 0.0, STARTING),
    ],
)
def test_silence(role: Role, heard: float, silence: float) -> None:
    """A gate that was stopped keeps its clients waiting no longer than this; an opener may still import libraries."""
    one = child(role, heard)
    since = heard or one.started
    assert not _hanging(one, at=since + silence - 0.5)
    assert _hanging(one, at=since + silence)


@pytest.mark.parametrize("heard", [5.0, 0.0], ids=["serving", "starting"])
def test_who_waits_for_a_processor_is_not_silent(heard: float) -> None:
    """On a machine that is busy an opener comes to its report late; killed for that it would begin anew, all the later.

    It waits for nine tenths of the time, and is told of that by fits and starts: the kernel counts a wait at its end.
    """
    patience, looks = OPENER_HANGS if heard else STARTING, itertools.count()

    def use(pid: int) -> tuple[float, float]:
        return float(next(looks)), next(looks) // 16 * 8 * 0.9 * PAUSED / 2

    one = child(Role.OPENER, heard)
    begun = heard or one.started
    assert not _hanging(one, at=begun + 5 * patience, use=use)
    looks = itertools.count()
    assert _hanging(one, at=begun + 11 * patience, use=use), "it has had its time, and does something else"


def test_a_wait_of_many_threads_is_no_longer_than_the_time() -> None:
    """Else one that hung after would live for as long again."""
    one, looks = child(Role.OPENER, 5.0), itertools.count()

    def use(pid: int) -> tuple[float, float]:
        look = next(looks)
        return float(look), min(look, 10) * 20.0 * PAUSED / 2

    assert _hanging(one, at=5.0 + OPENER_HANGS + 12 * PAUSED, use=use)


def test_a_report_ends_a_wait() -> None:
    """What somebody waited before a report doesn't count for the silence after it."""
    one, waits, looks = child(Role.GATE, 5.0), 0.0, itertools.count()
    heartbeat, now = Heartbeat(5.0, use=lambda pid: (float(next(looks)), waits)), 5.0
    for now in (6.5, 7.9, 9.7):
        waits = now - 5.0
        assert heartbeat.hanging([one], now) == []
    one.heard = now
    assert not any(heartbeat.hanging([one], now + second) for second in range(1, int(HANGS)))
    assert heartbeat.hanging([one], now + HANGS) == [one]


@pytest.mark.parametrize("stopped", [True, False], ids=["stopped", "asleep"])
def test_a_process_that_does_nothing_hangs(stopped: bool) -> None:
    """As the kernel tells of it, however busy the machine is: within seconds, since it waits for no processor."""
    with subprocess.Popen(["sleep", "600"]) as process:
        try:
            if stopped:
                process.send_signal(signal.SIGSTOP)
                os.waitpid(process.pid, os.WUNTRACED)
            else:
                until("it sleeps", lambda: stat(process.pid)[0] == "S")
            one = Child(Role.OPENER, 0, process.pid, 1.0, "x", heard=5.0)
            assert _hanging(one, at=5.0 + SILENT + STILL + PAUSED, use=processor_use)
            assert not _hanging(one, at=5.0 + SILENT, use=processor_use)
            starts = Child(Role.OPENER, 0, process.pid, 1.0, "x")
            assert not _hanging(starts, at=STARTING, use=processor_use), "it may read from a slow disk"
        finally:
            process.kill()


@pytest.mark.parametrize("what", [0, 1], ids=["runs", "waits"])
def test_one_that_does_something_has_its_time(what: int) -> None:
    """A long garbage collection, or a machine that is busy."""
    looks = itertools.count(1)

    def use(pid: int) -> tuple[float, float]:
        look = next(looks) * 1e-6
        return (look, 1.0) if what == 0 else (1.0, look)

    one = child(Role.GATE, 5.0)
    assert not _hanging(one, at=4.9 + HANGS, use=use)
    assert _hanging(one, at=5.1 + HANGS, use=use)


def test_processes_that_share_a_processor_wait_for_it() -> None:
    """Of four that want the same one all the time, each waits for longer than it runs."""
    spin = f"import os\nos.sched_setaffinity(0, [{min(os.sched_getaffinity(0))}])\nwhile True: pass"
    spinning = [subprocess.Popen([sys.executable, "-c", spin]) for _ in range(4)]

    def waits(pid: int) -> bool:
        ran = sum(map(int, stat(pid)[11:13])) / os.sysconf("SC_CLK_TCK")
        return processor_use(pid)[1] > max(0.5, 1.5 * ran)

    try:
        until("all wait", lambda: all(waits(each.pid) for each in spinning))
    finally:
        for each in spinning:
            each.kill()
            each.wait()
    assert processor_use(spinning[0].pid) == (0.0, 0.0), "it is gone"


@pytest.mark.parametrize("heard", [5.0, 0.0], ids=["serving", "starting"])
def test_a_pause_of_everybody_is_no_silence(heard: float) -> None:
    """After a suspended machine or a stopped container goes on, no connection is lost for it."""
    one = child(Role.GATE, heard)
    heartbeat = Heartbeat(6.0, use=untold)
    assert heartbeat.hanging([one], 3600.0) == []
    assert heartbeat.hanging([one], 3600.0 + PAUSED / 2) == []


@pytest.mark.parametrize("role", [Role.GATE, Role.OPENER, Role.COLLECTOR], ids=str)
def test_a_role_that_nobody_has(role: Role) -> None:
    """Dead, or stopped, or not begun yet: health says what clients lack."""
    others = [child(other, 9.0) for other, _ in WANTED if other is not role]
    lacks = {Role.GATE: "no gate serves", Role.OPENER: "no opener serves", Role.COLLECTOR: "nothing writes the log"}
    (gone,) = faults(others, WANTED, {}, 10.0)
    assert gone.startswith(lacks[role])
    later = [child(other, 29.0) for other, _ in WANTED if other is not role]
    assert [*faults([*later, child(role, 0.0)], WANTED, {}, 30.0)] == [gone]
    early = [child(other, 2.0) for other, _ in WANTED if other is not role]
    begun = [*faults([*early, child(role, 0.0)], WANTED, {}, 3.0)]
    assert begun == ([gone] if role is Role.GATE else [])  # for what takes some seconds clients and records wait
    retired = child(role, 9.0)
    retired.retired = True
    # A collector that finishes still writes, and another follows at once.
    assert [*faults([*others, retired], WANTED, {}, 10.0)] == ([] if role is Role.COLLECTOR else [gone])
    retired.heard = 10.0 - SILENT
    assert [*faults([*others, retired], WANTED, {}, 10.0)] == [gone]
    stopped = [*faults([*others, child(role, 10.0 - SILENT)], WANTED, {}, 10.0)]
    assert stopped == [gone, f"{role.value}-0 has not reported for 3 s"]


def test_one_of_several_is_silent() -> None:
    """The others serve, and the one that doesn't is named all the same."""
    second = Child(Role.GATE, 1, 8, 1.0, "x", heard=5.0)
    everybody = [*(child(role, 9.0) for role, _ in WANTED), second]
    assert [*faults(everybody, [*WANTED, (Role.GATE, 1)], {}, 10.0)] == ["gate-1 has not reported for 5 s"]


def test_what_keeps_dying() -> None:
    """An opener for which memory runs out is back each time somebody looks; red until it lasts."""
    everybody = [child(role, 9.0) for role, _ in WANTED]
    state = RestartState(last="opener-0 ended with signal 9")
    for died in range(KEEPS_DYING):
        assert [*faults(everybody, WANTED, {(Role.OPENER, 0): state}, 9.5)] == []
        state.recent.append(float(died))
    (said,) = faults(everybody, WANTED, {(Role.OPENER, 0): state}, 9.5)
    assert said == "opener-0 keeps dying, 3 times in five minutes: opener-0 ended with signal 9"
    later = [child(role, DYING_SECONDS) for role, _ in WANTED]
    assert [*faults(later, WANTED, {(Role.OPENER, 0): state}, DYING_SECONDS)] == []


@pytest.mark.parametrize(
    ("report", "said"),
    [
        ({"descriptors": [900, 1000]}, "gate-0 has 900 of its 1000 descriptors open"),
        ({"starved": "no-port"}, "gate-0 can't connect for want of what this machine has: no-port"),
        ({"accounts": "ldap.example.org: no answer"}, "users can't sign in to gate-0: ldap.example.org: no answer"),
        ({"full": 50_000}, "gate-0 is at its limit of 50000 connections, and accepts no more"),
        ({"descriptors": [899, 1000], "starved": None, "accounts": "", "full": 0}, None),
    ],
    ids=["descriptors", "ports", "accounts", "limit", "nothing"],
)
def test_what_a_gate_lacks(report: dict[str, object], said: str | None) -> None:
    """Clients are turned away for it, though every process lives."""
    others = [child(role, 9.0) for role, _ in WANTED if role is not Role.GATE]
    found = [*faults([*others, child(Role.GATE, 9.0, **report)], WANTED, {(Role.GATE, 0): RestartState()}, 10.0)]
    assert found == ([] if said is None else [said])


SLOT = (Role.GATE, 1)


def delay_after(restarts: Restarts, lived: float) -> float:
    """Seconds between a death at the instant 1000 and the next start."""
    restarts.postpone(*SLOT, "gate-1 ended with signal 9", 1000.0, lived=lived)
    due = restarts.states[SLOT].not_before
    assert restarts.due(*SLOT, due)
    assert not restarts.due(*SLOT, due - 0.001)
    return due - 1000.0


def test_delays_grow_to_a_bound_and_begin_anew() -> None:
    """Doubled with each death in a row; who lived for a while before it died is started at once again."""
    restarts = Restarts(lambda what: None)
    assert restarts.due(*SLOT, 0.0)
    delays = [round(delay_after(restarts, 0.0), 6) for _ in range(12)]
    assert delays[:4] == [FIRST_DELAY, 2 * FIRST_DELAY, 4 * FIRST_DELAY, 8 * FIRST_DELAY]
    assert delays[-1] == LONGEST_DELAY
    assert round(delay_after(restarts, STEADY), 6) == LONGEST_DELAY
    assert round(delay_after(restarts, STEADY + 1), 6) == FIRST_DELAY


def test_deaths_are_told_and_counted() -> None:
    """Of this slot only; those that hung among them."""
    told: list[str] = []
    restarts = Restarts(told.append)
    restarts.postpone(*SLOT, "gate-1 hung", 5.0, lived=1.0, hung=True)
    restarts.postpone(*SLOT, "gate-1 ended with signal 9", 6.0, lived=1.0)
    state = restarts.states[SLOT]
    assert (state.deaths, state.hangs, state.last) == (2, 1, "gate-1 ended with signal 9")
    assert [*state.recent] == [5.0, 6.0]
    assert told == ["gate-1 hung", "gate-1 ended with signal 9"]
    assert restarts.due(Role.GATE, 0, 6.0)
