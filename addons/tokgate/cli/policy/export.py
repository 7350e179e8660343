"""`tokgate export mdm`: the apps of banned services, for the management of devices to keep off them."""

import argparse
import csv
import sys

from whenever import Instant

from tokgate.cli.commands import CommandError, Exit, Subparsers, add_command
from tokgate.cli.policy.service import find
from tokgate.cli.policy_source import add_policies_option, open_policy
from tokgate.cli.terminal import narrate, visible
from tokgate.config.diagnostics import did_you_mean
from tokgate.gateway.ruleset import current
from tokgate.policy.snapshot import Policy, compile_policy

_MDM_EPILOG = """\
examples:
  tokgate export mdm                                apps of all services under a ban that is not over, as CSV
  tokgate export mdm --service tiktok --service capcut
  tokgate export mdm --network belgium-federal      those banned for this network: for the devices of one body

A line is an app in a store: the package of `google-play` for Android, `apple-bundle` and the number `apple` for Apple.
Services without any are named on stderr. See docs/phones.md."""


def add_parser(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "export", _MDM_EPILOG)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="export_command", required=True)
    does = "apps of banned services, for the management of devices"
    mdm = commands.add_parser("mdm", help=does, description=f"Print the {does}.", epilog=_MDM_EPILOG)
    add_policies_option(mdm)
    mdm.add_argument("--service", metavar="NAME", action="append", help="this service instead; repeatable")
    mdm.add_argument("--network", metavar="NAME", action="append", help="of bans for this network only; repeatable")
    mdm.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the apps. Exit code 1 if there are none."""
    policy = open_policy(options.policies, Instant.now())
    services = [find(policy, name).service for name in options.service or _banned(policy, options.network)]
    rows = [(each.name, each.title, app.store, app.identifier) for each in services for app in each.stores]
    csv.writer(sys.stdout, lineterminator="\n").writerows([("service", "title", "store", "identifier"), *rows])
    missing = [each.name for each in services if not each.stores]
    if missing:
        narrate(f"tokgate: without an app: {', '.join(missing)}")
    return Exit.DONE if rows else Exit.FINDINGS


def _banned(policy: Policy, networks: list[str] | None) -> list[str]:
    """The services of all bans that are not over, in the order of the bans; only of those for some networks."""
    unknown = next((name for name in networks or () if name not in policy.networks), None)
    if unknown is not None:
        raise CommandError(
            f"there is no network {visible(unknown)}{did_you_mean(unknown, policy.networks)}", Exit.USAGE
        )
    tracks = current(compile_policy(policy), Instant.now())
    tracks = tuple(track for track in tracks if networks is None or set(networks) & set(track.networks))
    return list(dict.fromkeys(name for track in tracks for name in track.ban.services))
