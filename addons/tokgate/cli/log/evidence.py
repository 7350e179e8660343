"""`tokgate log prove` and `tokgate log anchor`: proof of one record, and a third party's timestamp of a checkpoint."""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tokgate.blocklog.integrity.checkpoint import Checkpoint, parse_checkpoints
from tokgate.blocklog.integrity.evidence import NoProof, prove
from tokgate.blocklog.paths import every_file
from tokgate.blocklog.read.reader import UNREADABLE, OpenLog
from tokgate.cli.commands import CommandError, Exit, Subparsers, add_subcommand, need
from tokgate.cli.configuration import default_log
from tokgate.cli.log.access import add_purpose, record_look
from tokgate.cli.log.source import add_files, add_log_option, require
from tokgate.cli.log.verify import CurrentLog, add_trust, trust_of, verifier_of
from tokgate.cli.output_file import becoming
from tokgate.cli.terminal import narrate
from tokgate.config.extras import Extra

_PROVE_EPILOG: Final = """\
example:
  tokgate log prove 01862000-0000-7000-8000-000000000001 -o proof.json

docs/proof.md has a verifier that needs nothing of tokgate. The proof shows no other record.
Exit code 1: no record has this id, no checkpoint covers it yet, or the log is not whole there."""
_ANCHOR_EPILOG: Final = """\
examples:
  tokgate log anchor -o anchor.txt                         the last checkpoint; then: ots stamp anchor.txt
  tokgate log anchor -o anchor.txt --tsa https://tsa.example.org/   its timestamp (RFC 3161), too: anchor.txt.tsr
  tokgate log anchor --check anchor.txt --tsa-ca tsa.pem   when the checkpoint existed, by anchor.txt.tsr
  tokgate log verify --checkpoints anchor.txt              whether the log still is what the checkpoint signed"""


def add_parsers(commands: Subparsers) -> None:
    proof = add_subcommand(commands, "prove", "prove one record, and show no other", _PROVE_EPILOG)
    proof.add_argument("event", metavar="EVENT-ID", help="event.id: the reference on the block page")
    add_log_option(proof, f"logs, those rotated away included (default: {default_log()})")
    add_trust(proof)
    proof.add_argument("-o", "--output", type=Path, metavar="FILE", help="where to write it (default: stdout)")
    add_purpose(proof)
    proof.set_defaults(run=_prove)
    anchor = add_subcommand(commands, "anchor", "have a third party date the last checkpoint", _ANCHOR_EPILOG)
    add_files(anchor, "logs, those rotated away included")
    what = anchor.add_mutually_exclusive_group(required=True)
    what.add_argument("-o", "--output", type=Path, metavar="FILE", help="where to write the checkpoint")
    what.add_argument("--check", type=Path, metavar="FILE", help="verify the timestamp FILE.tsr of a checkpoint")
    anchor.add_argument("--tsa", metavar="URL", help="timestamp authority (RFC 3161): its answer goes to FILE.tsr")
    anchor.add_argument("--tsa-ca", type=Path, metavar="PEM", help="the authority's root certificate, for --check")
    anchor.set_defaults(run=_anchor)


def _prove(args: argparse.Namespace) -> Exit:
    record_look(args, "tokgate log prove")
    with _files(args.log) as (files, opener):
        try:
            trusted, kept = trust_of(args)
            proof = prove(args.event, files, lambda chosen: verifier_of(chosen, trusted, kept, opener=opener))
        except NoProof as error:
            narrate(f"tokgate: {error}")
            return Exit.FINDINGS
    text = json.dumps(proof, ensure_ascii=False, indent=2) + "\n"
    if args.output is None:
        sys.stdout.write(text)
    else:
        with becoming(args.output) as draft:
            draft.write_bytes(text.encode("utf-8", "backslashreplace"))
    return Exit.DONE


def _anchor(args: argparse.Namespace) -> Exit:
    if args.check is not None:
        return _check(args.check, args.tsa_ca)
    from tokgate.blocklog.integrity.evidence import last_checkpoint, stamp  # no other command has to wait for these

    if args.tsa is not None:
        need(Extra.ANCHOR)
    with _files(args.log) as (files, opener):
        checkpoint = last_checkpoint(files, opener)
    if checkpoint is None:
        raise CommandError("the log has no checkpoint yet")
    content = (checkpoint.message() + "\n").encode()
    try:
        answer = None if args.tsa is None else stamp(content, args.tsa)
        with becoming(args.output) as draft:
            draft.write_bytes(content)
        if answer is not None:
            with becoming(_answer_of(args.output)) as draft:
                draft.write_bytes(answer)
    except OSError as error:
        raise CommandError(str(error)) from error
    narrate(f"tokgate: {args.output} is {_named(checkpoint)}")
    return Exit.DONE


def _check(path: Path, roots: Path | None) -> Exit:
    if roots is None:
        raise CommandError("--check needs --tsa-ca, the authority's root certificate", Exit.USAGE)
    need(Extra.ANCHOR)
    from tokgate.blocklog.integrity.evidence import certificates_in, verify_stamp

    try:
        content = path.read_bytes()
        found = verify_stamp(content, _answer_of(path).read_bytes(), certificates_in(roots))
    except OSError as error:
        said = str(error) if error.filename is None else f"{error.filename}: {error.strerror}"
        raise CommandError(said, Exit.FINDINGS) from error
    checkpoint = next(parse_checkpoints([content.decode("utf-8", "replace")]), None)
    if checkpoint is None or not checkpoint.genuine:
        raise CommandError(f"{path} holds no genuine checkpoint", Exit.FINDINGS)
    sys.stdout.write(f"{_named(checkpoint)} existed at {found.at}, says timestamp {found.serial}\n")
    return Exit.DONE


def _named(checkpoint: Checkpoint) -> str:
    return f"the checkpoint over records 1 to {checkpoint.head.sequence} of chain {checkpoint.head.chain}"


def _answer_of(path: Path) -> Path:
    return path.with_name(path.name + ".tsr")


@contextmanager
def _files(given: list[Path] | None) -> Iterator[tuple[list[Path], OpenLog]]:
    """The files of a log, those rotated away included, and how to open them. Errors end the command."""
    first, *others = given or [default_log()]
    with CurrentLog(first) as current:
        require([first, *others], rotated=True)
        files = list(dict.fromkeys([*current.files(), *(file for path in others for file in every_file(path))]))
        try:
            yield files, current.open
        except UNREADABLE as error:
            raise CommandError(f"the log can't be read: {error}") from error
