"""What is known of a tokgate whose supervisor does not answer."""

import json
import os
import resource
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from labs import builders
from labs.builders import present
from labs.running_lab import stat, until
from tokgate.runtime.control_socket import Control
from tokgate.service.last_state import ANSWERS, NAME, StateFile, Unanswered, status_of
from tokgate.service.status import LONGEST, Work

NOW = builders.at("2023-04-01T12:00:00Z")
STATE: Any = {
    "ok": True,
    "problems": [],
    "at": str(NOW),
    "listening": [],
    "workers": [{"name": "gate-0"}],
    "gateway": None,
}


@pytest.fixture
def other() -> Iterator[int]:
    """A process, in which nothing happens."""
    with subprocess.Popen(["sleep", "600"]) as process:
        until("it sleeps", lambda: stat(process.pid)[0] == "S")
        yield process.pid
        process.kill()


def written_by(folder: Path, pid: int, work: Work | None = None) -> Path:
    """The file as that process would have left it."""
    StateFile(folder).write(STATE, work, NOW)
    path = folder / NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pid": pid, "began": stat(pid)[19]}))
    return path


@pytest.mark.parametrize(
    ("work", "seconds", "ok", "problem"),
    [
        (None, 0, False, "does not answer, and sleeps"),
        (Work("it starts", str(NOW)), LONGEST - 1, True, None),
        (Work("it starts", str(NOW)), LONGEST, False, f"it starts, since {NOW}"),
        (Work("it ends", str(NOW), normal=0.0), 0, False, f"it ends, since {NOW}"),
    ],
)
@pytest.mark.parametrize("listens", [False, True], ids=["no socket", "nobody accepts"])
def test_one_that_is_there(
    tmp_path: Path, other: int, work: Work | None, seconds: float, ok: bool, problem: str | None, listens: bool
) -> None:
    """What it is busy with is no problem for a while; saying nothing is. Its processes are not told of."""
    written_by(tmp_path, other, work)
    control = Control(tmp_path)
    if listens:
        control.open()
    state = status_of(tmp_path, NOW.add(seconds=seconds))
    control.close(remove=True)
    assert state is not None
    assert (state["ok"], state["workers"], state["known"]) == (ok, [], str(NOW))
    assert [problem in each for each in state["problems"] if problem] == ([True] if problem else [])
    assert state["busy"] == (None if work is None else {"what": work.what, "since": work.since})


def test_one_that_has_ended(tmp_path: Path, other: int) -> None:
    """It hands over, for which the next one has its time; or it was stopped meanwhile, or has died."""
    written_by(tmp_path, other, Work("the next program takes over", str(NOW), hands_over=True))
    os.kill(other, signal.SIGSTOP)
    until("it is stopped", lambda: stat(other)[0] == "T")
    stopped = present(status_of(tmp_path, NOW))
    assert stopped["problems"] == [f"tokgate (pid {other}) was stopped: kill -CONT {other}"]
    os.kill(other, signal.SIGKILL)
    until("it has ended", lambda: stat(other)[0] == "Z")
    early, late = (present(status_of(tmp_path, NOW.add(seconds=seconds))) for seconds in (1, LONGEST))
    assert (early["ok"], late["ok"]) == (True, False)
    written_by(tmp_path, other)
    with pytest.raises(Unanswered, match="has died"):
        status_of(tmp_path, NOW)


def test_a_port_at_which_nobody_listens(tmp_path: Path, other: int) -> None:
    """What it knew may be no longer so: the kernel is asked."""
    path = written_by(tmp_path, other, Work("it starts", str(NOW)))
    known = json.loads(path.read_text())
    known["state"]["listening"] = [{"entry": "explicit", "host": "127.0.0.1", "port": 1}]
    path.write_text(json.dumps(known))
    state = present(status_of(tmp_path, NOW))
    assert state["problems"] == ["nobody listens on port 1"]


def test_who_writes(tmp_path: Path, other: int) -> None:
    """What was written of before stays while a process starts; none writes where another one goes on."""
    path = written_by(tmp_path, other)
    mine = StateFile(tmp_path)
    mine.write(STATE, None, NOW)
    mine.remove()
    assert json.loads(path.read_text())["pid"] == other
    os.kill(other, signal.SIGKILL)
    until("it has ended", lambda: stat(other)[0] == "Z")
    mine.write(None, Work("it starts", str(NOW)), NOW)
    found = json.loads(path.read_text())
    assert (found["pid"], found["state"]["at"]) == (os.getpid(), str(NOW))
    before = path.stat().st_mtime_ns
    mine.write(STATE | {"at": "later", "workers": []}, Work("it starts", str(NOW)), NOW)
    assert path.stat().st_mtime_ns == before, "only counters have changed"
    mine.remove()
    assert not path.exists()
    assert status_of(tmp_path, NOW) is None


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """Nothing is known then; nor is anything written without a folder."""
    (tmp_path / NAME).write_text("{}")
    assert status_of(tmp_path, NOW) is None
    StateFile(tmp_path / "none").write(STATE, None, NOW)
    assert ANSWERS < 1.0


def test_no_descriptor_is_free(tmp_path: Path) -> None:
    """What the file says may no longer be so: it goes, and comes back when there is a descriptor for it."""
    file, limits = StateFile(tmp_path), resource.getrlimit(resource.RLIMIT_NOFILE)
    file.write(STATE, None, NOW)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        for problem in ("one", "another"):
            file.write(STATE | {"problems": [problem]}, None, NOW)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert not (tmp_path / NAME).exists()
    file.write(STATE, None, NOW)
    assert (tmp_path / NAME).exists()
