"""Runs the cases that were selected, all at once, before the first of their tests."""

import pytest

from evasion.runner import Runner
from evasion.table import Case
from labs.gate_fixtures import monotonic, start_gate, start_origin
from labs.proxy_fixtures import records
from labs.requirements import require

__all__ = ["monotonic", "records", "start_gate", "start_origin"]


@pytest.fixture(scope="session")
def runner(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Runner:
    """All selected cases, run; what carried them has ended."""
    selected = [item.callspec.params.get("case") for item in request.session.items if hasattr(item, "callspec")]
    cases = dict.fromkeys(case for case in selected if isinstance(case, Case) and not case.server.missing)
    made = Runner(cases, tmp_path_factory.mktemp("evasion"))
    made.run()
    return made


@pytest.fixture
def available(case: Case) -> None:
    if case.server.missing:
        require(case.server.missing)
