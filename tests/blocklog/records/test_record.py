"""What every record is made of."""

import pytest

from labs.builders import at
from tokgate.blocklog.records.record import MAX_TEXT, clean, wall_time


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("x" * MAX_TEXT, "x" * MAX_TEXT),
        ("x" * (MAX_TEXT + 1), "x" * (MAX_TEXT - 1) + "…"),
        ("\0" + "x" * (MAX_TEXT - 4), r"\x00" + "x" * (MAX_TEXT - 4)),
        ("\0" + "x" * (MAX_TEXT - 3), r"\x00" + "x" * (MAX_TEXT - 5) + "…"),
    ],
    ids=["as long as may be", "one too long", "escaped", "escaped and one too long"],
)
def test_long_text_is_cut(text: str, cut: str) -> None:
    """No text from a client makes a line longer than the limit, and a cut one shows that it is."""
    assert clean(text) == cut


@pytest.mark.parametrize(
    ("moment", "said"),
    [
        ("2023-03-10T11:00:00Z", "2023-03-10 12:00 Europe/Brussels"),
        ("2023-03-10T11:00:07Z", "2023-03-10 12:00:07 Europe/Brussels"),
        ("2023-03-10T11:00:00.5Z", "2023-03-10 12:00:00 Europe/Brussels"),
    ],
)
def test_a_time_of_day(moment: str, said: str) -> None:
    """Where the ban holds, with seconds where it is not a whole minute."""
    assert wall_time(at(moment), "Europe/Brussels") == said
