"""tokgate's own processes, authority, log and disk, each state with what to do."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import trustme

from labs import builders
from tokgate.block_page.authority import AUTHORITY, establish_authority
from tokgate.config.diagnostics import Code, Diagnostic, Level
from tokgate.policy.decision import Response
from tokgate.policy.settings import LogSettings
from tokgate.policy.snapshot import Snapshot
from tokgate.policy.values import Origin
from tokgate.service.doctor import Result, installation

NOW = builders.at("2023-04-01T12:00:00Z")


class Disk(NamedTuple):
    """As of shutil.disk_usage."""

    total: int
    used: int
    free: int


def _wrong(results: Iterable[Result]) -> list[str]:
    return [f"{each.subject}: {each.said}" for each in results if each.remedy is not None]


def _state(snapshot: Snapshot, **changed: Any) -> dict[str, Any]:
    workers = [{"name": "gate-0", "report": {"descriptors": [20, 200_000]}}]
    return {"problems": [], "policy": {"version": snapshot.version}, "workers": workers} | changed


def test_what_runs() -> None:
    """Its problems, another policy than on disk, and too few descriptors for the limits."""
    snapshot = builders.snapshot(builders.ban())
    assert _wrong(installation.running(_state(snapshot), snapshot)) == []
    assert _wrong(installation.running(None, snapshot)) == ["tokgate: none runs here"]
    few = [{"name": "gate-0", "report": {"descriptors": [20, 1024]}}]
    worse = _state(snapshot, problems=["no gate serves"], policy={"version": "another"}, workers=few)
    assert _wrong(installation.running(worse, snapshot)) == [
        "tokgate: no gate serves",
        f"policy: {snapshot.version} is on disk, another in force",
        "descriptors: 1024 a gate, enough for 256 connections: settings.limits.connections is 50000",
    ]


def test_most_connections() -> None:
    """Those of gates that accept; the ones before only serve what they have."""
    snapshot = builders.snapshot(builders.ban())
    names = (("gate-0", False), ("gate-1", False), ("gate-0", True), ("opener-0", False))
    state = _state(snapshot, workers=[{"name": name, "retired": retired} for name, retired in names])
    assert installation.most_connections(state, snapshot) == 100_000
    assert installation.most_connections(None, snapshot) == installation.most_connections(state, None) == 0


@pytest.mark.parametrize(("user", "said"), [(0, "systemctl start"), (1000, "run this as root")])
def test_none_is_found(user: int, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is not root does not see another user's."""
    monkeypatch.setattr(os, "geteuid", lambda: user)
    (found,) = installation.running(None, None)
    assert found.remedy is not None
    assert found.remedy.startswith(said)


def _invalid(code: Code) -> Result:
    return installation.invalid([Diagnostic(Level.ERROR, Origin("policies", 1, 1), "wrong", code)], Path("policies"))


@pytest.mark.parametrize(
    ("result", "said", "remedy"),
    [
        (
            installation.silent(PermissionError(13, "Permission denied")),
            "can't be asked: Permission denied",
            "run this as root",
        ),
        (installation.silent(TimeoutError("timed out")), "does not answer in 10 s", "its supervisor hangs"),
        (
            installation.silent(ConnectionError("it ended without an answer")),
            "it ended without an answer",
            "journalctl",
        ),
        (_invalid(Code.NOT_FOUND), "wrong [not-found]", "name the policy with --policies"),
        (_invalid(Code.UNREADABLE), "wrong [unreadable]", "run this as root or as tokgate's user"),
        (_invalid(Code.MISSING_KEY), "1 error in policies; policies:1:1: error: wrong", "tokgate check shows each"),
    ],
)
def test_remedies(result: Result, said: str, remedy: str) -> None:
    """To each its own: root helps against no supervisor that hangs, and `check` who may read a policy that is there."""
    assert said in result.said
    assert remedy in str(result.remedy)


def test_the_canary() -> None:
    """The best evidence that enforcement works stands beside what runs; of one that failed status tells."""
    snapshot = builders.snapshot(builders.ban())
    for canary, told in (
        ({"ok": True, "at": "2023-04-01T12:00:00.5Z"}, ["at 2023-04-01T12:00:00Z the banned test name was refused"]),
        ({"ok": True, "at": None}, []),
        ({"ok": False, "at": "2023-04-01T12:00:00Z"}, []),
        (None, []),
    ):
        results = installation.running(_state(snapshot, gateway={"canary": canary}), snapshot)
        assert [each.said.partition(",")[0] for each in results if each.subject == "canary"] == told


def test_the_authority(tmp_path: Path) -> None:
    """None, one that can't be read, one that lasts, and one that is about to end."""
    snapshot = builders.snapshot(builders.ban())
    assert "none in" in _wrong(installation.authority(tmp_path, snapshot, NOW))[0]
    path = tmp_path / AUTHORITY
    path.write_text("no certificate")
    (broken,) = installation.authority(tmp_path, snapshot, NOW)
    assert "is not one" in broken.said
    assert broken.remedy is not None
    assert "certs/README.md" in broken.remedy
    path.unlink()
    path.mkdir()
    (unreadable,) = installation.authority(tmp_path, snapshot, NOW)
    assert unreadable.remedy == "run this as root or as tokgate's user"
    path.rmdir()
    trustme.CA().cert_pem.write_to_path(str(path))
    (fine,) = installation.authority(tmp_path, snapshot, NOW)
    assert (fine.remedy, fine.said.startswith("good for")) == (None, True)
    assert fine.said.endswith("; no ban shows a page")
    page = builders.snapshot(builders.ban(response=Response.PAGE))
    (known,) = installation.authority(tmp_path, page, NOW)
    assert (known.remedy, known.said.endswith(", and for all names of bans")) == (None, True)
    path.unlink()
    establish_authority(tmp_path, NOW)
    assert _wrong(installation.authority(tmp_path, snapshot, NOW)) == []
    assert "reject every page" in _wrong(installation.authority(tmp_path, page, NOW))[0]
    assert "ends in" in _wrong(installation.authority(tmp_path, snapshot, builders.at("2999-12-31T00:00:00Z")))[0]


@pytest.mark.parametrize(
    ("days", "free", "wrong"),
    [
        (30, 1000, []),
        (30, 200, ["retention: 30 days take 0.0 GB, more than there is"]),
        (None, 1000, ["retention: the log is kept for ever, and the disk is full in 100 days"]),
        (None, 36_500, []),
        (30, 4, ["disk: 0 % is free", "retention: 30 days take 0.0 GB, more than there is"]),
    ],
)
def test_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: int | None, free: int, wrong: list[str]
) -> None:
    """A log that grows by ten octets a day, on disks that are too small for what is to be kept."""
    for day in range(1, 11):
        (tmp_path / f"block-202303{day:02}T000000.000000Z.ndjson").write_bytes(b"123456789")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Disk(2000, 2000 - free, free))
    snapshot = builders.snapshot(builders.ban(), log=LogSettings(retention_days=days))
    assert _wrong(installation.disk(tmp_path / "block.ndjson", snapshot)) == wrong


def test_a_log_that_is_not_there(tmp_path: Path) -> None:
    """A path that was mistyped is said, not taken for a log without files."""
    snapshot = builders.snapshot(builders.ban())
    assert "No such file" in _wrong(installation.disk(tmp_path / "none" / "block.ndjson", snapshot))[0]
