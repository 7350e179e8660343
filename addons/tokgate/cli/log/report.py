"""`tokgate log report` and `tokgate log case`: a page about a period, or about one client or event, as HTML or PDF."""

import argparse
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from whenever import Instant

from tokgate.blocklog.read.reader import Filter, client_filter, find
from tokgate.blocklog.records.record import installed_version, instant_of, text_at
from tokgate.cli.arguments import common_zone, time_argument
from tokgate.cli.commands import CommandError, Exit, Subparsers, add_subcommand
from tokgate.cli.log.access import user_name
from tokgate.cli.log.source import add_whole_log, open_log, source_files, tell_of, wanted_of
from tokgate.cli.log.verify import add_trust, trust_of
from tokgate.cli.output_file import becoming
from tokgate.cli.policy_source import add_policies_option, snapshot_if_valid
from tokgate.cli.terminal import narrate
from tokgate.config.extras import Extra
from tokgate.policy.settings import LogSettings
from tokgate.policy.values.prefixes import IPNetwork
from tokgate.policy.values.text import escaped

if TYPE_CHECKING:
    from tokgate.analytics.report.report_data import BanPhases, ReportData
    from tokgate.policy.snapshot import Snapshot


BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_BROWSER_SECONDS: Final = 120
LANGUAGES: Final = ("en", "fr", "nl", "de")

_REPORT_EPILOG: Final = """\
examples:
  tokgate log report --from 2023-03-01 --to 2023-04-01 -o march.html
  tokgate log report --from 2023-03-01 --to 2023-04-01 -o march.pdf --key block.pub --language fr
  tokgate log report --network federal-offices -o offices.html

One file that needs nothing from the network. It begins with the bans: those of --policies as they are now, or, without
any, what the log tells of them. Clients are called new by the whole log: name older files too. PDF is printed
by Chromium. The log is verified, which reads all of it once more: --no-verify leaves that out, and says so."""


def add_parsers(commands: Subparsers) -> None:
    report = add_subcommand(commands, "report", "write a report about a period", _REPORT_EPILOG)
    report.set_defaults(log_run=write_report, extra=Extra.REPORT, case=False)
    about = add_subcommand(commands, "case", "write a case file about one client or event", _CASE_EPILOG)
    about.set_defaults(log_run=case, extra=Extra.REPORT, case=True)
    for parser in (report, about):
        add_whole_log(parser)
        parser.add_argument(
            "--from", dest="since", type=time_argument, metavar="TIME", help="the first instant (default: the log's)"
        )
        parser.add_argument("--to", dest="until", type=time_argument, metavar="TIME", help="the instant after the last")
        parser.add_argument(
            "-o", "--output", type=Path, required=True, metavar="FILE", help="a name in .html, .pdf or (case) .zip"
        )
        add_policies_option(parser, argument=False)  # whose bans are named, and their phases drawn in
        parser.add_argument(
            "--verify", action=argparse.BooleanOptionalAction, default=True, help="verify the log's chain (default)"
        )
        add_trust(parser)
        language = "the language of the page (default: en)"
        parser.add_argument("--language", choices=LANGUAGES, default="en", help=language)
        zone = "whose local time stands beside UTC (default: that of the networks)"
        parser.add_argument("--zone", type=_zone, metavar="ZONE", help=zone)
        parser.add_argument("--author", metavar="NAME", help="who writes it (default: the user)")
    about.add_argument("--event", metavar="EVENT-ID", help="the event that it is about, by the block page's reference")
    about.add_argument(
        "--sign", type=Path, metavar="KEY", help="private key for a .zip's manifest (default: the log's)"
    )
    about.add_argument(
        "--anchor", type=Path, action="append", metavar="FILE", help="put this anchor, and its .tsr, into a .zip"
    )


def write_report(args: argparse.Namespace, wanted: Filter | None = None) -> Exit:
    """Write a report or a case file about the period of the filter, or of the one that the options state."""
    output: Path = args.output
    if output.suffix not in (".html", ".pdf", *([".zip"] if args.case else [])):
        raise CommandError(f"{output}: a report is .html or .pdf, a case also .zip", Exit.USAGE)
    if output.suffix == ".zip" and args.clickhouse is not None:
        raise CommandError("ClickHouse holds no lines to prove: a .zip is made of files", Exit.USAGE)
    browser = _browser() if output.suffix == ".pdf" else None
    files = source_files(args)
    wanted = wanted or wanted_of(args)
    page, information, sound = _page(args, files, wanted)
    if output.suffix == ".zip":
        from tokgate.cli.log.bundle import write_bundle

        pages = {"case.html": page.encode()}
        try:
            pages["case.pdf"] = _printed(_browser(), page, information)
        except CommandError as error:
            narrate(f"tokgate: without a PDF: {error}")
        write_bundle(args, files, wanted, pages)
    else:
        content = page.encode() if browser is None else _printed(browser, page, information)
        with becoming(output) as target:
            target.write_bytes(content)
    narrate(f"tokgate: {output} is written")
    if sound is not False:
        return Exit.DONE
    narrate("tokgate: the log is not what was written: the file says where, and so does `tokgate log verify`")
    return Exit.FINDINGS


