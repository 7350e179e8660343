"""The site that `make docs` builds: every page of docs/ is found in it, and nobody fetches anything."""

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, with a proxy that nobody is behind in place of the network."""
    folder = tmp_path_factory.mktemp("site") / "site"
    nowhere = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), "http://127.0.0.1:1")
    ready = ("-o", ".venv/.ready", "-o", ".venv/.runtime")  # what runs these tests is installed
    done = subprocess.run(
        ["make", *ready, "docs", f"SITE={folder}"],
        cwd=ROOT, env=os.environ | nowhere, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_can_be_searched(site: Path) -> None:
    """The index has the text of every page of docs/."""
    index = json.loads((site / "search.json").read_text())
    places = {entry["location"].partition("#")[0] for entry in index["items"]}
    pages = {
        f"{page.relative_to(ROOT).with_suffix('')}.html"
        for page in (ROOT / "docs").rglob("*.md")
        if page.name != "README.md"
    }
    assert pages - places == set()
    assert any("TikTok gets through" in entry["title"] for entry in index["items"])


def test_readers_fetch_nothing(site: Path) -> None:
    """Scripts, styles and fonts are the site's own."""
    for page in site.rglob("*.html"):
        asked = re.findall(r"<(?:script|link|img)[^>]* (?:src|href)=\"(https?:[^\"]+)\"", page.read_text())
        assert asked == [], page.name
