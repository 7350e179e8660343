"""The commands in the order of help, and what each does: apart from them, so that help needs none of them."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

COMMANDS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "run": "enforce the policies as a proxy",
        "status": "how the running tokgate is: policy, bans, processes",
        "reload": "have the running tokgate read its policy now",
        "check": "find what is wrong with policies, and run their tests",
        "explain": "what happens to a client that asks for a name, and why",
        "simulate": "decide many queries: NDJSON in, NDJSON out",
        "diff": "what a change of policy changes: verdicts over time, and for traffic that was seen",
        "timeline": "the next transitions, in local time and UTC",
        "override": "make, list and end time-limited exceptions from a ban",
        "ruleset": "nftables for this policy: redirect, QUIC refusal, loop protection",
        "schema": "print a JSON Schema, or what a log store needs to know of the block log",
        "log": "read the block log",
        "review": "the block log in a browser",
    }
)
"""Each is a module of this package with `add_parser(subparsers)`, which sets `run`."""
