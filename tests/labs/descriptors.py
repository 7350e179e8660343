"""Fails a test that leaves descriptors open; a folder's conftest asks for it by importing these hooks.

What fixtures of modules and sessions open is theirs. Descriptors are counted by kind, since their numbers and targets
tell nothing: numbers are used again, and files are renamed.
"""

import contextlib
import gc
import stat
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Final

import pytest

from labs.waiting import until

_before: Final = pytest.StashKey[dict[int, tuple[int, str]]]()
_shared: Final = Counter[int]()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, None, None]:
    """Note what is open."""
    item.stash[_before] = _open()
    _shared.clear()
    yield


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[object]) -> Generator[None, object, object]:
    """Note what a fixture opens for more than this test."""
    before = _kinds(_open())
    try:
        return (yield)
    finally:
        if fixturedef.scope != "function":
            _shared.update(_kinds(_open()) - before)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, None, None]:
    """Wait until all that the test opened is closed, also by threads that end, and by the garbage collector."""
    yield
    before = item.stash[_before]

    def left() -> list[str]:
        now = _open()
        more = _kinds(now) - _kinds(before) - _shared
        return [
            target for number, (kind, target) in now.items() if kind in more and before.get(number) != (kind, target)
        ]

    if left():
        gc.collect()
        with contextlib.suppress(AssertionError):
            until("all is closed", lambda: not left())
        assert not left(), f"the test leaves open: {left()}"


def _open() -> dict[int, tuple[int, str]]:
    """Kind and target of what this process has open, by number."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):  # the listing's own is closed already
            found[int(entry.name)] = stat.S_IFMT(entry.stat().st_mode), str(entry.readlink())
    return found


def _kinds(found: dict[int, tuple[int, str]]) -> Counter[int]:
    return Counter(kind for kind, _ in found.values())
