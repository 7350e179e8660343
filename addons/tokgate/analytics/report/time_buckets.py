"""Divides a period into buckets for a chart: minutes, hours, days, weeks or months, in UTC."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

MAX_BARS: Final = 186
_MINUTES, _HOURS, _DAYS, _WEEKS = MAX_BARS / 1440, MAX_BARS / 24, MAX_BARS, MAX_BARS * 7


@dataclass(frozen=True, slots=True)
class Buckets:
    """`unit` is a word of SQL's date_trunc; `starts` has the beginning of every bucket, also of empty ones."""

    unit: str
    starts: tuple[datetime, ...]
    end: datetime

    def fraction(self, at: datetime) -> float:
        """The position of an instant on the time axis, from 0 to 1."""
        if not self.starts:
            return 0.0
        whole = (self.end - self.starts[0]).total_seconds()
        return min(1.0, max(0.0, (at - self.starts[0]).total_seconds() / whole))

    def label(self, start: datetime) -> str:
        """The label of the bucket that begins at `start`, for an axis."""
        return start.strftime(
            {"minute": "%m-%d %H:%M", "hour": "%m-%d %H:%M", "month": "%Y-%m"}.get(self.unit, "%Y-%m-%d")
        )

    def name(self, start: datetime) -> str:
        """The same with the year."""
        return start.strftime("%Y-%m-%d %H:%M") if self.unit in ("minute", "hour") else self.label(start)


def buckets(start: datetime, end: datetime) -> Buckets:
    """Divide `[start, end)` by the smallest unit that gives at most MAX_BARS buckets."""
    days = (end - start) / timedelta(days=1)
    longest = {"minute": _MINUTES, "hour": _HOURS, "day": _DAYS, "week": _WEEKS}
    unit = next((unit for unit, most in longest.items() if days <= most), "month")
    starts, at = [], _floor(start, unit)
    while at < end:
        starts.append(at)
        at = _next(at, unit)
    return Buckets(unit, tuple(starts), at)


def _floor(at: datetime, unit: str) -> datetime:
    if unit == "minute":
        return at.replace(second=0, microsecond=0)
    if unit == "hour":
        return at.replace(minute=0, second=0, microsecond=0)
    day = at.replace(hour=0, minute=0, second=0, microsecond=0)
    if unit == "week":
        return day - timedelta(days=day.weekday())
    return day.replace(day=1) if unit == "month" else day


def _next(at: datetime, unit: str) -> datetime:
    if unit == "month":
        return _floor(at + timedelta(days=32), "month")
    return at + timedelta(**{f"{unit}s": 1})
