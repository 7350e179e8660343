"""A relay's decisions about the ends of single connections: when it passes them on, and when it closes."""

import pytest

from labs.relay_ends import Ends


@pytest.mark.parametrize(("is_up", "told"), [(True, "server"), (False, "client")])
def test_the_end_of_one_direction(ends: Ends, is_up: bool, told: str) -> None:
    """A client that has sent its request and closes its side still gets the answer, and the other way round."""
    ends.relay._end(ends.connection, is_up)
    assert (ends.connection.up_done, ends.connection.down_done) == (is_up, not is_up)
    assert (ends.ended, ends.relay.done) == ([told], [])


@pytest.mark.parametrize("is_up", [True, False])
def test_the_end_of_both_directions(ends: Ends, is_up: bool) -> None:
    """A connection that is over holds no descriptors: nobody would ever close it otherwise."""
    ends.relay._end(ends.connection, not is_up)
    assert len(ends.ended) == 1
    ends.relay._end(ends.connection, is_up)
    assert ends.relay.done == ["close"]
    assert len(ends.ended) == 1


def test_an_end_that_nobody_can_be_told(ends: Ends) -> None:
    """The other side has gone already: what it said last is looked for, and there is none."""
    ends.connection.server.close()
    ends.relay._end(ends.connection, True)
    assert ends.relay.done == ["reset client"]
