"""The text of errors without what tells whom they were about: addresses, and names of hosts. Pure."""

import re
from typing import Final

from tokgate.blocklog.domains import domain_parts
from tokgate.policy.names import parse_address

_WORD: Final = re.compile(r"(?<![\w./-])[\w:.-]*[\w:](?:%[\w.-]+)?(?![\w/-])")
"""What could be one: not a part of a path."""


def impersonal(text: str) -> str:
    """`[Errno 113] No route to host: ('192.0.2.7', 443)` becomes `… ('(address)', 443)`."""
    return _WORD.sub(lambda found: _instead(found[0]), text)


def impersonal_trace(trace: str) -> str:
    """The same for a trace: only what exceptions said, which stands at the margin; the program names nobody."""
    return "\n".join(line if line[:1].isspace() else impersonal(line) for line in trace.split("\n"))


def _instead(word: str) -> str:
    host, colon, port = word.rpartition(":")
    for bare, rest in ((word, ""), (host, colon + port) if port.isdigit() else (word, "")):
        if parse_address(bare.partition("%")[0]) is not None:
            return "(address)" + rest
        if "." in bare and ":" not in bare and domain_parts(bare.lower()).registered_domain is not None:
            return "(name)" + rest
    return word
