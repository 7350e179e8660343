"""Runs tests against one mutant at a time, each in a process forked from one that has the libraries loaded.

Every slot is a copy of the working tree, so that mutants run beside each other and also in processes that tests start.
"""

from __future__ import annotations

import gc
import importlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

import pytest

from mutants.operators import Mutant
from mutants.reach import Chosen, Reach

PACKAGE: Final = Path("addons/tokgate")
WARM: Final = (
    "_pytest.assertion.rewrite", "aioquic.quic.connection", "asyncio", "bcrypt", "cryptography.x509", "dns.message",
    "dns.rdtypes.svcbbase", "duckdb", "h11", "hypothesis.strategies", "idna", "jinja2", "jsonschema", "ldap3",
    "mitmproxy.proxy.layers", "mitmproxy.test.tflow", "mitmproxy.test.taddons", "pydantic", "pytest_asyncio",
    "pytest_timeout", "re2", "rich.live", "starlette.testclient", "tldextract", "trustme",
    "uvicorn", "whenever", "xdist", "yaml",
)  # fmt: skip
_GRACE: Final = 20.0
"""Seconds that a run may take beside its tests."""
_SLOWER: Final = 4.0
"""How many times as long as without a fault tests may take."""


class Verdict(StrEnum):
    """What came of a mutant."""

    KILLED = "killed"
    TIMEOUT = "timeout"
    SURVIVED = "survived"
    UNREACHED = "unreached"
    """No test reaches its lines."""

    @property
    def noticed(self) -> bool:
        """Whether tests told that something is wrong."""
        return self in (Verdict.KILLED, Verdict.TIMEOUT)


@dataclass(frozen=True, slots=True)
class Job:
    """A mutant and the node ids of the tests that may notice it, with the seconds that they take without it."""

    mutant: Mutant
    tests: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class _Running:
    job: Job
    slot: Path
    original: bytes
    deadline: float


def copies(project: Path, target: Path, number: int) -> list[Path]:
    """That many copies of the files that belong to the project, below `target`."""
    shutil.rmtree(target, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=project, check=True, capture_output=True,
    ).stdout.decode()  # fmt: skip
    slots = [target / f"tree-{index}" for index in range(number)]
    for name in filter(None, listed.split("\0")):
        if (project / name).is_file():
            for slot in slots:
                (slot / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(project / name, slot / name)
    return slots


def warm() -> None:
    """Load libraries before the first fork: tests would load them for each mutant."""
    for name in WARM:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()


def find_reach(targets: Mapping[str, Path], slots: Iterable[Path]) -> None:
    """Run all tests once, without any fault, and write which lines each of them reaches.

    `targets`: where that of each folder goes. As many folders run at a time as there are slots. Raises RuntimeError.
    """
    free, running, waiting = list(slots), dict[int, tuple[str, Path]](), list(targets)
    while waiting or running:
        while free and waiting:
            folder, slot = waiting.pop(0), free.pop()
            plugins = [Reach(slot / PACKAGE, targets[folder]), Chosen([])]
            running[_forked(slot, [folder, "--timeout=120"], plugins, write_bytecode=True)] = folder, slot
        pid, _ = os.wait()
        _end(pid)
        folder, slot = running.pop(pid)
        if not targets[folder].exists():
            raise RuntimeError(f"the tests of {folder} did not run: see {slot}/output.txt")
        free.append(slot)


def run(jobs: Iterable[Job], slots: Iterable[Path]) -> Iterator[tuple[Job, Verdict, float]]:
    """Each job with its verdict and its seconds, as they end; as many at a time as there are slots."""
    free, running = list(slots), dict[int, _Running]()
    waiting = iter(jobs)
    while True:
        while free and (job := next(waiting, None)) is not None:
            if not job.tests:
                yield job, Verdict.UNREACHED, 0.0
                continue
            pid, started = _start(job, free.pop())
            running[pid] = started
        if not running:
            return
        for pid, started in list(running.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            late = time.monotonic() > started.deadline
            if not ended and not late:
                continue
            _end(pid)
            if not ended:
                os.waitpid(pid, 0)
            del running[pid]
            _restore(started)
            free.append(started.slot)
            begun = started.deadline - _allowed(started.job)
            survived = ended and os.waitstatus_to_exitcode(status) == pytest.ExitCode.OK
            verdict = Verdict.SURVIVED if survived else Verdict.KILLED if ended else Verdict.TIMEOUT
            yield started.job, verdict, time.monotonic() - begun
        time.sleep(0.01)


def _allowed(job: Job) -> float:
    return _GRACE + _SLOWER * job.seconds


def _start(job: Job, slot: Path) -> tuple[int, _Running]:
    path = slot / PACKAGE / job.mutant.module
    original, kept = path.read_bytes(), path.stat()
    path.write_bytes(job.mutant.applied(original))
    os.utime(path, ns=(kept.st_atime_ns, kept.st_mtime_ns + 2_000_000_000))  # other than what its bytecode is of
    files = sorted({test.partition("::")[0] for test in job.tests})
    pid = _forked(slot, [*files, "-x", f"--timeout={_GRACE + job.seconds}"], [Chosen(list(job.tests))])
    return pid, _Running(job, slot, original, time.monotonic() + _allowed(job))


def _restore(started: _Running) -> None:
    path = started.slot / PACKAGE / started.job.mutant.module
    changed = path.stat()
    path.write_bytes(started.original)
    os.utime(path, ns=(changed.st_atime_ns, changed.st_mtime_ns - 2_000_000_000))


def _end(pid: int) -> None:
    """End what a run left behind: its processes are a group."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def _forked(slot: Path, arguments: list[str], plugins: list[object], *, write_bytecode: bool = False) -> int:
    """Start pytest in a copy of the tree, in a process group of its own."""
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        os.chdir(slot)
        with Path("output.txt").open("wb") as output, Path(os.devnull).open("rb") as nothing:
            os.dup2(nothing.fileno(), 0)
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        os.environ["PYTHONPATH"] = f"{slot}/addons"
        if not write_bytecode:
            sys.dont_write_bytecode = True
            os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        ours = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:anyio", "--tb=line", "--no-header"]
        ignored = ["-W", "ignore::pytest.PytestAssertRewriteWarning", f"--basetemp={slot}/tmp", f"--rootdir={slot}"]
        code = pytest.main([*ours, *ignored, *arguments], plugins=plugins)
        sys.stdout.flush()
    finally:
        os._exit(code)
