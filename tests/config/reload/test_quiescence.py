"""Files that somebody has open for writing, as the kernel tells it."""

import os
import signal
from pathlib import Path

from tokgate.config.reload.quiescence import being_written


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
