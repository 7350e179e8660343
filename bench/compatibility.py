"""What clients notice of a proxy in their way: real clients, raw HTTP and first words, each by every road.

Every case runs once without a proxy, and what it comes to there is right: exit codes, statuses, bodies, what was agreed
in TLS, what the server got. Then by tokgate (TPROXY, redirected, explicit; for a client without a ban, with one, and
with TLS opened), and by HAProxy and Squid. A difference is looked at once more before it counts.

A whole run (no --only, no --roads) writes docs/compat.md. Clients that are not installed are named with the package to
install, and count as not run. Progress goes to standard error. Exit codes: 0 tokgate differs only where REASONS below
say why, 1 it differs elsewhere, 2 usage, 3 can't run here.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "addons"), str(ROOT / "tests")]

from compat.first_words import WORDS  # noqa: E402
from compat.http_cases import HTTP_CASES  # noqa: E402
from compat.lab import BANNED_NAME, DIRECT, HTTP_PORTS, ROADS, WORD_PORTS, Lab, Road  # noqa: E402
from compat.proxies import Place, running  # noqa: E402
from compat.raw import Client, Server  # noqa: E402
from compat.suites import Command, Origin, Suite, built, outcome, proxy_of, suites  # noqa: E402

TABLE: Final = ROOT / "docs/compat.md"
HTTP, FIRST_WORDS = "raw HTTP", "first words"
AGAIN: Final = 1
"""Times that a difference is looked at again."""
_TOOLS: Final = {"ip": "iproute2", "nft": "nftables", "ss": "iproute2", "setpriv": "util-linux", "nginx": "nginx-light"}

_TITLES: Final = {"tokgate": "tokgate", "haproxy": "HAProxy", "squid": "Squid"}


@dataclass(frozen=True, slots=True)
class Reason:
    """Why tokgate differs in cases of a family: on each of its roads, or for clients under a ban alone."""

    family: str
    names: tuple[str, ...]
    why: str
    under_ban: bool = False

    def covers(self, family: str, name: str, road: Road) -> bool:
        """Whether it explains a difference."""
        return family == self.family and name in self.names and (road.banned or not self.under_ban)


_FIELDS: Final = ("folded", "folded by a tab", "no colon", "no name", "space before the colon", "space in a name")
_BODIES: Final = (
    *("identity", "length and chunked", "list of lengths", "plus before the length", "zeros before the length"),
)
REASONS: Final = (
    Reason(
        HTTP,
        ("target: space inside", *(f"field: {name}" for name in _FIELDS)),
        "400 with what is wrong: not as RFC 9112 has it, or no longer",
    ),
    Reason(
        HTTP, tuple(f"body: {name}" for name in _BODIES), "400: servers find its end in different ways (RFC 9112 §6)"
    ),
    Reason(HTTP, ("field: same host twice",), "400: a server may take either", under_ban=True),
    Reason(HTTP, ("body: like a request",), "400: a server that reads no body takes it for a request", under_ban=True),
    Reason(HTTP, ("body: bad chunk size", "answer: bad chunk size"), "cut off: nobody knows where it ends"),
    Reason(HTTP, ("body: bare line feeds in chunks",), "mitmproxy waits for CRLF"),
    Reason(HTTP, ("answer: space before a colon",), "the space is taken out, as RFC 9112 §5.1 wants"),
    Reason(HTTP, ("answer: nothing", "answer: half a head"), "502 with what happened, in place of less"),
    Reason(
        HTTP,
        ("answer: 0.9", "answer: field without a colon", "answer: field without a name"),
        "502 with what is wrong: not as RFC 9112 has it",
    ),
    Reason(HTTP, ("answer: head of 300 KiB",), "502 where over 256 KiB came before its end, which varies"),
    Reason("curl", ("port with TLS 1.3 only",), "HTTP/2 for the client, though the server has HTTP/1.1 alone"),
    Reason("curl", ("h2c prior knowledge",), "curl asks a proxy over HTTP/1.1"),
    Reason("testssl.sh", ("protocols",), "testssl.sh doesn't try NPN and ALPN by a proxy"),
    Reason(HTTP, ("request 0.9",), "ended: mitmproxy has no HTTP/0.9"),
    Reason(HTTP, ("version in lower case",), "ended: not every server reads it as HTTP", under_ban=True),
    Reason(HTTP, ("two spaces in the request line",), "passed on with one"),
    Reason(FIRST_WORDS, ("nothing but an end",), "its server isn't connected for it"),
    Reason(
        FIRST_WORDS,
        ("ZooKeeper four letters", "a letter", "an empty line"),
        "what would make it a request may follow: it is waited for",
    ),
    Reason(
        FIRST_WORDS,
        ("PROXY protocol 1", "PROXY protocol 2", "RTSP", "SSL 2 hello's shape"),
        "refused: some servers read it, or what follows it, as a request or a ClientHello",
        under_ban=True,
    ),
)
"""Each names its cases: another one that differs is a fault."""


_PAGE: Final = """\
# What clients notice

