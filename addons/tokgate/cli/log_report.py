"""`tokgate log report`: one page about a period, as HTML or PDF."""

import argparse
import os
import shutil
import subprocess
import tempfile
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

from whenever import Instant

from tokgate.blocklog.place import DEFAULT_LOG
from tokgate.blocklog.reader import Filter
from tokgate.cli.destination import becoming
from tokgate.cli.examination import Examination
from tokgate.cli.exits import CommandError, Exit
from tokgate.cli.instants import settle, time_argument
from tokgate.cli.log_output import tell_of
from tokgate.cli.log_query import AddSource, WantedOf
from tokgate.cli.log_review import files_of, review_of
from tokgate.cli.log_verify import absent_of, trusted_key
from tokgate.cli.policies import compile_patiently, load_patiently
from tokgate.cli.terminal import Patience, narrate

if TYPE_CHECKING:
    from tokgate.policy.snapshot import Snapshot
    from tokgate.review.findings import Findings
    from tokgate.review.lanes import Lane
    from tokgate.review.report import ChainStatus

BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_BROWSER_SECONDS: Final = 120

_EPILOG: Final = """\
examples:
  tokgate log report --from 2023-03-01 --to 2023-04-01 -o march.html
  tokgate log report --from 2023-03-01 --to 2023-04-01 -o march.pdf --verify --key block.pub
  tokgate log report --network federal-offices -o offices.html

One file that needs nothing from the network. The phases drawn in are those of --policies as they are now, or, without
any, those whose beginning the log tells. Clients are called new by the whole log: name older files too. PDF is printed
by Chromium. --verify reads all of the log once more; without it the report says that the log was not verified."""


def add_parser(
    commands: "argparse._SubParsersAction[argparse.ArgumentParser]", add_source: AddSource, wanted_of: WantedOf
) -> None:
    """Add `report`."""
    parser = commands.add_parser(
        "report", help="a page about a period", description="Write a report about a period.", epilog=_EPILOG
    )
    add_source(parser)
    parser.add_argument("--no-rotated", action="store_true", help="only the files named, not those rotated from them")
    parser.add_argument(
        "--from", dest="since", type=time_argument, metavar="TIME", help="the first instant (default: the log's)"
    )
    parser.add_argument("--to", dest="until", type=time_argument, metavar="TIME", help="the instant after the last")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="FILE", help="a name in .html or .pdf")
    parser.add_argument(
        "--policies", type=Path, default=Path("policies"), metavar="DIR",
        help="whose phases are drawn in (default: ./policies, if it is there)",
    )  # fmt: skip
    parser.add_argument("--verify", action="store_true", help="verify the log's chain, and say so in the report")
    parser.add_argument("--key", type=Path, metavar="PUB", help="public key (PEM) that the log must be signed with")
    parser.set_defaults(log_run=lambda args: report(args, wanted_of(args)))


def report(args: argparse.Namespace, wanted: Filter) -> Exit:
    """Ask, draw, write."""
    output: Path = args.output
    if output.suffix not in (".html", ".pdf"):
        raise CommandError(f"{output}: a report is .html or .pdf", Exit.USAGE)
    browser = _browser() if output.suffix == ".pdf" else None
    start, end = (None if moment is None else settle(moment, "UTC") for moment in (args.since, args.until))
    if start is not None and end is not None and start >= end:
        raise CommandError("--from has to be before --to", Exit.USAGE)
    files = files_of(args.log or [Path(DEFAULT_LOG)], rotated=not args.no_rotated)
    page, sound = _page(args, files, wanted, start, end)
    if browser is None:
        _settle(output, page.encode())
    else:
        _print_pdf(browser, page, output)
    narrate(f"tokgate: {output} is written")
    return Exit.FINDINGS if sound is False else Exit.DONE


def _page(
    args: argparse.Namespace, files: list[Path], wanted: Filter, start: Instant | None, end: Instant | None
) -> tuple[str, bool | None]:
    # Charts and templates take a while to import: only this command waits for them.
    from tokgate.review.findings import find
    from tokgate.review.report import NOT_VERIFIED, Setting, render_report

    now = Instant.now()
    everything = replace(wanted, since=None, until=None)
    with review_of(files, everything) as review, Patience("reading") as patience:
        found = find(review, start, end, now, progress=patience)
        tell_of(review.damage, found.unreadable)
    lanes, lanes_from = _lanes(args.policies, found, now)
    chain = _verified(files, args.key) if args.verify else NOT_VERIFIED
    setting = Setting(
        made=now.to_stdlib().replace(tzinfo=None),
        version=_version(),
        files=[path.name for path in files],
        filters=_filters(everything),
        lanes_from=lanes_from,
        chain=chain,
    )
    return render_report(found, lanes, setting), chain.sound


