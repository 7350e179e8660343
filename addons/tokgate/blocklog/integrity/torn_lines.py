"""Lines of a log that are no records, and the records that tell of them."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

from tokgate.blocklog.integrity.external_checkpoints import LinePosition
from tokgate.blocklog.records.record import Record, value_at


@dataclass(slots=True)
class TornLines:
    """Consecutive lines that are no records."""

    lines: list[LinePosition] = field(default_factory=list)
    size: int = 0
    digest: Any = field(default_factory=hashlib.sha256)
    open_end: bool = False
    """Whether the last has no newline and may be the beginning of a record, or what a power failure leaves of one."""

    def add(self, place: LinePosition, raw: bytes) -> None:
        """Add the next line, `raw` with its newline if it has one."""
        if self.lines:
            self.size += 1
            self.digest.update(b"\n")
        content = raw.removesuffix(b"\n")
        self.size += len(content)
        self.digest.update(content)
        self.lines.append(place)
        self.open_end = content is raw and raw[:1] in (b"{", b"\0")

    def is_reported_by(self, record: Record, field_name: str = "torn") -> bool:
        """Whether `tokgate.torn` of a record, or another field, tells of exactly these octets."""
        reported = value_at(record, "tokgate", field_name)
        return (
            value_at(reported, "bytes") == self.size
            and value_at(reported, "sha256") == self.digest.hexdigest()
            and (value_at(reported, "lines") or 1) == len(self.lines)
        )