`make compat` writes this page: real clients, raw HTTP and first octets of other protocols, each without a proxy, then
by tokgate, HAProxy and Squid. *n of m*: in so many cases the client and the server got what they get without a proxy:
exit code, status, body, what TLS agreed on, requests. A dash: the client can't go that way, or is not for it. The cases
are in `bench/compat`.

**{machine}; {versions}.

*Ban*: the client's network is under a ban, and asks for what is not banned. *Opened*: under a ban with
`inspect_stores`, and the origin is an app store's host. HAProxy reads plain HTTP in its HTTP mode. HAProxy and Squid
refuse the same banned name. Squid is no relay for other protocols, and HAProxy has no explicit clients. What tokgate
reads of plain HTTP is in [cannot-see.md](cannot-see.md#what-requests-that-are-read-dont-carry).
"""


@dataclass
class Tally:
    """What a family came to: by road how many cases ran, and the differences."""

    ran: dict[Road, int] = field(default_factory=dict)
    differ: dict[Road, dict[str, tuple[str, str]]] = field(default_factory=dict)
    missing: str = ""
    """What to install, if it could not run."""

    def add(self, road: Road, name: str, right: str, got: str) -> None:
        """Count a case."""
        self.ran[road] = self.ran.get(road, 0) + 1
        if got != right:
            self.differ.setdefault(road, {})[name] = (right, got)

    def cell(self, road: Road) -> str:
        """n of m."""
        if road not in self.ran:
            return "not run" if self.missing else "–"
        ran, differ = self.ran[road], len(self.differ.get(road, {}))
        return f"{ran - differ} of {ran}"


def progress(text: str) -> None:
    """On standard error."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


async def raw[Case](
    cases: Sequence[tuple[Case, int]],
    run: Callable[[Road, Case, int], Awaitable[str]],
    roads: Sequence[Road],
    name: str,
) -> Tally:
    """Try raw cases by all roads, some at a time; each case by one road at a time."""
    tally, few = Tally(), asyncio.Semaphore(6)

    async def one(case: Case, port: int) -> None:
        async with few:
            right = await run(DIRECT, case, port)
            for road in roads:
                got = await run(road, case, port)
                for _ in range(AGAIN):
                    if got == right:
                        break
                    right, got = await run(DIRECT, case, port), await run(road, case, port)
                tally.add(road, case.name, right, got)  # type: ignore[attr-defined]

    await asyncio.gather(*(one(case, port) for case, port in cases))
    progress(f"{name}: {len(cases)} cases by {len(roads)} roads")
    return tally


async def all_raw(lab: Lab, roads: Sequence[Road], only: str) -> dict[str, Tally]:
    """Raw HTTP and first words."""
    server = Server()
    await server.start(lab)
    clients = {road: Client(lab, road, server) for road in (DIRECT, *roads)}
    tallies = {}
    unopened = [road for road in roads if not road.opened]
    if only in ("", HTTP):
        cases = [*zip(HTTP_CASES, HTTP_PORTS, strict=False)]
        tallies[HTTP] = await raw(cases, lambda road, case, port: clients[road].http(case, port), unopened, HTTP)
    if only in ("", FIRST_WORDS):
        words = [*zip(WORDS, WORD_PORTS, strict=False)]
        by_all = [road for road in unopened if road.proxy != "squid"]
        tallies[FIRST_WORDS] = await raw(
            words, lambda road, case, port: clients[road].words(case, port), by_all, FIRST_WORDS
        )
    server.stop()
    return tallies


def commands(lab: Lab, suite: Suite, roads: Sequence[Road], folder: Path) -> Tally:
    """Try a client's commands by all roads."""
    tally = Tally()
    if why := built(suite, folder):
        tally.missing = why
        progress(f"{suite.name}: not run: {why}")
        return tally
    by = [road for road in roads if suite.opened or not road.opened]
    for command in suite.commands:
        right = str(outcome(lab, command, DIRECT))

        def one(road: Road, command: Command = command, right: str = right) -> tuple[str, str] | None:
            got = outcome(lab, command, road)
            for _ in range(AGAIN):
                if got == right or got is None:
                    break
                right, got = str(outcome(lab, command, DIRECT)), outcome(lab, command, road)
            return None if got is None else (right, got)

        with ThreadPoolExecutor(3) as pool:
            for road, pair in zip(by, pool.map(one, by), strict=True):
                if pair is not None:
                    tally.add(road, command.name, *pair)
    progress(f"{suite.name}: {len(suite.commands)} commands by {len(roads)} roads")
    return tally


def in_the_way(lab: Lab, roads: Sequence[Road]) -> list[str]:
    """What is wrong: the origin must see the gateway, and clients under a ban must not get the service."""
    wrong = []
    for road in roads:
        via = ["-x", proxy_of(road)] if proxy_of(road) else []

        def curl(url: str, road: Road = road, via: list[str] = via) -> str:
            return lab.clients[road].run("curl", "-sSk", "-m", "30", *via, url, check=False).stdout

        if curl(f"http://{road.name}/who") != "203.0.113.1\n" or curl(f"https://{road.name}/who") != "203.0.113.1\n":
            wrong.append(f"{road.proxy} {road.title}: the origin doesn't see the proxy")
        served = curl(f"https://{BANNED_NAME}/version").startswith("HTTP/")
        if served is (road.banned or road.proxy != "tokgate"):
            wrong.append(f"{road.proxy} {road.title}: the banned name is {'served' if served else 'refused'}")
    return wrong


def reason(family: str, name: str, road: Road) -> str:
    """Why tokgate differs in a case, if that is stated."""
    return next((each.why for each in REASONS if each.covers(family, name, road)), "")


def differences(tallies: dict[str, Tally]) -> dict[tuple[str, str, str], list[Road]]:
    """tokgate's, by family, name and reason."""
    found: dict[tuple[str, str, str], list[Road]] = {}
    for family, tally in tallies.items():
        for road, cases in tally.differ.items():
            if road.proxy == "tokgate":
                for name in cases:
                    found.setdefault((family, name, reason(family, name, road)), []).append(road)
    return found


def document(tallies: dict[str, Tally], roads: Sequence[Road], missing: Sequence[str]) -> str:
    """docs/compat.md."""
    lines_of_cpu = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.partition(":")[2].strip() for line in lines_of_cpu if "model name" in line), platform.machine())
    titles = [f"{_TITLES[road.proxy]} {road.title}" for road in roads]
    machine = f"{datetime.now(UTC):%Y-%m-%d}**, {os.cpu_count()} × {cpu}, Linux {platform.release()}"
    lines = [
        _PAGE.format(machine=machine, versions=", ".join(versions())),
        "| cases | " + " | ".join(titles) + " |",
        "|---|" + "---|" * len(roads),
        *(
            f"| {family} | " + " | ".join(tally.cell(road) for road in roads) + " |"
            for family, tally in tallies.items()
        ),
        "",
    ]
    not_run = [f"{family} ({tally.missing})" for family, tally in tallies.items() if tally.missing] + list(missing)
    lines += [f"Not run: {', '.join(not_run) if not_run else 'none'}.", "", "## Where tokgate differs", ""]
    found = differences(tallies)
    if not found:
        return "\n".join([*lines, "Nowhere.", ""])
    lines += ["| cases | by | why |", "|---|---|---|"]
    grouped: dict[tuple[str, str, str], list[str]] = {}
    for (family, name, why), where in found.items():
        grouped.setdefault((family, "; ".join(road.title for road in where), why), []).append(name)
    for (family, by, why), names in sorted(grouped.items()):
        listed = ", ".join(f"`{name}`" for name in sorted(names))
        lines.append(f"| {family}: {listed} | {by} | {why or '**not known**'} |")
    return "\n".join([*lines, ""])


