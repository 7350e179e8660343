"""Tries the program on disk before it takes over from the running one.

Two commands have to succeed: `check` of the policies, and the running program's own command line, which in a trial
loads and reads all that a run needs, and then exits without having bound, written or started anything.
"""

import importlib
import os
import sys
from collections.abc import Callable, MutableMapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from tokgate.runtime.control_socket import Caller
from tokgate.service.continuity.replacement import Bequest, read, written

VARIABLE: Final = "TOKGATE_TRIES"
"""The environment variable that makes a run a trial; its standard input is a memory file that holds a `Bequest`."""
_LONGEST: Final = 4096
"""Octets of what a program said about why it can't take over: the last ones, which are those of the error."""
_PROGRAMS: Final = ("tokgate.service.opener_process", "tokgate.gateway.canary.process")
"""The modules that a run executes in interpreters of their own."""
_METRICS: Final = "tokgate.service.metrics.http_server"


class ProgramChange:
    """Has the program on disk tried, and knows when it can take over."""

    def __init__(
        self, policies: Path, others: dict[int, Callable[[int], None]], bequest: Callable[[Caller], Bequest]
    ) -> None:
        """`others`: what the supervisor calls with the exit code of a child process, by process id.

        `bequest` returns what the new program would find.
        """
        self.tried: Caller | None = None
        """Who asked for a new program, which can take over now."""
        self._policies: Final = policies
        self._others: Final = others
        self._bequest: Final = bequest

    def ask(self, caller: Caller) -> None:
        """Start the trial; the caller is answered if it fails."""
        caller.tell("trying the program on disk")
        arguments = sys.orig_argv[1:]
        program = arguments[: len(arguments) - len(sys.argv[1:])]  # a script, or `-m` and a module
        commands = [[*program, "check", "--quiet", str(self._policies)], arguments]
        try:
            said = os.memfd_create("tokgate-trial")
        except OSError as error:
            _not_started(caller, error)
        else:
            self._start(caller, said, commands)

    def _start(self, caller: Caller, said: int, commands: Sequence[list[str]]) -> None:
        memory = None
        try:
            memory = written(self._bequest(caller))
            pid = os.posix_spawn(
                sys.executable,
                [sys.executable, *commands[0]],
                os.environ | {VARIABLE: "1"},
                file_actions=[(os.POSIX_SPAWN_DUP2, each, number) for number, each in enumerate((memory, said, said))],
                setpgroup=0,  # signals from the terminal are not for it
            )
        except OSError as error:
            os.close(said)
            _not_started(caller, error)
            return
        finally:
            if memory is not None:
                os.close(memory)
        self._others[pid] = partial(self._ended, caller, said, commands[1:])

    def _ended(self, caller: Caller, said: int, remaining: Sequence[list[str]], code: int) -> None:
        if not code and remaining:
            self._start(caller, said, remaining)
            return
        with os.fdopen(said, "rb") as file:
            file.seek(max(0, os.fstat(said).st_size - _LONGEST))
            words = file.read().decode(errors="replace").strip()
        if code:
            caller.answer({"ok": False, "problems": words or f"the program on disk ended with {code}"})
        else:
            self.tried = caller


def _not_started(caller: Caller, error: OSError) -> None:
    caller.answer({"ok": False, "problems": f"the program can't be started: {error.strerror}"})


def is_trial(environment: MutableMapping[str, str]) -> bool:
    """Whether this run is a trial; the variable is taken out of the environment."""
    return environment.pop(VARIABLE, None) is not None


def load_programs(*, metrics: bool) -> None:
    """Import what a run executes, and read what the running program would leave. Raises whatever is wrong with it."""
    read(sys.stdin.fileno())
    for name in (*_PROGRAMS, *((_METRICS,) if metrics else ())):
        importlib.import_module(name)
