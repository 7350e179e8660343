"""`tokgate log verify` and `tokgate log key`: checks of a log's integrity, and the public key for them."""

import argparse
import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, Self, TypedDict

from whenever import Instant

from tokgate.blocklog.atomic_file import replacing
from tokgate.blocklog.integrity.chain_state import Chain, FindingCode
from tokgate.blocklog.integrity.checkpoint import fingerprint, key_text, public_pem, read_key, read_public_key
from tokgate.blocklog.integrity.trusted_keys import ExternalCheckpoint, checkpoints_in
from tokgate.blocklog.integrity.verify import Verifier
from tokgate.blocklog.paths import every_file, key_path_for, public_path_for, successions_path_for
from tokgate.blocklog.read.reader import MAX_LINE, OpenLog, open_log
from tokgate.blocklog.records.record import counted
from tokgate.cli.commands import CommandError, Exit, Subparsers, add_subcommand
from tokgate.cli.configuration import default_log
from tokgate.cli.log.source import add_files, add_one_file, require
from tokgate.cli.policy_source import open_policy
from tokgate.cli.terminal import Patience, narrate, print_json, visible
from tokgate.policy.values.text import shown

MAX_SHOWN: Final = 1000
_VERIFY_EPILOG: Final = """\
examples:
  tokgate log verify                                ./block.ndjson and the files rotated away from it
  tokgate log verify --key block.pub archive/*.ndjson.zst
  journalctl -t tokgate -o cat > kept.txt; tokgate log verify --key block.pub --checkpoints kept.txt

Without --key the log's own first key is believed: whoever can write the log could have signed it anew.
Without --checkpoints kept elsewhere, a tail that was cut off can't be seen, nor one that was written anew with the key.
Without FILE the log has to be whole: files that are gone are missing, unless a signed record tells of their deletion.
Exit code 1: something is wrong."""
_KEY_EPILOG: Final = """\
example:
  tokgate log key > block.pub                       keep it where who can write the log can't"""


class FindingOutput(TypedDict):
    """A fault and its place."""

    file: str
    line: int
    code: FindingCode
    message: str


class ChainOutput(TypedDict):
    """The state of one chain; `signed` is the last record that a checkpoint covers."""

    first: int
    last: int
    hash: str
    records: int
    signed: int
    follows: str | None
    deleted: bool
    key: str | None


class Verified(TypedDict):
    """`tokgate log verify --json`: the number of findings, the first of them, and each chain by its id."""

    lines: int
    findings: int
    shown: list[FindingOutput]
    chains: dict[str, ChainOutput]


def add_parsers(commands: Subparsers) -> None:
    verify = add_subcommand(
        commands, "verify", "find lines that were changed, deleted, put in, moved or cut off", _VERIFY_EPILOG
    )
    add_files(verify, "files to read, also .gz and .zst")
    add_trust(verify)
    verify.add_argument(
        "--policies", type=Path, metavar="DIR", help="also find files that were deleted before these policies say"
    )
    verify.add_argument(
        "--whole", action="store_true", help="these files are the whole log: what came before them is missing"
    )
    verify.add_argument("--json", action="store_true", help="the findings and chains as one JSON object")
    verify.add_argument(
        "--textfile", type=Path, metavar="FILE", help="also write what was found for node_exporter's textfile collector"
    )
    verify.set_defaults(run=_verify)
    key = add_subcommand(commands, "key", "print the public part of a log's key (PEM)", _KEY_EPILOG)
    add_one_file(key)
    key.add_argument("--fingerprint", action="store_true", help="only SHA-256 over the raw key, in hexadecimal")
    key.set_defaults(run=_key)


def add_trust(parser: argparse.ArgumentParser | argparse._ArgumentGroup) -> None:
    """Add the options that say by which keys and checkpoints a log is verified."""
    parser.add_argument(
        "--key",
        type=Path,
        action="append",
        metavar="PUB",
        help="public key (PEM) that the log must be signed with; once more for each that took over, in that order",
    )
    parser.add_argument(
        "--checkpoints",
        type=Path,
        metavar="FILE",
        help="text with checkpoints kept elsewhere: syslog, journal; - is stdin",
    )


def trust_of(args: argparse.Namespace) -> tuple[list[str], list[ExternalCheckpoint]]:
    """The keys and the checkpoints that the options name. Raises CommandError."""
    try:
        trusted = [read_public_key(path) for path in args.key or ()]
    except OSError as error:
        raise CommandError(f"the key can't be read: {error}") from error
    return trusted, _kept(args.checkpoints)


def _verify(args: argparse.Namespace) -> Exit:
    trusted, kept = trust_of(args)
    at_least = 0.0
    if args.policies is not None:
        days = open_policy(args.policies, Instant.now()).settings.log.retention_days
        at_least = math.inf if days is None else days
    with CurrentLog(default_log()) as current:
        files = args.log or current.files() or [default_log()]
        require(files)
        whole = args.whole or not args.log
        opener = open_log if args.log else current.open
        verifier = verifier_of(files, trusted, kept, whole=whole, opener=opener, at_least=at_least)
        count, told = 0, []
        with Patience("verifying") as patience:
            for finding in verifier.run(files, lambda lines: patience(lines, None)):
                count += 1
                if count > MAX_SHOWN:
                    continue
                if args.json:
                    told.append(finding)
                else:
                    patience.close()
                    sys.stdout.write(visible(str(finding)) + "\n")
    if args.json:
        chains = {
            name: shown(
                ChainOutput, each, last=each.head.sequence, hash=each.head.hash, deleted=each.deleted is not None
            )
            for name, each in verifier.chains.items()
        }
        first = [shown(FindingOutput, each) for each in told]
        print_json(Verified(lines=verifier.lines, findings=count, shown=first, chains=chains), ascii_only=False)
    else:
        _tell(verifier, count, trusted=bool(trusted), kept=bool(kept))
    if args.textfile is not None:
        with replacing(args.textfile, MODE, shared=True) as draft:
            draft.write_text(metrics_text(count, verifier.lines, Instant.now()), encoding="ascii")
    return Exit.FINDINGS if count else Exit.DONE


