"""The audit log by itself: what each line says, and that nothing is shown that could not be recorded."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from labs.builders import at
from labs.samples import OBSERVER
from tokgate.webui.audit_log import AuditLog, NotRecorded

NOON = at("2023-03-10T12:00:00Z")
STAMP = "2023-03-10T12:00:00.000000Z"


class Kept:
    """An audit log with a file, and what it wrote."""

    def __init__(self, path: Path, **purpose: str) -> None:
        self.path = path
        self.narrated: list[str] = []
        self.log = AuditLog(OBSERVER, lambda: NOON, self.narrated.append, path, purpose)

    def entry(self) -> Any:
        (line,) = self.path.read_text().splitlines()
        return json.loads(line)


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "audit.ndjson")


def test_a_look_in_full(tmp_path: Path) -> None:
    """Who looked at what, with which filters, from where and why; only tokgate's group can read it."""
    kept = Kept(tmp_path / "audit.ndjson", why="a complaint", ticket="T-7")
    kept.log.record("alice", "192.0.2.1", "/", {"name": "bücher"})
    assert kept.narrated == [f'tokgate: {STAMP} alice at 192.0.2.1 looks at / name="bücher"']
    assert kept.entry() == {
        "@timestamp": STAMP,
        "message": "alice looked at /",
        "ecs": {"version": "9.4.0"},
        "event": {
            "kind": "event",
            "category": ["file"],
            "type": ["access"],
            "action": "log-reviewed",
            "module": "tokgate",
            "dataset": "tokgate.review",
        },
        "user": {"name": "alice"},
        "source": {"address": "192.0.2.1"},
        "observer": {"product": "tokgate", "version": OBSERVER.version, "hostname": OBSERVER.hostname},
        "tokgate": {"review": {"page": "/", "filters": {"name": "bücher"}, "why": "a complaint", "ticket": "T-7"}},
    }
    assert "bücher" in kept.path.read_text("utf-8")
    assert kept.path.stat().st_mode & 0o007 == 0


@pytest.mark.parametrize(
    ("right", "narrated", "message", "outcome"),
    [(True, "signs in", "signed in", "success"), (False, "fails to sign in", "failed to sign in", "failure")],
)
def test_a_sign_in(kept: Kept, right: bool, narrated: str, message: str, outcome: str) -> None:
    """One that succeeds and one that fails can be told apart in both places."""
    kept.log.signed_in("alice", "192.0.2.1", right=right)
    assert kept.narrated == [f"tokgate: {STAMP} alice at 192.0.2.1 {narrated}"]
    entry = kept.entry()
    assert (entry["message"], entry["event"]["outcome"]) == (f"alice {message}", outcome)
    assert "tokgate" not in entry


def test_long_values_are_cut(kept: Kept) -> None:
    """Whoever asks for a page can't fill the disk with one line."""
    kept.log.record("u" * 999, "p" * 999, "/", {"k" * 999: "v" * 999})
    user, peer, key, value = (letter * most + "…" for letter, most in (("u", 255), ("p", 63), ("k", 63), ("v", 255)))
    assert kept.narrated == [f'tokgate: {STAMP} {user} at {peer} looks at / {key}="{value}"']
    entry = kept.entry()
    assert (entry["user"]["name"], entry["source"]["address"]) == (user, peer)
    assert entry["tokgate"]["review"]["filters"] == {key: value}


def test_what_cannot_be_recorded(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a line of which only a part is written, nor one that would go through a link, counts as recorded."""
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, line: write(descriptor, line[:-1]))
    with pytest.raises(NotRecorded, match="No space left"):
        kept.log.record("alice", "192.0.2.1", "/", {})
    monkeypatch.undo()
    kept.path.rename(kept.path.with_suffix(".old"))
    kept.path.symlink_to(kept.path.with_suffix(".old"))
    with pytest.raises(NotRecorded, match="symbolic link"):
        kept.log.record("alice", "192.0.2.1", "/", {})
