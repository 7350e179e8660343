"""The audit log: who requested which page, with which filters, and when."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from whenever import Instant

from tokgate.blocklog import access_log
from tokgate.blocklog.records.record import ECS_VERSION, Observer, clean, timestamp

_MAX_KEY: Final = 64
_MAX_VALUE: Final = 256
"""Most characters of a filter and its value, of an address and a user's name."""


class NotRecorded(Exception):
    """The audit log can't be written; the page must not be shown."""


class AuditLog:
    """The audit log: a line on standard error for each request, and one of NDJSON in a file where there is one."""

    def __init__(
        self,
        observer: Observer,
        now: Callable[[], Instant],
        narrate: Callable[[str], None],
        path: Path | None = None,
        purpose: Mapping[str, str] | None = None,
    ) -> None:
        """`purpose` is why all of them look: `why` and `ticket`. Raises OSError if the file can't be written."""
        self._observer: Final = observer
        self._now: Final = now
        self._narrate: Final = narrate
        self._path: Final = path
        self._purpose: Final = {key: clean(value) for key, value in (purpose or {}).items()}
        if path is not None:
            access_log.append(path, b"")

    def record(self, user: str, peer: str, page: str, said: Mapping[str, str]) -> None:
        """Record that a user requests a page with these filters. Raises NotRecorded."""
        shown = {clean(key, _MAX_KEY): clean(value, _MAX_VALUE) for key, value in said.items()}
        words = "".join(f" {key}={json.dumps(value, ensure_ascii=False)}" for key, value in shown.items())
        event = {"category": ["file"], "type": ["access"], "action": "log-reviewed"}
        own = {"tokgate": {"review": {"page": page, "filters": shown, **self._purpose}}}
        self._keep(user, peer, f"looks at {page}{words}", f"looked at {page}", event, own)

    def signed_in(self, user: str, peer: str, *, right: bool) -> None:
        """Record that a user signed in, or, unless `right`, failed to. Raises NotRecorded."""
        words, did, outcome = (
            ("signs in", "signed in", "success") if right else ("fails to sign in", "failed to sign in", "failure")
        )
        event = {"category": ["authentication"], "type": ["start"], "action": "review-sign-in", "outcome": outcome}
        self._keep(user, peer, words, did, event, {})

    def _keep(
        self, user: str, peer: str, words: str, did: str, event: Mapping[str, object], own: Mapping[str, object]
    ) -> None:
        """Narrate it, and write it to the file, which is opened for each line: it can be rotated at any time."""
        at, user, peer = timestamp(self._now()), clean(user, _MAX_VALUE), clean(peer, _MAX_KEY)
        self._narrate(f"tokgate: {at} {user} at {peer} {words}")
        if self._path is None:
            return
        entry = {
            "@timestamp": at,
            "message": f"{user} {did}",
            "ecs": {"version": ECS_VERSION},
            "event": {"kind": "event", **event, "module": "tokgate", "dataset": "tokgate.review"},
            "user": {"name": user},
            "source": {"address": peer},
            "observer": {"product": "tokgate", "version": self._observer.version, "hostname": self._observer.hostname},
            **own,
        }
        line = json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "backslashreplace")
        try:
            access_log.append(self._path, line + b"\n")
        except OSError as error:
            raise NotRecorded(f"this look can't be recorded: {error.strerror or error}") from error
