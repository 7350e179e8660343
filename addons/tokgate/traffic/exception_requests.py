"""The folder of requests for exceptions: a file of JSON for each, beside the log, which all processes share.

Openers write them; `tokgate override approve` and `decline` answer them. Nothing is granted by a request. The files
alone count: limits are compared with what they say, under the folder's lock.
"""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter
from whenever import Instant, TimeDelta

from tokgate.blocklog.atomic_file import locked, replacing, take_rights
from tokgate.blocklog.records.record import instant_in
from tokgate.blocklog.records.requests import ExceptionRequest, RequestState
from tokgate.policy.membership import folded
from tokgate.traffic.limits import client_key

MAX_WHY: Final = 500
"""Characters of a reason."""
MAX_PENDING: Final = 200
"""Requests of all clients that wait for an answer: people have to read them."""
MAX_KEPT: Final = 1000
PER_HOUR: Final = 5
"""Requests of one user, or of one client where nobody signed in."""
KEPT_FOR: Final = TimeDelta(hours=24 * 30)
"""After that a request is deleted, answered or not. The log keeps that it was made."""
_FRESH_FOR: Final = 1.0
"""Seconds for which a page shows what was read last."""
_FOLDER_MODE: Final = 0o700
_MODE: Final = 0o600
_adapter: Final = TypeAdapter(ExceptionRequest)


class NotTaken(StrEnum):
    """Why a request is not taken."""

    TOO_OFTEN = "too-often"
    TOO_MANY = "too-many"


class AlreadyAnswered(Exception):
    """A request was approved or declined before."""


class RequestFolder:
    """The requests in a folder, which is made with the first of them."""

    def __init__(self, folder: Path) -> None:
        """Nothing is read yet."""
        self.folder: Final = folder
        self._read_at = float("-inf")
        self._state: int | None = None
        """When the folder was changed last, if it had been left alone for a while when it was read."""
        self._requests: dict[str, ExceptionRequest] = {}

    def all(self) -> dict[str, ExceptionRequest]:
        """Every request by its id, oldest first. Files that hold none are passed over. Raises OSError."""
        began, found, state = time.monotonic(), dict[str, ExceptionRequest](), None
        with suppress(FileNotFoundError):
            changed = self.folder.stat().st_mtime_ns
            if changed == self._state:  # files are replaced and deleted, which changes it; none is edited in place
                return self._requests
            state = changed if changed + _FRESH_FOR * 1e9 < time.time_ns() else None
            paths = sorted(self.folder.iterdir())
            for path in (each for each in paths if each.suffix == ".json" and not each.name.startswith(".")):
                with suppress(FileNotFoundError, ValueError):  # deleted just now, or another hand's
                    request = _adapter.validate_json(path.read_bytes())
                    if request["id"] == path.stem and instant_in(request["at"]) is not None:
                        found[path.stem] = request
        self._requests, self._read_at, self._state = found, began, state
        return found

    def latest(self, client: str, user: str | None, ban: str) -> ExceptionRequest | None:
        """The last request of a person under a ban, as it was a second ago at most. Raises OSError."""
        if time.monotonic() - self._read_at > _FRESH_FOR:
            self.all()
        theirs = [each for each in self._requests.values() if each["ban"] == ban and _is_of(each, client, user)]
        return theirs[-1] if theirs else None

    def add(self, request: ExceptionRequest) -> ExceptionRequest | NotTaken:
        """Keep a request; the one that is pending if this person has one under this ban. Raises OSError."""
        client, user, at = request["client"], request["user"], Instant.parse_iso(request["at"])
        self.folder.mkdir(_FOLDER_MODE, exist_ok=True)
        with locked(self.folder):
            self._prune(at)
            known = self.all().values()
            pending = [each for each in known if each["state"] == RequestState.PENDING]
            for each in pending:
                if each["ban"] == request["ban"] and _is_of(each, client, user):
                    return each
            theirs = [each for each in known if _is_of(each, client, user, client_key)]
            if sum(at - TimeDelta(hours=1) < Instant.parse_iso(each["at"]) <= at for each in theirs) >= PER_HOUR:
                return NotTaken.TOO_OFTEN
            if len(pending) >= MAX_PENDING:
                return NotTaken.TOO_MANY
            self._write(request)
            self.all()
        return request

    def answer(self, name: str, **said: Any) -> ExceptionRequest:
        """Write the answer to a pending request. Raises KeyError, AlreadyAnswered, OSError."""
        with locked(self.folder):
            request = self.all()[name]
            if request["state"] != RequestState.PENDING:
                raise AlreadyAnswered(request["state"])
            answered = ExceptionRequest(**{**request, **said})  # type: ignore[typeddict-item]
            self._write(answered)
        return answered

    def _prune(self, now: Instant) -> None:
        """Delete what is old, and of many those that were answered, the oldest first."""
        requests = list(self.all().values())
        answered = [each for each in requests if each["state"] != RequestState.PENDING]
        many = answered[: max(0, len(requests) - MAX_KEPT)]
        for each in requests:
            if each in many or Instant.parse_iso(each["at"]) + KEPT_FOR < now:
                (self.folder / f"{each['id']}.json").unlink(missing_ok=True)

    def _write(self, request: ExceptionRequest) -> None:
        path = self.folder / f"{request['id']}.json"
        with replacing(path, _MODE) as draft:
            draft.write_text(json.dumps(request, ensure_ascii=False, indent=1) + "\n", "utf-8")
            take_rights(draft, path.stat() if path.exists() else draft.stat())


def _is_of(request: ExceptionRequest, client: str, user: str | None, key: Callable[[str], str] = str) -> bool:
    """Whether it is of the user who signed in, else of the client by its `key`."""
    if user is not None or request["user"] is not None:
        return folded(user or "") == folded(request["user"] or "")
    return key(request["client"]) == key(client)
