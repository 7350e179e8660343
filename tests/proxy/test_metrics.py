"""Metrics and health: what they are made of, how they are told, and that nobody waits who must not."""

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

import builders
from tokgate.blocklog.observation import Visibility
from tokgate.config.loader import Loaded
from tokgate.config.reload import PolicyHolder, Reloaded
from tokgate.gate.counters import AT_LIMIT, Counters
from tokgate.gate.endpoints import scrapers_endpoint
from tokgate.policy.decision import Verdict
from tokgate.proxy import vitals
from tokgate.proxy.exposition import Exposition, certificates, complete, serve
from tokgate.proxy.metrics import FAMILIES, Kind, families
from tokgate.proxy.state import Worker, state_of
from tokgate.proxy.vitals import Asked, Asking, Reloads, channel, problems

ROOT = Path(__file__).parents[2]
NOW = builders.at("2023-04-01T12:00:00Z")
LOG = {
    "written": 7,
    "dropped": 2,
    "gap": 1,
    "errors": 3,
    "queued": 4,
    "rotations": 5,
    "last_error": "OSError: No space left on device",
    "failing_since": NOW.timestamp() - 30,
}


def measured(folder: Path, **changed: Any) -> vitals.Vitals:
    """A tokgate that has seen everything."""
    ban = builders.ban(expires=builders.at("2023-04-11T12:00:00Z"))
    snapshot = builders.snapshot(ban)
    holder = PolicyHolder(
        folder, snapshot, Loaded(snapshot.policy, (), (), ()), loaded_at=NOW.subtract(hours=1), seen={}
    )
    counters = Counters()
    counters.count("office", Visibility.SNI, Verdict.ALLOW)
    counters.count(None, Visibility.NONE, Verdict.BLOCK)
    counters.errors["gate"] += 2
    counters.put(AT_LIMIT, 9)
    workers = [
        Worker(name="gate-0", pid=1, seconds=1.0, version="x", report={"connections": 5}),
        Worker(name="gate-1", pid=2, seconds=1.0, version="x", report={"connections": 6}),
        Worker(name="gate-0", pid=3, seconds=9.0, version="w", report={"connections": 1}, retired=True),
        Worker(name="collector-0", pid=4, seconds=9.0, version=None, report={}),
    ]
    reloads = Reloads()
    reloads.note(Reloaded(True, snapshot, (), NOW, snapshot.version))
    reloads.note(Reloaded(False, snapshot, (), NOW, snapshot.version))
    made = vitals.vitals(
        state_of(holder, workers, NOW),
        version="1.2.3",
        started=NOW.subtract(hours=2),
        counts=counters.tally.read(),
        log=LOG,
        reloads=reloads,
        confdir=folder,
        restarts={"gate-0": 2, "gate-1": 1},
    )
    return json.loads(json.dumps(made)) | changed  # type: ignore[no-any-return]


