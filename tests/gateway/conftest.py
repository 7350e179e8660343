"""A network namespace for what is loaded into a kernel."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from labs.ruleset_lab import POLICY, Namespace

BRANCH = "  branch: {cidrs: [198.51.100.0/24]}\n"


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """An empty one, in which nothing is forwarded."""
    if os.geteuid() != 0 or not (shutil.which("nft") and shutil.which("ip")):
        if os.environ.get("TOKGATE_REQUIRE_E2E") == "1":
            pytest.fail("needs root, nft and ip", pytrace=False)
        pytest.skip("needs root, nft and ip")
    made = Namespace(f"kernel{os.getpid()}")
    try:
        yield made
    finally:
        made.remove()


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """A policy with one ban in force, of names and addresses."""
    (tmp_path / "policy.yaml").write_text(POLICY.replace("bans:", f"{BRANCH}bans:"))
    return tmp_path
