"""Policy files and the exact output they give: data/ok loads, data/err does not.

With TOKGATE_GOLDEN=write the expected output is written anew; read the difference before you commit it.
"""

import os
from pathlib import Path

import pytest
from whenever import Instant

from tokgate.config.diagnostics import Code, render
from tokgate.config.loader import Loaded, load

DATA = Path(__file__).parent / "data"
NOW = Instant.from_utc(2023, 5, 1)
CASES = sorted(p for kind in ("ok", "err") for p in (DATA / kind).iterdir() if p.suffix == ".yaml" or p.is_dir())

_UNREACHED = {  # what files of text can't show; tested in test_files.py, test_source.py and test_reload.py
    Code.UNREADABLE,
    Code.BROKEN_LINK,
    Code.LINK_LOOP,
    Code.NO_POLICY_FILES,
    Code.TOO_LARGE,
    Code.ENCODING,
    Code.MISSING_EXTRA,  # tests/cli/test_commands_extras.py
    Code.INTERNAL,
    Code.BAN_HELD,  # tests/cli/policy/test_warnings_held.py
    Code.BAN_ENDS,  # these five come from `tokgate check`: tests/cli/policy/test_check.py
    Code.UNUSED_NETWORK,
    Code.FREE_ADDRESSES,
    Code.ONE_FAMILY,
    Code.EXEMPTION_ENDS,
    Code.NO_AUTHORITY,  # tests/cli/policy/test_warnings_untrusted.py
    Code.PAGE_UNTRUSTED,
    Code.TEST_FAILED,
}


def _load(case: Path, monkeypatch: pytest.MonkeyPatch) -> Loaded:
    monkeypatch.chdir(case.parent)  # so that the output holds no path of this machine
    return load(Path(case.name), NOW)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}/{case.name}")
def test_output(case: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file gives exactly the output that stands beside it."""
    loaded = _load(case, monkeypatch)
    output = "".join(f"{render(each)}\n" for each in loaded.diagnostics)
    golden = case.with_suffix(".txt")
    if os.environ.get("TOKGATE_GOLDEN") == "write":
        golden.write_text(output)
    assert output == golden.read_text()
    assert (loaded.policy is not None) == (case.parent.name == "ok")
    assert bool(loaded.errors) == (loaded.policy is None)


def test_every_code_is_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {each.code for case in CASES for each in _load(case, monkeypatch).diagnostics}
    assert seen == set(Code) - _UNREACHED