def versions() -> list[str]:
    """Of the programs that took part."""
    asked = (
        ("haproxy", "-v"),
        ("squid", "-v"),
        ("curl", "-V"),
        ("openssl", "version"),
        ("node", "-v"),
        ("go", "version"),
        ("chromium", "--version"),
    )
    found = []
    for command in asked:
        if shutil.which(command[0]):
            done = subprocess.run([*command], capture_output=True, text=True, check=False)
            first = next(
                (
                    word
                    for word in done.stdout.split()
                    if word.lstrip("vgo").replace(".", "").replace("-", "")[:2].isdigit()
                ),
                "?",
            )
            found.append(f"{command[0]} {first}")
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Run it, and return its exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--only", metavar="FAMILY", default="", help="one family of cases (see --list)")
    parser.add_argument("--roads", metavar="PROXY", default="", help="one proxy's roads: tokgate, haproxy, squid")
    parser.add_argument("--list", action="store_true", help="list families, with what each needs")
    parser.add_argument("--details", action="store_true", help="print what each difference is")
    parser.add_argument("--output", metavar="FILE", type=Path, help="write the table there, also of a part")
    args = parser.parse_args(argv)
    families = {suite.name: suite for suite in suites(Origin(Lab(), Path()))}
    if args.list:
        print(
            "\n".join(
                [
                    f"{HTTP} ({len(HTTP_CASES)})",
                    f"{FIRST_WORDS} ({len(WORDS)})",
                    *(f"{s.name} ({len(s.commands)}): {s.package}" for s in families.values()),
                ]
            )
        )
        return 0
    if args.only and args.only not in (HTTP, FIRST_WORDS, *families):
        parser.error(f"no family {args.only!r}: {', '.join((HTTP, FIRST_WORDS, *families))}")
    absent = sorted({package for tool, package in _TOOLS.items() if shutil.which(tool) is None})
    if sys.platform != "linux" or os.geteuid() != 0 or absent:
        print(
            f"compatibility: needs Linux, root, and for its namespaces: {' '.join(absent) or 'nothing more'}",
            file=sys.stderr,
        )
        return 3
    with tempfile.TemporaryDirectory(prefix="tokgate-compat-", ignore_cleanup_errors=True) as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)
        (folder / "origin").mkdir()
        with Lab() as lab:
            origin = Origin(lab, folder / "origin")
            with (
                origin.running(),
                running(Place(lab, folder, origin.certificate, origin.key, origin.authority)) as missing,
            ):
                origin.trust(folder / "tokgate/keys/mitmproxy-ca-cert.pem")
                absent_proxies = {entry.split()[0] for entry in missing}
                roads = [
                    road for road in ROADS[1:] if road.proxy not in absent_proxies and args.roads in ("", road.proxy)
                ]
                if wrong := in_the_way(lab, roads):
                    print("compatibility: " + "\n".join(wrong), file=sys.stderr)
                    return 3
                progress(f"{len(roads)} roads are as they should be")
                tallies = asyncio.run(all_raw(lab, roads, args.only))
                chosen = [suite for suite in suites(origin) if args.only in ("", suite.name)]
                with ThreadPoolExecutor(2) as pool:
                    results = pool.map(lambda suite: commands(lab, suite, roads, origin.folder), chosen)
                    tallies |= {suite.name: tally for suite, tally in zip(chosen, results, strict=True)}
    text = document(tallies, roads, missing)
    print(text)
    if args.details:
        for family, tally in tallies.items():
            for road, cases in tally.differ.items():
                for name, (right, got) in cases.items():
                    print(f"{family}: {name}, {road.proxy} {road.title}\n  direct {right[:400]}\n  here   {got[:400]}")
    whole = not (args.only or args.roads)
    if args.output or whole:
        (args.output or TABLE).write_text(text)
    return 1 if any(not why for _, _, why in differences(tallies)) else 0


if __name__ == "__main__":
    sys.exit(main())
