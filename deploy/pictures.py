"""The pictures of docs/pictures, taken of the running product: `make pictures`.

A made-up log of a month is judged and written by tokgate itself; Chromium opens the page that refused people see and
the review page, light and dark. The chart of the Belgian bans is what `tokgate timeline --plot` writes.
"""

import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from whenever import Instant, Weekday, ZonedDateTime

from labs.devtools import Tab, tab
from tokgate.blocklog.records.coverage import coverage_counted
from tokgate.blocklog.records.lifecycle import phase_changed, started
from tokgate.blocklog.records.record import Observer, Record, new_stamp
from tokgate.blocklog.records.traffic import traffic_record
from tokgate.blocklog.write.writer import LogWriter
from tokgate.config.loader import load
from tokgate.policy.analysis.timeline import transitions
from tokgate.policy.decide import Sighting, decide_signals
from tokgate.policy.decision import Signal
from tokgate.policy.observation import Endpoint, HttpSeen, Observation, Stage, TlsSeen, Visibility
from tokgate.policy.snapshot import Snapshot, compile_policy

ROOT: Final = Path(__file__).resolve().parent.parent
PICTURES: Final = ROOT / "docs/pictures"
DESK: Final = (1280, 900)
PHONE: Final = (390, 844)
PAGE: Final = (900, 1000)
BELGIAN: Final = (
    "belgium-federal",
    "brussels-region",
    "flemish-government",
    "wallonia",
    "wallonia-brussels-federation",
)
_ZONE: Final = "Europe/Brussels"
_DAYS: Final = 30
_POLICY: Final = """\
version: 1
networks:
  offices: {title: Offices, cidrs: [10.32.0.0/16], timezone: Europe/Brussels}
  schools: {title: Schools, cidrs: [10.48.0.0/16], timezone: Europe/Brussels}
  this-machine: {title: For the picture of the page, cidrs: [127.0.0.0/8], timezone: Europe/Brussels}
bans:
  offices-2026:
    title: TikTok on work devices
    authority: Example Council
    basis: Circular 12 of 2 March 2026
    reference: https://council.example.org/circulars/12
    contact: servicedesk@example.org
    reason: The council found that the app collects more than its purpose needs.
    services: [tiktok]
    networks: [offices]
    announced: 2026-03-02
    monitor_from: 2026-03-05
    warn_from: 2026-03-10
    starts: 2026-03-16T00:00
    duration: P6M
  schools-2026:
    title: TikTok during lessons
    authority: Example School Board
    basis: Rules of conduct, article 4
    services: [tiktok]
    networks: [schools]
    starts: 2026-03-02T00:00
    duration: P4M
    windows: [{days: mon-fri, from: "08:00", to: "16:00"}]
    action: warn
  page-2026:
    title: TikTok on work devices
    authority: Example Council
    basis: Circular 12 of 2 March 2026
    reference: https://council.example.org/circulars/12
    contact: servicedesk@example.org
    reason: The council found that the app collects more than its purpose needs.
    services: [tiktok]
    networks: [this-machine]
    starts: 2026-03-16T00:00
    response: page
exemptions:
  press-office:
    ban: offices-2026
    clients: [10.32.9.0/28]
    until: 2026-06-30T18:00
    reason: Monitoring of public statements
"""
_GATEWAY: Final = Observer(hostname="gateway.example.org", version="0.1.0", name="gate-0")
_OPENED: Final = 0.06
"""The share of requests that could be read."""
_HELLO: Final = TlsSeen(alpn=("h2", "http/1.1"), ja4="t13d1516h2_8daaf6152771_02713d6af862")
_AGENT: Final = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
_REQUEST: Final = HttpSeen(method="GET", path="/@example", scheme="http", version="1.1", status=451, user_agent=_AGENT)
_NAMES: Final = (
    "www.tiktok.com",
    "m.tiktok.com",
    "v16-webapp.tiktok.com",
    "api16-normal.tiktokv.com",
    "p16.tiktokcdn.com",
)


