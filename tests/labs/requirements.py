"""What tests need of a machine: without it they skip, or fail where nothing may be missing."""

import os
import shutil

import pytest

REQUIRED = os.environ.get("TOKGATE_REQUIRE_E2E") == "1"


def lacking(*needed: str) -> str:
    """Which of these programs are not here; `root` is one that is here for root alone."""
    missing = [each for each in needed if (os.geteuid() != 0 if each == "root" else shutil.which(each) is None)]
    return f"missing here: {', '.join(missing)}" if missing else ""


def require(*needed: str) -> None:
    """Skip the test that runs, or fail it."""
    if missing := lacking(*needed):
        if REQUIRED:
            pytest.fail(missing, pytrace=False)
        pytest.skip(missing)


def needs(*needed: str) -> pytest.MarkDecorator:
    """Marks tests that skip; where nothing may be missing they run, and fail by themselves."""
    missing = lacking(*needed)
    return pytest.mark.skipif(bool(missing) and not REQUIRED, reason=missing)
