"""The forms of the page, to continue past a warning and to ask for an exception: their URLs, fields and token.

The token is an HMAC over the client, the ban, the URL and an expiry. Another site can't compute it, nor read it from
the page, so that it can't submit a form in a client's name (CSRF).
"""

import hmac
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qs

from whenever import Instant, TimeDelta

from tokgate.blocklog.records.record import clean
from tokgate.traffic.exception_requests import MAX_WHY
from tokgate.traffic.warning_state import Person

PATH: Final = "/.tokgate/continue"
"""The path to continue by, on every origin that a warning is shown for, while it is shown."""
REQUEST_PATH: Final = "/.tokgate/request"
"""The path to ask by, on every origin that a refusal with the form is shown for."""
GOOD_FOR: Final = TimeDelta(hours=1)
"""How long a token is valid; after that, the page is shown anew."""
MAX_TARGET: Final = 8192
_TOKEN: Final = re.compile(r"([0-9]{1,12})-([0-9a-f]{64})")
_TARGET: Final = re.compile(r"/[!-~]*")


@dataclass(frozen=True, slots=True)
class Button:
    """What a form's token is bound to: the client, the ban, and what the form is for."""

    who: Person
    ban: str
    authority: str
    target: str
    """The path and query of the URL to continue to; of a request for an exception the id of the refusal's record."""

    def token(self, key: bytes, at: Instant) -> str:
        """The token for the form, valid from `at` for GOOD_FOR."""
        end = (at + GOOD_FOR).timestamp()
        return f"{end}-{self._digest(key, end)}"

    def made(self, token: str, key: bytes, at: Instant) -> bool:
        """Whether a token was made for this button with `key` and has not expired."""
        found = _TOKEN.fullmatch(token)
        if found is None or not at.timestamp() < int(found[1]) <= (at + GOOD_FOR).timestamp():
            return False
        return hmac.compare_digest(found[2], self._digest(key, int(found[1])))

    def _digest(self, key: bytes, end: int) -> str:
        said = "\0".join((self.who.text, self.ban, self.authority.lower(), self.target, str(end)))
        return hmac.digest(key, said.encode("utf-8", "backslashreplace"), "sha256").hex()


def presses_button(method: str, path: str) -> bool:
    """Whether a request submits the form, valid or not. Only a POST does: no prefetch, no link."""
    return method == "POST" and path == PATH


def asks(method: str, path: str) -> bool:
    """Whether a request submits the form to ask for an exception, valid or not."""
    return method == "POST" and path == REQUEST_PATH


def target_of(path: str) -> str:
    """The path to continue to after a request for `path`, or `/` if it is the form's own."""
    return _checked("/" if path.partition("?")[0] == PATH else path)


def read_form(body: bytes | None) -> tuple[str, str]:
    """The token in a form's body, and the target, a path with a query; defaults for missing ones."""
    fields = _fields(body)
    return fields.get("token", ""), _checked(fields.get("target", "/"))


def read_request(body: bytes | None) -> tuple[str, str, str, str]:
    """Of the form to ask for an exception: the token, the refusal's id, why, in one line, and for how long."""
    fields = _fields(body)
    token, event, why, lasting = (fields.get(name, "") for name in ("token", "event", "why", "lasting"))
    return token, event, clean(" ".join(why.split()), MAX_WHY), lasting


def _fields(body: bytes | None) -> dict[str, str]:
    try:
        fields = parse_qs((body or b"").decode("ascii"), max_num_fields=4)
    except ValueError:
        return {}
    return {name: values[0] for name, values in fields.items()}


def _checked(target: str) -> str:
    """`target` if it is a path without characters that could end a header field, else `/`."""
    return target if len(target) <= MAX_TARGET and _TARGET.fullmatch(target) else "/"
