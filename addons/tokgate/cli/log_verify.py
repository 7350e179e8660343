"""`tokgate log verify` and `tokgate log key`: whether a log is what was written, and the key to tell it by."""

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from tokgate.blocklog.checkpoint import Checkpoint, parse_checkpoints
from tokgate.blocklog.ordering import Opener
from tokgate.blocklog.place import DEFAULT_LOG
from tokgate.blocklog.reader import open_log
from tokgate.blocklog.signing import key_path_for, public_path_for, public_pem, read_key, read_public_key
from tokgate.blocklog.verify import Chain, Finding, Verifier
from tokgate.cli.exits import CommandError, Exit
from tokgate.cli.log_output import require
from tokgate.cli.terminal import narrate, progress_on_stderr, shown
from tokgate.review.sources import PARQUET, written_log

MAX_SHOWN: Final = 1000
_VERIFY_EPILOG: Final = """\
examples:
  tokgate log verify                                ./block.ndjson and the files rotated away from it
  tokgate log verify --key block.pub archive/*.ndjson.zst archive/*.parquet
  journalctl -t tokgate -o cat > kept.txt; tokgate log verify --key block.pub --checkpoints kept.txt

Without --key the log's own first key is believed: whoever can write the log could have signed it anew.
Without --checkpoints kept elsewhere, a tail that was cut off can't be seen. Exit code 1: something is wrong."""
_KEY_EPILOG: Final = """\
example:
  tokgate log key > block.pub                       keep it where who can write the log can't"""


def add_parsers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `verify` and `key` to the commands of `log`."""
    verify = commands.add_parser(
        "verify",
        help="whether the log is what was written",
        description="Find lines that were changed, deleted, put in, moved or cut off.",
        epilog=_VERIFY_EPILOG,
    )
    verify.add_argument(
        "files", nargs="*", type=Path, metavar="FILE", help=f"also .gz, .zst and .parquet (default: {DEFAULT_LOG})"
    )
    verify.add_argument("--key", type=Path, metavar="PUB", help="public key (PEM) that the log must be signed with")
    verify.add_argument(
        "--checkpoints",
        type=Path,
        metavar="FILE",
        help="text with checkpoints kept elsewhere: syslog, journal; - is stdin",
    )
    verify.add_argument("--json", action="store_true", help="the findings and chains as one JSON object")
    verify.set_defaults(run=_run, log_run=_verify)
    key = commands.add_parser(
        "key", help="the public key", description="Print the public part of a log's key (PEM).", epilog=_KEY_EPILOG
    )
    key.add_argument("--log", type=Path, default=DEFAULT_LOG, metavar="FILE", help=f"default: {DEFAULT_LOG}")
    key.set_defaults(run=_run, log_run=_key)


def _run(args: argparse.Namespace) -> int:
    return int(args.log_run(args))


def _verify(args: argparse.Namespace) -> Exit:
    files = args.files or written_log(DEFAULT_LOG) or [DEFAULT_LOG]
    require(files)
    verifier = Verifier(_trusted(args.key), _kept(args.checkpoints), opener_for(files))
    count, shown_findings = 0, []
    for finding in _with_progress(verifier, files):
        count += 1
        if count > MAX_SHOWN:
            continue
        if args.json:
            shown_findings.append(finding)
        else:
            sys.stdout.write(shown(str(finding)) + "\n")
    if args.json:
        sys.stdout.write(json.dumps(_as_json(verifier, count, shown_findings), ensure_ascii=False) + "\n")
    else:
        _tell(verifier, count, trusted=args.key is not None)
    return Exit.FINDINGS if count else Exit.DONE


def opener_for(files: Iterable[Path]) -> Opener:
    """How to open these files; only Parquet has to wait for DuckDB."""
    if all(path.suffix != PARQUET for path in files):
        return open_log
    from tokgate.review.compact import open_lines

    return open_lines


def _with_progress(verifier: Verifier, files: list[Path]) -> Iterator[Finding]:
    """The same findings; somebody who waits at a terminal sees how many lines have been read."""
    if not sys.stderr.isatty():
        yield from verifier.run(files)
        return
    with progress_on_stderr(count=True) as progress:
        task = progress.add_task("verifying", total=None)
        yield from verifier.run(files, lambda lines: progress.update(task, completed=lines))


def _tell(verifier: Verifier, count: int, *, trusted: bool) -> None:
    """The state of each chain, in words, on stderr."""
    if count > MAX_SHOWN:
        narrate(f"tokgate: {count - MAX_SHOWN} more findings")
    for name, chain in verifier.chains.items():
        narrate(f"tokgate: chain {name}: {_state(chain, trusted=trusted)}")
    if verifier.unfinished is not None:
        file, line = verifier.unfinished
        narrate(f"tokgate: {shown(file)}:{line} has no end: the writer is at work, or was killed and has not come back")
    findings = "1 finding" if count == 1 else f"{count or 'no'} findings"
    narrate(f"tokgate: {verifier.lines} lines, {findings}")


def _state(chain: Chain, *, trusted: bool) -> str:
    said = f"records {chain.first} to {chain.head.sequence}"
    if not chain.signed:
        return f"{said}, none of them signed"
    by = f"by {chain.key}" if trusted else f"by {chain.key} (not compared with any: see --key)"
    later = chain.head.sequence - chain.signed - 1  # the checkpoint itself tells nothing
    return f"{said}, signed up to {chain.signed} {by}" + (f", {later} later ones not yet" if later > 0 else "")


def _as_json(verifier: Verifier, count: int, findings: list[Finding]) -> dict[str, Any]:
    return {
        "lines": verifier.lines,
        "findings": count,
        "shown": [
            {"file": one.file, "line": one.line, "code": one.code.value, "message": one.message} for one in findings
        ],
        "chains": {
            name: {
                "first": chain.first,
                "last": chain.head.sequence,
                "hash": chain.head.hash,
                "records": chain.records,
                "signed": chain.signed,
                "key": chain.key,
            }
            for name, chain in verifier.chains.items()
        },
    }


def _trusted(path: Path | None) -> str | None:
    if path is None:
        return None
    try:
        return read_public_key(path)
    except OSError as error:
        raise CommandError(f"the key can't be read: {error}") from error


def _kept(path: Path | None) -> list[Checkpoint]:
    if path is None:
        return []
    try:
        if str(path) == "-":
            kept = list(parse_checkpoints(sys.stdin))
        else:
            with path.open(encoding="utf-8", errors="replace") as lines:
                kept = list(parse_checkpoints(lines))
    except OSError as error:
        raise CommandError(f"the checkpoints can't be read: {error}") from error
    if not kept:
        raise CommandError(f"there are no checkpoints in {path}")
    return kept


def _key(args: argparse.Namespace) -> Exit:
    key = key_path_for(args.log)
    try:
        public = public_path_for(key)
        text = public.read_text("ascii") if public.exists() else public_pem(read_key(key)[0].public_key())
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"there is no key of {args.log}: {error}") from error
    sys.stdout.write(text)
    return Exit.DONE
