"""The file that says which records come next."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from tokgate.blocklog.records.chain import Head
from tokgate.blocklog.write.head_journal import HeadJournal


def test_it_can_not_be_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is closed then: its descriptor is soon that of another file, maybe of the log itself."""
    head, opened = Head("chain", 1, "0" * 64), os.open
    journal = HeadJournal(tmp_path / "heads", lambda: b"secret")
    journal.restart(head, (), head)

    def refused(path: Any, flags: int, *mode: int) -> int:
        if flags & os.O_APPEND:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return opened(path, flags, *mode)

    monkeypatch.setattr(os, "open", refused)
    with pytest.raises(OSError, match=os.strerror(errno.EMFILE)):
        journal.restart(head, (), head)
    monkeypatch.undo()
    with (tmp_path / "other").open("wb") as other:
        journal.close()
        other.write(b"whole")
    assert (tmp_path / "other").read_bytes() == b"whole"