def _tell(verifier: Verifier, count: int, *, trusted: bool, kept: bool) -> None:
    """Print the state of each chain on stderr."""
    if count > MAX_SHOWN:
        narrate(f"tokgate: {count - MAX_SHOWN} more findings")
    for name, chain in verifier.chains.items():
        narrate(f"tokgate: chain {name}: {_state(chain, trusted=trusted)}")
        if chain.clock.steps:
            narrate(f"tokgate: chain {name}: its records tell {chain.clock.steps} times that the clock was set back")
    if verifier.unfinished is not None:
        file, line = verifier.unfinished
        narrate(
            f"tokgate: {visible(file)}:{line} has no end: the writer is at work, or was killed and has not come back"
        )
    if not kept:
        narrate(
            "tokgate: not compared with checkpoints kept elsewhere (see --checkpoints): "
            "a tail that was cut off, or written anew with the key, would not show"
        )
    if verifier.elsewhere.strange:
        strange = verifier.elsewhere.strange
        narrate(f"tokgate: passed over {strange} of the checkpoints kept elsewhere: by other keys, or not genuine")
    narrate(f"tokgate: {verifier.lines} lines, {counted(count, 'finding') if count else 'no findings'}")


def _state(chain: Chain, *, trusted: bool) -> str:
    said = f"records {chain.first} to {chain.head.sequence}"
    if chain.follows is not None:
        why, deleted = "no signed record tells of their deletion", chain.deleted
        if deleted is not None:
            why = f"deleted by retention after {counted(deleted.days, 'day')}, says record {deleted.head.sequence}"
        absent = f"records 1 to {chain.first - 1} are not here, the last of them in {chain.follows}: {why}"
        said = f"{said} ({absent})"
    if not chain.signed:
        return f"{said}, none of them signed: whoever could write the file could have made them up"
    by = f"by {chain.key}" if trusted else f"by {chain.key} (not compared with any: see --key)"
    later = chain.head.sequence - chain.signed - 1  # the checkpoint itself tells nothing
    return f"{said}, signed up to {chain.signed} {by}" + (f", {later} later ones not yet" if later > 0 else "")


def _kept(path: Path | None) -> list[ExternalCheckpoint]:
    if path is None:
        return []
    try:
        if str(path) == "-":
            kept = list(checkpoints_in(sys.stdin, "stdin"))
        else:
            with path.open(encoding="utf-8", errors="replace") as lines:
                kept = list(checkpoints_in(lines, str(path)))
    except OSError as error:
        raise CommandError(f"the checkpoints can't be read: {error}") from error
    if not kept:
        raise CommandError(f"there are no checkpoints in {path}")
    return kept


def _key(args: argparse.Namespace) -> Exit:
    key = key_path_for(args.log)
    try:
        public = public_path_for(key)
        if public.exists():
            text, known = public.read_text("ascii"), read_public_key(public)
        else:
            private, _ = read_key(key)
            text, known = public_pem(private.public_key()), key_text(private.public_key())
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(f"there is no key of {args.log}: {error}") from error
    sys.stdout.write(f"{fingerprint(known)}\n" if args.fingerprint else text)
    return Exit.DONE


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


class CurrentLog:
    """The current log file, kept open: verifying takes a while, in which it may be rotated.

    A context manager. Without such a file it holds nothing.
    """

    def __init__(self, log: Path) -> None:
        self.log: Final = log
        self._open: Final = ExitStack()
        self._stream: BinaryIO | None = None

    def __enter__(self) -> Self:
        if self.log.is_file():
            self._stream = self._open.enter_context(self.log.open("rb"))
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def files(self) -> list[Path]:
        """All files of the log; the current file once, under the name that it had when it was opened."""
        if self._stream is None:
            return every_file(self.log)
        current = os.fstat(self._stream.fileno())
        found = [
            path for path in every_file(self.log) if path != self.log and not os.path.samestat(path.stat(), current)
        ]
        return [*found, self.log]

    def open(self, path: Path) -> BinaryIO:
        """Open a log file for reading, the current one by its descriptor. Raises OSError."""
        if self._stream is None or path != self.log:
            return open_log(path)
        return Path(f"/proc/self/fd/{self._stream.fileno()}").open("rb")


def verifier_of(
    files: Sequence[Path],
    trusted: Sequence[str] = (),
    kept: Iterable[ExternalCheckpoint] = (),
    *,
    whole: bool = False,
    opener: OpenLog = open_log,
    at_least: float = 0,
) -> Verifier:
    """A verifier for these files, with the checkpoints of keys that lie beside them. Arguments as for `Verifier`."""
    beside = _successions(dict.fromkeys(map(successions_path_for, files)))
    return Verifier(trusted, kept, opener, whole=whole, successions=beside, at_least=at_least)


def _successions(paths: Iterable[Path]) -> Iterator[ExternalCheckpoint]:
    for path in paths:
        if path.is_file():
            with path.open(encoding="utf-8", errors="replace") as text:
                lines = iter(partial(text.readline, MAX_LINE), "")  # who can write there can write without an end
                yield from checkpoints_in(lines, str(path))
