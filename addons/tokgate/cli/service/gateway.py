"""`tokgate gateway up|down|show|check`: the kernel's part of a gateway, for those who start its processes apart."""

import argparse
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from whenever import Instant

from tokgate.cli.commands import Subparsers, add_command
from tokgate.cli.exits import CommandError, Exit, need
from tokgate.cli.policy_source import add_policies_option, open_snapshot
from tokgate.cli.service.ruleset import remark_on
from tokgate.cli.service.table_options import add_table_options, table_options
from tokgate.cli.terminal import narrate
from tokgate.config.extras import Extra
from tokgate.gateway import GatewayError, libnftables, nftables
from tokgate.gateway.gateway_lock import holder
from tokgate.gateway.kernel import STATE_FILE, Differences, HostProblems, Kernel
from tokgate.gateway.ruleset import Ruleset, ruleset_of
from tokgate.service.privileges import confdir_of_running

EPILOG: Final = """\
examples:
  tokgate gateway up          load table, policy routes and settings for the policy in ./policies, all or nothing
  tokgate gateway up          again after an edit: replaces the table at once, connections go on
  tokgate gateway show        what is loaded, beside what should be
  tokgate gateway check       only what differs, for a monitor
  tokgate gateway down        take all of it out, put the settings back
  tokgate gateway boot        before the network is up and tokgate runs, as tokgate-boot.service does: the rules alone

`tokgate run --gateway` does all of it by itself, and follows the policy. With the same options as `up` the other three
know what should be there. Exit codes: 0 done, or all as it should be; 1 `check` found a difference; 3 it can't be
loaded here: nothing was changed, or what was is undone."""
_ACTIONS: Final = {
    "up": "load table, policy routes and settings, or replace what is loaded",
    "down": "take everything out, and put the settings back",
    "show": "what is loaded, beside what should be",
    "check": "what differs from what should be loaded; exit code 1 if anything does",
    "boot": "load the last rules; without any those of the policy; without a valid one close the web",
}


def add_parser(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "gateway", EPILOG)
    parser.add_argument(
        "action", choices=_ACTIONS, help="; ".join(f"{name}: {does}" for name, does in _ACTIONS.items())
    )
    add_policies_option(parser)
    add_table_options(parser)
    parser.add_argument(
        "--confdir", metavar="DIR", type=Path, help="where it is kept what settings were before (default: ~/.tokgate)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Do what the action says. Exit code 3 if the host or the kernel doesn't allow it."""
    need(Extra.GATEWAY)
    folder = confdir_of_running(STATE_FILE) if args.confdir is None else args.confdir.expanduser()
    kernel = Kernel(table_options(args), folder / STATE_FILE)
    try:
        if args.action == "down":
            return _down(kernel, args)
        if args.action == "boot":
            return _boot(kernel, folder / nftables.BOOT_FILE, args.policies)
        now = Instant.now()
        rules = ruleset_of(open_snapshot(args.policies, now), now, kernel.options)
        return _up(kernel, rules, args) if args.action == "up" else _compare(kernel, rules, args)
    except HostProblems as error:
        if args.json:
            _print({"ok": False, "problems": error.problems})
            return Exit.FAILURE
        raise CommandError(f"nothing was changed:\n{error}") from error
    except GatewayError as error:
        raise CommandError(str(error)) from error


def _up(kernel: Kernel, rules: Ruleset, args: argparse.Namespace) -> int:
    if (kept_by := holder()) is not None:
        raise HostProblems([f"{kept_by} loads what its own policy needs: change that, or stop it first"])
    changed = kernel.up(rules)
    remark_on(rules)
    for name, value in changed.items():
        narrate(f"tokgate: {name} was {value}: it is {kernel.settings[name]} until `tokgate gateway down`")
    for limit in kernel.limits:
        narrate(f"tokgate: warning: {limit}")
    if args.json:
        _print({"ok": True, "problems": [], "policy": rules.version, "changed": dict(changed), "until": _text(rules)})
    else:
        narrate(f"tokgate: table inet {kernel.options.table} is loaded, policy {rules.version}")
    return Exit.DONE


def _down(kernel: Kernel, args: argparse.Namespace) -> int:
    if (kept_by := holder()) is not None:
        raise GatewayError(f"{kept_by} would load it again: stop that, which takes it out")
    restored = kernel.down()
    for name, value in restored.items():
        narrate(f"tokgate: {name} is {value} again")
    if args.json:
        _print({"ok": True, "restored": dict(restored)})
    else:
        narrate(f"tokgate: table inet {kernel.options.table} and its routes are out")
    return Exit.DONE


def _boot(kernel: Kernel, path: Path, policies: Path) -> int:
    """Load what holds until tokgate runs. Exit code 1 where the web is closed for want of rules and a policy."""
    try:
        libnftables.run(path.read_text())
    except OSError as error:
        narrate(f"tokgate: no rules from before: {path}: {error.strerror}")
    except GatewayError as error:
        narrate(f"tokgate: {path} can't be loaded: {error}")
    else:
        narrate(f"tokgate: table inet {kernel.options.table} is loaded from {path}")
        return Exit.DONE
    try:
        now = Instant.now()
        rules = ruleset_of(open_snapshot(policies, now), now, kernel.options)
    except CommandError as error:
        libnftables.run(nftables.closed_boot_rules(kernel.options.table))
        raise CommandError(f"{error}: the web is closed for all that is forwarded", error.code) from error
    libnftables.run(nftables.boot_rules(rules))
    narrate(f"tokgate: table inet {kernel.options.table} is loaded, policy {rules.version}")
    return Exit.DONE


def _compare(kernel: Kernel, rules: Ruleset, args: argparse.Namespace) -> int:
    wanted, loaded = kernel.wanted(rules), kernel.loaded()
    found = kernel.differences(wanted)
    if args.json:
        elements = {name: len(held) for name, held in wanted.elements.items()}
        has = {} if loaded is None else {name: len(held) for name, held in loaded.elements.items()}
        _print(
            {
                "ok": not list(found),
                "policy": rules.version,
                "until": _text(rules),
                "differences": asdict(found),
                "sets": {name: {"wanted": elements[name], "loaded": has.get(name)} for name in elements},
                "refused": kernel.refused(),
            }
        )
    elif args.action == "show":
        sys.stdout.writelines(f"{line}\n" for line in _shown(kernel, rules, found))
    else:
        sys.stdout.writelines(f"{line}\n" for line in found)
    return Exit.FINDINGS if args.action == "check" and list(found) else Exit.DONE


def _shown(kernel: Kernel, rules: Ruleset, found: Differences) -> Iterator[str]:
    wanted, loaded = kernel.wanted(rules), kernel.loaded()
    yield f"policy {rules.version}" + ("" if rules.until is None else f", another table is due at {rules.until}")
    for part, said in asdict(found).items():
        yield f"{part}: {'as it should be' if not said else 'differs'}"
        yield from (f"  {line}" for line in said)
        if part == "settings":
            yield from (f"  {line}" for line in kernel.limits)
        if part == "table" and loaded is not None:
            for name, elements in wanted.elements.items():
                yield f"  {name}: {len(loaded.elements.get(name, ()))} of {len(elements)} elements"
            for kind, number in kernel.refused().items():
                yield f"  packets refused, {kind}: {number}"


def _text(rules: Ruleset) -> str | None:
    return None if rules.until is None else str(rules.until)


def _print(answer: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(answer) + "\n")
