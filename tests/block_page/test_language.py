"""The page's languages: which one a client gets, dates as they are written, and files that agree."""

from pathlib import Path
from string import Formatter
from typing import Any

import pytest

from tokgate.block_page import language as module
from tokgate.block_page.language import LANGUAGES, TEXTS, choose_language

FOLDER = Path(module.__file__).with_name("locales")


@pytest.mark.parametrize(
    ("header", "language"),
    [
        (None, "en"),
        ("", "en"),
        ("fr", "fr"),
        ("fr-BE,fr;q=0.9,en;q=0.8", "fr"),
        ("nl;q=0.5, de;q=0.6", "de"),
        ("de-AT", "de"),
        ("es, nl;q=0.2", "nl"),
        ("es", "en"),
        ("*", "en"),
        ("en;q=0, fr;q=0.1", "fr"),
        ("EN;q=0.1,FR;q=0.4", "fr"),
        ("en-US,en;q=0.9,de;q=0.95", "de"),
        ("fr;q=abc", "en"),
        (";;;,,=", "en"),
        ("fr," * 100_000, "fr"),
    ],
)
def test_language(header: str | None, language: str) -> None:
    """The language with the highest quality that the page has; a region means its language; English otherwise."""
    assert choose_language(header) == language


def placeholders(texts: Any, key: str = "") -> dict[str, set[str | None]]:
    """The placeholders of each text, by its path of keys and places: `without_ban.other`, `months.0`."""
    if isinstance(texts, str):
        return {key: {name for _, name, _, _ in Formatter().parse(texts)} - {None}}
    parts = texts.items() if isinstance(texts, dict) else enumerate(texts)
    return {name: found for part, each in parts for name, found in placeholders(each, f"{key}.{part}").items()}


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_language_has_every_text(language: str) -> None:
    """A translation without a text, or with other placeholders, would be seen at a page only."""
    assert placeholders(TEXTS[language]) == placeholders(TEXTS["en"])
    assert placeholders({"a": ["{x} {y}", ""]}) == {".a.0": {"x", "y"}, ".a.1": set()}


def test_every_file_is_a_language() -> None:
    """A translation that is not among the languages would never be shown."""
    assert {path.stem for path in FOLDER.iterdir()} == set(LANGUAGES)
