"""`tokgate service`: services as the policy and the catalogue define them; lists from which they are made."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Final, TypedDict

from tokgate.cli.arguments import argument_of, identifier
from tokgate.cli.commands import Subparsers, add_command, add_subcommand
from tokgate.cli.exits import Exit
from tokgate.cli.policy.known_services import KnownService, all_services, find, policy_if_any
from tokgate.cli.policy_source import add_policies_option
from tokgate.cli.tables import show_rows
from tokgate.cli.terminal import print_json, print_lines, visible
from tokgate.config.format import times, values
from tokgate.config.service_lists.lists import ListFormat
from tokgate.config.service_lists.selection import SourceOutput, source_keys
from tokgate.policy.services import Match, PatternKind, ServiceIndex

_EPILOG: Final = """\
examples:
  tokgate service list                              what a ban can name: the policy's services and the catalogue's
  tokgate service show deepseek
  tokgate service test deepseek chat.deepseek.com   does this name belong to it?
  tokgate service import data/deepseek --name deepseek
                                                    a service file from a public list
  tokgate service update deepseek newer/deepseek    what a newer list changes

Nothing is fetched: lists are files. docs/services.md says how the catalogue's services are kept."""
_LIST_EPILOG: Final = """\
example:
  tokgate service list --json                       the policy's services and the catalogue's, as one JSON object"""
_SHOW_EPILOG: Final = """\
example:
  tokgate service show tiktok                       its names, addresses and apps, and the bans that name it"""
_IMPORT_EPILOG: Final = """\
examples:
  tokgate service import domain-list-community/data/telegram --name telegram
  tokgate service import names.txt --name shops -o -         print it instead
  tokgate diff HEAD:policies policies                        review what it changes

formats:
  domain-list-community   include:, full:, domain:, regexp:, @attributes; included lists in the same folder
  hosts                   hosts(5), or names one a line

Public suffixes, shared hosts (CDNs, clouds) and keywords are dropped, and reported with their lines; so is what can't
be read. The file is POLICIES/services/NAME.yaml. Exit code 1: some lines could not be read; the file has the others.
Also 1, and no file: the policy has a service of this name, or the list has nothing to take."""
_UPDATE_EPILOG: Final = """\
examples:
  tokgate service update telegram domain-list-community/data/telegram
  tokgate service update telegram domain-list-community/data/telegram --write --revision 4f2c1d9

Lines with + are names that only the newer list has, lines with - those that it no longer has. --keep leaves these in.
The list is read as the last one was (format, attributes), unless an option says otherwise. Exit code 1: some lines
could not be read; with --exit-code also when anything differs."""
_TEST_EPILOG: Final = """\
examples:
  tokgate service test tiktok p16-sign-va.tiktokcdn.com
  tokgate service test tiktok 'https://play.google.com/store/apps/details?id=com.zhiliaoapp.musically'

Exit code 0: all belong to the service; 1: one doesn't."""


class ServicePatterns(TypedDict):
    """Name patterns by kind."""

    exact: list[str]
    suffix: list[str]
    regex: list[str]
    label: list[str]


class ServiceContent(TypedDict):
    """What belongs to the service; listings by store."""

    names: ServicePatterns
    addresses: list[str]
    store: dict[str, list[str]]


class ServiceShown(TypedDict):
    """`tokgate service show --json`."""

    name: str
    title: str
    bans: list[str]
    catalogue: bool
    origin: str
    source: SourceOutput | None
    content: ServiceContent


class ServiceList(TypedDict):
    """`tokgate service list --json`: each as `show` has it."""

    services: list[ServiceShown]


class NameTested(TypedDict):
    """A name: whether it belongs to the service and by which rule; other services by name, with their rules."""

    host: str
    belongs: bool
    rule: str | None
    others: dict[str, str]
    problem: str | None


class ServiceTested(TypedDict):
    """`tokgate service test --json`."""

    service: str
    results: list[NameTested]


def add_parser(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "service", _EPILOG)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="service_command", required=True)
    listing = _added(commands, _list, "list", "list all services, one a line", _LIST_EPILOG)
    showing = _added(commands, _show, "show", "show what belongs to a service", _SHOW_EPILOG)
    showing.add_argument("name", metavar="NAME")
    testing = _added(commands, _test, "test", "test names against a service", _TEST_EPILOG)
    testing.add_argument("name", metavar="NAME")
    testing.add_argument("hosts", metavar="HOST", nargs="+", help="a host name, an address or a URL")
    for each in (listing, showing, testing):
        each.add_argument("--json", action="store_true", help="one JSON object")
    importing = _added(commands, _import, "import", "make a service file of a list", _IMPORT_EPILOG)
    importing.add_argument("file", metavar="FILE", type=Path, help="the list")
    importing.add_argument("--name", required=True, type=identifier, help="what to call the service")
    importing.add_argument("--title", type=_line, help="what people call it (default: NAME)")
    importing.add_argument(
        "-o", "--output", metavar="FILE", help="where to write (default: POLICIES/services/NAME.yaml; - prints it)"
    )
    importing.add_argument("--force", action="store_true", help="write over an existing file")
    updating = _added(commands, _update, "update", "show what a newer list changes", _UPDATE_EPILOG)
    updating.add_argument("name", metavar="NAME", help="the service")
    updating.add_argument("file", metavar="NEWLIST", type=Path, help="the newer list")
    updating.add_argument("--write", action="store_true", help="write the service's file")
    updating.add_argument("--keep", action="store_true", help="keep names that the newer list no longer has")
    updating.add_argument("--exit-code", action="store_true", help="exit 1 when anything differs")
    for each in (importing, updating):
        each.add_argument("--format", choices=list(ListFormat), help="of the list (default: told by its lines)")
        each.add_argument(
            "--attribute", action="append", type=_line, metavar="ATTR",
            help="only entries with this attribute, or with --attribute=-ATTR without it; may be given several times",
        )  # fmt: skip
        each.add_argument("--subdomains", action="store_true", help="take single hosts with all below them")
        each.add_argument("--source", type=_line, metavar="URL", help="where the list is published")
        each.add_argument("--revision", type=_line, help="which revision (default: a digest of the list)")
        each.add_argument("--licence", type=_line, help="its licence")
        each.add_argument("--date", type=_date, help="its day, YYYY-MM-DD (default: of its file)")
    for each in (listing, showing, testing, importing, updating):
        add_policies_option(each, argument=each is not testing)