def samples(now: vitals.Vitals) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """All values by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families(complete(now, NOW))
        for sample in family.samples
    }


def test_the_values(tmp_path: Path) -> None:
    """Sums over workers, numbers of the log, seconds until what a ban comes to."""
    found = samples(measured(tmp_path))

    def value(name: str, **labels: str) -> float:
        return found[f"tokgate_{name}", frozenset(labels.items())]

    assert value("build_info", version="1.2.3") == 1
    assert value("healthy") == 0
    assert value("decisions_total", network="office", visibility="sni", verdict="allow") == 1
    assert value("decisions_total", network="-", visibility="none", verdict="block") == 1
    assert value("connections", role="gate", state="serving") == 11
    assert value("connections", role="gate", state="ending") == 1
    assert value("workers", role="gate", state="serving") == 2
    assert value("restarts_total", role="gate") == 3
    assert value("restarts_total", role="collector") == 0
    assert value("given_up_total", why="limit") == 9
    assert value("internal_errors_total", where="gate") == 2
    assert value("log_writable") == 0
    assert value("log_failing_seconds") == 30
    assert value("log_records_written_total") == 7
    assert value("log_records_dropped_total") == 2
    assert value("log_gap_records") == 1
    assert value("log_last_error", error="OSError: No space left on device") == 1
    assert value("policy_age_seconds") == 3600
    assert value("policy_newest_in_force") == 1
    assert value("policy_reloads_total", result="failure") == 1
    assert value("policy_last_reload_timestamp_seconds", result="success") == NOW.timestamp()
    assert value("ban_phase", ban="ban", zone=builders.BRUSSELS, phase="block") == 1
    assert value("ban_seconds_until_end", ban="ban", zone=builders.BRUSSELS) == 10 * 86400
    assert value("ban_seconds_until_transition", ban="ban", zone=builders.BRUSSELS) == 10 * 86400


def test_a_log_that_nobody_writes_has_no_numbers(tmp_path: Path) -> None:
    """No values are made up; the one that alerts is there."""
    found = samples(measured(tmp_path, log=None))
    assert found["tokgate_log_writable", frozenset()] == 0
    assert not any(name == "tokgate_log_records_written_total" for name, _ in found)


def test_names_and_labels_are_valid(tmp_path: Path) -> None:
    """Both formats are read by their own parsers, and counters are told from gauges."""
    app = Exposition(lambda: measured(tmp_path), lambda: NOW)
    plain = parse(get(app, "/metrics")[1].decode())
    assert {family.name for family in plain} == {f.name.removesuffix("_total") for f in FAMILIES} - {
        "tokgate_certificate_seconds_until_expiry"
    }
    status, body = get(app, "/metrics", HTTP_ACCEPT="application/openmetrics-text; version=1.0.0")
    assert status == "200 OK"
    types = {family.name: family.type for family in parse_openmetrics(body.decode())}
    assert types == {f.name.removesuffix("_total"): f.kind.value for f in FAMILIES if "certificate" not in f.name}
    assert all(f.name.endswith("_total") == (f.kind is Kind.COUNTER) for f in FAMILIES)


def get(app: Exposition, path: str, method: str = "GET", **environ: str) -> tuple[str, bytes]:
    """Ask the application as a server would."""
    answered: list[Any] = []

    def start(status: str, headers: list[tuple[str, str]], _: Any = None) -> Any:
        answered.append((status, dict(headers)))

    body = b"".join(app({"PATH_INFO": path, "REQUEST_METHOD": method, **environ}, start))
    status, headers = answered[0]
    assert method == "HEAD" or int(headers["Content-Length"]) == len(body)
    return status, body


HEALTHY = {"log": LOG | {"failing_since": None}}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (HEALTHY, None),
        ({}, "the log can't be written: OSError: No space left on device"),
        ({"log": None}, "nothing writes the log"),
        (HEALTHY | {"workers": []}, "no gate serves"),
    ],
)
def test_health(tmp_path: Path, changed: dict[str, Any], said: str | None) -> None:
    """Green with 200; red with 503 and the reason in words."""
    status, body = get(Exposition(lambda: measured(tmp_path, **changed)), "/healthz")
    assert json.loads(body) == {"ok": said is None, "problems": [] if said is None else [said]}
    assert status == ("200 OK" if said is None else "503 Service Unavailable")


def test_a_wrong_edit_is_red(tmp_path: Path) -> None:
    """Though the old policy is in force."""
    now = measured(tmp_path, **HEALTHY)
    now["policy"]["error"] = "policy.yaml:3:1: error: no such service"
    assert problems(now) == ["the newest policy is not in force: policy.yaml:3:1: error: no such service"]


def test_nobody_answers() -> None:
    """A supervisor that hangs or is gone is red, and no metrics are made up."""

    def silence() -> vitals.Vitals:
        raise TimeoutError("the supervisor does not answer")

    for path in ("/metrics", "/healthz"):
        status, body = get(Exposition(silence), path)
        assert status.startswith("503")
        assert json.loads(body)["problems"] == ["the supervisor does not answer"]


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [("/", "GET", "404"), ("/metrics/", "GET", "404"), ("/metrics", "POST", "405"), ("/healthz", "DELETE", "405")],
)
def test_nothing_else_is_there(tmp_path: Path, path: str, method: str, status: str) -> None:
    """Only two paths, only to be read."""
    assert get(Exposition(lambda: measured(tmp_path)), path, method)[0].startswith(status)


def test_head_has_no_body(tmp_path: Path) -> None:
    """As GET, without it."""
    assert get(Exposition(lambda: measured(tmp_path)), "/metrics", "HEAD") == ("200 OK", b"")


def test_certificates(tmp_path: Path) -> None:
    """The earliest end in the authority's file; none without a file that can be read."""
    import trustme

    assert certificates(tmp_path, NOW) == {}
    path = tmp_path / "mitmproxy-ca.pem"
    path.write_text("no certificate")
    assert certificates(tmp_path, NOW) == {}
    authority = trustme.CA()
    authority.private_key_pem.write_to_path(str(path))
    authority.cert_pem.write_to_path(str(path), append=True)
    (seconds,) = certificates(tmp_path, NOW).values()
    assert seconds > 0


@pytest.fixture
def pair() -> Iterator[tuple[Asking, Asked]]:
    """Who asks, and who is asked."""
    asking, asked = channel()
    yield asking, asked
    asking._socket.close()
    asked._socket.close()


