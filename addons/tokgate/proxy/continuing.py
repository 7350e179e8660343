"""The warning page's button: where it leads, what it sends, and how it is told from what others might send.

The token is an HMAC over who is warned, of which ban, where, and until when the button is good: another site can't make
it, nor read it from the page, so that it can't make a browser continue.
"""

import hmac
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs

from mitmproxy.http import Request
from whenever import Instant, TimeDelta

from tokgate.gate.warned import Person

PATH: Final = "/.tokgate/continue"
"""Of every origin that a warning is shown for; taken out of its hands only while the warning is."""
GOOD_FOR: Final = TimeDelta(hours=1)
"""How long the button of a page that was left open works; after it, the page is shown anew."""
MAX_TARGET: Final = 8192
_TOKEN: Final = re.compile(r"([0-9]{1,12})-([0-9a-f]{64})")
_TARGET: Final = re.compile(r"/[!-~]*")


@dataclass(frozen=True, slots=True)
class Button:
    """What a button is for: this person continues past this ban's warning to a URL of this authority."""

    who: Person
    ban: str
    authority: str
    target: str
    """The path and query of the URL that was asked for."""

    def token(self, key: bytes, at: Instant) -> str:
        """What the form sends along; good for a while from `at` on."""
        end = (at + GOOD_FOR).timestamp()
        return f"{end}-{self._digest(key, end)}"

    def made(self, token: str, key: bytes, at: Instant) -> bool:
        """Whether a token was made for this and is still good."""
        found = _TOKEN.fullmatch(token)
        if found is None or not at.timestamp() < int(found[1]) <= (at + GOOD_FOR).timestamp():
            return False
        return hmac.compare_digest(found[2], self._digest(key, int(found[1])))

    def _digest(self, key: bytes, end: int) -> str:
        said = "\0".join((self.who.text, self.ban, self.authority.lower(), self.target, str(end)))
        return hmac.digest(key, said.encode("utf-8", "backslashreplace"), "sha256").hex()


@dataclass(frozen=True, slots=True)
class Form:
    """What the form sent."""

    token: str
    target: str


def presses_button(request: Request) -> bool:
    """Whether a request is the button's, or pretends to be. Only what a form posts: no prefetch, no link."""
    return request.method == "POST" and request.path == PATH


def target_of(request: Request) -> str:
    """Where to go on to: what was asked for; the origin's root for what only the button should ask for."""
    return _checked("/" if request.path.partition("?")[0] == PATH else request.path)


def read_form(body: bytes | None) -> Form:
    """The form's fields; empty ones where it has none."""
    try:
        fields = parse_qs((body or b"").decode("ascii"), max_num_fields=4)
    except ValueError:
        return Form("", "/")
    return Form(fields.get("token", [""])[0], _checked(fields.get("target", ["/"])[0]))


def _checked(target: str) -> str:
    """A path with a query, and nothing that could end the header that it will stand in."""
    return target if len(target) <= MAX_TARGET and _TARGET.fullmatch(target) else "/"
