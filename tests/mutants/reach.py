"""A pytest plugin that notes which tests reach which lines of the package, by `sys.monitoring`.

What runs while a module is imported, and what other processes run, belongs to no test.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import CodeType
from typing import Any, Final

import pytest

_TOOL: Final = sys.monitoring.PROFILER_ID


class Reach:
    """Collects lines while tests run, and writes them when the session ends."""

    def __init__(self, package: Path, target: Path) -> None:
        """`package` is the folder whose lines count; what was found is written to `target` as JSON."""
        self._prefix: Final = f"{package}/"
        self._target: Final = target
        self._tests: Final[dict[str, float]] = {}
        self._lines: Final[dict[str, dict[int, list[str]]]] = {}
        self._now: set[tuple[str, int]] | None = None

    def pytest_sessionstart(self) -> None:
        """Begin to watch."""
        monitoring = sys.monitoring
        monitoring.use_tool_id(_TOOL, "mutants")
        monitoring.register_callback(_TOOL, monitoring.events.LINE, self._line)
        monitoring.register_callback(_TOOL, monitoring.events.PY_START, self._function)
        monitoring.set_events(_TOOL, monitoring.events.PY_START)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Note the lines of one test, its fixtures included."""
        reached: set[tuple[str, int]] = set()
        self._now = reached
        sys.monitoring.restart_events()
        self._tests[item.nodeid] = 0.0
        result = yield
        self._now = None
        if item.nodeid in self._tests:
            for module, line in reached:
                self._lines.setdefault(module, {}).setdefault(line, []).append(item.nodeid)
        return result

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """A test that does not pass without any fault can't tell of one."""
        if not report.passed:
            self._tests.pop(report.nodeid, None)
        elif report.nodeid in self._tests:
            self._tests[report.nodeid] += report.duration

    def pytest_sessionfinish(self) -> None:
        """Write what was found."""
        sys.monitoring.free_tool_id(_TOOL)
        order = {test: index for index, test in enumerate(self._tests)}
        found: dict[str, Any] = {
            "tests": [(seconds, test) for test, seconds in self._tests.items()],
            "lines": {
                module: {line: [order[test] for test in tests if test in order] for line, tests in lines.items()}
                for module, lines in self._lines.items()
            },
        }
        self._target.write_text(json.dumps(found))

    def _function(self, code: CodeType, _: int) -> object:
        """Watch the lines of the package's functions alone: those of all others would take most of the time."""
        monitoring = sys.monitoring
        if code.co_filename.startswith(self._prefix) and not monitoring.get_local_events(_TOOL, code):
            monitoring.set_local_events(_TOOL, code, monitoring.events.LINE)
        return monitoring.DISABLE

    def _line(self, code: CodeType, line: int) -> object:
        if self._now is not None:
            self._now.add((code.co_filename.removeprefix(self._prefix), line))
        return sys.monitoring.DISABLE


class Chosen:
    """Runs these tests alone, in this order; without any, all."""

    def __init__(self, tests: list[str]) -> None:
        """`tests` are node ids."""
        self._order: Final = {test: index for index, test in enumerate(tests)}

    def pytest_sessionstart(self) -> None:
        """The same examples for every mutant, and none kept from another."""
        from hypothesis import settings

        settings.register_profile("mutants", settings(), database=None, derandomize=True)
        settings.load_profile("mutants")

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave the others out."""
        if self._order:
            items[:] = sorted((i for i in items if i.nodeid in self._order), key=lambda i: self._order[i.nodeid])
