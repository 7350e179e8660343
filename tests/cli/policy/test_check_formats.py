"""The formats of check: what each says, exactly, of policies with and without findings, as of 1 May 2023.

With TOKGATE_GOLDEN=write the expected output is written anew; read the difference before you commit it. What loading
alone finds has its golden files in tests/config/data.
"""

import os
from pathlib import Path

import pytest

from labs.command_line import Command
from tokgate.config.diagnostics import Code

DATA = Path(__file__).parent / "data" / "check"
CASES = sorted(path for path in DATA.rglob("*.yaml"))
SUFFIX = {"text": ".txt", "json": ".json"}


@pytest.mark.parametrize("way", SUFFIX)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}/{case.stem}")
def test_output(case: Path, way: str, tokgate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each policy gives exactly the output that stands beside it, in each format, without what differs by machine."""
    monkeypatch.chdir(case.parent)
    outcome = tokgate("check", case.name, "--at", "2023-05-01T00:00Z", *(("--json",) if way == "json" else ()))
    assert outcome.code == (1 if case.parent.name == "err" else 0)
    found, golden = outcome.out, case.with_suffix(SUFFIX[way])
    if os.environ.get("TOKGATE_GOLDEN") == "write":
        golden.write_text(found)
    assert found == golden.read_text()


def test_what_only_check_finds_is_reached() -> None:
    """Each diagnostic that loading does not make stands in some golden file."""
    seen = "".join(path.read_text() for path in DATA.rglob("*.txt"))
    only_check = (
        Code.BAN_ENDS,
        Code.FREE_ADDRESSES,
        Code.ONE_FAMILY,
        Code.EXEMPTION_ENDS,
        Code.TEST_FAILED,
    )
    for code in only_check:
        assert f"[{code}]" in seen
    assert "it is held, and overdue [ban-over]" in seen
