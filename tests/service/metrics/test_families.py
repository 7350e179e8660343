"""Metrics and health: what they are made of, how they are told, and that nobody waits who must not."""

import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, closing, nullcontext, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from labs import builders
from labs.vitals import GATEWAY, HEALTHY, LOG, NOW, measured
from labs.waiting import DEADLINE, until
from tokgate.runtime.control_socket import Control, ControlRequest
from tokgate.service.listeners import scrapers_endpoint
from tokgate.service.metrics import sample as vitals
from tokgate.service.metrics.families import FAMILIES, families
from tokgate.service.metrics.http_server import Server, answer, certificates, complete
from tokgate.service.metrics.sample import Requester, problems

ROOT = Path(__file__).parents[3]


type Value = Callable[..., float | None]


def value_in(now: vitals.Vitals) -> Value:
    """What gives the value of a metric with these labels; None where there is none."""
    found = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in families(complete(now, NOW))
        for sample in family.samples
    }
    return lambda name, **labels: found.get((f"tokgate_{name}", frozenset(labels.items())))


def test_the_values(tmp_path: Path) -> None:
    """Sums over workers, numbers of the log, seconds until what a ban comes to; what isn't there has no numbers."""
    value = value_in(measured(tmp_path))
    assert value("build_info", version="1.2.3") == 1
    assert value("healthy") == 0
    assert value("decisions_total", network="office", visibility="sni", verdict="allow") == 1
    assert value("decisions_total", network="-", visibility="none", verdict="block") == 1
    assert value("connections", role="gate", state="serving") == 11
    assert value("connections", role="gate", state="ending") == 1
    assert value("workers", role="gate", state="serving") == 2
    assert value("workers", role="opener", state="silent") == 1
    assert value("workers", role="opener", state="serving") == 0
    assert value("restarts_total", role="gate") == 3
    assert value("hangs_total", role="gate") == 1
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
    assert value("gateway_in_step") is None
    value = value_in(measured(tmp_path, writer=None))
    assert (value("log_writable"), value("log_records_written_total")) == (0, None)


def test_names_and_labels_are_valid(tmp_path: Path) -> None:
    """Both formats are read by their own parsers, and counters are told from gauges."""

    def app() -> vitals.Vitals:
        return measured(tmp_path, gateway=GATEWAY)

    plain = parse(get(app, "/metrics")[1].decode())
    assert {family.name for family in plain} == {f.name.removesuffix("_total") for f in FAMILIES} - {
        "tokgate_certificate_seconds_until_expiry"
    }
    status, body = get(app, "/metrics", accept="application/openmetrics-text; version=1.0.0")
    assert status == 200
    types = {family.name: family.type for family in parse_openmetrics(body.decode())}
    assert types == {f.name.removesuffix("_total"): f.kind for f in FAMILIES if "certificate" not in f.name}
    assert all(f.name.endswith("_total") == (f.kind == "counter") for f in FAMILIES)


def get(measure: Callable[[], vitals.Vitals], path: str, accept: str = "") -> tuple[int, bytes]:
    """What is answered to a path over what this measures."""
    status, _, body = answer(measure, path, accept, lambda: NOW)
    return status, body


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (HEALTHY, None),
        ({}, "the log can't be written: OSError: No space left on device"),
        (HEALTHY | {"faults": ["no gate serves"]}, "no gate serves"),
        ({"writer": LOG | {"failing_since": None, "tampered": "1 line"}}, "the log was changed by others: 1 line"),
    ],
)
def test_health(tmp_path: Path, changed: dict[str, Any], said: str | None) -> None:
    """Green with 200; red with 503 and the reason in words."""
    status, body = get(lambda: measured(tmp_path, **changed), "/healthz")
    assert json.loads(body) == {"ok": said is None, "problems": [] if said is None else [said]}
    assert status == (200 if said is None else 503)


def test_a_wrong_edit_is_red(tmp_path: Path) -> None:
    """Though the old policy is in force."""
    now = measured(tmp_path, error="policy.yaml:3:1: error: no such service", **HEALTHY)
    why = f"policy.yaml:3:1: error: no such service, since {NOW}"
    assert problems(now) == [f"the newest policy is not in force: {why}"]


def test_nobody_answers() -> None:
    """A supervisor that hangs or is gone is red, and no metrics are made up."""

    def silence() -> vitals.Vitals:
        raise TimeoutError("the supervisor does not answer")

    for path in ("/metrics", "/healthz"):
        status, body = get(silence, path)
        assert status == 503
        assert json.loads(body)["problems"] == ["the supervisor does not answer"]


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


def test_asking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks gets the whole answer, however long it is; or an error, which says why there is none."""
    log = tmp_path / "block.ndjson"
    large = measured(tmp_path, decisions=[[f"network-{n}", "sni", "allow", n] for n in range(20_000)])
    requester, other = Requester(tmp_path, log), Requester(tmp_path, tmp_path / "other.ndjson")
    with pytest.raises(ConnectionError, match="has ended"):
        requester.ask()
    control = Control(tmp_path)
    assert control.open() is not None
    monkeypatch.setattr(vitals, "PATIENCE", 0.05)
    with pytest.raises(ConnectionError, match="does not answer"):
        requester.ask()
    for caller in control.callers():
        assert caller.request is ControlRequest.VITALS
        caller.answer(large)  # which nobody takes for the next one
    monkeypatch.setattr(vitals, "PATIENCE", DEADLINE)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(each.ask) for each in (requester, requester, other)]
        while not all(map(Future.done, asked)):
            for caller in control.callers():
                caller.answer(large)
        assert [each.result() for each in asked[:2]] == [large] * 2
        with pytest.raises(ConnectionError, match="another tokgate"):
            asked[2].result()
    control.close(remove=True)


@pytest.fixture
def address(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """Where metrics are served."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        server = Server(sock, lambda: measured(tmp_path))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield sock.getsockname()
        server.shutdown()


