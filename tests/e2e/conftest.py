"""Fixtures of end-to-end tests alone: carriers, a gateway that runs tokgate, clients, an authority."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from labs import clients as lab_clients
from labs.gateway import CARRIERS, KERNEL_TOO, Gateway, nothing_left, office_policy
from labs.netns import Lab
from labs.origin import Origin


def documented_block(language: str, beginning: str) -> str:
    """A code block of certs/README.md, by its language and its first words."""
    readme = Path(__file__).parents[2] / "certs/README.md"
    blocks = re.findall(rf"^```{language}\n(.*?)^```$", readme.read_text(), re.MULTILINE | re.DOTALL)
    (found,) = [block for block in blocks if block.startswith(beginning)]
    return str(found)


@pytest.fixture(scope="session")
def constrained_authority(requirements: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the command of certs/README.md makes, run as it stands there."""
    folder = tmp_path_factory.mktemp("certs")
    words = shlex.split(documented_block("sh", "tokgate authority"))
    command = [sys.executable, "-m", *words]
    subprocess.run(command, cwd=folder, env=os.environ, check=True, capture_output=True, timeout=60)
    return folder / "authority"


@pytest.fixture
def nobodys_folder(requirements: None) -> Iterator[Path]:
    """A folder of nobody's own, which it can reach, unlike those that pytest makes for root."""
    made = Path(tempfile.mkdtemp(prefix="tokgate-nobody-"))
    made.chmod(0o755)
    shutil.chown(made, "nobody")
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module", params=CARRIERS)
def carrier(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Each carrier in turn: what is true of one must be true of all."""
    return CARRIERS[request.param]


@pytest.fixture(scope="module")
def gateway_factory(any_gateway: Callable[..., Gateway], carrier: dict[str, Any]) -> Callable[..., Gateway]:
    """Make gateways with each carrier in turn, for redirected clients."""

    def make(folder: Path, **options: Any) -> Gateway:
        return any_gateway(folder, **(carrier | options))

    return make


@pytest.fixture(scope="module")
def gateway(gateway_factory: Callable[..., Gateway], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A transparent gateway that refuses the banned service for the office network."""
    with gateway_factory(tmp_path_factory.mktemp("gateway"), policy=office_policy()) as running:
        yield running


@pytest.fixture
def make(any_gateway: Callable[..., Gateway], tmp_path: Path) -> Callable[..., Gateway]:
    """Make gateways that see to the kernel themselves."""

    def made(policy: dict[str, Any], **options: Any) -> Gateway:
        return any_gateway(tmp_path, policy=policy, mode=KERNEL_TOO, **options)

    return made


@pytest.fixture
def unchanged(lab: Lab) -> Iterator[None]:
    """Whatever the test does, the kernel is afterwards as it was."""
    with nothing_left(lab):
        yield


@pytest.fixture(params=lab_clients.CLIENTS, ids=lambda client: client.__name__)
def fetch(request: pytest.FixtureRequest, origin: Origin) -> lab_clients.Client:
    """Each kind of client in turn, trusting the origin's authority only."""
    client: lab_clients.Client = request.param
    return client


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def family(request: pytest.FixtureRequest) -> int:
    """Each address family in turn."""
    version: int = request.param
    return version


@pytest.fixture(scope="session")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where screenshots stay for people to look at: TOKGATE_ARTIFACTS, else pytest's own temporary folder."""
    folder = Path(os.environ.get("TOKGATE_ARTIFACTS") or tmp_path_factory.mktemp("artifacts"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder
