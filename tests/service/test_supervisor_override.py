"""Overrides and reminders in running processes: a change of the folder is all it takes, and each thing is told once."""

from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from whenever import Instant

from labs.command_line import Command
from labs.running_lab import POLICY, Running, until


@pytest.mark.parametrize("mode", ["regular", "gate:explicit"])
def test_override_and_reminder(
    mode: str, tmp_path: Path, tokgate: Command, check_lines: Callable[..., list[dict[str, Any]]]
) -> None:
    """An override is followed from the folder alone, also across a restart; the reminder comes once."""
    starts, expires = (Instant.now().add(hours=hours).format_iso(unit="second") for hours in (-48, 12))
    brief = POLICY["bans"]["ban"] | {"title": "Brief", "starts": starts, "expires": expires}
    policy = POLICY | {"bans": POLICY["bans"] | {"brief": brief}}

    def told(action: str, number: int = 1) -> list[dict[str, Any]]:
        def found() -> list[dict[str, Any]]:
            records = running.records() if running.log.exists() else []
            return [record for record in records if record["event"]["action"] == action]

        return until(f"{action} is told", lambda: found()[:number] if len(found()) >= number else None)

    with closing(Running(tmp_path, 1, ("--mode", f"{mode}@127.0.0.1:0"), policy=policy)) as running:
        (reminder,) = told("ban-near-expiry")
        assert reminder["tokgate"]["ban"] == "brief"
        words = ["--ban", "ban", "--client", "127.0.0.7", "--for", "1h", "--reason", "x", "--by", "alice"]
        name = tokgate("override", "add", *words, "--policies", str(running.policies)).out.strip()
        (begun,) = told("override-started")
        assert (begun["tokgate"]["exemption"], begun["user"]["name"]) == (name, "alice")
    running.start({})
    with closing(running):
        told("started", 2)
        tokgate("override", "end", name, "--by", "bob", "--policies", str(running.policies))
        (ended,) = told("override-ended")
        assert (ended["user"]["name"], ended["event"]["reason"]) == ("bob", "ended early")
    actions = [record["event"]["action"] for record in check_lines(running.log)]
    assert (actions.count("override-started"), actions.count("ban-near-expiry")) == (1, 1)
