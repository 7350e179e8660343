"""Commands that ask the running tokgate, where none is in the folder that they look in."""

from pathlib import Path

import pytest

from labs.command_line import Command
from tokgate.runtime.control_socket import NAME


def test_the_addon_in_mitmproxy_is_found(tmp_path: Path, tokgate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the addon runs in a plain mitmproxy, its folder is named; without one, only that none runs."""
    monkeypatch.setenv("HOME", str(tmp_path))
    outcome = tokgate("status")
    assert (outcome.code, outcome.err.count("\n")) == (3, 1)
    assert outcome.err.endswith(".tokgate\n")
    (tmp_path / ".mitmproxy").mkdir()
    (tmp_path / ".mitmproxy" / NAME).touch()
    assert tokgate("status").err.endswith("; the addon in mitmproxy has --confdir ~/.mitmproxy\n")
