"""Bans over time as a chart in SVG: a row for each ban and time zone, its phases, and the exemptions from it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import drawsvg
from whenever import Instant

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
_LEGEND: Final = 50
_LETTER: Final = 6.4
"""Width of a small letter, on average."""
_CUT: Final = 46
"""Most characters of a row's title."""
_FONT: Final = "system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif"
_INK: Final = "#1f2933"
_FAINT: Final = "#52606d"
_OVERDUE: Final = "held, overdue"
_EXEMPT: Final = "exemption"
_FILL: Final = {
    Phase.ANNOUNCED.value: "#c3cad5", Phase.MONITOR.value: "#2f7fd1", Phase.WARN.value: "#e8a317",
    Phase.BLOCK.value: "#c53030", _OVERDUE: "#702459", _EXEMPT: "#2b8a57",
}  # fmt: skip
_DARK: Final = (Phase.MONITOR.value, Phase.BLOCK.value, _OVERDUE)
_TICKS: Final = 8
"""Lines of the time axis."""


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
    rows.sort(key=lambda row: row[1][0][0].start)
    bottom = _TOP + max(1, len(rows)) * _ROW
    width = _MARGIN * 2 + _LABELS + _CHART
    chart = _Chart(drawsvg.Drawing(width, bottom + _LEGEND, font_family=_FONT, role="img"), within)
    chart.drawing.append_title("Bans over time")
    chart.drawing.append(drawsvg.Rectangle(0, 0, "100%", "100%", fill="#ffffff"))
    chart.text("Bans over time", 18, _MARGIN, 30, font_weight="bold")
    for number in range(_TICKS):
        at = within.start.add(seconds=(within.end - within.start).total("seconds") * number / _TICKS)
        chart.line(chart.x(at), _TOP - 8, bottom, stroke="#e1e6ec")
        chart.text(at.to_tz("UTC").date().format_iso(), 10, chart.x(at) + 3, _TOP - 12, fill=_FAINT)
    for number, (track, bars) in enumerate(rows):
        _row(chart, snapshot, track, bars, _TOP + number * _ROW)
    if not rows:
        chart.text("nothing in this time", 12, _MARGIN, _TOP + 26, fill=_FAINT)
    if now in within:
        chart.line(chart.x(now), _TOP - 30, bottom, stroke=_INK, stroke_dasharray="4 3")
        chart.text("now", 10, chart.x(now) - 4, _TOP - 30, font_weight="bold", text_anchor="end")
    x: float = _MARGIN + _LABELS
    for name, color in _FILL.items():
        chart.drawing.append(drawsvg.Rectangle(x, bottom + 18, 14, 12, fill=color, rx=2))
        chart.text(name, 11, x + 20, bottom + 28)
        x += 44 + len(name) * _LETTER
    return str(chart.drawing.as_svg())


def _bars(track: Track, within: Span) -> Iterator[tuple[Span, str]]:
    """The visible phases; `announced` only if the policy states its start."""
    changes = track.schedule.changes
    for number, change in enumerate(changes):
        end = changes[number + 1].at if number + 1 < len(changes) else Instant.MAX
        span = Span(change.at, end) & within
        hidden = change.phase is Phase.EXPIRED or (change.phase is Phase.ANNOUNCED and change.at == Instant.MIN)
        if span.start < span.end and not hidden:
            yield span, _OVERDUE if change.overdue else change.phase.value


@dataclass(frozen=True, slots=True)
class _Chart:
    """A drawing over a span of time; coordinates are pixels."""

    drawing: Any
    within: Span

    def x(self, at: Instant) -> float:
        whole = max(1, (self.within.end - self.within.start).total("seconds"))
        return round(_MARGIN + _LABELS + (at - self.within.start).total("seconds") / whole * _CHART, 1)

    def line(self, x: float, top: float, bottom: float, **style: str) -> None:
        self.drawing.append(drawsvg.Line(x, top, x, bottom, **style))

    def text(self, text: str, size: int, x: float, y: float, *, fill: str = _INK, **style: str) -> None:
        self.drawing.append(drawsvg.Text(readable(text), size, x, y, fill=fill, **style))

    def stretch(self, span: Span, what: str, top: float, height: float, title: str) -> None:
        """A rectangle over a span, at least one pixel wide, with a tooltip, and in it what it is where that fits."""
        left, right = self.x(span.start), self.x(span.end)
        box = drawsvg.Rectangle(left, top, max(1, round(right - left, 1)), height, fill=_FILL[what], rx=3)
        box.append_title(readable(title))
        self.drawing.append(box)
        if height == _BAR and right - left > len(what) * _LETTER + 8:
            self.text(what, 10, left + 5, top + 13, fill="#ffffff" if what in _DARK else _INK)


def _row(chart: _Chart, snapshot: Snapshot, track: Track, bars: list[tuple[Span, str]], top: float) -> None:
    ban, label = track.ban, drawsvg.Group()
    label.append_title(readable(f"{ban.name}: {ban.title}"))
    label.append(drawsvg.Rectangle(_MARGIN, top, _LABELS - 12, _ROW, fill="none", pointer_events="all"))
    for text, below, fill in ((ban.title, 17, _INK), (f"{ban.what} in {', '.join(track.networks)}", 32, _FAINT)):
        cut = text if len(text) <= _CUT else f"{text[: _CUT - 1]}…"
        chart.text(cut, 12 if fill == _INK else 10, _MARGIN, top + below, fill=fill)
    chart.drawing.append(label)
    windows = " (in its windows)" if ban.windows else ""
    for span, what in bars:
        chart.stretch(span, what, top + 8, _BAR, f"{ban.name}: {what}{windows}, from {both(span.start, track.zone)}")
    for name, hole in track.exemptions.items():
        span = hole & chart.within
        if span.start < span.end:
            title = f"exemption {name}, until {both(hole.end, track.zone)}: {snapshot.policy.exemptions[name].reason}"
            chart.stretch(span, _EXEMPT, top + 8 + _BAR + 3, 6, title)
