"""Tables of a run: the bars, then each test's figures; as text for a terminal and as Markdown to keep."""

from collections.abc import Sequence

from comparison.bars import Outcome
from comparison.measurements import Test
from comparison.results import Failure, Results, Spread

_LEFT = 2
"""The first columns hold words, the others figures."""


def number(value: float | None) -> str:
    """Three or four digits that matter."""
    if value is None:
        return "–"
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) >= 1 else f"{value:.3g}"


def bars_rows(outcomes: Sequence[Outcome]) -> list[list[str]]:
    """The table of bars, header first."""
    rows = [["what", "beside", "tokgate", "peer", "measured", "spread", "bar", ""]]
    for outcome in outcomes:
        bar, spread = outcome.bar, outcome.spread
        measured = "–" if spread is None else f"{number(spread.median)} {bar.unit}"
        between = "–" if spread is None else f"{number(spread.least)}–{number(spread.greatest)}"
        figures = [number(outcome.ours), number(outcome.theirs), measured, between, bar.demand]
        rows.append([bar.what, bar.against, *figures, outcome.word])
    return rows


def test_rows(results: Results, test: Test) -> list[list[str]]:
    """A test's table, header first: medians, and the spread of the first figure."""
    metrics = results.metrics(test.name)
    rows = [["proxy", "rounds", metrics[0], "spread", *metrics[1:]]]
    for proxy in results.proxies(test.name):
        row = [proxy]
        for position, metric in enumerate(metrics):
            values = list(results.by_round(test.name, proxy, metric).values())
            spread = Spread.of(values) if values else None
            if position == 0:
                row += [str(len(values)), number(None if spread is None else spread.median)]
                row.append("–" if spread is None else f"{number(spread.least)}–{number(spread.greatest)}")
            else:
                row.append(number(None if spread is None else spread.median))
        rows.append(row)
    return rows


def reasons(outcomes: Sequence[Outcome]) -> list[str]:
    """Why bars were not measured, each once."""
    return list(dict.fromkeys(f"{out.bar.what}: {out.reason}" for out in outcomes if out.spread is None))


def text_table(rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for row in rows:
        cells = [
            cell.ljust(width) if column < _LEFT else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def markdown_table(rows: Sequence[Sequence[str]]) -> str:
    """The same for a document."""
    ruler = ["---" if column < _LEFT else "---:" for column in range(len(rows[0]))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (rows[0], ruler, *rows[1:]))


def text(results: Results, outcomes: Sequence[Outcome], tests: Sequence[Test]) -> str:
    """What is printed after a run."""
    parts = [
        f"{test.title} ({test.name})\n{text_table(test_rows(results, test))}"
        for test in tests
        if results.metrics(test.name)
    ]
    parts.append(f"Bars\n{text_table(bars_rows(outcomes))}")
    missing = reasons(outcomes)
    if missing:
        parts.append("Not measured\n" + "\n".join(f"  {line}" for line in missing))
    disturbed = results.disturbed()
    if disturbed:
        parts.append(f"{disturbed} of {len(results.samples)} samples were disturbed by other work on this machine.")
    return "\n\n".join(parts) + "\n"


def markdown(results: Results, outcomes: Sequence[Outcome], tests: Sequence[Test]) -> str:
    """The document to keep."""
    about = results.about
    met = sum(outcome.met is True for outcome in outcomes)
    parts = [
        "# tokgate beside other proxies",
        f"{met} of {len(outcomes)} bars met. Written by `{about['command']}`.",
        "Ratios are medians of the rounds' own ratios, with the least and the greatest: see [README.md](README.md).",
        markdown_table(
            [
                ["", ""],
                ["date", about["date"]],
                ["rounds", str(about["rounds"])],
                ["machine", f"{about['cpus']} × {about['cpu']}, {about['memory_gib']} GiB"],
                ["kernel", about["kernel"]],
                ["ClientHello", about["hello"]],
                ["arrival", about.get("arrival", "REDIRECT")],
                ["samples disturbed by other work", f"{results.disturbed()} of {len(results.samples)}"],
                *([name, version] for name, version in about["versions"].items() if version),
            ]
        ),
        "## Bars",
        markdown_table(bars_rows(outcomes)),
    ]
    missing = reasons(outcomes)
    if missing:
        parts += ["Not measured:", "\n".join(f"- {line}" for line in missing)]
    parts.append("## Figures")
    parts.append(
        "Medians of all rounds. `rate`: a second; `*_ms`: milliseconds; `cpu_us`: microseconds of the proxy's "
        "processor a connection; `mb_per_s`: 10^6 octets a second; `cpu_s_per_gib`: seconds of the proxy's processor a "
        "GiB; `kib`: KiB of resident memory a connection; `err`: failed connections."
    )
    for test in tests:
        if results.metrics(test.name):
            parts += [f"### {test.title}", f"`{test.name}`", markdown_table(test_rows(results, test))]
    if results.failures:
        parts += ["## What failed", "\n".join(map(_told, results.failures))]
    return "\n\n".join(parts) + "\n"


def _told(failure: Failure) -> str:
    when = "" if failure.round is None else f", round {failure.round + 1}"
    return f"- {failure.proxy}, {failure.test or 'start'}{when}: {failure.reason}"
