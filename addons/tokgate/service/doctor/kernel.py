"""What the kernel has to do for a gateway: forward, keep track of connections, and know what time it is."""

import ctypes
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tokgate.gateway import GatewayError, checks, nftables
from tokgate.gateway.kernel import STATE_FILE, Kernel
from tokgate.gateway.ruleset import Ruleset
from tokgate.service.doctor import Result

_FULL: Final = 0.8
"""The share of the connection tracking table beyond which it is nearly full: a full one drops new connections."""
_SIDES: Final = 2
"""Entries of a connection: the client's side and the destination's."""
_STRICT: Final = "1"
_STA_UNSYNC: Final = 0x40  # linux/timex.h
_TIME_ERROR: Final = 5


def gateway(
    connections: int = 0, root: Path = Path("/proc/sys/net"), counters: Path = Path("/proc/net")
) -> Iterator[Result]:
    """Whether the kernel forwards what clients send, by its settings below `root` and what it counts in `counters`.

    `connections`: as many as all gates may have.
    """
    for version, path in ((4, root / "ipv4/ip_forward"), (6, root / "ipv6/conf/all/forwarding")):
        value, name = _read(path), f"net.{path.relative_to(root)}".replace("/", ".")
        subject = f"IPv{version} forwarding"
        if value is None:
            yield Result(subject, "this kernel has none")
        elif value == "0":
            yield Result(
                subject, "off: what is not redirected goes nowhere", f"sysctl -w {name}=1, and in /etc/sysctl.d"
            )
        else:
            yield Result(subject, "on")
    strict = [each.parent.name for each in sorted(root.glob("ipv4/conf/*/rp_filter")) if _read(each) == _STRICT]
    yield (
        Result(
            "reverse path filter",
            f"strict on {', '.join(strict)}: answers that come by another way are dropped",
            "if there is more than one way out: sysctl -w net.ipv4.conf.all.rp_filter=2",
        )
        if strict
        else Result("reverse path filter", "not strict")
    )
    yield _tracking(root, connections)
    yield _icmp(root, counters)


def _tracking(root: Path, connections: int) -> Result:
    used, most = _read(root / "netfilter/nf_conntrack_count"), _read(root / "netfilter/nf_conntrack_max")
    if used is None or most is None:
        return Result(
            "connection tracking",
            "not loaded: no rules bring clients to tokgate",
            "tokgate run --gateway loads them; tokgate gateway check says what is missing",
        )
    said = f"{used} of {most} entries"
    if int(used) >= _FULL * int(most):
        return Result("connection tracking", f"{said}: a full table drops new connections", _more(2 * int(most)))
    if int(most) < _SIDES * connections:
        said = f"{most} entries, enough for {int(most) // _SIDES} connections: all gates may have {connections}"
        remedy = f"{_more(_SIDES * connections)}, or lower settings.limits.connections"
        return Result("connection tracking", said, remedy)
    return Result("connection tracking", said)


def _icmp(root: Path, counters: Path) -> Result:
    """Whether the kernel kept errors to itself, by which UDP is refused (ip-sysctl: icmp_ratelimit, in ms)."""
    counted = dict(line.split() for line in (_read(counters / "snmp6") or "").splitlines())
    lines = [line.split() for line in (_read(counters / "snmp") or "").splitlines() if line.startswith("Icmp:")]
    counted |= dict(zip(*lines, strict=True)) if lines else {}  # with OutRateLimitHost since Linux 6.1
    unsent = {4: int(counted.get("OutRateLimitHost", 0)), 6: int(counted.get("Icmp6OutRateLimitHost", 0))}
    subject, names = "refusals by ICMP", {4: "ipv4/icmp_ratelimit", 6: "ipv6/icmp/ratelimit"}
    slowed = [version for version, number in unsent.items() if number]
    if not slowed:
        return Result(subject, "all were sent")
    limits = {version: _read(root / names[version]) for version in slowed}
    said = "; ".join(
        f"{unsent[version]} of IPv{version} were not sent, at one in {limit} ms to a client"
        for version, limit in limits.items()
    )
    remedy = " ".join(f"net.{names[version].replace('/', '.')}=100" for version in slowed)
    return Result(subject, f"{said}: it waits instead of turning to TCP", f"sysctl -w {remedy}, and in /etc/sysctl.d")


def _more(most: int) -> str:
    return f"sysctl -w net.netfilter.nf_conntrack_max={most} (some 300 bytes each)"


def loaded(rules: Ruleset, confdir: Path) -> Iterator[Result]:
    """What keeps these rules from working here, how the kernel differs from them, and what the next start has."""
    found = checks.problems(rules)
    for each in found:
        said, _, remedy = each.partition(": ")
        yield Result("host", said, remedy or "docs/gateway.md, “Loading it”")
    kernel = Kernel(rules.options, confdir / STATE_FILE)
    for each in kernel.limits:
        said, _, remedy = each.partition(": ")
        yield Result("host", said, remedy)
    try:
        differences = [] if found else list(kernel.differences(kernel.wanted(rules)))
    except GatewayError as error:
        differences = [str(error)]
    for each in differences:
        yield Result("kernel", each, "tokgate run --gateway puts it right by itself; journalctl -u tokgate")
    if not found and not differences:
        yield Result("kernel", "table, routes, settings and listeners are as the policy needs them")
    if (confdir / nftables.BOOT_FILE).exists():
        yield Result("next start", f"begins with the rules in {confdir / nftables.BOOT_FILE}")
    else:
        remedy = "tokgate run --gateway writes them; systemctl enable tokgate-boot loads them"
        yield Result(
            "next start", f"{confdir / nftables.BOOT_FILE} is not there: it is open until tokgate runs", remedy
        )


class _Timex(ctypes.Structure):
    """The beginning of struct timex (adjtimex(2)), with space for the rest."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_char * 256),
    )


def clock() -> Result:
    """Whether the clock is kept right: bans begin and end by it, and so does the log's evidence."""
    state = _Timex(modes=0)  # to be read, not set
    code = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(state))
    return synchronised(code, state.status)


def synchronised(code: int, status: int) -> Result:
    """Whether the clock is kept right, by the result of adjtimex(2) and its `status`."""
    if code < 0 or code == _TIME_ERROR or status & _STA_UNSYNC:
        return Result(
            "clock",
            "not synchronised: bans begin and end by it",
            "systemctl enable --now systemd-timesyncd, or chrony",
        )
    return Result("clock", "synchronised")


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
