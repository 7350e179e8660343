"""Bans over time as a chart in SVG: a row for each ban and time zone, its phases, and the exemptions from it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import drawsvg
from whenever import Date, Instant

from tokgate.policy.decision import Phase
from tokgate.policy.schedule import Span
from tokgate.policy.snapshot import Snapshot, Track
from tokgate.policy.values.text import both, readable

_LABELS: Final = 380
_CHART: Final = 820
_MARGIN: Final = 20
_TOP: Final = 70
_ROW: Final = 44
_BAR: Final = 18
_HOLE: Final = 6
_LEGEND: Final = 50
_LETTER: Final = 6.4
"""Width of a small letter, on average."""
_WIDE: Final = 7.8
"""The same of the titles: what is longer than its column is cut."""
_FONT: Final = "system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif"
_INK: Final = "#1f2933"
_FAINT: Final = "#52606d"
_FILL: Final = {Phase.ANNOUNCED: "#c3cad5", Phase.MONITOR: "#2f7fd1", Phase.WARN: "#e8a317", Phase.BLOCK: "#c53030"}
_ON: Final = {Phase.ANNOUNCED: _INK, Phase.MONITOR: "#ffffff", Phase.WARN: _INK, Phase.BLOCK: "#ffffff"}
_EXEMPT: Final = "#2b8a57"
_SHORT: Final = 3
"""Months of which days are marked."""
_YEAR: Final = 12
_TICKS: Final = 14
"""Most lines of the time axis."""


@dataclass(frozen=True, slots=True)
class Bar:
    """A phase of a ban; `overdue` past its end."""

    span: Span
    phase: Phase
    overdue: bool


def extent(snapshot: Snapshot, now: Instant) -> Span:
    """The span from the first to the last transition and `now`, with a margin at both ends."""
    instants = [now]
    for track in snapshot.tracks:
        instants += [change.at for change in track.schedule.changes]
        instants += [edge for hole in track.exemptions.values() for edge in (hole.start, hole.end)]
    known = [at for at in instants if Instant.MIN < at < Instant.MAX]
    air = max(24, int((max(known) - min(known)).total("hours") * 0.04))
    return Span(min(known).subtract(hours=air), max(known).add(hours=air))


def gantt(snapshot: Snapshot, within: Span, now: Instant) -> str:
    """The chart of a span of time, as SVG."""
    rows = [(track, bars) for track in snapshot.tracks if (bars := list(_bars(track, within)))]
    rows.sort(key=lambda row: row[1][0].span.start)
    height = _TOP + max(1, len(rows)) * _ROW + _LEGEND
    drawing = drawsvg.Drawing(_MARGIN * 2 + _LABELS + _CHART, height, font_family=_FONT, role="img")
    drawing.append_title("Bans over time")
    drawing.append(drawsvg.Rectangle(0, 0, "100%", "100%", fill="#ffffff"))
    _text(drawing, "Bans over time", 18, _MARGIN, 30, weight="bold")
    bottom = _TOP + max(1, len(rows)) * _ROW
    scale = _Scale(within)
    _axis(drawing, scale, bottom)
    hatch = _hatch()
    for number, (track, bars) in enumerate(rows):
        _row(drawing, snapshot, track, bars, scale, _TOP + number * _ROW, hatch)
    if not rows:
        _text(drawing, "nothing in this time", 12, _MARGIN, _TOP + 26, fill=_FAINT)
    if now in within:
        _now(drawing, scale.x(now), bottom)
    _legend(drawing, bottom + 18, hatch)
    return str(drawing.as_svg())


def _bars(track: Track, within: Span) -> Iterator[Bar]:
    """The visible phases; `announced` only if the policy states its start."""
    changes = track.schedule.changes
    for number, change in enumerate(changes):
        end = changes[number + 1].at if number + 1 < len(changes) else Instant.MAX
        span = Span(change.at, end) & within
        hidden = change.phase is Phase.EXPIRED or (change.phase is Phase.ANNOUNCED and change.at == Instant.MIN)
        if span.start < span.end and not hidden:
            yield Bar(span, change.phase, change.overdue)


class _Scale:
    """Maps instants to x coordinates in pixels."""

    def __init__(self, within: Span) -> None:
        self.within: Final = within
        self._start: Final = within.start.timestamp()
        self._length: Final = max(1, within.end.timestamp() - self._start)

    def x(self, at: Instant) -> float:
        return round(_MARGIN + _LABELS + (at.timestamp() - self._start) / self._length * _CHART, 1)


def _axis(drawing: Any, scale: _Scale, bottom: float) -> None:
    """Grid lines at whole days, months or years, at readable distances."""
    for day, name in _ticks(scale.within):
        x = scale.x(day)
        drawing.append(drawsvg.Line(x, _TOP - 8, x, bottom, stroke="#e1e6ec"))
        if x + 3 + len(name) * _LETTER < _MARGIN + _LABELS + _CHART:
            _text(drawing, name, 10, x + 3, _TOP - 12, fill=_FAINT)


def _ticks(within: Span) -> Iterator[tuple[Instant, str]]:
    first, last = (edge.to_tz("UTC").date() for edge in (within.start, within.end))
    months = (last.year - first.year) * 12 + last.month - first.month
    if months < _SHORT:
        days = int(first.until(last, total="days"))
        step, day = max(1, -(-days // _TICKS)), first
        while day <= last:
            yield from _tick(day, within, day.format_iso())
            day = day.add(days=step)
        return
    width = next(n for n in (1, 3, 6, 12, 24, 60, 120, 600, 1200, 12_000) if months / n <= _TICKS)
    day = Date(first.year - first.year % max(1, width // 12), 1, 1)
    while day <= last:
        yield from _tick(day, within, str(day.year) if width >= _YEAR else day.format_iso()[:7])
        day = day.add(months=width)


def _tick(day: Date, within: Span, name: str) -> Iterator[tuple[Instant, str]]:
    at = Instant.from_utc(day.year, day.month, day.day)
    if at in within:
        yield at, name


def _row(
    drawing: Any, snapshot: Snapshot, track: Track, bars: Sequence[Bar], scale: _Scale, top: float, hatch: Any
) -> None:
    ban = track.ban
    drawing.append(drawsvg.Line(_MARGIN, top, _MARGIN + _LABELS + _CHART, top, stroke="#eef1f4"))
    label = drawsvg.Group()
    label.append_title(readable(f"{ban.name}: {ban.title}"))
    _text(label, _cut(ban.title), 12, _MARGIN, top + 17, weight="600")
    _text(label, _cut(f"{ban.what} in {', '.join(track.networks)}"), 10, _MARGIN, top + 32, fill=_FAINT)
    drawing.append(label)
    for bar in bars:
        _bar(drawing, track, bar, scale, top + 8, hatch)
    for name, hole in track.exemptions.items():
        span = hole & scale.within
        if span.start < span.end:
            reason = snapshot.policy.exemptions[name].reason
            title = f"exemption {name}, until {both(hole.end, track.zone)}: {reason}"
            _stretch(drawing, span, scale, top + 8 + _BAR + 3, _HOLE, title, fill=_EXEMPT, rx=2)


def _bar(drawing: Any, track: Track, bar: Bar, scale: _Scale, top: float, hatch: Any) -> None:
    words = f"{bar.phase}, overdue" if bar.overdue else str(bar.phase)
    when = f"from {both(bar.span.start, track.zone)}"
    windows = " (in its windows)" if track.ban.windows and bar.phase is not Phase.ANNOUNCED else ""
    title = f"{track.ban.name}: {words}{windows}, {when}"
    opacity = 0.6 if windows else 1
    _stretch(drawing, bar.span, scale, top, _BAR, title, fill=_FILL[bar.phase], fill_opacity=opacity, rx=3)
    if bar.overdue:
        _stretch(drawing, bar.span, scale, top, _BAR, title, fill=hatch, rx=3)
    left, right = scale.x(bar.span.start), scale.x(bar.span.end)
    fitting = next((text for text in (words + windows, words) if right - left > len(text) * _LETTER + 8), None)
    if fitting is not None:
        _text(drawing, fitting, 10, left + 5, top + 13, fill=_INK if windows else _ON[bar.phase])


def _stretch(drawing: Any, span: Span, scale: _Scale, top: float, height: float, title: str, **style: Any) -> None:
    """A rectangle over a span, at least one pixel wide, with a tooltip."""
    left, right = scale.x(span.start), scale.x(span.end)
    box = drawsvg.Rectangle(left, top, max(1, round(right - left, 1)), height, **style)
    box.append_title(readable(title))
    drawing.append(box)


def _hatch() -> Any:
    """The pattern of a ban that is held past its end."""
    pattern = drawsvg.Pattern(8, 8, patternUnits="userSpaceOnUse", patternTransform="rotate(45)")
    pattern.append(drawsvg.Rectangle(0, 0, 3, 8, fill="#000000", fill_opacity=0.25))
    return pattern


def _now(drawing: Any, x: float, bottom: float) -> None:
    drawing.append(drawsvg.Line(x, _TOP - 30, x, bottom, stroke=_INK, stroke_dasharray="4 3"))
    _text(drawing, "now", 10, x - 4, _TOP - 30, weight="bold", anchor="end")


def _legend(drawing: Any, top: float, hatch: Any) -> None:
    x: float = _MARGIN + _LABELS
    kinds = [(str(phase), color, False) for phase, color in _FILL.items()]
    for name, color, striped in [*kinds, ("held, overdue", _FILL[Phase.BLOCK], True), ("exemption", _EXEMPT, False)]:
        drawing.append(drawsvg.Rectangle(x, top, 14, 12, fill=color, rx=2))
        if striped:
            drawing.append(drawsvg.Rectangle(x, top, 14, 12, fill=hatch, rx=2))
        _text(drawing, name, 11, x + 20, top + 10)
        x += 44 + len(name) * _LETTER


def _text(
    parent: Any,
    text: str,
    size: int,
    x: float,
    y: float,
    *,
    fill: str = _INK,
    weight: str = "normal",
    anchor: str = "start",
) -> None:
    parent.append(drawsvg.Text(readable(text), size, x, y, fill=fill, font_weight=weight, text_anchor=anchor))


def _cut(text: str) -> str:
    most = int((_LABELS - 12) / _WIDE)
    return text if len(text) <= most else f"{text[: most - 1]}…"
