"""What every record is made of."""

import pytest

from tokgate.blocklog.records.record import MAX_TEXT, clean


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
