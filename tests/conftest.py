"""How all tests run, and what every folder may need: the command line in process, and the block log's schema."""

import json
import os
import signal
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

# Else each of the processes that tests start would compile all of tokgate, and each of ours all tests.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Takes jsonschema over a second to import, for formats of which no schema of ours has any: iri and iri-reference.
sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]

import pytest
from hypothesis import HealthCheck, settings
from jsonschema import Draft202012Validator

from labs.command_line import POLICY, Command, Outcome
from labs.json_outputs import check_output
from labs.lab_fixtures import any_gateway, lab, namespace, origin, requirements, resolver
from tokgate.blocklog.records.log_schema import log_schema
from tokgate.cli.main import main

__all__ = ["any_gateway", "lab", "namespace", "origin", "requirements", "resolver"]

Record = dict[str, Any]

# How long an example takes says more about what else the machine does than about us.
settings.register_profile("tokgate", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tokgate")

# A shell starts what goes to the background with SIGINT ignored, and the processes that tests interrupt inherit it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home folder for all that tests start: nothing in ~/.tokgate or the configuration of who runs them counts."""
    folder = tmp_path_factory.mktemp("home")
    os.environ |= {"HOME": str(folder), "TOKGATE_CONF": os.devnull}
    for name in ("TOKGATE_POLICIES", "TOKGATE_LOG", "TOKGATE_CONFDIR"):
        os.environ.pop(name, None)
    return folder


LABORATORY = ("e2e", "drills")
"""The folders whose tests need root, network namespaces and system packages."""
LONG = (*LABORATORY, "evasion", "service")
"""The folders whose files run for minutes: they begin first, so that short ones fill what is left at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs a laboratory, and put the longest files first."""
    for item in items:
        if _folder(item) in LABORATORY:
            item.add_marker(pytest.mark.e2e)
    items.sort(key=lambda item: _folder(item) not in LONG)


def _folder(item: pytest.Item) -> str:
    return item.nodeid.split("/", 2)[1]


@cache
def _validator(action: str) -> Draft202012Validator:
    """The block log's schema for one action: its conditions, all about that, take most of the time of a line."""
    met, schema = [], log_schema()
    for each in schema["allOf"]:
        actions = each["if"]["properties"]["event"]["properties"]["action"]["enum"]
        of_action = {"properties": {"action": {"enum": actions}}, "required": ["action"]}
        assert each.keys() == {"if", "then"}
        assert each["if"] == {"properties": {"event": of_action}}
        met += [each["then"]] if action in actions else []
    return Draft202012Validator(schema | {"allOf": met}, format_checker=Draft202012Validator.FORMAT_CHECKER)


def _valid(record: Record) -> Record:
    validator = _validator(record.get("event", {}).get("action", ""))
    errors = [f"{error.json_path}: {error.message}" for error in validator.iter_errors(record)]
    assert not errors, f"off schema: {errors}\n{json.dumps(record, indent=1)}"
    return record


@pytest.fixture(scope="session")
def valid_record() -> Callable[[Record], Record]:
    return _valid


@pytest.fixture(scope="session")
def check_lines() -> Callable[..., list[Record]]:
    """Checks every line of log files against the schema and returns their records in order; nothing may be torn.

    With `recovered` a line may be of which the next record says so: its writer was killed within it.
    """

    def check(*paths: Path, recovered: bool = False) -> list[Record]:
        records = []
        for path in paths:
            text = path.read_bytes()
            assert not text or text.endswith(b"\n"), f"{path} ends in a torn line"
            lines = text.splitlines()
            said = [recovered and b'"action":"log-recovered"' in line for line in lines[1:]]
            whole = [line for line, torn in zip(lines, [*said, False], strict=True) if not torn] if lines else []
            records += [_valid(json.loads(line)) for line in whole]
        return records

    return check


@pytest.fixture
def policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `policies` in a working directory of its own, so that origins read `policies/policy.yaml`."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "policy.yaml").write_text(POLICY)
    return folder


@pytest.fixture
def tokgate(capsys: pytest.CaptureFixture[str]) -> Command:
    """Run a command in process; what it prints as JSON is checked against the schema of that output."""

    def run(*arguments: str) -> Outcome:
        capsys.readouterr()
        code = main(arguments)
        captured = capsys.readouterr()
        outcome = Outcome(code, captured.out, captured.err)
        check_output(arguments, outcome)
        return outcome

    return run
