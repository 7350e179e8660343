"""What verification finds. Values only."""

from dataclasses import dataclass
from enum import StrEnum


class FindingCode(StrEnum):
    """The kind of a finding; docs/log.md explains each."""

    CHANGED = "changed"
    """The content does not give the hash that the record states."""
    MISSING = "missing"
    """Records were removed, or a file is missing."""
    ORDER = "order"
    """The record stands after one with a higher number: moved, or copied."""
    UNCHAINED = "unchained"
    """A record of no chain: inserted, or stripped of its fields."""
    TORN = "torn"
    """A line that is no record, and that no recovery record mentions."""
    RECOVERY = "recovery"
    """A recovery record for torn lines that don't exist."""
    SIGNATURE = "signature"
    """A checkpoint whose signature doesn't verify, or that signs another record than the one before it."""
    KEY = "key"
    """A checkpoint by an untrusted key. Reported once for each key."""
    UNSIGNED = "unsigned"
    """More records without a checkpoint than the writer leaves."""
    CUT = "cut"
    """An external checkpoint attests records that the log doesn't have."""
    CONTRADICTED = "contradicted"
    """An external checkpoint attests another hash for this record number."""
    NEW_CHAIN = "new-chain"
    """A record of another chain in the middle of a file."""
    COLUMNS = "columns"
    """A compacted file whose columns contradict its lines, or whose lines differ from its source."""
    DELETED = "deleted"
    """A `log-deleted` record that retention doesn't explain."""
    FOREIGN = "foreign"
    """A line that tokgate did not write, although its number and hash may fit; or a record that declares such lines."""
    CLOCK = "clock"
    """A checkpoint that is earlier than the one before it, and no record tells that the clock was set back."""
    UNREADABLE = "unreadable"
    """The rest of a file can't be read: damaged, or cut short."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault and its position; `line` counts from 1."""

    file: str
    line: int
    code: FindingCode
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.message} [{self.code}]"
