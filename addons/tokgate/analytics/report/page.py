"""The report: one self-contained HTML page about a period, for a screen and for paper."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from jinja2 import pass_context
from jinja2.runtime import Context

from tokgate.analytics.report.charts import COLORS, PHASE_COLORS, attempts_over_time, clients_over_time
from tokgate.analytics.report.report_data import REPEATED_DAYS, TOP, BanFacts, BanPhases, Record, ReportData
from tokgate.analytics.report.texts import Language, Wording, environment
from tokgate.blocklog.integrity.chain_state import Chain
from tokgate.blocklog.integrity.checkpoint import fingerprint
from tokgate.policy.values.text import escaped

MAX_LANES: Final = 8
MAX_RECORDS: Final = 2000
"""Most records that a case file lists."""

_templates: Final = environment("tokgate.analytics.report")


@dataclass(frozen=True, slots=True)
class Sentence:
    """A text of the catalogues, and the values in it."""

    text: str
    values: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ChainStatus:
    """The result of verifying the log; `sound` is None if it was not verified."""

    sound: bool | None
    sentences: tuple[Sentence, ...]
    chains: Sequence[Chain] = ()


@dataclass(frozen=True, slots=True)
class FileDigest:
    """A file of the log: its octets, and SHA-256 over them."""

    name: str
    size: int
    sha256: str


NOT_VERIFIED: Final = ChainStatus(
    None, (Sentence("Not verified for this report: run it without --no-verify, or tokgate log verify."),)
)
NOT_VERIFIABLE: Final = ChainStatus(
    None, (Sentence("Not verified: read from ClickHouse, which holds no lines. The gateways' files can be verified."),)
)
BANS_OF_POLICY: Final = (
    "The bans and their phases are those of the policy files as they were when this report was made, version {version}."
)
BANS_OF_LOG: Final = "No policy files were read: the bans and their phases are told as far as the log tells them."


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportDetails:
    """The report's own particulars: when, by whom and from what it was made, in which language and zone."""

    made: datetime
    version: str
    files: Sequence[FileDigest]
    filters: Sequence[tuple[str, str]]
    """Their labels, which are texts of the catalogues, and values."""
    bans_from: str
    policy_version: str
    chain: ChainStatus
    command: str
    author: str = ""
    purpose: str = ""
    ticket: str = ""
    language: Language = Language.EN
    zone: str | None = None
    case: bool = False
    about: str = ""
    """Whose case it is: an event's id, a client, a user."""

    def title(self, start: datetime, end: datetime) -> str:
        say = Wording(self.language)
        what = say.plain("Case file" if self.case else "Block log report")
        about = f"{say.plain(': ')}{escaped(self.about)}" if self.about else ""
        return f"{what}{about}, {start:%Y-%m-%d %H:%M} – {end:%Y-%m-%d %H:%M} UTC"


def render_report(
    data: ReportData,
    lanes: Sequence[BanPhases],
    bans: Sequence[BanFacts],
    details: ReportDetails,
    records: Sequence[Record] = (),
) -> str:
    """The whole page as HTML. All values are escaped. `records` are those of a case file."""
    shown = sorted(lanes, key=lambda lane: (lane.ban not in data.bans, lane.spans[0].start, lane.ban))
    shown = shown[:MAX_LANES]
    per, say = data.buckets.unit, Wording(details.language, details.zone)
    events, different = str(say(f"Events per {per}, in UTC")), str(say(f"Different clients per {per}"))
    told = [number if number >= data.least else 0 for number in data.clients_over_time]
    sums = [sum(column) for column in zip(*data.over_time.values(), strict=True)]
    busiest = sorted(range(len(sums)), key=lambda number: (-sums[number], number))[:5]
    return _templates.get_template("report.html").render(
        found=data,
        details=details,
        title=details.title(data.start, data.end),
        bans=bans,
        records=records[:MAX_RECORDS],
        records_left_out=max(0, len(records) - MAX_RECORDS),
        lanes=shown,
        lanes_left_out=len(lanes) - len(shown),
        top=TOP,
        forever=datetime.max,
        repeated_days=REPEATED_DAYS,
        phase_colors=PHASE_COLORS,
        words=say.codes["verdict"],
        phases=say.codes["phase"],
        signals=say.codes["signal"],
        visibilities=say.codes["visibility"],
        scope=say.scope,
        colors=COLORS,
        attempts=attempts_over_time(data.buckets, data.over_time, shown, say, alt_text=events),
        clients=clients_over_time(data.buckets, told, different, say) if data.totals.clients > 1 else "",
        busiest=[
            (data.buckets.name(data.buckets.starts[number]), sums[number], data.clients_over_time[number])
            for number in busiest
            if sums[number]
        ],
        _=say,
    )


@pass_context
def _group(context: Context, count: int, least: int) -> str:
    """A number of clients; below `least`, only that it is."""
    if 0 < count < least:
        return str(context["_"]("under {count}", count=least))
    return str(_templates.filters["number"](count))


@pass_context
def _moment(context: Context, at: datetime | None) -> str:
    moment: str = context["_"].moment(at)
    return moment


_templates.filters |= {"moment": _moment, "group": _group, "fingerprint": fingerprint}
