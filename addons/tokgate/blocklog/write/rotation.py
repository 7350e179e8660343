"""When a file of the log is full or its day is over, so that the next record begins a new file."""

from dataclasses import dataclass

from whenever import Date

from tokgate.blocklog.write.segment import Segment


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """When a file is rotated: with the line that brings it to `max_bytes` octets, or when its UTC day is over."""

    max_bytes: int | None = 64 << 20
    daily: bool = True

    def due(self, segment: Segment, today: Date) -> str | None:
        """Why a file has to be rotated, in words for the next one; None if it hasn't. `today` is the UTC day."""
        if not segment.regular:
            return None
        if segment.lines <= segment.openers:  # it holds no records but those with which a new file would begin
            segment.day = today
            return None
        if self.max_bytes is not None and segment.size >= self.max_bytes:
            return "the file was full"
        return "the day was over" if self.daily and segment.day != today else None
