"""The charts over time as SVG: inline, without scripts, readable in print and without colour.

Colours are presentation attributes, which any stylesheet overrides and no Content-Security-Policy forbids.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import count
from typing import Any, Final

import drawsvg

from tokgate.analytics.counts import Buckets
from tokgate.analytics.report.report_data import BanPhases
from tokgate.analytics.report.texts import Wording, grouped
from tokgate.policy.values.text import escaped

COLORS: Final = {"block": "#8c1d18", "warn": "#d98200", "monitor": "#2f6f9f", "allow": "#5f8f3e"}
"""By verdict; distinguishable by the colour-blind and in greyscale."""
PHASE_COLORS: Final = {
    "announced": "#d9dde2", "monitor": "#bcd6e8", "warn": "#f6dcae", "block": "#e9b8b4", "held past its end": "#d8a6cf",
}  # fmt: skip
_HIDDEN: Final = {"aria_hidden": "true", "focusable": "false"}
_OTHER: Final = "#666666"
_CLIENTS: Final = "#4b5560"
_EXEMPT: Final = 3
"""Height of an exemption's line below the phases of its ban, in pixels."""
_FONT: Final = "system-ui, 'Segoe UI', Roboto, 'Noto Sans', Helvetica, Arial, sans-serif"
_WIDTH: Final = 980
_HEIGHT: Final = 300
_LOW: Final = 190
"""Height of the chart of clients, in pixels."""
_LANE: Final = 19
_BOTTOM: Final = 26
"""Height of the labels below the axis, in pixels."""
_EDGE: Final = 6
_LETTER: Final = 7.4
_SMALL_LETTER: Final = 6.4
"""Average widths of letters at 13 and 11 pixels."""
_LABELS: Final = 8
"""Most labels below the axis."""
_WIDE_BAR: Final = 4
"""Width in pixels from which a bar has a gap beside it."""

type Link = Callable[[str, int], str]
"""The URL of a bar: by its verdict and the index of its bucket."""


class _Anchor(drawsvg.DrawingParentElement):  # type: ignore[misc]
    """An SVG link, which drawsvg lacks."""

    TAG_NAME = "a"


def attempts_over_time(
    pieces: Buckets,
    counts: Mapping[str, Sequence[int]],
    lanes: Sequence[BanPhases],
    say: Wording,
    *,
    alt_text: str = "",
    link: Link | None = None,
) -> str:
    """Events by verdict, with the phases of bans drawn in above and their edges through the bars.

    `say` has the words for verdicts and phases. `alt_text` is the text alternative; a chart whose bars are links has
    none: it is hidden from screen readers and keyboard, and a table repeats it.
    """
    root = {"role": "img", "aria_label": escape(alt_text)} if link is None else _HIDDEN
    below = [0] * len(pieces.starts)
    highest = max((sum(column) for column in zip(*counts.values(), strict=True)), default=0) or 1
    plot = _Plot(pieces, highest, _EDGE + _LANE * len(lanes), _HEIGHT + _LANE * len(lanes))
    drawing = plot.drawing(**root)
    for verdict, numbers in counts.items():
        known, word = verdict if verdict in COLORS else "other", escaped(say.word("verdict", verdict))
        group = drawsvg.Group(class_=f"series {known}", fill=COLORS.get(verdict, _OTHER))
        for place, number in enumerate(numbers):
            if number:
                bar = plot.bar(place, below[place], number, f"{grouped(number)} {word}")
                group.append(bar if link is None else _Anchor([bar], href=escape(link(verdict, place)), tabindex="-1"))
            below[place] += number
        drawing.append(group)
    for number, lane in enumerate(lanes):
        drawing.append(_lane(plot, lane, _EDGE + number * _LANE, say))
    return str(drawing.as_svg(header=""))


def clients_over_time(pieces: Buckets, numbers: Sequence[int], alt_text: str, say: Wording) -> str:
    """Distinct clients for each bucket. `alt_text` and `say` are those of `attempts_over_time`."""
    plot = _Plot(pieces, max(numbers, default=0) or 1, _EDGE, _LOW)
    drawing = plot.drawing(role="img", aria_label=escape(alt_text))
    group = drawsvg.Group(class_="series clients", fill=_CLIENTS)
    for place, number in enumerate(numbers):
        if number:
            group.append(plot.bar(place, 0, number, f"{say.plain('Clients')}: {grouped(number)}"))
    drawing.append(group)
    return str(drawing.as_svg(header=""))


