"""Fixtures of the gateway's tests: the lab for rulesets, which a module shares."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from labs.lab_fixtures import REQUIRE
from labs.netns import Namespace
from labs.ruleset_lab import TPROXY, Host, Lab, built


@pytest.fixture(scope="module")
def module_lab() -> Iterator[Lab]:
    """The namespaces of a module."""
    if os.geteuid() != 0 or not (shutil.which("nft") and shutil.which("ip")):
        if os.environ.get(REQUIRE) == "1":
            pytest.fail("needs root, nft and ip", pytrace=False)
        pytest.skip("needs root, nft and ip")
    yield from built()


@pytest.fixture
def lab(module_lab: Lab) -> Lab:
    """The namespaces, with nothing loaded and nothing known of older connections."""
    module_lab.reset()
    module_lab.way = TPROXY
    return module_lab


@pytest.fixture
def host(namespace: Namespace, tmp_path: Path) -> Host:
    """An empty machine."""
    return Host(namespace, tmp_path)
