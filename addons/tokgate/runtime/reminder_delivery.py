"""A process of its own that delivers one reminder: an order on standard input, failures on standard error.

Imports the standard library alone, so that it starts at once and can be run beside anything.
"""

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import urlsplit

WEBHOOK_SECONDS: Final = 10.0
COMMAND_SECONDS: Final = 60.0
RETRY_AFTER: Final = (5.0, 30.0, 120.0)
"""Seconds between attempts at a webhook, long enough for the restart of a server."""


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Refuses redirects: a redirected POST becomes a GET without the reminder. The failure is logged."""

    def redirect_request(self, *_: Any) -> None:
        return None


def main(retry_after: Sequence[float] = RETRY_AFTER) -> int:
    """Deliver a reminder. Exit codes: 0, or 1 if a delivery failed."""
    order = json.load(sys.stdin.buffer)
    letter = json.dumps(order["letter"], ensure_ascii=False).encode()
    failures = []
    if order["command"]:
        failures.append(run(order["command"], letter))
    if order["webhook"] is not None:
        failures.append(post(order["webhook"], letter, retry_after))
    for failure in filter(None, failures):
        sys.stderr.write(f"tokgate: the reminder of the end of ban {order['letter']['ban']} was not sent: {failure}\n")
    return 1 if any(failures) else 0


def run(command: Sequence[str], letter: bytes) -> str | None:
    """Run a program with the reminder on its standard input; the error, if any."""
    try:
        program = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=sys.stderr, process_group=0)
    except OSError as error:
        return f"{command[0]}: {error.strerror or error}"
    with program:
        try:
            program.communicate(letter, COMMAND_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(program.pid, signal.SIGKILL)  # with all that it has started: a script waits for what hangs
            return f"{command[0]} did not end within {COMMAND_SECONDS:g} s"
    return None if program.returncode == 0 else f"{command[0]} ended with {program.returncode}"


def post(url: str, letter: bytes, retry_after: Sequence[float]) -> str | None:
    """Post the reminder, and retry after server errors; the error, if any.

    Errors name the host only: the rest of a webhook's URL is often a secret.
    """
    headers = {"Content-Type": "application/json", "User-Agent": "tokgate"}
    try:
        where = f"webhook at {urlsplit(url).hostname}"
        request = urllib.request.Request(url, letter, headers, method="POST")  # noqa: S310  (policies take http and https only)
    except ValueError:
        return "the webhook's address is none"
    opener = urllib.request.build_opener(_NoRedirect)
    failure = ""
    for pause in (0.0, *retry_after):
        time.sleep(pause)
        try:
            with _at_most(WEBHOOK_SECONDS), opener.open(request, timeout=WEBHOOK_SECONDS):
                return None
        except urllib.error.HTTPError as error:
            failure = f"{where} answered {error.code}"
            error.close()
            # Client errors are not retried.
            if error.code < HTTPStatus.INTERNAL_SERVER_ERROR and error.code != HTTPStatus.TOO_MANY_REQUESTS:
                break
        except urllib.error.URLError as error:
            failure = f"{where}: {error.reason}"
        except OSError as error:
            failure = f"{where}: {error}"
        except (ValueError, http.client.HTTPException) as error:  # their texts may quote the address
            failure = f"{where}: {type(error).__name__}"
    return failure


@contextlib.contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raise TimeoutError after `seconds` in all: the timeout of a socket applies to each read."""

    def give_up(*_: object) -> None:
        raise TimeoutError("timed out")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


if __name__ == "__main__":
    sys.exit(main())
