"""A case as one archive: the page, the records and their places, proofs, the checkpoint, and a signed manifest.

A court's expert checks it with `verify.py` in it, which needs nothing of tokgate, or by docs/proof.md alone.
"""

import argparse
import base64
import csv
import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from whenever import Instant

from tokgate.blocklog.integrity.checkpoint import key_text, read_key
from tokgate.blocklog.integrity.evidence import last_checkpoint, prove_all
from tokgate.blocklog.paths import key_path_for
from tokgate.blocklog.read.reader import Filter, Line, read
from tokgate.blocklog.records.record import EventAction, installed_version, text_at, value_at
from tokgate.cli.commands import CommandError, Exit
from tokgate.cli.configuration import default_log
from tokgate.cli.log import case_verifier
from tokgate.cli.log.verify import trust_of, verifier_of
from tokgate.cli.output_file import becoming
from tokgate.cli.terminal import narrate

MOST: Final = 10_000
"""Most records of a case."""
FORMAT: Final = "tokgate case, version 1"
_HISTORY: Final = {EventAction.PHASE_CHANGED, EventAction.OVERRIDE_STARTED, EventAction.OVERRIDE_ENDED}
_COLUMNS: Final = ("number", "time", "file", "line", "event", "message")


def write_bundle(args: argparse.Namespace, files: Sequence[Path], wanted: Filter, pages: dict[str, bytes]) -> None:
    """Write the archive; `pages` are the case as HTML, and as PDF if that could be made. Raises CommandError."""
    lines = [line for line in read(files) if isinstance(line, Line)]
    case = [line for line in lines if wanted.accepts(line.record)]
    if len(case) > MOST:
        raise CommandError(f"the case has more than {MOST:,} records: narrow it with --from and --to", Exit.USAGE)
    bans = {value_at(line.record, "tokgate", "ban") for line in case}
    history = [
        line
        for line in lines
        if text_at(line.record, "event", "action") in _HISTORY and value_at(line.record, "tokgate", "ban") in bans
    ]
    trusted, kept = trust_of(args)
    proofs = prove_all({_id(line) for line in case}, files, verifier_of(files, trusted, kept))
    entries = dict(pages)
    entries["records.ndjson"] = _lines(case)
    entries["places.csv"] = _places(case)
    entries["bans.ndjson"] = _lines(history)
    for event, proof in proofs.items():
        entries[f"proofs/{event}.json"] = (json.dumps(proof, ensure_ascii=False, indent=1) + "\n").encode(
            "utf-8", "backslashreplace"
        )
    checkpoint = last_checkpoint(files)
    if checkpoint is not None:
        entries["checkpoint.txt"] = f"{checkpoint.message()}\n".encode()
    for number, anchor in enumerate(args.anchor or (), 1):
        folder = "anchors" if f"anchors/{anchor.name}" not in entries else f"anchors/{number}"
        for path in (anchor, anchor.with_name(f"{anchor.name}.tsr")):
            if path.exists():
                entries[f"{folder}/{path.name}"] = path.read_bytes()
    entries["verify.py"] = Path(case_verifier.__file__).read_bytes()
    _write(args, entries)
    if missing := len(case) - len(proofs):
        narrate(f"tokgate: {missing} of {len(case)} records have no proof: no checkpoint that is trusted covers them")


def _write(args: argparse.Namespace, entries: dict[str, bytes]) -> None:
    first = (args.log or [default_log()])[0]
    try:
        private, _ = read_key(args.sign or key_path_for(first))
    except OSError as error:
        private = None
        narrate(f"tokgate: the manifest is not signed: {error}")
    manifest = {
        "format": FORMAT,
        "made": Instant.now().format_iso(unit="second"),
        "version": installed_version(),
        "key": None if private is None else key_text(private.public_key()),
        "files": {
            name: {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in entries.items()
        },
    }
    entries["manifest.json"] = (json.dumps(manifest, indent=1) + "\n").encode()
    if private is not None:
        entries["manifest.sig"] = base64.b64encode(private.sign(entries["manifest.json"]))
    with becoming(args.output) as draft, zipfile.ZipFile(draft, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(f"{args.output.stem}/{name}", content)


def _id(line: Line) -> str:
    return text_at(line.record, "event", "id") or ""


def _lines(lines: Sequence[Line]) -> bytes:
    return b"".join(line.raw + b"\n" for line in lines)


def _places(lines: Sequence[Line]) -> bytes:
    """Each record's number, time to the microsecond, file and line, as CSV."""
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(_COLUMNS)
    for line in lines:
        at, number = text_at(line.record, "@timestamp"), value_at(line.record, "event", "sequence")
        table.writerow((number, at, line.file, line.number, _id(line), text_at(line.record, "message")))
    return text.getvalue().encode()
