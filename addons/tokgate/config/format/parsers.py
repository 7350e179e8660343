"""Parsers of text, flags, paths and URLs; times and addresses have parsers of their own. Errors say what is allowed.

All raise PydanticCustomError with a `Code` as its type, so that the models can use them as validators.
"""

import re
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic_core import PydanticCustomError

from tokgate.config.diagnostics import Code
from tokgate.config.extras import Extra, missing_extra

_SHOWN: Final = 60
"""Letters of a value that a message repeats."""
_LONGEST_LINE: Final = 1000
_JOINERS: Final = dict.fromkeys((0xA0, 0x202F, 0x200C, 0x200D))
"""No-break spaces and joiners, which languages need although Python counts them as unprintable."""


def wrong(code: Code, message: str) -> PydanticCustomError:
    """An error for pydantic to raise; `message` is not a template."""
    return PydanticCustomError(code.value, "{message}", {"message": message})


def need_extra(extra: Extra, module: str, what: str) -> None:
    missing = missing_extra(extra, module)
    if missing is not None:
        raise wrong(Code.MISSING_EXTRA, f"{what} need an extra; {missing}")


def text(value: Any) -> str:
    """Text that holds more than white space, unchanged."""
    if not isinstance(value, str):
        kind = "nothing" if value is None else "a list" if isinstance(value, list) else "a mapping"
        raise wrong(Code.WRONG_TYPE, f"must be text, not {kind}")
    if not value.strip():
        raise wrong(Code.BAD_VALUE, "must not be empty")
    return value


def one_line(value: Any) -> str:
    """Text without line breaks, since it is shown in tables and headers."""
    line = text(value).strip()
    if not line.translate(_JOINERS).isprintable():
        raise wrong(Code.BAD_VALUE, "must be one line of printable text")
    if len(line) > _LONGEST_LINE:
        raise wrong(Code.BAD_VALUE, f"must be at most {_LONGEST_LINE} characters")
    return line


def link(value: Any) -> str:
    """An http or https URL, which the block page may link to."""
    line = one_line(value)
    try:
        has_host = bool(urlsplit(line).hostname)
    except ValueError:  # such as an unclosed bracket
        has_host = False
    if not has_host or not re.match(r"https?://[^\s/]", line) or " " in line:
        raise wrong(Code.BAD_VALUE, f"`{line}` is no web address: `https://…`")
    return line


def flag(value: Any) -> bool:
    """`true` or `false`, as in YAML 1.2."""
    if value in ("true", "True", "TRUE"):
        return True
    if value in ("false", "False", "FALSE"):
        return False
    raise wrong(Code.BAD_VALUE, f"must be `true` or `false`, not {shown(value)}")


def file_as_list(value: Any) -> Any:
    """A mapping, which names one file, as a list of it."""
    return [value] if isinstance(value, dict) else value


def as_list(value: Any) -> Any:
    """A list of one item for a single value, for keys that take one or a list."""
    return value if isinstance(value, list) else [value]


def number_of(what: str, first: int, last: int) -> Callable[[Any], int]:
    """A parser of whole numbers from `first` to `last`, in decimal digits; `what` they count, for the message."""

    def number(value: Any) -> int:
        written = text(value)
        if not re.fullmatch("0|[1-9][0-9]{0,8}", written) or not first <= int(written) <= last:
            raise wrong(Code.BAD_VALUE, f"must be a number of {what} from {first} to {last}, not {shown(written)}")
        return int(written)

    return number


def whole_path(value: Any) -> str:
    """An absolute path, so that the working directory makes no difference."""
    written = one_line(value)
    if not written.startswith("/"):
        raise wrong(Code.BAD_VALUE, f"`{written}` must be a whole path: `/etc/tokgate/…`")
    return written


def inventory(value: Any) -> str:
    """The path of a CSV file, relative to the policy file that names it."""
    written = one_line(value)
    if not written.casefold().endswith(".csv"):
        raise wrong(Code.BAD_VALUE, f"`{written}` must be a CSV file: `devices.csv`")
    return written


def directory_url(value: Any) -> str:
    """The URL of an LDAP directory: scheme, host and port."""
    written = one_line(value)
    try:
        url = urlsplit(written)
        whole = url.hostname is not None and written == f"{url.scheme}://{url.netloc}" and url.port != 0
    except ValueError:
        url, whole = urlsplit(""), False
    if url.scheme not in ("ldap", "ldaps") or not whole or "@" in url.netloc:
        raise wrong(Code.BAD_VALUE, f"`{written}` is no directory; write it as `ldaps://ldap.example.org`")
    return written


def outlet(value: Any) -> str:
    """Where checkpoints of the log are sent: `journald`, `syslog` or `syslog://host:port`."""
    written = one_line(value)
    try:
        url = urlsplit(written)
        port = url.port or 514
    except ValueError:
        url, port = urlsplit(""), 0
    remote = url.scheme == "syslog" and url.hostname and written == f"syslog://{url.netloc}" and "@" not in url.netloc
    if written not in ("journald", "syslog") and not (remote and port):
        raise wrong(Code.BAD_VALUE, f"`{written}` is none of `journald`, `syslog`, `syslog://host:port`")
    return written


def shown(value: Any) -> str:
    if isinstance(value, str):
        return f"`{value if len(value) <= _SHOWN else value[: _SHOWN - 3] + '...'}`"
    return "nothing" if value is None else "a list" if isinstance(value, list) else "a mapping"
