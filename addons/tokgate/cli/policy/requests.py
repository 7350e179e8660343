"""`tokgate override requests`, `approve` and `decline`: what people asked for on the page, and the answers."""

import sys
from argparse import Namespace
from pathlib import Path
from typing import Any, Final, TypedDict

from whenever import Instant

from tokgate.blocklog.paths import requests_path_for
from tokgate.blocklog.records.record import timestamp
from tokgate.blocklog.records.requests import ExceptionRequest, RequestState
from tokgate.cli.arguments import argument_of
from tokgate.cli.commands import CommandError, Exit, Subparsers, add_subcommand
from tokgate.cli.configuration import default_log
from tokgate.cli.policy.override_file import make_override, policies_locked
from tokgate.cli.policy_source import add_policies_option
from tokgate.cli.terminal import aligned, narrate, print_json, print_lines, visible, you
from tokgate.config.format import networks, times, values
from tokgate.policy.values.text import readable
from tokgate.traffic.exception_requests import AlreadyAnswered, RequestFolder

_REQUESTS_EPILOG: Final = """\
examples:
  tokgate override requests                         those that wait for an answer
  tokgate override requests --all --json            also those that were answered, as one JSON object

Where the policy has `settings: {overrides: {requests: true}}`, people ask on the page that refuses them."""
_APPROVE_EPILOG: Final = """\
examples:
  tokgate override approve 01870e7a-5c00-7a3b-9c5d-0d6f2b7c1e42
  tokgate override approve 01870e7a-5c00-7a3b-9c5d-0d6f2b7c1e42 --for 2h --ticket CHG-1042

Makes an override as `add` does: for the user who asked, or the client where nobody signed in, for as long as was asked
unless --for or --until says otherwise, at most `settings.overrides.longest`. The override's name is printed."""
_DECLINE_EPILOG: Final = """\
examples:
  tokgate override decline 01870e7a-5c00-7a3b-9c5d-0d6f2b7c1e42 --reason "Use the library's computer"

The page shows the reason to who asked, for a day. It stands in the log as well."""
_HEADINGS: Final = ("id", "state", "asked", "ban", "who", "for", "why", "answered by")
_line = argument_of(values.one_line)


class RequestList(TypedDict):
    """`tokgate override requests --json`."""

    at: str
    requests: list[ExceptionRequest]


def add_commands(commands: Subparsers) -> None:
    """Add the commands about requests to those of `tokgate override`."""
    listing = add_subcommand(commands, "requests", "show what people asked for on the page", _REQUESTS_EPILOG)
    listing.add_argument("--all", action="store_true", help="also those that were answered")
    listing.set_defaults(run=_list)
    approving = add_subcommand(commands, "approve", "make the override that was asked for", _APPROVE_EPILOG)
    long = approving.add_mutually_exclusive_group()
    lasting, until = argument_of(times.lasting), argument_of(times.until)
    long.add_argument("--for", dest="lasting", type=lasting, metavar="DURATION", help="how long (default: as asked)")
    long.add_argument("--until", type=until, metavar="TIME", help="or its end, exclusive")
    approving.add_argument("--reason", type=_line, help="why (default: what was asked for)")
    approving.set_defaults(run=_approve)
    declining = add_subcommand(commands, "decline", "decline a request", _DECLINE_EPILOG)
    declining.add_argument("--reason", required=True, type=_line, help="why; shown to who asked")
    declining.set_defaults(run=_decline)
    for answering in (approving, declining):
        answering.add_argument("id", metavar="ID", help="as `tokgate override requests` shows it")
        answering.add_argument("--ticket", type=_line, help="where it is dealt with")
        answering.add_argument("--by", type=_line, metavar="WHO", help="who answers (default: you)")
    for each in (listing, approving, declining):
        log = default_log()
        each.add_argument(
            "--log", type=Path, default=log, metavar="FILE", help=f"requests are beside this (default: {log})"
        )
        each.add_argument("--json", action="store_true", help="one JSON object")
        add_policies_option(each, argument=False)


def _list(options: Namespace) -> Exit:
    """Print the requests, the oldest first."""
    known = RequestFolder(requests_path_for(options.log)).all().values()
    found = [each for each in known if options.all or each["state"] == RequestState.PENDING]
    if options.json:
        print_json(RequestList(at=timestamp(Instant.now()), requests=found), indent=2, ascii_only=False)
    elif found:
        print_lines(aligned([_HEADINGS, *([readable(cell) for cell in _row(each)] for each in found)]))
    else:
        narrate("no requests" if options.all else "no requests that wait for an answer")
    return Exit.DONE


def _row(request: ExceptionRequest) -> tuple[str, ...]:
    who = request["client"] if request["user"] is None else f"{request['user']} at {request['client']}"
    said = request["id"], request["state"], request["at"][:19] + "Z", request["ban"], who
    return *said, request["lasting"], request["why"], request["by"] or "-"


def _approve(options: Namespace) -> Exit:
    """Make the override, and write into the request which it is."""
    now, by = Instant.now(), options.by or you()
    with policies_locked(options.policies):
        folder, request = _pending(options)
        user = request["user"]
        wanted = Namespace(
            policies=options.policies,
            ban=request["ban"],
            all_bans=False,
            client=None if user else [networks.cidr(request["client"])],
            user=[user] if user else None,
            **dict.fromkeys(("network", "group", "device", "interface", "name")),
            lasting=options.lasting or times.lasting(request["lasting"]),
            until=options.until,
            reason=options.reason or request["why"],
            ticket=options.ticket,
            by=by,
        )
        made = make_override(wanted, now)
        answer = {"override": made.name, "until": timestamp(made.until), "reason": options.reason}
        answered = _answer(folder, options, RequestState.APPROVED, now, by, **answer)
    if options.json:
        print_json(answered, indent=2, ascii_only=False)
    else:
        sys.stdout.write(f"{made.name}\n")
    made.narrate()
    return Exit.DONE


def _decline(options: Namespace) -> Exit:
    """Write into the request that it is declined, and why."""
    with policies_locked(options.policies):
        folder, request = _pending(options)
        by = options.by or you()
        answered = _answer(folder, options, RequestState.DECLINED, Instant.now(), by, reason=options.reason)
    if options.json:
        print_json(answered, indent=2, ascii_only=False)
    narrate(f"tokgate: declined; the page shows {visible(request['client'])} the reason")
    return Exit.DONE


def _pending(options: Namespace) -> tuple[RequestFolder, ExceptionRequest]:
    """Raises CommandError for a request that doesn't wait for an answer."""
    folder = RequestFolder(requests_path_for(options.log))
    request = folder.all().get(options.id)
    if request is None:
        where = visible(str(folder.folder))
        raise CommandError(f"there is no request `{visible(options.id)}` in {where}", Exit.USAGE)
    if request["state"] != RequestState.PENDING:
        raise CommandError(f"the request was {request['state']} by {visible(request['by'] or '')}", Exit.FINDINGS)
    return folder, request


def _answer(
    folder: RequestFolder, options: Namespace, state: RequestState, now: Instant, by: str, **said: Any
) -> ExceptionRequest:
    try:
        stated = {"state": state, "answered": timestamp(now), "by": by, "ticket": options.ticket, **said}
        return folder.answer(options.id, **stated)
    except (KeyError, AlreadyAnswered) as error:
        raise CommandError(f"the request changed meanwhile: {visible(str(error))}", Exit.FINDINGS) from None
