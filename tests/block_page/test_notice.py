"""The facts of a page that follow from a ban's schedule."""

import pytest
from whenever import Time, Weekday

from labs.builders import at, ban, snapshot, wall
from tokgate.block_page.notice import notice_of
from tokgate.policy.decide import Sighting, decide_signals
from tokgate.policy.decision import Signal
from tokgate.policy.schedule import Window
from tokgate.traffic.enforcer import Ruling

OFFICE = Window(frozenset(Weekday), Time(8), Time(18))
WHOLE_DAY = Window(frozenset(Weekday), Time(0), Time(0))


@pytest.mark.parametrize(
    ("windows", "ends", "pauses"),
    [
        ((), None, None),
        ((OFFICE,), None, "2023-05-10T16:00Z"),
        ((OFFICE,), "2023-05-11T18:00", "2023-05-10T16:00Z"),
        ((OFFICE,), "2023-05-10T18:00", None),
        ((OFFICE,), "2023-05-10T17:59", None),
        ((WHOLE_DAY,), None, None),
    ],
)
def test_when_a_window_closes(windows: tuple[Window, ...], ends: str | None, pauses: str | None) -> None:
    """A measure with windows is lifted for a while before it ends, unless it ends first."""
    policy = snapshot(ban(expires=None if ends is None else wall(ends), windows=windows))
    instant = at("2023-05-10T12:00Z")
    judgement = decide_signals(policy, "192.0.2.1", (Sighting(Signal.HTTP_HOST, "clips.example.org"),), instant)
    notice = notice_of(
        Ruling(judgement.decision, judgement.sighting, judgement.mismatch, policy, instant),
        implementer="dns:here",
        opened=False,
    )
    assert notice.pauses == (None if pauses is None else at(pauses))
