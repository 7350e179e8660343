"""When files are stable: nothing was lost from them lately, and nobody has them open for writing."""

import os
import signal
from pathlib import Path

import pytest

from tokgate.config.reload.quiescence import (
    SETTLE,
    SETTLE_LOSS,
    UNSTABLE_AFTER,
    Fingerprint,
    StabilityCheck,
    being_written,
    statuses,
)

POLICY, GONE = Path("policies/a.yaml"), Path("policies/b.yaml")


@pytest.mark.parametrize(
    ("seen", "state", "lost"),
    [
        ({POLICY: 9, GONE: 9}, {POLICY: 9}, True),
        ({POLICY: 9}, {POLICY: 0}, True),
        ({POLICY: 9}, {POLICY: 5}, False),
        ({POLICY: 0, GONE: 0}, {POLICY: 0}, False),
        ({}, {POLICY: 0}, False),
    ],
)
def test_a_loss_is_waited_out(
    seen: dict[Path, int], state: dict[Path, int], lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An editor that empties a file before it writes lifts no ban: what is removed or emptied has to stay so longer."""

    def fingerprint(sizes: dict[Path, int]) -> Fingerprint:
        return {path: (1, 1, size, 0, 0) for path, size in sizes.items()}

    now = 0.0
    monkeypatch.setattr("tokgate.config.reload.quiescence.time.monotonic", lambda: now)
    check = StabilityCheck(lambda: fingerprint(state), fingerprint(seen), on_unstable=lambda: None)
    now += SETTLE
    assert (check.stable_state() is None) is lost
    now += SETTLE_LOSS
    assert check.stable_state() == fingerprint(state)


def test_open_for_writing(tmp_path: Path) -> None:
    """A file is being written until whoever writes it has closed it; readers don't count."""
    path = tmp_path / "a.yaml"
    with path.open("w") as file:
        assert being_written(path)
        file.write("x")
    assert not being_written(path)
    with path.open("r+"):
        assert being_written(path)
    with path.open():
        assert not being_written(path)


def test_a_save_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that keep changing are not read, which is told once; one that stays open for writing, late."""
    now, path, told = 0.0, tmp_path / "a.yaml", list[float]()
    monkeypatch.setattr("tokgate.config.reload.quiescence.time.monotonic", lambda: now)
    check = StabilityCheck(lambda: statuses([tmp_path / "gone", path]), {}, on_unstable=lambda: told.append(now))
    for size in range(int(UNSTABLE_AFTER / SETTLE) + 9):
        path.write_text("x" * size)
        now += SETTLE
        assert check.stable_state() is None
    assert len(told) == 1
    with path.open("a"):
        now += 2 * SETTLE
        assert check.stable_state() is None
        now += UNSTABLE_AFTER
        assert check.stable_state() == statuses([path])


def test_where_nothing_is_told(tmp_path: Path) -> None:
    """What is gone, is no file, or belongs to a file system without leases counts as whole."""
    assert not being_written(tmp_path / "gone")
    assert not being_written(tmp_path)
    assert not being_written(Path("/proc/self/status"))


def test_asking_disturbs_nobody(tmp_path: Path) -> None:
    """Writers that come at the same moment are not kept waiting, and we are not ended by the kernel's signal."""
    path = tmp_path / "a.yaml"
    path.write_text("x")
    child = os.fork()
    if not child:
        for _ in range(20_000):
            os.close(os.open(path, os.O_WRONLY | os.O_APPEND))
        os._exit(0)
    status = None
    while status is None:
        being_written(path)
        pid, code = os.waitpid(child, os.WNOHANG)
        status = code if pid else None
    assert status == 0
    assert signal.getsignal(signal.SIGURG) in (signal.SIG_DFL, signal.SIG_IGN)
