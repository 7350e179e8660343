"""The chart: well-formed, a row for each ban and zone, bars in proportion to time, nothing of a policy as markup."""

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from labs.builders import OFFICE, at, ban, exemption, network, snapshot, wall
from labs.command_line import POLICY, Command
from tokgate.cli.policy.gantt import extent, gantt
from tokgate.policy.bans import OnExpiry
from tokgate.policy.schedule import Span

SVG = "{http://www.w3.org/2000/svg}"
YEAR = Span(at("2023-01-01T00:00Z"), at("2024-01-01T00:00Z"))
NOW = at("2023-07-02T12:00Z")


def boxes(chart: str) -> dict[str, Any]:
    root = ElementTree.fromstring(chart)
    return {
        str(box.findtext(f"{SVG}title")): box for box in root.iter(f"{SVG}rect") if box.find(f"{SVG}title") is not None
    }


def texts(chart: str) -> list[str]:
    return [str(text.text) for text in ElementTree.fromstring(chart).iter(f"{SVG}text") if text.text]


def test_bars_are_in_proportion() -> None:
    """A phase of a fifth of the time is a fifth of the chart wide, and begins where the one before ends."""
    quarter = YEAR.start.add(hours=24 * 73)
    policy = snapshot(ban(warn_from=YEAR.start, starts=quarter, expires=quarter.add(hours=24 * 73)))
    warn, block = (boxes(gantt(policy, YEAR, NOW))[title] for title in (
        "ban: warn, from 2023-01-01 01:00 +01:00 Europe/Brussels (2023-01-01T00:00:00Z)",
        "ban: block, from 2023-03-15 01:00 +01:00 Europe/Brussels (2023-03-15T00:00:00Z)",
    ))  # fmt: skip
    assert float(warn.get("width")) == float(block.get("width")) == pytest.approx(820 / 5, abs=0.2)
    assert float(block.get("x")) == pytest.approx(float(warn.get("x")) + 820 / 5, abs=0.2)


def test_a_short_bar_has_no_words() -> None:
    """What does not fit into its bar is told to whoever points at it, and nothing is written there."""
    start = YEAR.start.add(hours=24)
    chart = gantt(snapshot(ban(warn_from=YEAR.start, starts=start, expires=YEAR.end)), YEAR, NOW)
    assert any(title.startswith("ban: warn, from") for title in boxes(chart))
    assert texts(chart).count("warn") == 1  # in the legend
    assert all(text.strip('"') for text in texts(chart))


def test_what_is_shown() -> None:
    """A row a zone, an exemption where its clients are, what is overdue, and now; what never changes has no bar."""
    abroad = network("abroad", "198.51.100.0/24", zone="America/New_York")
    policy = snapshot(
        ban(networks=("office", "abroad"), expires=wall("2023-05-01T00:00"), on_expiry=OnExpiry.HOLD),
        ban("late", starts=wall("2025-01-01T00:00")),
        networks=(OFFICE, abroad),
        exemptions=(exemption(),),
    )
    chart = gantt(policy, YEAR, NOW)
    found = boxes(chart)
    assert sum(title.startswith("ban: held, overdue") for title in found) == 2
    assert sum(title.startswith("exemption press, until 2023-03-31 18:00") for title in found) == 1
    assert not any("announced" in title or "late" in title for title in found)
    assert {"clips in office", "clips in abroad", "now"} <= set(texts(chart))


@pytest.mark.parametrize("end", ["2023-01-02T00:00Z", "2023-12-31T00:00Z", "2999-01-01T00:00Z"])
def test_the_axis_can_be_read(end: str) -> None:
    """Days at equal distances, from the first on: never more than there is room for."""
    chart = gantt(snapshot(ban()), Span(YEAR.start, at(end)), NOW)
    ticks = [text for text in texts(chart) if re.fullmatch(r"\d{4}-\d\d-\d\d", text)]
    assert ticks[0] == "2023-01-01"
    assert (len(ticks), sorted(ticks)) == (8, ticks)


def test_nothing_to_show() -> None:
    assert "nothing in this time" in texts(gantt(snapshot(), YEAR, NOW))
    assert "nothing in this time" in texts(gantt(snapshot(), extent(snapshot(), NOW), NOW))


def test_extent_takes_in_everything_and_now() -> None:
    """From before the first change to after the last."""
    policy = snapshot(ban(expires=wall("2023-09-10T00:00")), exemptions=(exemption(until=wall("2023-10-01T00:00")),))
    found = extent(policy, at("2024-01-01T00:00Z"))
    assert found.start < at("2023-03-09T23:00Z") < at("2024-01-01T00:00Z") < found.end


def test_titles_are_text(policies: Path, tokgate: Command) -> None:
    """Markup in a policy is shown, not obeyed; a long title is cut in the row and whole in its tooltip."""
    title = "<script>alert(1)</script> & " + "long " * 20
    (policies / "policy.yaml").write_text(POLICY.replace("title: No clips at work", f"title: '{title}'"))
    chart = tokgate("timeline", "--plot", "-").out
    assert "<script" not in chart
    assert any(text.startswith("<script>alert(1)</script> & long") and text.endswith("…") for text in texts(chart))
    groups = [group.findtext(f"{SVG}title") for group in ElementTree.fromstring(chart).iter(f"{SVG}g")]
    assert f"spring-ban: {title.strip()}" in groups


def test_written_to_a_file(policies: Path, tokgate: Command) -> None:
    """The file is told on stderr; a range limits what is shown."""
    outcome = tokgate("timeline", "--plot", "out.svg", "--from", "2023-01-01", "--to", "2023-02-01")
    assert (outcome.code, outcome.out, outcome.err) == (0, "", "tokgate: wrote out.svg\n")
    assert "nothing in this time" in texts(Path("out.svg").read_text())
    assert tokgate("timeline", "--plot", "no/such/folder.svg").code == 3
    assert tokgate("timeline", "--plot", "-", "--json").code == 2
