"""What `make mutants` needs before its first mutant."""

from importlib.util import find_spec

from mutants.runs import WARM


def test_libraries_that_are_loaded_first_are_installed() -> None:
    """One that is no dependency any more would end `make mutants` before it begins."""
    assert [name for name in WARM if find_spec(name) is None] == []
