"""What is tokgate's own: its processes, its authority, its log and the disk below."""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from whenever import Instant

from tokgate.block_page.authority import AUTHORITY, made_at_start, opening_bans, uncovered
from tokgate.blocklog.paths import archived
from tokgate.blocklog.records.record import counted
from tokgate.config.diagnostics import Code, Diagnostic, render
from tokgate.policy.snapshot import Snapshot
from tokgate.service.doctor import Result

AS_ANOTHER: Final = "run this as root or as tokgate's user"
PATIENCE: Final = 10.0
"""Seconds for the running tokgate's answer, which comes at once also while a policy is read."""
_SOON: Final = 30
"""Days before the end of the authority."""
_LEAST: Final = 0.05
"""The share of a disk that should be free."""
_FAR: Final = 3650
"""A disk that is full no sooner than in so many days is no finding."""
_RESERVED: Final = 512
"""Descriptors of a gate beside its connections."""


def running(state: Mapping[str, Any] | None, snapshot: Snapshot | None) -> Iterator[Result]:
    """What the running tokgate says of itself; `state` as of `tokgate status`, no `snapshot` of an invalid policy."""
    if state is None:
        remedy = "systemctl start tokgate; journalctl -u tokgate says why it ended; or name its folder with --confdir"
        other = "" if os.geteuid() == 0 else "run this as root, to find another user's; "
        yield Result("tokgate", "none runs here", f"{other}{remedy}")
        return
    for problem in state["problems"]:
        yield Result("tokgate", problem, "journalctl -u tokgate; docs/operation.md, “Watch it”, says what each means")
    if not state["problems"]:
        yield Result("tokgate", f"runs, policy {state['policy']['version']}")
    canary = (state.get("gateway") or {}).get("canary")
    if canary is not None and canary["ok"] and canary["at"] is not None:
        yield Result("canary", f"at {canary['at'][:19]}Z the banned test name was refused, and the allowed one was not")
    if snapshot is None:
        return
    if snapshot.version != state["policy"]["version"]:
        yield Result("policy", f"{snapshot.version} is on disk, another in force", "tokgate reload says why")
    limit, most = snapshot.settings.limits.connections, 2 * snapshot.settings.limits.connections + _RESERVED
    had = [worker["report"]["descriptors"][1] for worker in state["workers"] if worker["name"].startswith("gate-")]
    if had and min(had) < most:
        enough = (min(had) - _RESERVED) // 2
        yield Result(
            "descriptors",
            f"{min(had)} a gate, enough for {enough} connections: settings.limits.connections is {limit}",
            f"LimitNOFILE={most} in the unit, or lower settings.limits.connections",
        )
    elif had:
        yield Result("descriptors", f"{min(had)} a gate, enough for {limit} connections")


def most_connections(state: Mapping[str, Any] | None, snapshot: Snapshot | None) -> int:
    """How many connections all gates may have; 0 where that is not known."""
    if state is None or snapshot is None:
        return 0
    gates = [each for each in state["workers"] if each["name"].startswith("gate-") and not each["retired"]]
    return len(gates) * snapshot.settings.limits.connections


def silent(error: OSError | ValueError) -> Result:
    """A running tokgate that can't be asked."""
    if isinstance(error, PermissionError):
        return Result("tokgate", f"can't be asked: {error.strerror}", AS_ANOTHER)
    if isinstance(error, TimeoutError):
        remedy = (
            "systemctl status tokgate; its supervisor hangs, and systemd starts it again after a minute (WatchdogSec)"
        )
        return Result("tokgate", f"does not answer in {PATIENCE:.0f} s", remedy)
    return Result("tokgate", f"does not answer: {error}", "journalctl -u tokgate says why")


def invalid(errors: Sequence[Diagnostic], policies: Path) -> Result:
    """A policy that can't be used."""
    first = errors[0]
    remedy = {
        Code.NOT_FOUND: "name the policy with --policies; `tokgate init` writes a first one",
        Code.UNREADABLE: AS_ANOTHER,
    }.get(first.code, "tokgate check shows each")
    said = f"{counted(len(errors), 'error')} in {policies}; {render(first).splitlines()[0]}"
    return Result("policy", said, f"{remedy}; what a policy is needed for was not looked at")


def authority(confdir: Path, snapshot: Snapshot, now: Instant) -> Iterator[Result]:
    """The authority of the block page: whether it is there and lasts, and which pages it can't sign."""
    path = confdir / AUTHORITY
    try:
        ends = min(each.not_valid_after_utc for each in x509.load_pem_x509_certificates(path.read_bytes()))
        outside = len({each.rule for each in uncovered(snapshot.policy, path)})
        wanted = bool(opening_bans(snapshot.policy))
        unknown = wanted and made_at_start(path)
    except FileNotFoundError:
        yield Result("authority", f"none in {confdir} yet", "tokgate run makes one; or see certs/README.md")
        return
    except OSError as error:
        yield Result("authority", f"{path} can't be read: {error.strerror}", AS_ANOTHER)
        return
    except ValueError as error:
        yield Result(
            "authority",
            f"{path} is not one: {error}",
            "put it back from your backup, or make the next one: certs/README.md",
        )
        return
    days = int((Instant(ends) - now).total("hours") // 24)
    if days < _SOON:
        yield Result("authority", f"ends in {counted(days, 'day')}", "make the next one: certs/README.md")
    elif unknown:
        yield Result(
            "authority",
            "tokgate made it at its start: devices that were not given it reject every page",
            f"tokgate authority init --confdir {confdir}; certs/README.md says how devices get its root",
        )
    elif outside:
        yield Result(
            "authority",
            f"can't sign pages for {counted(outside, 'rule')}",
            f"tokgate check --authority {path} lists them",
        )
    else:
        use = ", and for all names of bans" if wanted else "; no ban shows a page"
        yield Result("authority", f"good for {counted(days, 'day')}{use}")


def disk(log: Path, snapshot: Snapshot) -> Iterator[Result]:
    """Whether the log has space for as long as it is kept, by what it has grown."""
    try:
        space = shutil.disk_usage(log.absolute().parent)
        files = [(file, ended) for file, ended in archived(log.absolute())]
        sizes = sum(file.stat().st_size for file, _ in files)
    except OSError as error:
        yield Result("log", f"{error.filename}: {error.strerror}", "name the log with --log, and run this as root")
        return
    if space.free < _LEAST * space.total:
        yield Result("disk", f"{100 * space.free // space.total} % is free", "free some, or let the log end sooner")
    else:
        yield Result("disk", f"{100 * space.free // space.total} % is free")
    days = snapshot.settings.log.retention_days
    span = (files[-1][1] - files[0][1]).total("hours") / 24 if files else 0.0
    if span < 1.0:
        return
    rate = sizes / span
    if days is not None and rate * days - sizes > space.free:
        yield Result(
            "retention",
            f"{days} days take {rate * days / 1e9:.1f} GB, more than there is",
            "a larger disk, or rotated files packed by `zstd`, or fewer settings.log.retention_days",
        )
    elif days is None:
        left = int(space.free / max(1.0, rate))
        said = f"the log is kept for ever, and the disk is full in {counted(left, 'day')}"
        yield Result("retention", said, "settings.log.retention_days, as docs/privacy.md says" if left < _FAR else None)
    else:
        yield Result("retention", f"{days} days take {rate * days / 1e9:.1f} GB")
