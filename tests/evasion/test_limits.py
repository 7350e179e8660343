"""The list of what cannot be seen: the page says what the code knows, README names each, and each has a way out."""

import re
from pathlib import Path

import pytest

from tokgate.evasion.limits import LIMITS, PATH, Limit, markdown

ROOT = Path(__file__).parents[2]


def test_the_page_is_up_to_date() -> None:
    """docs/cannot-see.md is what `tokgate evasion --limits` prints: `make limits` writes it."""
    assert (ROOT / PATH).read_text() == "\n".join(markdown()) + "\n"


def test_readme_names_the_first() -> None:
    """An admin who reads no further than README learns of the chief limits, and where all of them are."""
    readme = (ROOT / "README.md").read_text()
    named = set(re.findall(rf"\({re.escape(PATH)}#([a-z-]+)\)", readme))
    assert named <= set(Limit)
    assert named >= {Limit.FRONTING, Limit.ECH, Limit.NO_NAME, Limit.VPN, Limit.OTHER_ROADS}
    assert f"({PATH})" in readme


@pytest.mark.parametrize("limit", Limit)
def test_each_is_explained(limit: Limit) -> None:
    """What happens, what to do about it, and how it shows; the anchor is that of its heading."""
    explanation = LIMITS[limit]
    assert explanation.heading.lower().replace(" ", "-") == limit
    assert all((explanation.what, explanation.remedy, explanation.shows))
