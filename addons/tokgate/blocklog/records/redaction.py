"""Removes addresses and host names from the text of errors. No I/O."""

import re
from typing import Final

from tokgate.policy.values.hostname import parse_address
from tokgate.policy.values.registered_domain import domain_parts

_WORD: Final = re.compile(r"(?<![\w./-])[\w:.-]*[\w:](?:%[\w.-]+)?(?![\w/-])")
"""A word that could be an address or a host name, and no part of a path."""


def impersonal(text: str) -> str:
    """`[Errno 113] No route to host: ('192.0.2.7', 443)` becomes `… ('(address)', 443)`."""
    return _WORD.sub(lambda found: _instead(found[0]), text)


def impersonal_trace(trace: str) -> str:
    """`impersonal` for the unindented lines of a traceback: the exceptions' messages, not the source lines."""
    return "\n".join(line if line[:1].isspace() else impersonal(line) for line in trace.split("\n"))


def _instead(word: str) -> str:
    host, colon, port = word.rpartition(":")
    for bare, rest in ((word, ""), (host, colon + port) if port.isdigit() else (word, "")):
        if parse_address(bare.partition("%")[0]) is not None:
            return "(address)" + rest
        if "." in bare and ":" not in bare and domain_parts(bare.lower()).registered_domain is not None:
            return "(name)" + rest
    return word