def _added(
    commands: Subparsers, run: Callable[[argparse.Namespace], int], name: str, summary: str, epilog: str
) -> argparse.ArgumentParser:
    parser = add_subcommand(commands, name, summary, epilog)
    parser.set_defaults(run=run)
    return parser


def _import(options: argparse.Namespace) -> int:
    from tokgate.cli.policy.service_lists import import_list  # formats of lists, which the others can do without

    return import_list(options)


def _update(options: argparse.Namespace) -> int:
    from tokgate.cli.policy.service_lists import update

    return update(options)


_line = argument_of(values.one_line)
_date = argument_of(times.date)
_COLUMNS: Final = ("service", "title", "names", "addresses", "apps", "bans", "from")


def _list(options: argparse.Namespace) -> int:
    """List the policy's services and the catalogue's."""
    known = [_shown(each) for each in all_services(policy_if_any(options.policies))]
    if options.json:
        print_json(ServiceList(services=known), ascii_only=False)
        return Exit.DONE
    rows = [
        (
            each["name"],
            visible(each["title"]),
            str(sum(len(each["content"]["names"][kind.value]) for kind in PatternKind)),
            str(len(each["content"]["addresses"]) or ""),
            str(sum(map(len, each["content"]["store"].values())) or ""),
            ", ".join(each["bans"]),
            "catalogue" if each["catalogue"] else each["origin"],
        )
        for each in known
    ]
    whole, right = (True, False, True, True, True, False, True), (False, False, True, True, True, False, False)
    show_rows(_COLUMNS, rows, whole, right=right)
    return Exit.DONE


def _show(options: argparse.Namespace) -> int:
    """Print a service's title, names, addresses, apps and bans."""
    shown = _shown(find(policy_if_any(options.policies), options.name))
    if options.json:
        print_json(shown, ascii_only=False)
        return Exit.DONE
    content, bans = shown["content"], shown["bans"]
    lines = [f"{shown['name']}: {visible(shown['title'])}", f"  defined in {shown['origin']}"]
    lines.append(f"  banned by {', '.join(bans)}" if bans else "  no ban names it")
    for key, value in (shown["source"] or {}).items():
        if value:
            said = ", ".join(map(str, value)) if isinstance(value, list) else "yes" if value is True else str(value)
            lines.append(f"  imported: {key} {visible(said)}")
    lines += [f"  {kind} {visible(each)}" for kind in PatternKind for each in content["names"][kind.value]]
    lines += [f"  address {prefix}" for prefix in content["addresses"]]
    lines += [f"  store {store} {visible(app)}" for store, apps in content["store"].items() for app in apps]
    print_lines(lines)
    return Exit.DONE


def _shown(known: KnownService) -> ServiceShown:
    service = known.service
    names: ServicePatterns = {"exact": [], "suffix": [], "regex": [], "label": []}
    for each in service.patterns:
        names[each.kind.value].append(each.value)
    stores: dict[str, list[str]] = {}
    for listing in service.stores:
        stores.setdefault(listing.store, []).append(listing.identifier)
    return {
        "name": service.name,
        "title": service.title,
        "bans": list(known.bans),
        "catalogue": known.from_catalogue,
        "origin": known.where,
        "source": None if service.source is None else source_keys(service.source),
        "content": {"names": names, "addresses": [str(prefix) for prefix in service.addresses], "store": stores},
    }


def _test(options: argparse.Namespace) -> int:
    """Say of each name whether it belongs to the service, by which rule, and to which others it belongs."""
    policy = policy_if_any(options.policies)
    own = ServiceIndex([replace(find(policy, options.name).service, origin=None)])
    others = ServiceIndex(each.service for each in all_services(policy) if each.service.name != options.name)
    rows = [_tested(host, own, others) for host in options.hosts]
    if options.json:
        print_json(ServiceTested(service=options.name, results=rows), ascii_only=False)
    else:
        print_lines(_verdict(options.name, row) for row in rows)
    return Exit.DONE if all(row["belongs"] for row in rows) else Exit.FINDINGS


def _tested(host: str, own: ServiceIndex, others: ServiceIndex) -> NameTested:
    mine = _match(own, host)
    rule = next((hit.rule for hit in mine.hits if not hit.front), None)
    return {
        "host": host,
        "belongs": rule is not None,
        "rule": rule,
        "others": {hit.service: hit.rule for hit in _match(others, host).hits if not hit.front},
        "problem": mine.problem,
    }


def _match(index: ServiceIndex, host: str) -> Match:
    return index.match_url(host) if "://" in host else index.match(host)


def _verdict(name: str, row: NameTested) -> str:
    host, others = visible(row["host"]), "; also " + ", ".join(row["others"]) if row["others"] else ""
    if row["belongs"]:
        return f"{host} belongs to {name}: {row['rule']}{others}"
    if row["problem"]:
        return f"{host} is no host name: {row['problem']}"
    instead = ", ".join(f"{service} ({rule})" for service, rule in row["others"].items())
    return f"{host} does not belong to {name}" + (f"; it belongs to {instead}" if instead else "")
