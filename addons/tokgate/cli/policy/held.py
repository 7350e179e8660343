"""Bans that a running tokgate holds back although the policy files no longer state them."""

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from whenever import Instant

from tokgate.cli.policy.outlook import warning
from tokgate.config.diagnostics import Code, Diagnostic
from tokgate.config.reload.holder import held_at_start
from tokgate.policy.snapshot import Policy
from tokgate.runtime.control_socket import NAME
from tokgate.runtime.held_file import HeldFile
from tokgate.service.privileges import confdir_of_running


def held_bans(policy: Policy, policies: Path, now: Instant, confdir: Path | None = None) -> Iterator[Diagnostic]:
    """A warning for each ban that tokgate holds, or would hold at its next start, with this policy.

    None where tokgate's folder can't be read.
    """
    folder = confdir_of_running(NAME) if confdir is None else confdir.expanduser()
    if not os.access(folder, os.R_OK):
        return
    for name in (held := held_at_start(replace(policy, held=()), HeldFile.of(folder, policies), now)).held:
        text = (
            f"the ban `{name}` stays in force although these files no longer state it: say why under `lifted`, "
            f"or `tokgate reload --lift {name}`"
        )
        yield warning(Code.BAN_HELD, text, held.bans[name].origin, name)
