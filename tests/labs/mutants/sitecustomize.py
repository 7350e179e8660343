"""Which functions the processes reach that a test starts: each process of `make mutants` imports this.

In the one that runs the tests it is a plugin of pytest (PYTEST_DONT_REWRITE: imported before).
"""

import os
import tempfile
from pathlib import Path
from typing import Any

FOLDER = "MUTANTS_REACH"
"""The variable with the folder that holds an empty file for each function."""


def pytest_configure() -> None:
    """Begin to collect, if that is what mutmut runs the tests for."""
    if os.environ.get("MUTANT_UNDER_TEST") == "stats":
        os.environ[FOLDER] = tempfile.mkdtemp()
        Path(os.environ[FOLDER]).chmod(0o1777)  # processes that give up root, too
        _collect(os.getpid())


def pytest_runtest_logreport(report: Any) -> None:
    """Before mutmut writes down what a test reached."""
    if report.when == "call" and FOLDER in os.environ:
        from mutmut.state import state

        for each in Path(os.environ[FOLDER]).iterdir():
            state()._stats.add(each.name)
            each.unlink()


def _collect(tests: int | None = None) -> None:
    from mutmut.mutation import trampoline
    from mutmut.state import state

    def reached(name: str, caller: str | None = None) -> None:
        if os.getpid() == tests:
            state()._stats.add(name)
        else:
            Path(os.environ[FOLDER], name).touch()

    vars(trampoline)["record_trampoline_hit"] = reached


if FOLDER in os.environ:
    _collect()
