"""Fixtures of the laboratory of end-to-end tests and drills: what it needs, four namespaces, an origin, gateways."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from labs import netns as lab_netns
from labs.gateway import Gateway, MakeGateway
from labs.netns import Namespace
from labs.origin import Origin
from labs.requirements import require
from labs.resolver import Upstream, resolver_in

TOOLS = ("ip", "ss", "sysctl", "nft", "curl", "openssl", "nginx", "chromium", "certutil")


@pytest.fixture(scope="session")
def requirements() -> None:
    """All that the laboratory is built of."""
    require("root", *TOOLS)


@pytest.fixture(scope="session")
def lab(requirements: None) -> Iterator[lab_netns.Lab]:
    """Client, guest, gateway and origin networks, removed at the end whatever happens."""
    lab_netns.sweep()
    built = lab_netns.Lab(os.getpid())
    try:
        built.up()
        yield built
    finally:
        built.down()


@pytest.fixture(scope="session")
def origin(lab: lab_netns.Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Origin]:
    """The servers that the clients want to reach, and the counters of what arrives there."""
    with Origin(lab.origin, tmp_path_factory.mktemp("origin")) as running:
        yield running


@pytest.fixture(scope="module")
def resolver(lab: lab_netns.Lab) -> Iterator[Upstream]:
    """The resolver that gateways ask."""
    with resolver_in(lab.origin) as running:
        yield running


@pytest.fixture(scope="module")
def any_gateway(
    lab: lab_netns.Lab, origin: Origin, check_lines: Callable[[Path], object], tmp_path_factory: pytest.TempPathFactory
) -> MakeGateway:
    """Make gateways that end with their `with` block; one at a time, because they share the namespace."""

    def make(folder: Path | None = None, **options: Any) -> Gateway:
        return Gateway(lab.gateway, folder or tmp_path_factory.mktemp("gateway"), check=check_lines, **options)

    return make


@pytest.fixture
def namespace() -> Iterator[Namespace]:
    """An empty network namespace, in which nothing is forwarded."""
    require("root", "nft", "ip")
    made = Namespace(f"tokgate{os.getpid()}-kernel").add()
    try:
        yield made
    finally:
        made.remove()
