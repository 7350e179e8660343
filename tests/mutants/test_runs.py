"""What `make mutants` needs before its first mutant, and the reasons that are kept."""

from importlib.util import find_spec

from mutants.__main__ import kept_survivors, stale
from mutants.runs import WARM


def test_libraries_that_are_loaded_first_are_installed() -> None:
    """One that is no dependency any more would end `make mutants` before it begins."""
    assert [name for name in WARM if find_spec(name) is None] == []


def test_reasons_are_given_for_mutants_that_there_are() -> None:
    """A reason outlives the code that it was given for, and would be taken for that of another mutant."""
    assert stale(kept_survivors()) == []
    assert stale({("policy/none.py", "f", "1", "2"): "not there"}) != []
