"""A working directory full of hostile modules: nothing in it is run, by tokgate or by what it starts."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from labs.running_lab import POLICY, Running, children, until
from tokgate.service.child_programs import module_environment

NAMES = ("dns", "json", "socket", "logging", "yaml", "mitmproxy", "cryptography", "h11", "idna", "encodings", "site")
STARTED = ("gate:explicit@127.0.0.1:0", "regular@127.0.0.1:0")


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[Path]:
    """Modules and packages that leave a mark when they are run, with names that tokgate and its children import."""
    mark = tmp_path / "mark"
    for name in NAMES:
        code = f"open({str(mark)!r}, 'a').write({name!r} + '\\n')\nraise SystemExit('hostile')\n"
        (tmp_path / f"{name}.py").write_text(code)
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(code)
    yield tmp_path
    assert not mark.exists(), mark.read_text()


def test_the_trap_works(trap: Path) -> None:
    """A plain `-m` runs what lies in the working directory; else the tests below would show nothing."""
    done = subprocess.run([sys.executable, "-m", "dns"], cwd=trap, capture_output=True, text=True, check=False)
    assert done.stderr == "hostile\n"
    (trap / "mark").unlink()


@pytest.mark.parametrize("mode", STARTED)
def test_nothing_in_the_working_directory_is_run(trap: Path, mode: str) -> None:
    """Whoever can write where root starts tokgate doesn't become root, by no process of it."""
    with closing(Running(trap, workers=1, mode=("--mode", mode))) as running:
        if mode.startswith("gate"):
            until("everybody runs", lambda: len(children(running.process.pid)) == 3)
            until("an opener answers", running.refuses)
        running.write(POLICY | {"bans": {}})
        until("the new policy is in force", lambda: "in force" in running.narrated())
    assert "hostile" not in running.narrated()


def test_a_path_that_means_the_working_directory_is_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """`PYTHONPATH=/opt/lib:` has an empty entry, which Python reads as “here”."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(("/opt/lib", "", ".", "lib")))
    ours, *others = module_environment()["PYTHONPATH"].split(os.pathsep)
    assert (Path(ours) / "tokgate" / "runtime").is_dir()
    assert others == ["/opt/lib"]
