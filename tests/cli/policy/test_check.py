"""Check: what it shows of errors, warnings, failed tests and ends, and the exit code of each."""

import os
from itertools import pairwise
from pathlib import Path

import pytest

from labs.command_line import POLICY, Command
from tokgate.config.diagnostics import Code

THEN = ("--at", "2023-05-02T08:00Z")


def test_errors(policies: Path, tokgate: Command) -> None:
    """Tests have to wait for a policy without errors, and that is told."""
    (policies / "policy.yaml").write_text(POLICY.replace("services: [clips]", "services: [clipz]"))
    outcome = tokgate("check", *THEN)
    assert (outcome.code, "tests are run once there are no errors" in outcome.err) == (1, True)


@pytest.mark.parametrize("invisible", ["\u200b", "\u200e", "\u061c", "\u2060", "\u00ad"])
def test_an_invisible_character_is_pointed_at(policies: Path, tokgate: Command, invisible: str) -> None:
    """A name with a character that can't be seen looks right: message and source show it, the caret still fits."""
    (policies / "policy.yaml").write_text(POLICY.replace("services: [clips]", f"services: [{invisible}clips]"))
    out = tokgate("check", *THEN).out
    code = invisible.encode("unicode_escape").decode()
    assert invisible not in out
    assert f"`{code}clips`" in out
    source, caret = next(pair for pair in pairwise(out.splitlines()) if "^" in pair[1] and code in pair[0])
    assert source[caret.index("^") :].startswith(f"{code}clips")


@pytest.mark.parametrize(
    ("at", "until", "more", "listed"),
    [
        ("2023-05-31T15:59Z", "2023-06-30T18:00", "", False),
        ("2023-05-31T16:00Z", "2023-06-30T18:00", "", True),
        ("2023-06-30T15:59Z", "2023-06-30T18:00", "", True),
        ("2023-06-30T16:00Z", "2023-06-30T18:00", "", False),
        ("2023-08-30T00:00Z", "2023-09-20T18:00", "", False),
        ("2023-06-10T00:00Z", "2023-06-30T18:00", "    starts: 2023-06-20T08:00\n", False),
        ("2023-06-30T09:00Z", "2023-06-30T18:00", "    starts: 2023-06-30T08:00\n    override: true\n", False),
    ],
    ids=["early", "30-days", "last-minute", "over", "after-its-ban", "not-begun", "override"],
)
def test_exemptions_near_their_end(
    policies: Path, tokgate: Command, at: str, until: str, more: str, listed: bool
) -> None:
    """Those in force whose end somebody has to think of: not overrides, nor those whose ban ends before."""
    text = POLICY.replace("    until: 2023-06-30T18:00\n", f"    until: {until}\n{more}")
    (policies / "policy.yaml").write_text(text)
    assert ("[exemption-ends]" in tokgate("check", "--at", at).out) is listed


@pytest.mark.parametrize(
    ("reminders", "listed"),
    [("[P7D, P1D]", []), ("[P2M, P1D]", ["ban", "exemption"]), ("[P7D, P30D]", ["ban", "exemption"]), ("[]", [])],
)
def test_as_far_ahead_as_the_longest_reminder(
    policies: Path, tokgate: Command, reminders: str, listed: list[str]
) -> None:
    """What is told ahead of an end is told by check as well; who wants no reminders gets none."""
    for end, at in (("ban", "2023-08-20T00:00Z"), ("exemption", "2023-06-10T00:00Z")):
        (policies / "settings.yaml").write_text(f"settings: {{reminders: {reminders}}}")
        assert (f"[{end}-ends]" in tokgate("check", "--at", at).out) is (end in listed)


def test_warnings_count_when_strict(policies: Path, tokgate: Command) -> None:
    """A ban that is over is a warning: exit code 0, and 1 with --strict."""
    assert " 0 errors, 0 warnings" not in tokgate("check", "--at", "2024-01-01T00:00Z").out
    assert tokgate("check", "--at", "2024-01-01T00:00Z").code == 0
    assert tokgate("check", "--strict", "--at", "2024-01-01T00:00Z").code == 1


def test_a_folder_that_is_not_there(policies: Path, tokgate: Command) -> None:
    """It is a finding like any other."""
    outcome = tokgate("check", "nowhere")
    assert outcome.code == 1
    assert "nowhere" in outcome.out


def test_free_addresses_are_no_way_out_where_unknown_clients_are_refused(policies: Path, tokgate: Command) -> None:
    """Who refuses clients of no network is not warned of addresses that they may choose."""
    text = "services: {clips: {names: {suffix: [clips.example.org]}}}\nnetworks: {kiosk: {cidrs: [192.0.2.7]}}\n"
    text += "bans: {clips: {title: No clips, services: [clips], networks: [kiosk], starts: 2023-03-10}}\n"
    (policies / "policy.yaml").write_text(text)
    assert "[free-addresses]" in tokgate("check", "--at", "2023-05-01T00:00Z").out
    (policies / "settings.yaml").write_text("settings: {unknown_clients: block}\n")
    assert "[free-addresses]" not in tokgate("check", "--at", "2023-05-01T00:00Z").out


DATA = Path(__file__).parent / "data" / "check"
CASES = sorted(path for path in DATA.rglob("*.yaml"))
SUFFIX = {"text": ".txt", "json": ".json"}
"""Exact output of policies with and without findings; TOKGATE_GOLDEN=write makes it anew: read the difference. What
loading alone finds has its golden files in tests/config/data."""


@pytest.mark.parametrize("way", SUFFIX)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.parent.name}/{case.stem}")
def test_output(case: Path, way: str, tokgate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each policy gives exactly the output that stands beside it, in each format, without what differs by machine."""
    monkeypatch.chdir(case.parent)
    outcome = tokgate("check", case.name, "--at", "2023-05-01T00:00Z", *(("--json",) if way == "json" else ()))
    assert outcome.code == (1 if case.parent.name == "err" else 0)
    found, golden = outcome.out, case.with_suffix(SUFFIX[way])
    if os.environ.get("TOKGATE_GOLDEN") == "write":
        golden.write_text(found)
    assert found == golden.read_text()


def test_what_only_check_finds_is_reached() -> None:
    """Each diagnostic that loading does not make stands in some golden file."""
    seen = "".join(path.read_text() for path in DATA.rglob("*.txt"))
    only_check = (
        Code.BAN_ENDS,
        Code.FREE_ADDRESSES,
        Code.ONE_FAMILY,
        Code.EXEMPTION_ENDS,
        Code.TEST_FAILED,
    )
    for code in only_check:
        assert f"[{code}]" in seen
    assert "it is held, and overdue [ban-over]" in seen
