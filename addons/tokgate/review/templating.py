"""Templates of HTML: whatever they show is escaped as markup, and as `clean` escapes it for a terminal.

A line that somebody forged, or that another program wrote, may hold characters that turn the order of letters round.
"""

from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from tokgate.blocklog.document import clean

_LONGEST_ESCAPE: Final = len(r"\U0001f600")


def visible(text: str) -> str:
    """A text as it is, with unprintable characters escaped; nothing is cut."""
    return clean(text, _LONGEST_ESCAPE * len(text))


def environment(package: str) -> Environment:
    """The templates of a package. Values that have to stay exact, as those of a form's fields, go through `| e`."""
    made = Environment(
        loader=PackageLoader(package, "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["number"] = lambda value: Markup(f"{int(value):,}".replace(",", "\u202f"))
    return made


def _shown(value: Any) -> Any:
    return visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value
