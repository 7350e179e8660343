"""The list of what cannot be seen: the page says what the code knows, README names each, and each has a way out."""

from pathlib import Path

import pytest

from tokgate.evasion.limits import LIMITS, PATH, Limit, markdown

ROOT = Path(__file__).parents[2]


def test_the_page_is_up_to_date() -> None:
    """docs/cannot-see.md is what `tokgate evasion --limits` prints: `make limits` writes it."""
    assert (ROOT / PATH).read_text() == "\n".join(markdown()) + "\n"


@pytest.mark.parametrize("limit", Limit)
def test_readme_names_each(limit: Limit) -> None:
    """An admin who reads no further than README learns of every limit, and where to read on."""
    assert f"({PATH}#{limit})" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("limit", Limit)
def test_each_is_explained(limit: Limit) -> None:
    """What happens, what to do about it, and how it shows; the anchor is that of its heading."""
    explanation = LIMITS[limit]
    assert explanation.heading.lower().replace(" ", "-") == limit
    assert all((explanation.what, explanation.remedy, explanation.shows))
