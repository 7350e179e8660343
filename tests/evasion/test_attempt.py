"""The page of what cannot be seen: each limit has its heading there with a way out, and README names the chief ones."""

import re
from pathlib import Path

from tokgate.evasion.attempt import Limit

ROOT = Path(__file__).parents[2]
PAGE = "docs/cannot-see.md"
SECTIONS = {
    section.partition("\n")[0].lower().replace(" ", "-"): section
    for section in (ROOT / PAGE).read_text().split("\n## ")[1:]
}


def test_readme_names_the_first() -> None:
    """An admin who reads no further than README learns of the chief limits, and where all of them are."""
    readme = (ROOT / "README.md").read_text()
    named = set(re.findall(rf"\({re.escape(PAGE)}#([a-z-]+)\)", readme))
    assert named <= set(SECTIONS)
    assert named >= {Limit.FRONTING, Limit.ECH, Limit.NO_NAME, Limit.VPN, "traffic-that-does-not-pass-the-gateway"}
    assert f"({PAGE})" in readme


def test_each_is_explained() -> None:
    """What happens, what to do about it, and how it shows; the last section is about no limit."""
    explained = [name for name, said in SECTIONS.items() if "**What to do.**" in said and "**How it shows.**" in said]
    assert explained == list(SECTIONS)[:-1]
    assert set(explained) >= set(Limit)
