"""HTML templates. Every value is escaped as markup, and its invisible characters are shown as escapes.

A forged log line may hold characters that reverse the order in which text is displayed.
"""

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tokgate.policy.values.text import escaped


def environment(package: str) -> Environment:
    """The templates of a package. A value that must stay exact, such as a form field's, goes through `| e`."""
    made = Environment(
        loader=PackageLoader(package, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["number"] = lambda value: Markup(grouped(int(value)))  # noqa: S704  (digits)
    return made


def grouped(number: int) -> str:
    """A number with narrow no-break spaces between its thousands (ISO 80000-1): the same in every language."""
    return f"{number:,}".replace(",", "\u202f")


def _shown(value: Any) -> Any:
    return escaped(value) if isinstance(value, str) and not isinstance(value, Markup) else value