def main() -> None:
    """Take them all."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tokgate-pictures-") as name:
        folder = Path(name)
        (folder / "policies").mkdir()
        (folder / "policies/policy.yaml").write_text(_POLICY)
        for service in ("tiktok", "tiktok-ads"):
            text = (ROOT / f"policies/services/{service}.yaml").read_text()
            (folder / f"policies/{service}.yaml").write_text(text)
        policy = load(folder / "policies", Instant.now()).policy
        if policy is None:
            raise SystemExit("the policies of the pictures have errors")
        write_log(folder / "block.ndjson", compile_policy(policy))
        review_page(folder)
        block_page(folder)
        belgian_bans(folder)


def write_log(path: Path, snapshot: Snapshot) -> None:
    """A month of attempts, most of them at noon and on working days, fewer once the ban blocks."""
    begins = ZonedDateTime(2026, 3, 1, tz=_ZONE)
    now = begins.to_instant()
    writer = LogWriter(path, _GATEWAY, clock=lambda: now)
    writer.start()
    due: list[tuple[Instant, Record]] = [(now, started(new_stamp(now, _GATEWAY), 4711, snapshot.policy))]
    due += _attempts(begins, snapshot)
    for change in transitions(snapshot, now, begins.add(days=_DAYS).to_instant()):
        due.append((change.at, phase_changed(new_stamp(change.at, _GATEWAY), change, snapshot.version)))
    for hour in range(1, 24 * _DAYS):
        at = now.add(hours=hour)
        seen = {"offices": {"sni": 4_100, "none": 61, "ech-outer": 22}, "schools": {"sni": 1_870, "none": 24}}
        due.append((at, coverage_counted(new_stamp(at, _GATEWAY), seen, at.subtract(hours=1))))
    for now, record in sorted(due, key=lambda one: one[0]):  # noqa: B007  (the writer's clock reads it)
        if not writer.put(record) or not writer.mark().wait(60):
            raise SystemExit(f"{path} can't be written")
    if not writer.close(60):
        raise SystemExit(f"{path} can't be written")


def _attempts(begins: ZonedDateTime, snapshot: Snapshot) -> Iterator[tuple[Instant, Record]]:
    pick = random.Random(4)  # noqa: S311  (made-up data)
    clients = [f"10.32.{pick.randrange(20)}.{pick.randrange(1, 255)}" for _ in range(48)]
    clients += [f"10.48.{pick.randrange(8)}.{pick.randrange(1, 255)}" for _ in range(24)] + ["10.32.9.3", "10.32.9.7"]
    weights = [1 / (place + 2) for place in range(len(clients))]
    pick.shuffle(weights)
    for day in range(_DAYS):
        morning = begins.add(days=day)
        weekend = morning.date().day_of_week() in (Weekday.SATURDAY, Weekday.SUNDAY)
        for _ in range(round((14 if weekend else 110) * (0.985**day) * pick.uniform(0.8, 1.2))):
            hour = min(23.9, max(0.0, pick.choice((pick.gauss(12.5, 1.2), pick.gauss(9.5, 1.5), pick.gauss(16, 2.5)))))
            at = morning.add(seconds=round(hour * 3600)).to_instant()
            (client,) = pick.choices(clients, weights)
            opened = pick.random() < _OPENED
            stage = Stage.HTTP if opened else pick.choice((Stage.TLS, Stage.TLS, Stage.QUIC))
            signals = {Stage.HTTP: Signal.HTTP_HOST, Stage.TLS: Signal.SNI, Stage.QUIC: Signal.QUIC_SNI}
            seen = Observation(
                client=Endpoint(client, pick.randrange(32_768, 61_000)), stage=stage, tls=None if opened else _HELLO,
                destination=Endpoint(f"203.0.113.{pick.randrange(1, 255)}", 80 if opened else 443),
                visibility=Visibility.DECRYPTED if opened else Visibility.SNI,
                names=(Sighting(signals[stage], pick.choice(_NAMES)),),
                http=_REQUEST if opened else None,
            )  # fmt: skip
            judgement = decide_signals(snapshot, client, seen.names, at)
            record = traffic_record(new_stamp(at, _GATEWAY), seen, judgement, snapshot)
            if record is not None:
                yield at, record


def review_page(folder: Path) -> None:
    """The overview, its lines and one event."""
    with running(folder, r"open, once: (\S+)", "review", "--listen", "127.0.0.1:0") as link, tab() as page:
        page.open(link)
        page.wait("location.pathname === '/'")
        base = link.partition("/enter")[0]
        taken(page, f"{base}/?zone={_ZONE}", "review", DESK)
        taken(page, f"{base}/lines?verdict=block&zone={_ZONE}", "review-lines-phone", PHONE)


def block_page(folder: Path) -> None:
    """The page that a refused person sees, over TLS, in a browser that trusts the gateway's authority."""
    arguments = ("run", "--listen-port", "0", "--confdir", str(folder / "confdir"), "--workers", "1", "--openers", "1")
    with running(folder, r"(127\.0\.0\.1:[1-9][0-9]*)", *arguments) as proxy:
        authority = next((folder / "confdir").glob("*-ca-cert.pem"))
        with tab(f"--proxy-server=http://{proxy}", "--proxy-bypass-list=<-loopback>", authorities=[authority]) as page:
            taken(page, "https://www.tiktok.com/", "block-page", PAGE)


def belgian_bans(folder: Path) -> None:
    """The bans of Belgian authorities as one chart."""
    chosen = folder / "belgian"
    chosen.mkdir()
    for name in BELGIAN:
        (chosen / f"{name}.yaml").write_text((ROOT / f"policies/bans/{name}.yaml").read_text())
    for path in (ROOT / "policies/services").glob("*.yaml"):
        (chosen / path.name).write_text(path.read_text())
    tokgate = [sys.executable, "-m", "tokgate", "timeline", "--policies", str(chosen)]
    span = ["--from", "2023-03-01", "--to", "2025-01-01"]
    subprocess.run([*tokgate, *span, "--plot", str(PICTURES / "belgian-bans.svg")], check=True)


def taken(page: Tab, url: str, name: str, size: tuple[int, int]) -> None:
    """Pictures of what fits a window, light and dark."""
    width, height = size
    for ending, dark in ((".png", False), ("-dark.png", True)):
        page.size(width, height, dark=dark, mobile=size == PHONE)
        page.open(url)
        page.picture(PICTURES / f"{name}{ending}", height)


@contextmanager
def running(folder: Path, told: str, *arguments: str) -> Iterator[str]:
    """A command of tokgate's in a folder, and what it told in one place of its narration."""
    errors = folder / f"{arguments[0]}.stderr"
    with errors.open("wb") as stderr:
        child = subprocess.Popen(
            [sys.executable, "-m", "tokgate", *arguments],
            cwd=folder, stderr=stderr, stdin=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": str(ROOT / "addons")},
        )  # fmt: skip
    try:
        until = time.monotonic() + 60
        while (found := re.search(told, errors.read_text())) is None:
            if child.poll() is not None or time.monotonic() > until:
                raise SystemExit(errors.read_text())
            time.sleep(0.1)
        yield found[1]
    finally:
        child.send_signal(signal.SIGINT)
        child.wait(60)


if __name__ == "__main__":
    main()
