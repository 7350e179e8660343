"""A trial that can't begin is told to who asked for it, and nothing is left open or changed."""

import errno
import os
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from tokgate.runtime.control_socket import Caller
from tokgate.service.continuity.replacement import Bequest
from tokgate.service.continuity.trial import ProgramChange

NONE_LEFT = OSError(errno.EMFILE, os.strerror(errno.EMFILE))


class _Caller:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.answers: list[dict[str, Any]] = []

    def tell(self, text: str) -> None:
        """Progress is of no interest here."""

    def answer(self, answer: dict[str, Any]) -> None:
        self.answers.append(answer)


def _bequest(_: Caller) -> Bequest:
    return Bequest(
        program="1.0.0",
        takeover="",
        channels={},
        listeners=[],
        metrics=None,
        control=None,
        quic=None,
        warned=0,
        caller=None,
        children=[],
    )


@pytest.mark.parametrize("which", [1, 2, "spawn"], ids=["for what is said", "for the bequest", "a process"])
def test_what_the_system_denies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, which: int | str) -> None:
    """Short of descriptors, memory or processes, the running program stays, and says why."""
    made: list[int] = []
    real = os.memfd_create

    def memory(name: str) -> int:
        if len(made) + 1 == which:
            raise NONE_LEFT
        made.append(real(name))
        return made[-1]

    def spawn(*_: object, **__: object) -> int:
        raise NONE_LEFT

    monkeypatch.setattr(os, "memfd_create", memory)
    monkeypatch.setattr(os, "posix_spawn", spawn)
    monkeypatch.setattr(sys, "orig_argv", [sys.executable, "-m", "tokgate", *sys.argv[1:]])
    others: dict[int, Any] = {}
    program, caller = ProgramChange(tmp_path, others, _bequest), _Caller()
    program.ask(cast(Caller, caller))
    assert caller.answers == [{"ok": False, "problems": "the program can't be started: Too many open files"}]
    assert (program.tried, others) == (None, {})
    for descriptor in made:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(descriptor)
