"""Every link in a Markdown file of the repository leads to a file that is there, and to a heading of it."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted(page for page in ROOT.rglob("*.md") if not page.relative_to(ROOT).parts[0].startswith((".", "build")))


def prose(page: Path) -> str:
    """The page without its code."""
    return re.sub(r"^( *)```.*?^\1```|`[^`\n]*`", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken(page: Path) -> Iterator[str]:
    """The links of a page that lead nowhere."""
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            yield link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    assert list(broken(page)) == []


def test_a_broken_link_is_found(tmp_path: Path) -> None:
    """A missing file and a missing heading are told; what is code is no link."""
    page = tmp_path / "page.md"
    page.write_text(
        "# One: two\n[a](#one-two) [b](page.md#one) [c](none.md) `[d](none.md)` [e](https://example.org/#x)\n"
    )
    assert list(broken(page)) == ["page.md#one", "none.md"]


def headless(page: Path) -> Iterator[str]:
    """The rows with which tables begin that have no row of dashes below: a page shows them as text."""
    text = re.sub(r"^( *)```.*?^\1```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        first, *rest = table.splitlines()
        if not rest or not re.fullmatch(r"[-:| ]+", rest[0]):
            yield first


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tables_have_headings(page: Path) -> None:
    """An empty line in a table makes text of all rows below it."""
    assert list(headless(page)) == []
