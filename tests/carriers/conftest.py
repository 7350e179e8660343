"""Each carrier in turn, and each way by which clients come to it: what is true of one must be true of all."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from labs.carriers import Kind, Lab, Way
from labs.proxy_fixtures import authority, records
from labs.proxy_lab import Authority
from labs.records import Records
from labs.sign_in import asking

__all__ = ["asking", "authority", "records"]


@pytest.fixture(params=Kind)
def lab(
    request: pytest.FixtureRequest,
    authority: Authority,
    valid_record: Callable[[dict[str, Any]], dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Lab]:
    made = Lab(request.param, authority, Records(valid_record), monkeypatch)
    yield made
    made.close()


@pytest.fixture(params=Way)
def way(request: pytest.FixtureRequest) -> Way:
    found: Way = request.param
    return found


@pytest.fixture
def no_crash(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """mitmproxy goes on when a layer raises: only its log says so."""
    yield
    assert not [record for record in caplog.get_records("call") if "crashed" in record.getMessage()]