def test_asking(pair: tuple[Asking, Asked], tmp_path: Path) -> None:
    """What is answered arrives whole, however long it is; who isn't asked does nothing."""
    asking, asked = pair
    asked.answer(lambda: pytest.fail("nobody asked"))
    large = measured(tmp_path, decisions=[[f"network-{n}", "sni", "allow", n] for n in range(20_000)])
    got: list[vitals.Vitals] = []
    thread = threading.Thread(target=lambda: got.append(asking.ask()))
    thread.start()
    give_up = time.monotonic() + 5
    while not got and time.monotonic() < give_up:
        asked.answer(lambda: large)
    thread.join()
    assert got == [large]


def test_an_answer_that_came_too_late_is_not_taken_for_the_next(
    pair: tuple[Asking, Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each question has its own answer, and one without any ends."""
    asking, asked = pair
    monkeypatch.setattr(vitals, "PATIENCE", 0.05)
    with pytest.raises(TimeoutError):
        asking.ask()
    asked.answer(lambda: {"late": True})
    monkeypatch.setattr(vitals, "PATIENCE", 5.0)
    thread = threading.Thread(target=_answer_once, args=(asked,))
    thread.start()
    assert asking.ask() == {"late": False}
    thread.join()
    asked._socket.close()
    with pytest.raises(OSError, match=r"gone|Broken pipe"):
        asking.ask()


def _answer_once(asked: Asked) -> None:
    done: list[bool] = []

    def make() -> vitals.Vitals:
        done.append(True)
        return {"late": False}

    while not done:
        asked.answer(make)


def test_slow_clients_keep_nobody_waiting(tmp_path: Path) -> None:
    """Many that say half a request and then nothing: the next scraper is served all the same."""
    sock = socket.create_server(("127.0.0.1", 0))
    address = sock.getsockname()
    threading.Thread(target=serve, args=(sock, lambda: measured(tmp_path)), daemon=True).start()
    slow = [socket.create_connection(address) for _ in range(8)]
    for each in slow:
        each.sendall(b"GET /metrics HT")
    connection = HTTPConnection(*address, timeout=10)
    connection.request("GET", "/metrics")
    answer = connection.getresponse()
    assert answer.status == 200
    assert b"tokgate_build_info" in answer.read()
    connection.close()
    for each in slow:
        each.close()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("9300", ("127.0.0.1", 9300)),
        (":9300", ("127.0.0.1", 9300)),
        ("192.0.2.1:9300", ("192.0.2.1", 9300)),
        ("[::1]:9300", ("::1", 9300)),
        ("[]:0", ("127.0.0.1", 0)),
    ],
)
def test_where(text: str, place: tuple[str, int]) -> None:
    """Loopback unless an address is given."""
    assert scrapers_endpoint(text) == place


@pytest.mark.parametrize("text", ["", "host", "host:", "127.0.0.1:99999", "127.0.0.1:-1", "[::1]:x"])
def test_nowhere(text: str) -> None:
    """What has no port is an error."""
    with pytest.raises(ValueError, match="HOST:PORT"):
        scrapers_endpoint(text)


DOCUMENTED = (ROOT / "docs" / "admin.md").read_text()


def test_every_metric_is_documented() -> None:
    """docs/admin.md has a row for each, with its labels, and for no other."""
    rows = re.findall(r"^\| `(tokgate_\w+)(?:\{([\w, ]*)\})?` \|", DOCUMENTED, re.MULTILINE)
    said = {name: tuple(filter(None, labels.split(", "))) for name, labels in rows}
    assert said == {family.name: family.labels for family in FAMILIES}


RULES = ROOT / "deploy" / "prometheus" / "tokgate.rules.yml"


def test_alerts_ask_for_metrics_that_exist(check_rules: Callable[[Path], None]) -> None:
    """Each rule's expression has only our metrics and labels, and says what to do."""
    known = {family.name: family.labels for family in FAMILIES}
    groups = yaml.safe_load(RULES.read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) >= 8
    for rule in rules:
        named = re.findall(r"(tokgate_\w+)(?:\{([^}]*)\})?", rule["expr"])
        assert named or "up{" in rule["expr"], rule["alert"]
        for name, matchers in named:
            assert set(re.findall(r"(\w+)\s*[=!]", matchers)) <= set(known[name]), rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert rule["annotations"].keys() == {"summary", "description"}
    check_rules(RULES)


@pytest.fixture
def check_rules() -> Callable[[Path], None]:
    """promtool's own opinion, where there is one."""
    import shutil
    import subprocess

    def check(path: Path) -> None:
        promtool = shutil.which("promtool")
        if promtool is not None:
            done = subprocess.run([promtool, "check", "rules", str(path)], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stdout + done.stderr

    return check