def _lanes(policies: Path, found: "Findings", now: Instant) -> tuple[list["Lane"], str]:
    from tokgate.review.lanes import lanes_of_log, lanes_of_policy

    snapshot = _snapshot(policies, now)
    if snapshot is None:
        changes = [
            (change["ban"], change["due"], change["phase"], change["phase_before"])
            for change in found.phase_changes
            if change["transition"] == "phase" and change["phase"]
        ]
        return lanes_of_log(changes, found.start, found.end), "as far as the log tells of their beginning and end"
    lanes = lanes_of_policy(snapshot, found.start, found.end)
    met = found.bans | {change["ban"] for change in found.phase_changes}
    concerned = [lane for lane in lanes if lane.ban in met]
    if not concerned and snapshot.version in {state["policy"] for state in found.policies}:
        concerned = lanes  # they were in force, though nobody came upon them
    return concerned, f"by the policy files as they were when this report was made, version {snapshot.version}"


def _snapshot(policies: Path, now: Instant) -> "Snapshot | None":
    if not policies.exists():
        return None
    policy = load_patiently(policies, now).policy
    if policy is None:
        narrate(f"tokgate: {policies} has errors (see `tokgate check`): phases are drawn from the log alone")
        return None
    return compile_patiently(policy)


def _verified(files: list[Path], key: Path | None) -> "ChainStatus":
    from tokgate.review.report import ChainStatus

    examination = Examination(files, [] if key is None else [trusted_key(key)])
    findings, verifier = list(examination.findings()), examination.verifier
    if not verifier.chains and key is None:
        return ChainStatus(None, ("Not verified: the log has no chain.",))
    if findings:
        return ChainStatus(False, (f"BROKEN: {len(findings)} findings, the first: {findings[0]}.",))
    chained = sum(chain.records for chain in verifier.chains.values())
    signed = all(chain.signed for chain in verifier.chains.values())
    sentences = [f"verified: {chained} records in {len(verifier.chains)} chains, nothing changed, missing or moved."]
    sentences.append(
        "Signatures were checked against the key given." if key is not None and signed
        else "Signatures were checked against the log's own key only." if signed
        else "Not every chain is signed."
    )  # fmt: skip
    sentences += [f"Chain {name}: {absent}." for name, chain in verifier.chains.items() if (absent := absent_of(chain))]
    sentences.append("Not compared with checkpoints kept elsewhere: `tokgate log verify --checkpoints` does.")
    return ChainStatus(True, tuple(sentences))


def _filters(wanted: Filter) -> list[str]:
    chosen = {
        "client": wanted.client, "user": wanted.user, "name": wanted.name, "ban": wanted.ban, "action": wanted.action,
        "verdict": wanted.verdict, "network": wanted.network,
    }  # fmt: skip
    return [f"{key} {value}" for key, value in chosen.items() if value is not None]


def _version() -> str:
    try:
        return metadata.version("tokgate")
    except metadata.PackageNotFoundError:
        return "(source folder)"


def _browser() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        raise CommandError(
            "PDF needs Chromium, which is not installed: install it, or write .html and print that from any browser"
        )
    return found


def _print_pdf(browser: str, page: str, output: Path) -> None:
    """Chromium prints the same page, with a profile of its own that goes with it."""
    with tempfile.TemporaryDirectory(prefix="tokgate-report-") as folder:
        source, target = Path(folder) / "report.html", Path(folder) / "report.pdf"
        source.write_text(page, encoding="utf-8")
        command = [
            browser, "--headless", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
            "--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND",
            f"--user-data-dir={folder}/profile", "--no-pdf-header-footer", f"--print-to-pdf={target}", source.as_uri(),
        ]  # fmt: skip
        if os.geteuid() == 0:
            command.insert(1, "--no-sandbox")  # Chromium doesn't start as root otherwise; the page has no scripts
        try:
            done = subprocess.run(command, capture_output=True, timeout=_BROWSER_SECONDS, check=False)
        except subprocess.TimeoutExpired as error:
            raise CommandError(f"{browser} did not print the report within {_BROWSER_SECONDS} s") from error
        if done.returncode or not target.exists():
            said = done.stderr.decode("utf-8", "replace").strip().splitlines()
            raise CommandError(f"{browser} could not print the report: {said[-1] if said else done.returncode}")
        _settle(output, target.read_bytes())


def _settle(output: Path, content: bytes) -> None:
    with becoming(output) as target:
        target.write_bytes(content)
