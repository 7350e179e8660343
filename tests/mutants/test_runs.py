"""What `make mutants` needs before its first mutant, and the reasons that are kept."""

from importlib.util import find_spec

from mutants.__main__ import drawn, kept_survivors, stale
from mutants.operators import mutants
from mutants.runs import WARM


def test_libraries_that_are_loaded_first_are_installed() -> None:
    """One that is no dependency any more would end `make mutants` before it begins."""
    assert [name for name in WARM if find_spec(name) is None] == []


def test_reasons_are_given_for_mutants_that_there_are() -> None:
    """A reason outlives the code that it was given for, and would be taken for that of another mutant."""
    assert stale(kept_survivors()) == []
    assert stale({("policy/none.py", "f", "1", "2"): "not there"}) != []


def test_a_sample_outlives_a_change_of_the_code() -> None:
    """If any change drew another sample, each would bring survivors that have nothing to do with it."""
    others = "".join(f"def f{number}(a):\n    return a + {number}\n" for number in range(40))
    before, after = (mutants("m.py", (first + others).encode()) for first in ("", "def f(a):\n    b(a > 7)\n\n\n"))
    samples = [{mutant.place for mutant in drawn(all_, 30, 1)} for all_ in (before, after)]
    assert len(samples[0] & samples[1]) >= 27 == 30 - (len(after) - len(before))
    assert samples[0] != {mutant.place for mutant in drawn(before, 30, 2)}
