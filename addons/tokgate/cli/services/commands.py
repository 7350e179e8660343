"""`tokgate service`: list and show services, test names against them, import and update them from public lists."""

import argparse
from importlib import import_module
from pathlib import Path
from typing import Final

from tokgate.cli.commands import Subparsers, add_command
from tokgate.cli.policy_source import add_policies_option
from tokgate.cli.value_arguments import argument_of
from tokgate.config.format import parsers, time_parsers
from tokgate.config.service_lists.entries import ListFormat

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
examples:
  tokgate service list                              the policy's services and the catalogue's
  tokgate service list --json                       one JSON object"""
_SHOW_EPILOG: Final = """\
examples:
  tokgate service show tiktok                       its names, addresses and apps, and the bans that name it
  tokgate service show tiktok --json                one JSON object"""
_IMPORT_EPILOG: Final = """\
examples:
  tokgate service import domain-list-community/data/telegram --name telegram
  tokgate service import services.json --name shein          one of AdGuard's blocked services
  tokgate service import blocklist.txt --name phishing -o -  print it instead
  tokgate diff HEAD:policies policies                        review what it changes

formats:
  domain-list-community   include:, full:, domain:, keyword:, regexp:, @attributes; included lists in the same folder
  hosts                   hosts(5), or names one a line
  adblock                 ||name^, |name^, /regex/, exceptions @@, options
  adguard                 AdGuard's blocked services, JSON, or YAML with one service

Public suffixes and shared hosts (CDNs, clouds) are dropped, and reported with their lines; so is what can't be read.
The file is POLICIES/services/NAME.yaml. Exit code 1: some lines could not be read; the file has the others. Also 1, and
no file: the policy has a service of this name, or the list has nothing to take."""
_UPDATE_EPILOG: Final = """\
examples:
  tokgate service update telegram domain-list-community/data/telegram
  tokgate service update telegram domain-list-community/data/telegram --write --revision 4f2c1d9

Lines with + are names that only the newer list has, lines with - those that it no longer has. --keep leaves these in.
The list is read as the last one was (format, part, attributes), unless an option says otherwise. Exit code 1: some
lines could not be read; with --exit-code also when anything differs."""
_TEST_EPILOG: Final = """\
examples:
  tokgate service test tiktok p16-sign-va.tiktokcdn.com
  tokgate service test tiktok 'https://play.google.com/store/apps/details?id=com.zhiliaoapp.musically'

Exit code 0: all belong to the service; 1: one doesn't."""


def add_parser(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "service", _EPILOG)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="service_command", required=True)
    listing = commands.add_parser(
        "list", help="all services", description="List all services, one a line.", epilog=_LIST_EPILOG
    )
    listing.add_argument("--json", action="store_true", help="one JSON object")
    _finish(listing, "listing:show_all")
    showing = commands.add_parser(
        "show", help="one service", description="Show what belongs to a service.", epilog=_SHOW_EPILOG
    )
    showing.add_argument("name", metavar="NAME")
    showing.add_argument("--json", action="store_true", help="one JSON object")
    _finish(showing, "listing:show_one")
    testing = commands.add_parser(
        "test",
        help="whether names belong to a service",
        description="Test names against a service.",
        epilog=_TEST_EPILOG,
    )
    testing.add_argument("name", metavar="NAME")
    testing.add_argument("hosts", metavar="HOST", nargs="+", help="a host name, an address or a URL")
    testing.add_argument("--json", action="store_true", help="one JSON object")
    _finish(testing, "listing:test")
    _add_import(commands)
    _add_update(commands)


def _add_import(commands: Subparsers) -> None:
    importing = commands.add_parser(
        "import",
        help="make a service file of a list",
        description="Make a service file of a list.",
        epilog=_IMPORT_EPILOG,
    )
    importing.add_argument("file", metavar="FILE", type=Path, help="the list")
    importing.add_argument("--name", required=True, type=_identifier, help="what to call the service")
    importing.add_argument("--title", type=_line, help="what people call it (default: the list's title, or NAME)")
    importing.add_argument(
        "-o", "--output", metavar="FILE", help="where to write (default: POLICIES/services/NAME.yaml; - prints it)"
    )
    importing.add_argument("--force", action="store_true", help="write over an existing file")
    _add_reading(importing)
    _finish(importing, "importing:run")


def _add_update(commands: Subparsers) -> None:
    updating = commands.add_parser(
        "update", help="what a newer list changes", description="Show what a newer list changes.", epilog=_UPDATE_EPILOG
    )
    updating.add_argument("name", metavar="NAME", help="the service")
    updating.add_argument("file", metavar="NEWLIST", type=Path, help="the newer list")
    updating.add_argument("--write", action="store_true", help="write the service's file")
    updating.add_argument("--keep", action="store_true", help="keep names that the newer list no longer has")
    updating.add_argument("--exit-code", action="store_true", help="exit 1 when anything differs")
    _add_reading(updating)
    _finish(updating, "updating:run")


def _add_reading(parser: argparse.ArgumentParser) -> None:
    """The options that say how a list is read and where it is from."""
    parser.add_argument(
        "--format", choices=["auto", *ListFormat], metavar="FORMAT",
        help=f"auto (default), {', '.join(ListFormat)}",
    )  # fmt: skip
    parser.add_argument("--part", type=_line, metavar="ID", help="the service in AdGuard's file (default: NAME)")
    parser.add_argument(
        "--attribute", action="append", type=_line, metavar="ATTR",
        help="only entries with this attribute, or with --attribute=-ATTR without it; may be given several times",
    )  # fmt: skip
    parser.add_argument("--subdomains", action="store_true", help="take single hosts with all below them")
    parser.add_argument("--keywords", action="store_true", help="take keywords as regular expressions")
    parser.add_argument("--source", type=_line, metavar="URL", help="where the list is published")
    parser.add_argument("--revision", type=_line, help="which revision (default: git's, the list's own, or a digest)")
    parser.add_argument("--licence", type=_line, help="its licence (default: as the list or its folder says)")
    parser.add_argument("--date", type=_date, help="its day, YYYY-MM-DD (default: as the list says, or of its file)")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def _finish(parser: argparse.ArgumentParser, target: str) -> None:
    """Set what runs a command; its module is imported only then."""
    add_policies_option(parser)
    parser.set_defaults(run=run, service_run=target)


def run(options: argparse.Namespace) -> int:
    """Run the chosen command of `service`."""
    module, _, function = options.service_run.partition(":")
    return int(getattr(import_module(f"tokgate.cli.services.{module}"), function)(options))


def _identifier(text: str) -> str:
    import re

    from tokgate.config.format.field_types import IDENTIFIER

    if not re.match(IDENTIFIER.removesuffix("$") + r"\Z", text):
        raise argparse.ArgumentTypeError(
            f"{text!r} can't be a name: letters, digits, `-`, `_` and `.`, at most 64, a letter or digit first"
        )
    return text


_line = argument_of(parsers.one_line)
_date = argument_of(time_parsers.date)
