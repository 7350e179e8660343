"""What tests of the block log leave open is closed: most runs of theirs end as if they were killed."""

from collections.abc import Iterator

import pytest

from labs.appending import kill_all
from labs.descriptors import pytest_fixture_setup, pytest_runtest_setup, pytest_runtest_teardown

__all__ = ["pytest_fixture_setup", "pytest_runtest_setup", "pytest_runtest_teardown"]


@pytest.fixture(autouse=True)
def _runs_end() -> Iterator[None]:
    """Runs end with the test."""
    yield
    kill_all()
