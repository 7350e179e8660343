"""The words of messages."""

import pytest

from labs.builders import at
from tokgate.blocklog.records.sentence import wall_time


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
