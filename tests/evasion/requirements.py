"""What tests of this folder may lack on a machine: they skip, or fail where nothing may be missing."""

import os
from typing import NoReturn

import pytest

REQUIRE = "TOKGATE_REQUIRE_E2E"


def skip_or_fail(lacking: str) -> NoReturn:
    """Skip a test for what isn't there; fail where the environment says that nothing may be missing."""
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(f"{REQUIRE}=1 and missing here: {lacking}", pytrace=False)
    pytest.skip(f"missing here: {lacking}")
