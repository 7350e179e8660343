"""Tells whether a connection begins with an HTTP/1 request, from its first line (RFC 9112 §3)."""

from __future__ import annotations

import re
from typing import Final

MAX_REQUEST_LINE: Final = 65536
"""Octets within which the line has to end."""

# RFC 9112 §2.2: empty lines before the request line are to be ignored. A method is a token (RFC 9110 §5.6.2).
_REQUEST_LINE: Final = re.compile(rb"(?:\r?\n)*[!#$%&'*+.^_`|~0-9A-Za-z-]+ [^\r\n]+ HTTP/[0-9]\.[0-9]\r?\n")
_SO_FAR: Final = re.compile(rb"(?:\r?\n)*\r?[!#$%&'*+.^_`|~0-9A-Za-z-]{0,32}(?: [^\r\n]*\r?)?\Z")


def looks_like_http(data: bytes) -> bool | None:
    """Whether `data` begins with an HTTP/1 request line; None while that can't be told yet."""
    if _REQUEST_LINE.match(data):
        return True
    return None if len(data) < MAX_REQUEST_LINE and _SO_FAR.match(data) else False
