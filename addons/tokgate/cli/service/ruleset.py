"""`tokgate ruleset`: nftables for the policy's networks, ready for `nft -f -`."""

import argparse
import sys

from whenever import Instant

from tokgate.cli.commands import Subparsers, add_command
from tokgate.cli.exits import Exit
from tokgate.cli.policy_source import add_policies_option, open_snapshot
from tokgate.cli.service.table_options import add_table_options, table_options
from tokgate.cli.terminal import narrate
from tokgate.gateway import nftables
from tokgate.gateway.ruleset import Ruleset, ruleset_of

EPILOG = """\
examples:
  tokgate ruleset | nft -f -                     load it; after an edit, `tokgate gateway up` changes it in place
  tokgate ruleset | sed -n 's/^#   ip /ip /p' | sh
                                                 the routes that it needs, which are printed as comments
  tokgate ruleset | nft -c -f -                  only check it
  tokgate ruleset --redirect                     where TPROXY can't be used: gates on `--mode gate@10443-10506`
  tokgate ruleset --local --uid tokgate          filter this machine's own programs as well
  nft delete table inet tokgate                  take it out again

`tokgate run --gateway` loads the same table, its routes and what else a gateway needs, and keeps them in step with the
policy; `tokgate gateway up` loads them once.

To the gates (IPv4 and IPv6) comes of networks with a ban that is not over and begins within a day: TCP 80, 443 and the
ports of settings.gateway.ports, every TCP port of addresses of banned services, and QUIC on port 443 (with --redirect
it is refused). Refused to them: QUIC on any other port, and UDP to addresses of services while their ban blocks. All
other networks are left alone. With unknown_clients: block, all TCP of clients in no network goes to the gates, and
their UDP is refused.
The proxy runs on the same machine: tokgate run --mode gate:tproxy"""


def add_parser(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "ruleset", EPILOG)
    add_policies_option(parser)
    add_table_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the ruleset in nftables' syntax."""
    said, now = table_options(options), Instant.now()
    rules = ruleset_of(open_snapshot(options.policies, now), now, said)
    remark_on(rules)
    sys.stdout.write(nftables.text(rules))
    return Exit.DONE


def remark_on(rules: Ruleset) -> None:
    """Say on stderr what an admin might not expect of it."""
    parts = [part for network in rules.clients for part in network.parts]
    reached = any(n.interfaces or any(device.hardware for device in n.devices) for n in parts)
    remote = any(not prefix.is_loopback for network in rules.clients for prefix in network.prefixes)
    if not (rules.options.local is not None or rules.strangers or reached or remote):
        narrate("tokgate: no network beyond this machine has a ban in sight: nothing is taken to the gates")
    if rules.until is not None:
        narrate(f"tokgate: another table is due at {rules.until}; `tokgate run --gateway` loads it by itself")
