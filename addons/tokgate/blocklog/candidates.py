"""The record of names that resemble a banned service and matched nothing: no client, no time but the hour."""

from collections.abc import Sequence
from typing import Final

from whenever import Instant

from tokgate.blocklog.document import EventAction, Record, frame, timestamp
from tokgate.blocklog.stamp import Stamp
from tokgate.policy.likeness import Likeness

SHOWN: Final = 3
"""Names in the sentence."""


def near_misses(stamp: Stamp, found: Sequence[tuple[Likeness, int]], since: Instant, *, more: int = 0) -> Record:
    """Candidates for service files, each with how often it was asked for; `more` is how often others were."""
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
