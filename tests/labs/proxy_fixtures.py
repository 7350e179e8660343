"""Fixtures of the proxy's tests: certificates, origins and a proxy in this process, and real clients against them."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from labs.proxy_lab import Authority, Lab
from labs.records import Records


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate authority that clients of the tests trust."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def records(valid_record: Callable[[dict[str, Any]], dict[str, Any]]) -> Records:
    """Takes the block log's records; each is checked against the schema."""
    return Records(valid_record)


@pytest.fixture
async def lab(
    authority: Authority, records: Records, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Lab]:
    """Origins and proxies that end with the test."""
    async with AsyncExitStack() as stack:
        yield Lab(authority, records, tmp_path, monkeypatch, stack)
