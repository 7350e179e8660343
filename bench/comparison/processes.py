"""Processes that the bench starts: ended by their own ids, and what they use of processor and memory."""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Self

_TICK: Final = os.sysconf("SC_CLK_TCK")
_LISTEN: Final = "0A"


def wait_until(what: str, probe: Callable[[], bool], seconds: float) -> None:
    """Poll until something holds; say what was awaited when it doesn't in time."""
    deadline = time.monotonic() + seconds
    while not probe():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {seconds:g} s: {what}")
        time.sleep(0.02)


class Service:
    """A server in the background with its whole family of processes; its output goes to a file."""

    def __init__(
        self,
        command: Sequence[str],
        output: Path,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.output: Final = output
        with output.open("ab") as sink:
            # A session of its own: what it starts can be ended with it.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env={**os.environ, **(env or {})},
                start_new_session=True,
                pass_fds=pass_fds,
            )
        self.pid: Final = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def family(self) -> set[int]:
        """The process and all that descend from it."""
        found: set[int] = set()
        waiting = [self.pid]
        while waiting:
            pid = waiting.pop()
            found.add(pid)
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    waiting += [int(child) for child in children.read_text().split()]
        return found

    def await_listening(self, port: int, seconds: float = 60) -> None:
        """Return once the port is open in the process's own namespace; its last words are in the error otherwise."""
        local = f":{port:04X} "

        def listening() -> bool:
            if self._process.poll() is not None:
                raise RuntimeError(f"ended with {self._process.returncode}: {self.last_words()}")
            for table in ("tcp", "tcp6"):
                for line in _read(f"/proc/{self.pid}/net/{table}").splitlines()[1:]:
                    fields = line.split()
                    if fields[3] == _LISTEN and fields[1].endswith(local.strip()):
                        return True
            return False

        try:
            wait_until(f"listening on port {port}", listening, seconds)
        except TimeoutError as error:
            raise RuntimeError(f"{error}: {self.last_words()}") from None

    def alive(self) -> bool:
        """Whether the first process still runs."""
        return self._process.poll() is None

    def last_words(self) -> str:
        """The end of what it printed."""
        return self.output.read_text(errors="replace")[-600:].strip()

    def cpu(self) -> float:
        """Seconds of processor used so far, user and kernel, by all of its processes, ended children included."""
        ticks = 0
        for pid in self.family():
            fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
            if fields:
                ticks += sum(int(field) for field in fields[11:15])
        return ticks / _TICK

    def resident(self) -> int:
        """KiB of resident memory of all of its processes."""
        total = 0
        for pid in self.family():
            found = re.search(r"VmRSS:\s+(\d+)", _read(f"/proc/{pid}/status"))
            total += int(found[1]) if found else 0
        return total

    def signal(self, number: signal.Signals) -> None:
        """Send the first process a signal."""
        self._process.send_signal(number)

    def end(self) -> None:
        """Ask it to end; after a few seconds end all of it."""
        family = self.family()
        if self._process.poll() is None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                if os.getsid(pid) == self.pid:  # still ours, not a number that was used again
                    os.kill(pid, signal.SIGKILL)
        self._process.wait()


def _read(path: str) -> str:
    """A file of /proc, or nothing when its process is gone."""
    try:
        return Path(path).read_text()
    except (OSError, UnicodeDecodeError):
        return ""


def machine_busy() -> float:
    """Seconds for which processes kept the machine's processors busy since it started."""
    user, nice, system = (int(field) for field in _read("/proc/stat").split(maxsplit=4)[1:4])
    return (user + nice + system) / _TICK


def ended_children() -> float:
    """Seconds of processor that this process's children used which have ended."""
    times = os.times()
    return times.children_user + times.children_system
