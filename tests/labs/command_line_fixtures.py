"""A small policy folder."""

from pathlib import Path

import pytest

from labs.command_line import POLICY


@pytest.fixture
def policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder `policies` in a working directory of its own, so that origins read `policies/policy.yaml`."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "policy.yaml").write_text(POLICY)
    return folder
