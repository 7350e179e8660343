"""A small policy folder and the command line in process."""

from pathlib import Path

import pytest

from cli.command_line import POLICY, Command, Outcome
from tokgate.cli.main import main


@pytest.fixture
def policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder `policies` in a working directory of its own, so that origins read `policies/policy.yaml`."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "policy.yaml").write_text(POLICY)
    return folder


@pytest.fixture
def tokgate(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command in process."""

    def run(*arguments: str) -> Outcome:
        capsys.readouterr()
        code = main(arguments)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run