@dataclass(frozen=True, slots=True)
class _Plot:
    """The plotting area: its buckets, the highest sum, and its top within a drawing of `height` pixels."""

    pieces: Buckets
    highest: int
    top: int
    height: int

    @property
    def left(self) -> float:
        """The x coordinate of the vertical axis: right of the labels of its ticks."""
        return max(44.0, 14 + len(grouped(_ticks(self.highest)[-1])) * _LETTER)

    @property
    def width(self) -> float:
        return _WIDTH - _EDGE - self.left

    @property
    def base(self) -> float:
        """The y coordinate of the horizontal axis."""
        return self.height - _BOTTOM

    def y(self, number: float) -> float:
        return round(self.base - (self.base - self.top - 8) * number / self.highest, 1)

    def x(self, fraction: float) -> float:
        return round(self.left + self.width * fraction, 1)

    def drawing(self, **root: str) -> Any:
        """A drawing with the axes and their labels."""
        drawing = drawsvg.Drawing(
            _WIDTH, self.height, class_="over-time", font_family=_FONT, font_size=13, fill="#333333", **root
        )
        lines, right = drawsvg.Group(class_="lines", stroke="#cccccc", stroke_dasharray="2,3"), self.x(1)
        names = drawsvg.Group(class_="y", text_anchor="end")
        for tick in _ticks(self.highest):
            lines.append(drawsvg.Line(self.left, self.y(tick), right, self.y(tick)))
            names.append(drawsvg.Text(grouped(tick), 13, self.left - 6, self.y(tick) + 4))
        axes = drawsvg.Group(class_="axes", stroke="#333333")
        axes.append(drawsvg.Line(self.left, self.base, right, self.base))
        axes.append(drawsvg.Line(self.left, self.top, self.left, self.base))
        drawing.extend([lines, names, axes, self._times()])
        return drawing

    def _times(self) -> Any:
        group, pieces = drawsvg.Group(class_="x"), self.pieces
        step = max(1, -(-len(pieces.starts) // _LABELS))
        for place in range(0, len(pieces.starts), step):
            text = pieces.label(pieces.starts[place])
            x, half = self.x((place + 0.5) / len(pieces.starts)), len(text) * _LETTER / 2
            fits = x + half <= _WIDTH
            where = (x, "middle") if fits else (_WIDTH - 1, "end")
            group.append(drawsvg.Text(text, 13, where[0], self.height - 6, text_anchor=where[1]))
        return group

    def bar(self, place: int, below: int, number: int, tooltip: str) -> Any:
        """A bar of `number` on top of `below`, with a tooltip."""
        left, right = (self.x((place + side) / len(self.pieces.starts)) for side in (0, 1))
        gap = 1 if right - left >= _WIDE_BAR else 0
        top, bottom = self.y(below + number), self.y(below)
        rect = drawsvg.Rectangle(left, top, round(right - left - gap, 1), round(max(0.5, bottom - top), 1))
        rect.append_title(f"{self.pieces.label(self.pieces.starts[place])}: {tooltip}")
        return rect


def _lane(plot: _Plot, lane: BanPhases, y: int, say: Wording) -> Any:
    """The row of a ban's phases above the bars; where a phase begins, a dashed line crosses the bars."""
    group, ban = drawsvg.Group(class_="lane"), escaped(lane.ban)
    for span in lane.spans:
        left, right = (plot.x(plot.pieces.fraction(at)) for at in (span.start, span.end))
        phase = escaped(say.word("phase", span.phase))
        words = f"{ban}: {phase}"
        color = PHASE_COLORS.get(span.phase, "#dddddd")
        width = round(max(1.0, right - left), 1)
        box = drawsvg.Rectangle(left, y, width, _LANE - 3, class_="phase", fill=color)
        box.append_title(words)
        group.append(box)
        if span.start > plot.pieces.starts[0]:
            edge = {"class_": "edge", "stroke": "#555555", "stroke_dasharray": "4,3"}
            group.append(drawsvg.Line(left, y, left, plot.base, **edge))
        fitting = next((text for text in (words, phase) if width > len(text) * _SMALL_LETTER + 8), None)
        if fitting is not None:
            group.append(drawsvg.Text(fitting, 11, left + 5, y + 11, class_="said", fill="#222222"))
    for span in lane.exempt:
        left, right = (plot.x(plot.pieces.fraction(at)) for at in (span.start, span.end))
        width, top = round(max(1.0, right - left), 1), y + _LANE - 3 - _EXEMPT
        line = drawsvg.Rectangle(left, top, width, _EXEMPT, class_="exempt", fill=COLORS["allow"])
        line.append_title(f"{ban}: {escaped(say.plain('Exemption'))} {escaped(span.phase)}")
        group.append(line)
    return group


def _ticks(highest: int) -> list[int]:
    """Round numbers from 0 to about the highest."""
    step = next(digit * 10**zeros for zeros in count() for digit in (1, 2, 5) if digit * 10**zeros * 5 >= highest)
    return list(range(0, highest + 1, step))
