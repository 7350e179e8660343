"""Which of the page's languages and formats a client prefers (RFC 9110 §12)."""

from enum import StrEnum
from typing import Final

from werkzeug.datastructures import LanguageAccept, MIMEAccept
from werkzeug.http import parse_accept_header

from tokgate.proxy.strings import DEFAULT, STRINGS


class Format(StrEnum):
    """What the page can be written in."""

    HTML = "text/html"
    PROBLEM = "application/problem+json"
    JSON = "application/json"
    TEXT = "text/plain"


_FORMATS: Final = tuple(Format)
MAX_HEADER: Final = 1024
"""Characters of a header that are looked at."""


def choose_language(accept_language: str | None) -> str:
    """The language that is liked best: by q-values, `fr-BE` means French, what is refused with `q=0` is avoided."""
    accepted = parse_accept_header((accept_language or "")[:MAX_HEADER], LanguageAccept)
    return accepted.best_match(STRINGS, DEFAULT) or DEFAULT


def choose_format(accept: str | None) -> Format:
    """The format that is liked best; HTML for those who take anything."""
    accepted = parse_accept_header((accept or "")[:MAX_HEADER], MIMEAccept)
    return Format(accepted.best_match(_FORMATS, Format.HTML))