def asked(address: tuple[str, int], method: str, path: str) -> tuple[int, str | None, bytes]:
    """Status, length and body of the answer."""
    with closing(HTTPConnection(*address, timeout=DEADLINE)) as connection:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.getheader("content-length"), response.read()


def test_who_asks(address: tuple[str, int], capsys: pytest.CaptureFixture[str]) -> None:
    """Only two paths, only to be read, without a body; who says half a request keeps nobody waiting."""
    with ExitStack() as crowd:
        for _ in range(8):
            crowd.enter_context(socket.create_connection(address)).sendall(b"GET /metrics HT")
        status, length, body = asked(address, "GET", "/metrics?again")
        assert (status, length) == (200, str(len(body)))
        assert b"tokgate_build_info" in body
        status, length, nothing = asked(address, "HEAD", "/metrics")
        assert (status, int(length or 0) > 0, nothing) == (200, True, b"")
        for method, path, refused in (("GET", "/", 404), ("GET", "/metrics/", 404), ("POST", "/metrics", 501)):
            assert asked(address, method, path)[0] == refused
        for body in (b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", b"Content-Length: -1\r\n\r\n"):
            with socket.create_connection(address, DEADLINE) as client:
                client.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + body)
                assert client.makefile("rb").readline() == b"HTTP/1.0 400 a request here has no body\r\n"
    assert capsys.readouterr().err == ""


def test_more_than_there_are_places(address: tuple[str, int]) -> None:
    """Whoever comes then is told nothing at once; when a place is free again all is answered."""
    with ExitStack() as crowd:
        silent = [crowd.enter_context(socket.create_connection(address, DEADLINE)) for _ in range(33)]
        assert silent[-1].recv(1) == b""
        silent[0].close()

        def well() -> bool:
            with suppress(OSError, HTTPException):
                return asked(address, "GET", "/metrics")[0] == 200
            return False

        until("a place is free", well)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("9300", ("127.0.0.1", 9300)),
        (":9300", ("127.0.0.1", 9300)),
        ("192.0.2.1:9300", ("192.0.2.1", 9300)),
        ("[::1]:9300", ("::1", 9300)),
        ("[]:0", ("127.0.0.1", 0)),
        *((text, None) for text in ("", "host", "host:", "127.0.0.1:99999", "127.0.0.1:-1", "[::1]:x")),
    ],
)
def test_where(text: str, place: tuple[str, int] | None) -> None:
    """Loopback unless an address is given; what has no port is an error."""
    with nullcontext() if place else pytest.raises(ValueError, match="HOST:PORT"):
        assert scrapers_endpoint(text) == place


DOCUMENTED = (ROOT / "docs" / "operation.md").read_text()


def test_every_metric_is_documented() -> None:
    """The table of docs/operation.md has each, with its labels, and no other."""
    table = DOCUMENTED.partition("| about | metrics |")[2].partition("\n\n")[0]
    named = re.findall(r"`(tokgate_\w+)(?:\{([\w, ]*)\})?`", table)
    said = {name: tuple(filter(None, labels.split(", "))) for name, labels in named}
    assert len(said) == len(named)
    assert said == {family.name: family.labels for family in FAMILIES}


def test_the_kernel(tmp_path: Path) -> None:
    """A kernel out of step is an alert and a red health."""
    now = measured(tmp_path, gateway=GATEWAY)
    value = value_in(now)
    assert value("gateway_in_step") == 0
    assert [value("gateway_differences", part=part) for part in ("table", "routes")] == [1, 0]
    assert (value("gateway_restored_total"), value("gateway_canary")) == (3, 1)
    assert value("gateway_refused_packets_total", kind="quic") == 7
    assert "the gateway's kernel: chain forward is missing" in problems(now)


PASSED = "IPv4: the banned test name passed"


@pytest.mark.parametrize(
    ("canary", "problems", "values"),
    [
        ({"ok": False, "at": "2023-03-10T08:00:07Z", "problems": [PASSED]}, [f"canary: {PASSED}"], (0, 1)),
        ({"ok": True, "at": None, "problems": []}, GATEWAY["problems"], (None, 0)),
        (None, GATEWAY["problems"], (None, 0)),
    ],
    ids=["fails", "never asked", "none"],
)
def test_the_canary(tmp_path: Path, canary: Any, problems: list[str], values: tuple[int | None, int]) -> None:
    """A canary that fails is red by itself: the kernel may be in step. One that never asked says nothing."""
    value = value_in(measured(tmp_path, gateway=GATEWAY | {"problems": problems, "canary": canary}))
    assert (value("gateway_canary"), value("gateway_in_step")) == values
