"""Fixtures of the proxy's tests: certificates, origins and a proxy in this process, and real clients against them."""

import sys
import warnings
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

for folder in (Path(__file__).parent, Path(__file__).parent.parent / "wire"):  # importlib mode puts none on the path
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))

with warnings.catch_warnings():  # ldap3, which mitmproxy imports, uses names that pyasn1 has deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    import mitmproxy.addons  # noqa: F401

from proxy_lab import Authority, Lab, Records


@pytest.fixture(scope="session")
def authority() -> Authority:
    """A certificate authority that clients of the tests trust."""
    return Authority()


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
