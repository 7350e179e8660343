"""How tokgate starts where the policy files are wrong: with the policy that was in force last, and red."""

import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from labs.command_line import Command
from labs.running_lab import POLICY, Scraped, until

WRONG = POLICY | {"bans": {"ban": {"title": "no services"}, "other": {"services": ["clisp"]}}}


@pytest.mark.parametrize("mode", ["gate:explicit@127.0.0.1:0", "regular@127.0.0.1:0"])
def test_a_typo_and_a_reboot(
    tmp_path: Path, mode: str, tokgate: Command, check_lines: Callable[..., list[dict[str, Any]]]
) -> None:
    """It enforces as before; status, health, metrics, stderr and log name the errors; a reload is the end of it."""
    running = Scraped(tmp_path, ("--mode", mode))
    until("banned names are refused", running.refuses)
    running.close()
    version = next(each["tokgate"]["policy"]["version"] for each in running.records() if "policy" in each["tokgate"])
    running.write(WRONG)
    running.narration.unlink()

    with closing(Scraped(tmp_path, ("--mode", mode), policy=None)) as running:
        until("banned names are refused", running.refuses)
        assert running.passes()
        told = until("health is red", lambda: [each for each in running.problems() if "newest policy" in each])
        assert "policy.yaml:" in told[0]
        assert running.metric("policy_newest_in_force") == running.metric("healthy") == 0
        assert (running.metric("policy_last_reload_timestamp_seconds", result="failure") or 0) > 0
        status = tokgate("status", "--confdir", str(running.confdir), "--json")
        policy = json.loads(status.out)["policy"]
        assert (status.code, policy["version"], policy["error_since"][:2]) == (1, version, "20")
        assert policy["error_since"] in told[0]
        errors = [each.partition("error: ")[2] for each in policy["errors"]]
        assert len(errors) > 2
        seen = tokgate("status", "--confdir", str(running.confdir)).out
        assert all(each in seen and each in running.narrated() for each in errors), seen
        assert f"{version} stays in force" in running.narrated()
        running.write(POLICY)
        assert tokgate("reload", "--confdir", str(running.confdir)).code == 0
        until("all is well", lambda: running.problems() == [])
        assert running.refuses()
    records = check_lines(running.log)
    (failed,) = [each["tokgate"]["policy"] for each in records if each["event"]["action"] == "policy-load-failed"]
    assert (failed["version"], failed["errors"], len(failed["problems"])) == (version, len(errors), len(errors))
