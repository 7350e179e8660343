"""How bars are judged: by the median of the rounds' own ratios, and never silently left out."""

from comparison.bars import BARS, Bar, judge
from comparison.peers import peers
from comparison.results import Failure, Results, Sample

from labs.builders import present


def results(**figures: list[float]) -> Results:
    """One metric, `rate`, of one test; a list for each proxy, one figure a round."""
    return Results(
        samples=[
            Sample("small32", proxy, number, 0.0, {"rate": value})
            for proxy, values in figures.items()
            for number, value in enumerate(values)
        ]
    )


def test_a_ratio_is_taken_within_each_round() -> None:
    """A machine that halves its speed between rounds changes no ratio."""
    outcome = judge(
        results(tokgate=[110, 55, 22], haproxy=[100, 50, 20]), Bar("", "small32", "rate", 1.05, True, ("haproxy",))
    )
    assert list(present(outcome.spread)) == [1.1, 1.1, 1.1]
    assert outcome.met is True


def test_less_can_be_better() -> None:
    """The same figures miss a bar that asks for less."""
    bar = Bar("", "small32", "rate", 1.05, False, ("haproxy",))
    assert judge(results(tokgate=[110], haproxy=[100]), bar).met is False
    assert judge(results(tokgate=[105], haproxy=[100]), bar).met is True


def test_the_better_of_two_peers_counts() -> None:
    """Where less is better, the peer with less is the one to beat."""
    measured = results(tokgate=[30], haproxy=[100], squid=[60])
    less = judge(measured, Bar("", "small32", "rate", 0.3, False, ("haproxy", "squid")))
    more = judge(measured, Bar("", "small32", "rate", 0.3, True, ("haproxy", "squid")))
    assert (present(less.spread).median, present(more.spread).median) == (0.5, 0.3)


def test_times_can_be_compared_as_speeds() -> None:
    """Twice the time is half the speed."""
    outcome = judge(
        results(tokgate=[200], haproxy=[100]), Bar("", "small32", "rate", 0.95, True, ("haproxy",), inverted=True)
    )
    assert present(outcome.spread).median == 0.5


def test_a_round_that_one_of_both_lacks_does_not_count() -> None:
    """Ratios need both figures."""
    outcome = judge(results(tokgate=[50, 100], haproxy=[100]), Bar("", "small32", "rate", 1, True, ("haproxy",)))
    assert list(present(outcome.spread)) == [0.5, 0.5, 0.5]


def test_what_could_not_be_measured_says_why() -> None:
    """A peer that isn't installed is a reason, not a gap in the table."""
    measured = results(tokgate=[100])
    measured.failures.append(Failure(None, "squid", None, "squid not installed (apt-get install squid-openssl)"))
    outcome = judge(measured, Bar("", "small32", "rate", 2.5, True, ("squid",)))
    assert outcome.met is None
    assert outcome.word == "not measured"
    assert outcome.reason == "squid: squid not installed (apt-get install squid-openssl)"


def test_every_bar_names_proxies_that_exist() -> None:
    """A bar with a misspelt proxy would never be measured."""
    known = peers().keys()
    for bar in BARS:
        assert bar.ours in known
        assert known >= set(bar.peers)
