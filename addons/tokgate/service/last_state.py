"""What is known of a running tokgate where its supervisor does not answer: the state that it wrote last.

The supervisor writes `state.json` in its folder when what is in force changes, and before it begins work that keeps it
from answering. With what the kernel knows of its process that tells one that is busy from one that was stopped, hangs,
or has died.
"""

import contextlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, cast

from whenever import Instant

from tokgate.runtime.control_socket import ControlRequest, ask
from tokgate.service.status import Status, Work

NAME: Final = "state.json"
ANSWERS: Final = 0.7
"""Seconds in which a supervisor answers, unless it is busy: with what is read then an answer takes less than one."""
STATE_EVERY: Final = 5.0
"""Seconds between two looks at whether the state has changed."""
_MODE: Final = 0o600
_WORDS: Final = {"R": "runs", "S": "sleeps", "D": "waits for a device", "T": "was stopped", "t": "was stopped"}
"""The states of proc_pid_stat(5)."""


class StateFile:
    """Writes the state of this process. Errors are suppressed, since traffic is filtered all the same."""

    def __init__(self, folder: Path) -> None:
        self._path: Final = folder / NAME
        self._told = ""
        self._state: Status | None = None

    def write(self, state: Status | None, work: Work | None, now: Instant) -> None:
        """Write, if anything has changed but counters; without a `state` that of the program before stays.

        Nothing is written where another process goes on with this folder.
        """
        if not self._told:
            try:
                before = known_in(self._path.parent)
            except OSError:  # no descriptor is free
                return
            if before is not None and before["pid"] != os.getpid() and _goes_on(before):
                return
            self._state = None if before is None else before["state"]
        self._state = state or self._state
        told = json.dumps([_lasting(self._state), work and asdict(work)])
        if told == self._told:
            return
        document = {"pid": os.getpid(), "began": _stat(os.getpid())[1], "at": str(now), "work": work and asdict(work)}
        draft = self._path.with_suffix(".new")
        try:
            draft.touch(_MODE)
            draft.write_text(json.dumps(document | {"state": self._state}))
            draft.replace(self._path)
            self._told = told
        except OSError:
            self.remove()  # what it says may no longer be so
            self._told = ""

    def remove(self) -> None:
        """At the end: nothing is known any more."""
        if not self._told:
            return
        with contextlib.suppress(OSError):
            self._path.unlink()


def _lasting(state: Status | None) -> Any:
    """A state without what changes all the time."""
    if state is None:
        return None
    kernel = state["gateway"]
    gateway = None if kernel is None else (kernel["problems"], kernel["policy"], kernel["until"])
    return {**state, "at": "", "workers": [], "gateway": gateway}


class Unanswered(Exception):
    """No tokgate answers, and no state of one that runs is known. The text says what is known."""


def status_of(folder: Path, now: Instant) -> Status | None:
    """The state of the tokgate of a folder, within a second; None if none runs.

    Where it does not answer, that which it wrote last, with a problem that says so, unless it says why.

    Raises:
        Unanswered: none is known.
        OSError: no permission.
        ValueError: the response is malformed.
    """
    try:
        answer = ask(folder, ControlRequest.STATUS, longest=ANSWERS)
        silent = False
    except (TimeoutError, BlockingIOError, ConnectionError):
        answer, silent = None, True
    if answer is not None:
        return cast("Status", answer)
    known = known_in(folder)
    if known is None:
        if silent:
            raise Unanswered("it does not answer")
        return None
    problem = problem_of(known, now)
    work = None if known["work"] is None else Work(**known["work"])
    state: Status | None = known["state"]
    if state is None or (work is None and _process(known) is None):
        raise Unanswered(problem or f"{work and work.what}, since {work and work.since}")
    problems = [*state["problems"], *([problem] if problem else []), *_unheard(state)]
    return {
        **state,
        "ok": state["ok"] and not problems,
        "problems": problems,
        "at": str(now),
        "known": known["at"],
        "busy": None if work is None else {"what": work.what, "since": work.since},
        "workers": [],
    }


def problem_of(known: dict[str, Any], now: Instant, patience: float = 0.0) -> str | None:
    """What is wrong with a supervisor that does not answer; None where that is to be expected for a while.

    `patience`: seconds for which it need not say why it does not answer.
    """
    pid, work, process = known["pid"], None if known["work"] is None else Work(**known["work"]), _process(known)
    if process is None and not (work is not None and work.hands_over):
        return f"tokgate (pid {pid}) has died; what it knew is of {known['at']}"
    if process in ("T", "t"):
        return f"tokgate (pid {pid}) was stopped: kill -CONT {pid}"
    if work is not None:
        return work.problem(now)
    if patience > 0.0:
        return None
    return f"tokgate (pid {pid}) does not answer, and {_WORDS.get(process or '', 'is there')}"


def known_in(folder: Path) -> dict[str, Any] | None:
    """What a supervisor wrote last, for `problem_of`; None if nothing."""
    try:
        found = json.loads((folder / NAME).read_text())
        return found if {"pid", "began", "at", "work", "state"} <= found.keys() else None
    except (FileNotFoundError, NotADirectoryError, ValueError, AttributeError):
        return None


def _stat(pid: int) -> tuple[str, str]:
    """A process's state, as a letter of proc_pid_stat(5), and when it began, in ticks of the clock; else empty."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", ""
    return fields[0], fields[19]


def _process(known: dict[str, Any]) -> str | None:
    """The state of the process that wrote this; None if it has ended."""
    state, began = _stat(known["pid"])
    return None if state in ("", "Z", "X") or began != known["began"] else state


def _goes_on(known: dict[str, Any]) -> bool:
    """Whether the process that wrote this is there, and hands over to no other."""
    return _process(known) is not None and not (known["work"] or {}).get("hands_over")


def _unheard(state: Status) -> list[str]:
    """The ports of this state at which nobody listens, by proc_net_tcp(5), where that can be read."""
    listening: set[int] = set()
    for name in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            rows = [line.split() for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
            listening |= {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == "0A"}
    ports = dict.fromkeys(each["port"] for each in state["listening"] if each["port"] not in listening)
    return [f"nobody listens on port {port}" for port in ports]
