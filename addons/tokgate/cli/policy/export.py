"""`tokgate export mdm`: the apps of banned services, for the management of devices to keep off them."""

import argparse
import csv
import io
import json
import plistlib
import sys
import uuid
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from whenever import Instant

from tokgate.cli.commands import Subparsers, add_command
from tokgate.cli.exits import CommandError, Exit
from tokgate.cli.output_file import becoming
from tokgate.cli.policy.service import find
from tokgate.cli.policy_source import add_policies_option, open_policy
from tokgate.cli.terminal import narrate, visible
from tokgate.config.yaml.suggestions import did_you_mean
from tokgate.gateway.ruleset import current
from tokgate.policy.services import Service
from tokgate.policy.snapshot import Policy, compile_policy

_MDM_EPILOG: Final = """\
examples:
  tokgate export mdm                                apps of all services under a ban that is not over, as CSV
  tokgate export mdm --service tiktok --service capcut
  tokgate export mdm --network belgium-federal      those banned for this network: for the devices of one body
  tokgate export mdm --format android               `applications` of a policy of the Android Management API
  tokgate export mdm --format apple -o apps.mobileconfig
                                                    a profile of restrictions for supervised devices

Apple's restrictions name apps by their bundle identifiers: services without any of them are named on stderr, and their
numbers in the App Store are in the CSV. See docs/phones.md."""
FORMATS: Final = ("csv", "android", "apple")
_ANDROID: Final = ("google-play", "galaxy-store", "apkpure")
"""The stores that know an app by its package."""
_APPLE: Final = "apple-bundle"
_SPACE: Final = uuid.UUID("5d0b34ce-8e7b-5a3c-9f43-6a1e5e0c2b11")
"""For a name of our own (RFC 9562 §5.5): a newer profile replaces the older one."""


def add_parser(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "export", _MDM_EPILOG)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="export_command", required=True)
    does = "apps of banned services, for the management of devices"
    mdm = commands.add_parser("mdm", help=does, description=f"Print the {does}.", epilog=_MDM_EPILOG)
    add_policies_option(mdm)
    mdm.add_argument("--service", metavar="NAME", action="append", help="this service instead; repeatable")
    mdm.add_argument("--network", metavar="NAME", action="append", help="of bans for this network only; repeatable")
    mdm.add_argument("--format", choices=FORMATS, default="csv", help="csv (default), android, apple")
    mdm.add_argument("-o", "--output", metavar="FILE", type=Path, help="write there instead of to stdout")
    mdm.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the apps. Exit code 1 if there are none."""
    policy = open_policy(options.policies, Instant.now())
    services = [find(policy, name).service for name in options.service or _banned(policy, options.network)]
    content = _FORMATTED[options.format](services)
    if options.output is None:
        sys.stdout.write(content)
    else:
        with becoming(options.output) as draft:
            draft.write_text(content)
    missing = [each.name for each in services if not _of(each, _WANTED[options.format])]
    if missing:
        narrate(f"tokgate: without an app that this format can name: {', '.join(missing)}")
    return Exit.FINDINGS if len(missing) == len(services) else Exit.DONE


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


def _of(service: Service, stores: Sequence[str]) -> list[str]:
    """The identifiers of a service's apps in some stores, without repeats; in all stores if none is named."""
    found = (each.identifier for each in service.stores if not stores or each.store in stores)
    return list(dict.fromkeys(found))


def _csv(services: Iterable[Service]) -> str:
    rows = [(each.name, each.title, app.store, app.identifier) for each in services for app in each.stores]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("service", "title", "store", "identifier"), *rows])
    return text.getvalue()


def _android(services: Iterable[Service]) -> str:
    """https://developers.google.com/android/management/reference/rest/v1/enterprises.policies#ApplicationPolicy."""
    packages = dict.fromkeys(package for each in services for package in _of(each, _ANDROID))
    blocked = [{"packageName": package, "installType": "BLOCKED"} for package in packages]
    return json.dumps({"applications": blocked}, indent=2) + "\n"


def _apple(services: Iterable[Service]) -> str:
    """https://developer.apple.com/documentation/devicemanagement/restrictions: `blockedAppBundleIDs`."""
    bundles = list(dict.fromkeys(bundle for each in services for bundle in _of(each, (_APPLE,))))
    restrictions = {
        "PayloadType": "com.apple.applicationaccess",
        "PayloadVersion": 1,
        "PayloadIdentifier": "org.tokgate.mdm.restrictions",
        "PayloadUUID": str(uuid.uuid5(_SPACE, "restrictions")).upper(),
        "blockedAppBundleIDs": bundles,
    }
    profile = {
        "PayloadDisplayName": "Apps that are not allowed",
        "PayloadType": "Configuration",
        "PayloadVersion": 1,
        "PayloadIdentifier": "org.tokgate.mdm",
        "PayloadUUID": str(uuid.uuid5(_SPACE, "profile")).upper(),
        "PayloadContent": [restrictions],
    }
    return plistlib.dumps(profile).decode()


_FORMATTED: Final = {"csv": _csv, "android": _android, "apple": _apple}
_WANTED: Final[Mapping[str, Sequence[str]]] = {"csv": (), "android": _ANDROID, "apple": (_APPLE,)}
