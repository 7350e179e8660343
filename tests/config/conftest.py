"""What the tests of config/ share: policy files on disk, and loading at a fixed instant."""

from collections.abc import Callable
from pathlib import Path

import pytest
from whenever import Instant

from tokgate.config.loader import Loaded, load

NOW = Instant.from_utc(2023, 5, 1)

MINIMAL = """\
version: 1
services: {tiktok: {names: {suffix: [tiktok.com]}}}
networks: {offices: {cidrs: [192.0.2.0/24]}}
bans: {tiktok: {title: TikTok at work, services: [tiktok], networks: [offices], starts: 2023-03-10}}
"""

Say = Callable[[str], Loaded]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A policy folder that holds one valid file."""
    path = tmp_path / "policies"
    path.mkdir()
    (path / "a.yaml").write_text(MINIMAL)
    return path


@pytest.fixture
def say(tmp_path: Path) -> Say:
    """Load a text as the only policy file."""

    def say_and_load(text: str) -> Loaded:
        path = tmp_path / "said.yaml"
        path.write_text(text, encoding="utf-8")
        return load(path, NOW)

    return say_and_load


@pytest.fixture
def minimal() -> str:
    return MINIMAL


@pytest.fixture
def now() -> Instant:
    return NOW
