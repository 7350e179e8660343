"""The report's charts as SVG, by pygal: inline, without scripts, readable in print and without colour."""

from collections.abc import Callable, Sequence
from itertools import count
from typing import Any, Final
from xml.etree import ElementTree

from pygal import StackedBar  # type: ignore[import-untyped]
from pygal.style import Style  # type: ignore[import-untyped]

from tokgate.review.buckets import Buckets
from tokgate.review.lanes import Lane
from tokgate.review.templating import visible

COLORS: Final = {"block": "#8c1d18", "warn": "#d98200", "monitor": "#2f6f9f", "allow": "#5f8f3e"}
"""Of verdicts and phases: apart from each other also for the colour-blind, and in grey."""
WORDS: Final = {"block": "blocked", "warn": "warned", "monitor": "would block", "allow": "exempt"}
PHASE_COLORS: Final = {
    "announced": "#d9dde2", "monitor": "#bcd6e8", "warn": "#f6dcae", "block": "#e9b8b4", "held past its end": "#d8a6cf",
}  # fmt: skip
_LANE: Final = 19
_FONT: Final = "system-ui, 'Segoe UI', Roboto, 'Noto Sans', Helvetica, Arial, sans-serif"
_STYLE: Final[dict[str, Any]] = {
    "background": "transparent", "plot_background": "transparent", "foreground": "#333", "foreground_strong": "#111",
    "foreground_subtle": "#777", "guide_stroke_color": "#ccc", "major_guide_stroke_color": "#ccc",
    "guide_stroke_dasharray": "2,3", "major_guide_stroke_dasharray": "2,3", "opacity": "1", "opacity_hover": "1",
    "transition": "0s", "font_family": _FONT, "label_font_size": 13, "major_label_font_size": 13,
    "legend_font_size": 13, "no_data_font_size": 16,
}  # fmt: skip


class _WithLanes(StackedBar):  # type: ignore[misc]
    """Stacked bars under lanes that show where each ban stood."""

    lanes: Sequence[Lane] = ()
    pieces: Buckets

    def _plot(self) -> None:
        for number, lane in enumerate(self.lanes):
            self._draw_lane(lane, number * _LANE)
        super()._plot()

    def _draw_lane(self, lane: Lane, y: int) -> None:
        group, ban = self.svg.node(self.nodes["plot"], "g", class_="lane"), visible(lane.ban)
        for stretch in lane.stretches:
            left, right = (self.view.x(self.pieces.fraction(at)) for at in (stretch.start, stretch.end))
            box = {"x": round(left, 1), "y": y, "width": round(max(1.0, right - left), 1), "height": _LANE - 3}
            node = self.svg.node(group, "rect", class_="phase", fill=PHASE_COLORS.get(stretch.phase, "#ddd"), **box)
            phase = visible(stretch.phase)
            words = f"{ban}: {phase}"
            self.svg.node(node, "title").text = words
            # The edge of a phase goes down through the bars: what changed there is what the chart is about.
            if stretch.start > self.pieces.starts[0]:
                edge = {"class_": "edge", "x1": box["x"], "x2": box["x"], "y1": y, "y2": round(self.view.height, 1)}
                self.svg.node(group, "line", stroke="#555", **{"stroke-dasharray": "4,3"}, **edge)
            for text in (words, phase):
                if right - left > len(text) * 6.4:
                    said = self.svg.node(group, "text", x=box["x"] + 5, y=y + 12, class_="said")
                    said.text = text
                    break


def attempts_over_time(pieces: Buckets, counts: dict[str, list[int]], lanes: Sequence[Lane], description: str) -> str:
    """Events by verdict, with the phases of bans drawn in above and their edges through the bars."""
    return _svg(attempts_chart(pieces, counts, lanes), description)


type Link = Callable[[str, int], str]
"""Where a bar leads: of a verdict, in a piece of time."""


def attempts_chart(
    pieces: Buckets, counts: dict[str, list[int]], lanes: Sequence[Lane], link: Link | None = None
) -> Any:
    """The same as a chart that is not drawn yet; with `link` its bars are links."""
    counts = counts or {"block": [0] * len(pieces.starts)}
    height = 300 + _LANE * len(lanes)
    highest = max((sum(column) for column in zip(*counts.values(), strict=True)), default=0) or 1
    plot = height - 45  # what margins and labels leave
    chart = _WithLanes(
        **_options(pieces, height), range=(0, highest * plot / (plot - _LANE * len(lanes) - 8)),
        y_labels=_ticks(highest), style=Style(colors=tuple(COLORS.get(v, "#666") for v in counts), **_STYLE),
        show_legend=False,
    )  # fmt: skip
    chart.lanes, chart.pieces = lanes, pieces
    for verdict, numbers in counts.items():
        chart.add(visible(WORDS.get(verdict, verdict)), numbers if link is None else _linked(verdict, numbers, link))
    return chart


def _linked(verdict: str, numbers: Sequence[int], link: Link) -> list[Any]:
    return [
        {"value": number, "xlink": {"href": link(verdict, place), "target": "_self"}} if number else 0
        for place, number in enumerate(numbers)
    ]


def clients_over_time(pieces: Buckets, numbers: list[int], description: str) -> str:
    """How many different clients there were."""
    chart = StackedBar(
        **_options(pieces, 190), range=(0, max(numbers, default=0) or 1), y_labels=_ticks(max(numbers, default=0)),
        style=Style(colors=("#4b5560",), **_STYLE), show_legend=False,
    )  # fmt: skip
    chart.add("clients", numbers)
    return _svg(chart, description)


def _options(pieces: Buckets, height: int) -> dict[str, Any]:
    labels = [pieces.label(start) for start in pieces.starts]
    step = max(1, -(-len(labels) // 8))
    return {
        "width": 980, "height": height, "js": (), "x_labels": labels, "x_labels_major": labels[::step],
        "show_minor_x_labels": False, "truncate_label": -1, "print_values": False, "spacing": 8, "margin": 4,
        "disable_xml_declaration": True, "no_data_text": "No events", "show_x_guides": False,
        "formatter": lambda value: f"{value:,.0f}",
    }  # fmt: skip


def _ticks(highest: int) -> list[dict[str, Any]]:
    """Round numbers from 0 to about the highest."""
    step = next(digit * 10**zeros for zeros in count() for digit in (1, 2, 5) if digit * 10**zeros * 5 >= highest)
    return [{"value": tick, "label": f"{tick:,}"} for tick in range(0, highest + 1, step)]


def _svg(chart: Any, description: str) -> str:
    """Without what needs a script, and with words for those who can't see it."""
    root = bare_tree(chart)
    root.set("role", "img")
    root.set("aria-label", description)
    return ElementTree.tostring(root, encoding="unicode")


def bare_tree(chart: Any) -> Any:
    """A chart, drawn, without what needs a script."""
    root = chart.render_tree()
    for parent in list(root.iter()):
        for child in list(parent):
            if str(child.tag).endswith("script") or not isinstance(child.tag, str):
                parent.remove(child)
    for node in root.iter():
        node.attrib.pop("onmouseover", None)
    return root
