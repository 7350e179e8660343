"""Answers to what can't be passed on, in the place of mitmproxy's, which show its version and repeat all that came."""
# mypy: disallow-untyped-calls=False

import re
from typing import Final
from weakref import WeakSet

from mitmproxy.connection import Connection
from mitmproxy.http import Headers, Request, Response
from mitmproxy.proxy.layers.http._events import ErrorCode, ResponseProtocolError

from tokgate.block_page.render import Failure, compose_failure

_WORDS: Final = (
    (re.compile(r"mitmproxy received an HTTP CONNECT.*"), "CONNECT was sent to a website"),
    (re.compile(r", refusing to prevent request smuggling.*"), ""),
    (re.compile(r"The remote server and mitmproxy.*"), "the website speaks no version of TLS that is still supported"),
    (re.compile(r"unexpected server response.*"), "the head of its answer came in part, or is longer than 256 KiB"),
    (re.compile(r":? ([(\[{]|bytearray\()*(b['\"]|(?<=: )['\"]).*"), ""),
)
"""What mitmproxy says to who runs it, and what is told instead: nothing of what was received."""
_SERVER_ERROR: Final = 500
CLIENT_CERTIFICATE: Final = (
    "the website asks for a certificate of the client, which can't be shown through a connection that is opened"
)
WANT_CERTIFICATES: Final[WeakSet[Connection]] = WeakSet()
"""Connections to servers that have refused them for that."""


class FailedExchange(ResponseProtocolError):
    """An error as mitmproxy has it, with the response that tells the client."""

    def __init__(self, error: ResponseProtocolError, response: Response) -> None:
        super().__init__(error.stream_id, error.message, error.code)
        self.response: Final = response


def told(error: ResponseProtocolError, request: Request | None, reference: str) -> ResponseProtocolError:
    """The error with a response that says what was wrong; the error itself where mitmproxy just ends the exchange."""
    status = error.code.http_status_code()
    if status is None:
        return error
    kind = "unreachable" if error.code is ErrorCode.CONNECT_FAILED else "client" if status < _SERVER_ERROR else "answer"
    return FailedExchange(error, failure(kind, status, error.message, reference, request))


def failure(kind: str, status: int, problem: str, reference: str, request: Request | None = None) -> Response:
    """The response to what can't be passed on: `kind` as in `block_page.render.Failure`."""
    for pattern, words in _WORDS:
        problem = pattern.sub(words, problem)
    headers = Headers() if request is None else request.headers
    accept, languages = headers.get("accept"), headers.get("accept-language")
    page = compose_failure(Failure(kind, status, problem, reference), accept=accept, accept_language=languages)
    return Response.make(page.status, page.body, dict(page.headers))
