"""Which of the page's languages and formats a client prefers (RFC 9110 §12)."""

from enum import StrEnum
from typing import Final

from werkzeug.datastructures import LanguageAccept, MIMEAccept
from werkzeug.http import parse_accept_header

from tokgate.block_page.locales import DEFAULT, STRINGS


class Format(StrEnum):
    """The media types in which the block page can be written."""

    HTML = "text/html"
    PROBLEM = "application/problem+json"
    JSON = "application/json"
    TEXT = "text/plain"


_FORMATS: Final = tuple(Format)
MAX_HEADER: Final = 1024
"""Characters of a header that are parsed."""


def choose_language(accept_language: str | None) -> str:
    """The preferred language by q-values. `fr-BE` matches French; `q=0` excludes a language."""
    accepted = parse_accept_header((accept_language or "")[:MAX_HEADER], LanguageAccept)
    return accepted.best_match(STRINGS, DEFAULT) or DEFAULT


def choose_format(accept: str | None) -> Format:
    """The preferred media type by q-values; HTML for `*/*`."""
    accepted = parse_accept_header((accept or "")[:MAX_HEADER], MIMEAccept)
    return Format(accepted.best_match(_FORMATS, Format.HTML))
