"""The chart over time for a page that allows no inline style: its colours come from the page's stylesheet."""

from collections.abc import Sequence
from typing import Any, Final
from xml.etree import ElementTree

from tokgate.review.buckets import Buckets
from tokgate.review.charts import WORDS, Link, attempts_chart, bare_tree
from tokgate.review.lanes import Lane
from tokgate.review.templating import visible

_LEFT_OUT: Final = ("style", "desc")


def chart(pieces: Buckets, counts: dict[str, list[int]], lanes: Sequence[Lane], link: Link) -> str:
    """Bars that lead to their lines. Hidden from screen readers and the keyboard: the table beside it says the same."""
    root = bare_tree(attempts_chart(pieces, counts, lanes, link))
    _strip(root)
    for number, verdict in enumerate(counts):
        _name_bars(root, number, verdict, pieces, counts[verdict])
    root.set("aria-hidden", "true")
    root.set("focusable", "false")
    root.attrib.pop("id", None)
    return ElementTree.tostring(root, encoding="unicode")


def _strip(root: Any) -> None:
    for parent in list(root.iter()):
        for child in list(parent):
            tooltip = "tooltip-overlay" in child.get("class", "") or (_tag(child) == "title" and _tag(parent) != "rect")
            if tooltip or _tag(child) in _LEFT_OUT:
                parent.remove(child)
    for node in root.iter():
        node.attrib.pop("style", None)
        if _tag(node) == "a":
            href = next((node.attrib.pop(key) for key in list(node.attrib) if str(key).endswith("href")), "")
            node.set("href", href)
            node.set("tabindex", "-1")
            node.attrib.pop("target", None)


def _name_bars(root: Any, number: int, verdict: str, pieces: Buckets, events: Sequence[int]) -> None:
    """Colours by verdict, and what a pointer sees of a bar."""
    (series, *_) = (
        node
        for node in root.iter()
        if f"serie-{number} " in node.get("class", "") and any(_tag(c) == "g" for c in node)
    )
    series.set("class", f"series {verdict if verdict in WORDS else 'other'}")
    for start, count, bar in zip(pieces.starts, events, series[0], strict=True):
        said = f"{pieces.label(start)}: {count:,} {visible(WORDS.get(verdict, verdict))}"
        ElementTree.SubElement(bar, "title").text = said


def _tag(node: Any) -> str:
    return str(node.tag).rpartition("}")[2]
