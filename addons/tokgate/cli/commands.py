"""What commands share: their names and help texts in the order of help, exit codes, and the error that ends one.

`--help` imports no command.
"""

import argparse
from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Final

from tokgate.config.extras import Extra, missing_extra

type Subparsers = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001 - it has no public name
"""Where a command, or a command of a command, adds its parser."""

COMMANDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "init": "write a first policy, for the networks of this host",
        "run": "enforce the policies as a proxy",
        "status": "how the running tokgate is: policy, bans, processes",
        "reload": "have the running tokgate read its policy now",
        "restart": "have a new version take over from the running one, without refusing or ending a connection",
        "doctor": "what keeps tokgate on this machine from doing its work, and what to do",
        "check": "find what is wrong with policies, and run their tests",
        "explain": "what happens to a client that asks for a name, and why",
        "simulate": "decide many queries: NDJSON in, NDJSON out",
        "diff": "what a change of policy changes: verdicts over time, and for traffic that was seen",
        "timeline": "the next transitions, in local time and UTC",
        "service": "the services that can be banned: list, show, test a name, import and update from public lists",
        "override": "make, list and end time-limited exceptions from a ban, and answer who asks for one",
        "gateway": "the kernel's part of a gateway: load it, take it out, show and check it",
        "ruleset": "nftables for this policy: TPROXY or redirect, QUIC refusal, loop protection",
        "phone": "phones that reach the gateway through WireGuard: keys, QR codes, revoke",
        "export": "what other systems enforce of this policy: apps for device management",
        "evasion": "try to get round a ban, through your own gateway",
        "schema": "print a JSON Schema, or what a log store needs to know of the block log",
        "log": "read the block log",
        "review": "the block log in a browser",
        "authority": "make, show and replace the authority of the block page",
        "completion": "print a script for completion in a shell",
    }
)

_PACKAGES: Final = {
    "setup": ("init", "authority", "completion"),
    "service": ("run", "status", "reload", "doctor", "gateway", "phone", "evasion", "review"),
    "policy": ("check", "explain", "simulate", "diff", "timeline", "service", "override", "export"),
    "log": ("log",),
}
MODULES: Final[Mapping[str, str]] = {
    **{name: f"{package}.{name}" for package, names in _PACKAGES.items() for name in names},
    "restart": "service.reload:add_restart",
    "ruleset": "service.gateway:add_ruleset",
    "schema": "schema",
}
"""The module of each command, below this package; its `add_parser(subparsers)`, or the function named, sets `run`."""


def add_subcommand(commands: Subparsers, name: str, summary: str, epilog: str) -> argparse.ArgumentParser:
    """The parser of a command's command. `summary` is a phrase, and with a capital letter its description."""
    return commands.add_parser(name, help=summary, description=f"{summary[0].upper()}{summary[1:]}.", epilog=epilog)


def add_command(subparsers: Subparsers, name: str, epilog: str) -> argparse.ArgumentParser:
    """A command's parser, with the help text that all commands are listed with."""
    summary = COMMANDS[name]
    return subparsers.add_parser(name, help=summary, description=summary, epilog=epilog)


class Exit(IntEnum):
    """The exit codes of all commands. 130 is that of a shell for SIGINT."""

    DONE = 0
    FINDINGS = 1
    """The work was done and found something: errors in policies, failed tests, unreadable queries."""
    USAGE = 2
    FAILURE = 3
    """An internal error, or an environment that does not let the command work."""
    INTERRUPTED = 130
    """Ctrl-C: 128 + SIGINT, as shells report it."""
    READER_GONE = 141
    """The reader of stdout has closed it: 128 + SIGPIPE, as shells report it."""


class CommandError(Exception):
    """Ends a command with one line on stderr, without a traceback: the cause is the user's to resolve."""

    def __init__(self, message: str, code: Exit = Exit.FAILURE) -> None:
        """`message` is a sentence without the program's name."""
        super().__init__(message)
        self.code = code


def need(extra: Extra) -> None:
    """End the command, before it does anything, where an extra isn't installed: exit code 3, and how to install it."""
    missing = missing_extra(extra)
    if missing is not None:
        raise CommandError(missing)