def _page(args: argparse.Namespace, files: list[Path], wanted: Filter) -> tuple[str, Mapping[str, str], bool | None]:
    """The page, what a PDF of it says of itself, and whether the log is sound; None if it was not verified."""
    # Charts and templates take a while to import: only this command waits for them.
    from tokgate.analytics.report.page import (
        BANS_OF_LOG,
        BANS_OF_POLICY,
        MAX_RECORDS,
        NOT_VERIFIABLE,
        NOT_VERIFIED,
        ReportDetails,
        render_report,
    )
    from tokgate.analytics.report.report_data import case_records, collect, facts_of_log, facts_of_policy
    from tokgate.analytics.report.texts import Language
    from tokgate.cli.log.report_integrity import digests, verified

    now = Instant.now()
    snapshot = snapshot_if_valid(args.policies, now, "phases are drawn from the log alone")
    small_groups = (LogSettings() if snapshot is None else snapshot.settings.log).small_groups
    everything = replace(wanted, since=None, until=None)
    with open_log(args, files, everything) as database:
        found = collect(database, wanted.since, wanted.until, now, small_groups=small_groups)
        tell_of(database.damage, found.unreadable)
        records = case_records(database, found, MAX_RECORDS + 1) if args.case else ()
    lanes = _lanes(snapshot, found)
    if args.clickhouse is not None:
        chain = NOT_VERIFIABLE
    else:
        chain = (
            verified(files, *trust_of(args), whole=not (args.log or args.no_rotated)) if args.verify else NOT_VERIFIED
        )
    chosen = {
        "Client": wanted.client, "User": wanted.user, "Name": wanted.name, "Ban": wanted.ban, "Action": wanted.action,
        "Verdict": wanted.verdict, "Network": wanted.network,
    }  # fmt: skip
    zone = "UTC" if snapshot is None else common_zone(snapshot.policy.networks.values())
    details = ReportDetails(
        made=now.to_stdlib().replace(tzinfo=None),
        version=installed_version() or "(source folder)",
        files=digests(files),
        filters=[(label, _shown(value)) for label, value in chosen.items() if value is not None],
        bans_from=BANS_OF_LOG if snapshot is None else BANS_OF_POLICY,
        policy_version="" if snapshot is None else snapshot.version,
        chain=chain,
        command=shlex.join(["tokgate", *sys.argv[1:]]),
        author=args.author or user_name(),
        purpose=args.why or "",
        ticket=args.ticket or "",
        language=Language(args.language),
        zone=args.zone or (None if zone == "UTC" else zone),
        case=args.case,
        about=", ".join(filter(None, (getattr(args, "event", None), *map(_shown, (wanted.client, wanted.user)))))
        if args.case
        else "",
    )
    concerned = found.bans | {change["ban"] for change in found.phase_changes} | {lane.ban for lane in lanes}
    bans = [] if snapshot is None else facts_of_policy(snapshot, concerned)
    unknown = [row for row in found.ban_rows if row["ban"] not in {ban.name for ban in bans}]
    page = render_report(found, lanes, [*bans, *facts_of_log(unknown)], details, records)
    said = {"Purpose": details.purpose, "Ticket": details.ticket}
    information = {
        "Title": details.title(found.start, found.end),
        "Author": escaped(details.author),
        "Subject": escaped(
            ", ".join(f"{label}: {value}" for label, value in (*details.filters, *said.items()) if value)
        ),
        "Creator": f"tokgate {details.version}",
        "CreationDate": f"D:{details.made:%Y%m%d%H%M%S}Z",
        "ModDate": f"D:{details.made:%Y%m%d%H%M%S}Z",
    }
    return page, information, chain.sound


def _zone(text: str) -> str:
    try:
        ZoneInfo(text)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no time zone: write it as Europe/Brussels") from error
    return text


