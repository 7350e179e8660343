"""What a verification found, as metrics for node_exporter's textfile collector."""

from pathlib import Path
from typing import Final

from whenever import Instant

from tokgate.blocklog.atomic_file import replacing

MODE: Final = 0o644
"""Another user's program reads it; it names no client."""
VERIFY_METRICS: Final = {
    "tokgate_log_verify_findings": "What the last verification of the log found.",
    "tokgate_log_verify_lines": "The lines that it read.",
    "tokgate_log_verify_timestamp_seconds": "When it ended.",
}


def metrics_text(findings: int, lines: int, ended: Instant) -> str:
    """The metrics in Prometheus' text format."""
    values = (findings, lines, ended.timestamp())
    return "".join(
        f"# HELP {name} {meaning}\n# TYPE {name} gauge\n{name} {value}\n"
        for (name, meaning), value in zip(VERIFY_METRICS.items(), values, strict=True)
    )


def write_metrics(path: Path, findings: int, lines: int) -> None:
    """Replace the file. Raises OSError."""
    with replacing(path, MODE, shared=True) as draft:
        draft.write_text(metrics_text(findings, lines, Instant.now()), encoding="ascii")
