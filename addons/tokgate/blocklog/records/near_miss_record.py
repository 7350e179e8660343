"""The hourly record of names that resemble a banned service and matched no rule. It names no client."""

from collections.abc import Sequence
from typing import Final

from whenever import Instant

from tokgate.blocklog.records.record import EventAction, Record, frame, timestamp
from tokgate.blocklog.records.stamp import Stamp
from tokgate.policy.analysis.likeness import Likeness

SHOWN: Final = 3
"""Most names in the message."""


def near_misses(stamp: Stamp, found: Sequence[tuple[Likeness, int]], since: Instant, *, more: int = 0) -> Record:
    """The record of near misses with their counts since `since`; `more` counts those of names beyond the limit."""
    names = ", ".join(likeness.name for likeness, _ in found[:SHOWN])
    left = len(found) - SHOWN
    what = "1 name resembles" if len(found) == 1 else f"{len(found)} names resemble"
    message = (
        f"From {timestamp(since)} to {timestamp(stamp.at)} {what} a banned service without matching a rule of it: "
        f"{names}{f' and {left} more' if left > 0 else ''}. Nothing was refused for that."
    )
    record = frame(stamp, EventAction.NEAR_MISSES, message, category=("network",), kinds=("info",))
    said = {
        "names": [
            {
                "name": likeness.name,
                "service": likeness.service,
                "word": likeness.word,
                "how": likeness.how.value,
                "count": count,
            }
            for likeness, count in found
        ]
    }
    return record | {"tokgate": {"near_misses": said | ({"more": more} if more else {}), "since": timestamp(since)}}
