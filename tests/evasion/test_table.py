"""The table of attempts: what is stopped, what passes and is documented, what is logged, and what must not break."""

from collections.abc import Callable

import pytest

from evasion.rows import http, proxies, tls
from evasion.runner import Outcome, Runner
from evasion.servers import Server
from evasion.table import Case, cases
from tokgate.evasion.attempt import Limit

pytestmark = pytest.mark.timeout(900)  # the first test waits for all cases
ROWS = [*tls.rows(), *http.rows(), *proxies.rows()]
CASES = list(cases(ROWS))


def problems(case: Case, outcome: Outcome) -> list[str]:
    """What is not as the row says."""
    row, found = case.row, []
    said = f"{outcome.answer.result}: {outcome.answer.detail}"
    if not row.counted and outcome.served:
        found.append(f"it passed, undocumented ({said})")
    if row.attempt.limit is Limit.OTHER_BYTES and outcome.served and case.server is not Server.RECORDER:
        found.append(f"it is carried unread, and {case.server} takes it for the banned name ({said})")
    if row.counted and row.certain and not outcome.served:
        found.append(f"it is said to pass, and does not ({said})")
    refusals = [record for record in outcome.records if "denied" in record["event"]["type"]]
    recorded = row.recorded and not row.counted and case.server is row.server  # others may end it by themselves
    if recorded and not refusals:
        found.append(f"no record of it ({said})")
    accused = {record["event"]["action"] != "unreadable-refused" for record in refusals}
    if recorded and accused - {not row.unreadable}:
        found.append("it is recorded as refused under a ban" if row.unreadable else "the ban is not in its record")
    if not outcome.twin_served:
        found.append(f"its twin ({row.twin}) was not served ({outcome.twin.result}: {outcome.twin.detail})")
    return found


@pytest.mark.usefixtures("available")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_attempt(runner: Runner, case: Case) -> None:
    """The attempt is stopped and leaves its record, or passes as documented; its twin is served."""
    assert problems(case, runner.outcomes[case]) == []


def test_what_passes_is_counted(runner: Runner) -> None:
    """What passes by its address, without a name or with another one shows in coverage."""
    for key, running in runner.running.items():
        counted = running.coverage()
        passed = [
            case.row.counted
            for case, outcome in runner.outcomes.items()
            if case.key == key and case.row.counted and outcome.served
        ]
        assert {seen: passed.count(seen) for seen in set(passed) if passed.count(seen) > counted.get(seen, 0)} == {}, (
            key
        )


def test_nothing_broke(runner: Runner, check_lines: Callable[..., object]) -> None:
    """What carried the attempts ended in order, wrote what its schema has, and none of them made it raise."""
    for key, running in runner.running.items():
        check_lines(running.log)
        told = running.narrated()
        assert "Traceback" not in told, (key, told)
        assert "crashed" not in told, (key, told)
        assert [r for r in running.records() if r["event"]["action"] == "internal-error"] == [], key
