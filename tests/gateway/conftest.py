"""Fixtures of the gateway's tests: the lab for rulesets, which a module shares."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from labs.netns import Namespace
from labs.requirements import require
from labs.ruleset_lab import TPROXY, Host, Lab, built


@pytest.fixture(scope="module")
def module_lab() -> Iterator[Lab]:
    """The namespaces of a module."""
    require("root", "nft", "ip")
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
