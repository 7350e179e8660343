"""The list of drills in docs/drills.md: each row names a test that there is, and each drill here has its row."""

import ast
import re
from pathlib import Path

TESTS = Path(__file__).parents[1]
ROWS = re.findall(r"`([a-z0-9_/]+\.py)::(test_[a-z0-9_]+)` \|$", (TESTS.parent / "docs/drills.md").read_text(), re.M)


def names_in(path: Path) -> set[str]:
    """The names of a file's tests."""
    kinds = ast.FunctionDef | ast.AsyncFunctionDef
    return {
        node.name for node in ast.parse(path.read_text()).body if isinstance(node, kinds) and node.name[:5] == "test_"
    }


def test_each_row_is_a_test() -> None:
    """A drill whose test was renamed or taken out would be a promise."""
    assert len(ROWS) >= 30
    assert [f"{file}::{name}" for file, name in ROWS if name not in names_in(TESTS / file)] == []


def test_each_drill_has_a_row() -> None:
    """Who reads the list sees all that is tried."""
    here = {
        (f"drills/{path.name}", name)
        for path in Path(__file__).parent.glob("test_*.py")
        for name in names_in(path)
        if path.name != Path(__file__).name
    }
    assert here - set(ROWS) == set()
