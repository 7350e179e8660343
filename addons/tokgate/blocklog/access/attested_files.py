"""Compares rotated files of who looked into the log with what the log's records say of them."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tokgate.blocklog.integrity.external_checkpoints import LinePosition
from tokgate.blocklog.integrity.findings import Finding, FindingCode
from tokgate.blocklog.paths import PACKED
from tokgate.blocklog.read.reader import UNREADABLE, open_log
from tokgate.blocklog.records.record import Record, text_at


@dataclass(slots=True)
class AccessFiles:
    """The files that `access-log-rotated` records name, with their digests and where those records stand."""

    named: dict[str, tuple[str, LinePosition]] = field(default_factory=dict)

    def add(self, record: Record, place: LinePosition) -> None:
        """Note a record."""
        file, digest = (text_at(record, "tokgate", "access_log", key) for key in ("file", "sha256"))
        if file is not None and digest is not None:
            self.named[Path(file).name] = digest, place

    def findings(self, deleted: Callable[[str], bool], *, whole: bool) -> Iterator[Finding]:
        """Files that differ, or in a `whole` log are gone although no record says that they were `deleted`."""
        for name, (digest, place) in self.named.items():
            beside = Path(place[0]).parent
            path = next((p for ending in ("", *PACKED) if (p := beside / f"{name}{ending}").exists()), None)
            if path is None:
                if whole and not deleted(name):
                    what = f"{name}, which says who looked into this log, is gone"
                    why = "no signed record tells that tokgate deleted it"
                    yield Finding(*place, FindingCode.MISSING, f"{what}, and {why}")
                continue
            try:
                with open_log(path) as stream:
                    same = hashlib.file_digest(stream, "sha256").hexdigest() == digest
            except UNREADABLE as error:
                yield Finding(str(path), 1, FindingCode.UNREADABLE, str(error))
                continue
            if not same:
                what = f"this file of who looked into the log is another than the record at {place[0]}:{place[1]} says"
                yield Finding(str(path), 1, FindingCode.CHANGED, what)