def _lanes(snapshot: "Snapshot | None", found: "ReportData") -> list["BanPhases"]:
    from tokgate.analytics.report.report_data import phases_of_log, phases_of_policy

    if snapshot is None:
        changes = [
            (change["ban"], change["due"], change["phase"], change["phase_before"])
            for change in found.phase_changes
            if change["transition"] == "phase" and change["phase"]
        ]
        return phases_of_log(changes, found.start, found.end)
    lanes = phases_of_policy(snapshot, found.start, found.end)
    met = found.bans | {change["ban"] for change in found.phase_changes}
    concerned = [lane for lane in lanes if lane.ban in met]
    if not concerned and snapshot.version in {state["policy"] for state in found.policies}:
        concerned = lanes  # they were in force without events
    return concerned


def _shown(value: IPNetwork | str | None) -> str:
    """A filter's value; a network of one address as that address."""
    return "" if value is None else str(value).removesuffix("/32").removesuffix("/128")


def _browser() -> str:
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if found is None:
        raise CommandError(
            "PDF needs Chromium, which is not installed: install it, or write .html and print that from any browser"
        )
    return found


def _printed(browser: str, page: str, information: Mapping[str, str]) -> bytes:
    """The page as PDF, printed by Chromium with a temporary profile. Raises CommandError."""
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
        return with_information(target.read_bytes(), information)


_TRAILER: Final = re.compile(rb"trailer\s*<<(.*/Info (\d+) 0 R.*)>>\s*startxref\s+(\d+)\s+%%EOF\s*", re.DOTALL)


def with_information(printed: bytes, fields: Mapping[str, str]) -> bytes:
    """A PDF with another document information dictionary, by an incremental update (ISO 32000-1, 7.5.6 and 14.3.3).

    Unchanged if it doesn't end as Chromium writes it, with a trailer after a cross-reference table.
    """
    begin = printed.rfind(b"trailer")
    end = _TRAILER.fullmatch(printed, begin) if begin >= 0 else None
    if end is None:
        return printed
    trailer, number, table = end.groups()
    said = b" ".join(
        b"/%s <%s>" % (key.encode(), (b"\xfe\xff" + value.encode("utf-16-be", "replace")).hex().encode())
        for key, value in fields.items()
        if value
    )
    printed = printed.rstrip() + b"\n"
    added = b"%s 0 obj\n<<%s>>\nendobj\n" % (number, said)
    at = len(printed) + len(added)
    added += b"xref\n%s 1\n%010d 00000 n \ntrailer\n<<%s\n/Prev %s>>\n" % (number, len(printed), trailer, table)
    return printed + added + b"startxref\n%d\n%%%%EOF\n" % at


AROUND: Final = 60
"""Minutes before and after an event that its case file covers."""
_CASE_EPILOG: Final = """\
examples:
  tokgate log case --client 10.32.1.7 --from 2023-03-10 --to 2023-03-17 -o case.pdf --why "complaint" --ticket HR-17
  tokgate log case --event 01862000-0000-7000-8000-000000000001 -o case.html
  tokgate log case --client 10.32.1.7 --key block.pub -o case.zip    with records, proofs and a verifier

The bans, every record of the client in the period, the integrity of the log, and who wrote the file and why. With the
reference of an event it is about that event's client, an hour before and after. Each record can be proved: tokgate log
prove."""


def case(args: argparse.Namespace) -> Exit:
    """Write the report of one event's, client's or user's case."""
    wanted = wanted_of(args)
    if args.event is None:
        if wanted.client is None and wanted.user is None:
            raise CommandError("name the case: --event EVENT-ID, --client or --user", Exit.USAGE)
        return write_report(args, wanted)
    if args.clickhouse is not None:
        raise CommandError(
            "ClickHouse holds no lines to find an event in: name --client or --user, --from and --to", Exit.USAGE
        )
    try:
        line = find(source_files(args), args.event)
    except OSError as error:
        raise CommandError(f"the log can't be read: {error}") from error
    if line is None:
        raise CommandError(f"no record has the id {args.event}", Exit.FINDINGS)
    at = instant_of(line.record)
    client = text_at(line.record, "source", "ip") or text_at(line.record, "source", "address")
    if client is None or at is None:
        raise CommandError(f"the event {args.event} is about no client", Exit.FINDINGS)
    since, until = wanted.since or at.subtract(minutes=AROUND), wanted.until or at.add(minutes=AROUND)
    return write_report(args, replace(wanted, client=client_filter(client), since=since, until=until))
