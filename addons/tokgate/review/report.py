"""The report: one self-contained HTML page about a period, for a screen and for paper."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from tokgate.review.charts import COLORS, PHASE_COLORS, WORDS, attempts_over_time, clients_over_time
from tokgate.review.findings import OFFENDER_DAYS, TOP, Findings
from tokgate.review.lanes import Lane
from tokgate.review.templating import environment

MAX_LANES: Final = 8

_templates: Final = environment("tokgate.review")


@dataclass(frozen=True, slots=True)
class ChainStatus:
    """Whether the log was verified, and what came of it; `sound` is None if it was not."""

    sound: bool | None
    sentences: tuple[str, ...]


NOT_VERIFIED: Final = ChainStatus(
    None, ("Not verified for this report: run it with --verify, or `tokgate log verify`.",)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What the report says of itself."""

    made: datetime
    version: str
    files: Sequence[str]
    filters: Sequence[str]
    lanes_from: str
    chain: ChainStatus


def render_report(findings: Findings, lanes: Sequence[Lane], setting: Setting) -> str:
    """The whole page. What came from clients is escaped like everything else."""
    shown = sorted(lanes, key=lambda lane: (lane.ban not in findings.bans, lane.stretches[0].start, lane.ban))
    shown = shown[:MAX_LANES]
    per = findings.buckets.unit
    return _templates.get_template("report.html").render(
        found=findings,
        setting=setting,
        lanes=shown,
        lanes_left_out=len(lanes) - len(shown),
        top=TOP,
        offender_days=OFFENDER_DAYS,
        phase_colors=PHASE_COLORS,
        words=WORDS,
        colors=COLORS,
        attempts=attempts_over_time(
            findings.buckets, findings.over_time, shown, f"Events per {per} by what was done; a table follows."
        ),
        clients=clients_over_time(findings.buckets, findings.clients_over_time, f"Different clients per {per}."),
        busiest=_busiest(findings),
    )


def _busiest(findings: Findings) -> list[dict[str, Any]]:
    """The pieces of time with most events, as the chart's words."""
    sums = [sum(column) for column in zip(*findings.over_time.values(), strict=True)]
    order = sorted(range(len(sums)), key=lambda number: (-sums[number], number))[:5]
    return [
        {
            "label": findings.buckets.label(findings.buckets.starts[number]),
            "events": sums[number],
            "clients": findings.clients_over_time[number],
        }
        for number in order
        if sums[number]
    ]


def _moment(at: datetime | None) -> str:
    return "–" if at is None else at.strftime("%Y-%m-%d %H:%M")


_templates.filters["moment"] = _moment
