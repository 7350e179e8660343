"""Extensions: a measure in several terms is one story, at each of its ends."""

from labs.builders import BRUSSELS, at, ban, duration, snapshot, wall
from tokgate.policy.analysis.extensions import earlier_terms
from tokgate.policy.analysis.reminders import plan
from tokgate.policy.analysis.timeline import transitions
from tokgate.policy.decide import decide

TERMS = snapshot(
    ban("third", extends="second", starts=wall("2024-03-10T00:00")),
    ban("first", duration=duration("P6M")),
    ban("second", extends="first", starts=wall("2023-09-10T00:00"), expires=wall("2024-03-10T00:00")),
)


def test_earlier_terms_come_latest_first() -> None:
    """Whoever is refused reads how long the measure has lasted; a ban that is gone, or a circle, ends the story."""
    found = list(earlier_terms(TERMS.bans, TERMS.bans["third"], BRUSSELS))
    assert [(term.ban.name, str(term.ends)) for term in found] == [
        ("second", "2024-03-09T23:00:00Z"),
        ("first", "2023-09-09T22:00:00Z"),
    ]
    assert list(earlier_terms({}, TERMS.bans["third"], BRUSSELS)) == []
    circle = ban("circle", extends="circle")
    assert list(earlier_terms({"circle": circle}, circle, BRUSSELS)) == []


def test_no_reminder_of_an_end_that_is_none() -> None:
    """Nobody is woken by the end of a term that the next one follows; the ban is in force on both sides of it."""
    assert plan(TERMS) == ()
    for instant in ("2023-09-09T21:59:59Z", "2023-09-09T22:00:00Z", "2024-03-09T23:00:00Z"):
        assert decide(TERMS, "192.0.2.1", "clips.example.org", at(instant)).verdict == "block"


def test_the_end_says_what_goes_on() -> None:
    """A calendar does not announce that a ban expires without saying that another takes over."""
    found = list(transitions(TERMS, at("2023-09-09T00:00Z"), at("2023-09-11T00:00Z")))
    assert {(each.ban.name, each.after, each.extended_by) for each in found} == {
        ("first", "expired", ("second",)),
        ("second", "block", ()),
    }
