"""Records of requests for exceptions: as the schema says, without accusing, and under the client's alias."""

from collections.abc import Callable
from typing import Any

import pytest

from labs.samples import exception_request, stamp
from tokgate.blocklog.records.requests import ANSWERED, RequestState, exception_answered, exception_requested
from tokgate.blocklog.write.pseudonyms import with_alias

Valid = Callable[[dict[str, Any]], dict[str, Any]]
ID, REFUSAL = stamp(number=1).id, stamp(number=2).id


def test_what_was_asked(valid_record: Valid) -> None:
    """Who, from which ban, for how long and why, as plain text, and no verdict."""
    asked = exception_request(user="alice", why="Press\u202e")
    record = valid_record(exception_requested(stamp(), asked, "v1", disguised=False))
    assert record["message"] == r"alice at 192.0.2.7 asks for an exception from ban ban for PT1H: Press\u202e"
    assert record["tokgate"]["request"] == {"id": ID, "refusal": REFUSAL, "lasting": "PT1H", "why": r"Press\u202e"}
    assert record["event"]["dataset"] == "tokgate.state"
    assert "verdict" not in record["tokgate"]


def test_aliases(valid_record: Valid) -> None:
    """Where clients have aliases, neither address nor user nor their own words are in the record."""
    asked = exception_request(user="alice", why="Press\u202e")
    record = with_alias(exception_requested(stamp(), asked, "v1", disguised=True), lambda text: f"p-{len(text)}")
    valid_record(record)
    assert not {text for text in ("192.0.2.7", "alice", "Press") if text in str(record)}
    assert record["message"] == "p-5 at p-9 asks for an exception from ban ban for PT1H."


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            {"state": RequestState.APPROVED, "override": "o-1", "until": "2023-03-10T12:00:00.000000Z", "by": "bob"},
            "approved by bob until 2023-03-10T12:00:00.000000Z: override o-1.",
        ),
        ({"state": RequestState.DECLINED, "by": "bob", "reason": "Not now"}, "declined by bob: Not now"),
    ],
)
def test_what_was_answered(valid_record: Valid, answer: dict[str, Any], message: str) -> None:
    """By whom, and which request, by its id; whose it was is in that record alone."""
    valid_record(record := exception_answered(stamp(number=3), exception_request(user="alice", **answer), "v1"))
    assert record["message"] == f"The request {ID} for an exception from ban ban was {message}"
    assert ANSWERED.findall(record["message"]) == [ID]
    assert record["tokgate"]["request"] == {"id": ID, "refusal": REFUSAL}
    assert (record["user"], "source" in record) == ({"name": "bob"}, False)
    assert "alice" not in str(record)
