"""`tokgate reload` and `tokgate status` whatever carries the traffic, and saves that must lift no ban."""

import json
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from labs.running_lab import POLICY, Running, until
from tokgate.cli.main import main
from tokgate.runtime.control_socket import Call, ControlRequest, ask

CARRIERS = {
    "gates": ("--mode", "gate:explicit@127.0.0.1:0"),
    "mitmproxy": ("--mode", "regular@127.0.0.1:0"),
}
BROKEN = "bans: {ban: {title: no services}}\n"


def policy(network: str) -> str:
    """The policy, banning the service for one network more, by which it is known."""
    ban = POLICY["bans"]["ban"] | {"networks": ["here", network]}
    networks = POLICY["networks"] | {network: {"cidrs": ["192.0.2.0/24"]}}
    return str(yaml.safe_dump(POLICY | {"networks": networks, "bans": {"ban": ban}}))


class Carrier(Running):
    """A running tokgate that is asked over its control socket."""

    def ask(self, request: ControlRequest) -> dict[str, Any]:
        answer = ask(self.confdir, request)
        assert answer is not None
        return answer

    def networks(self) -> list[list[str]]:
        return [ban["networks"] for ban in self.ask(ControlRequest.STATUS)["policy"]["bans"]]

    def has(self, network: str) -> bool:
        """Whether the policy with this network is in force, in every worker."""
        state = self.ask(ControlRequest.STATUS)
        versions = {worker["version"] for worker in state["workers"] if worker["version"] and not worker["retired"]}
        return self.networks() == [["here", network]] and versions == {state["policy"]["version"]}

    def tokgate(self, *words: str) -> int:
        return main([*words, "--confdir", str(self.confdir)])

    @contextmanager
    def never_passing(self) -> Iterator[None]:
        """Ask for the banned name again and again meanwhile: it must never be let through."""
        stop, passed = threading.Event(), []

        def watch() -> None:
            while not stop.wait(0.02):
                passed.append(self.lets_through())

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
            until("it was asked for", lambda: len(passed) >= 3)
        finally:
            stop.set()
            thread.join()
        assert not any(passed)

    def lets_through(self) -> bool:
        """Whether the banned name gets a tunnel."""
        status, sock = self.connect("www.clips.example.org", 443)
        sock.close()
        return not (" 403 " in status or " 451 " in status)


@pytest.fixture(scope="module", params=list(CARRIERS.values()), ids=list(CARRIERS))
def started(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Carrier]:
    """One tokgate for all tests of a carrier."""
    carrier = Carrier(tmp_path_factory.mktemp("reload"), mode=request.param)
    until("it answers", lambda: ask(carrier.confdir, ControlRequest.STATUS))
    until("banned names are refused", carrier.refuses)
    yield carrier
    carrier.close()
    assert "Traceback" not in carrier.narrated()


@pytest.fixture
def carrier(started: Carrier) -> Carrier:
    """A tokgate whose folder holds one file, which is in force."""
    shutil.rmtree(started.policies)
    started.policies.mkdir()
    (started.policies / "a.yaml").write_text(policy("first"))
    assert started.ask(ControlRequest.RELOAD)["ok"]
    assert started.has("first")
    return started


def test_reload(carrier: Carrier, capsys: pytest.CaptureFixture[str]) -> None:
    """It says what changed, from which version to which, once every worker has it; other words get no answer."""
    with pytest.raises(ConnectionError):
        ask(carrier.confdir, Call("nonsense"))  # type: ignore[arg-type]
    before = carrier.ask(ControlRequest.STATUS)["policy"]["version"]
    (carrier.policies / "a.yaml").write_text(policy("second"))
    assert carrier.tokgate("reload") == 0
    assert carrier.has("second")
    output = capsys.readouterr()
    after = carrier.ask(ControlRequest.STATUS)["policy"]["version"]
    lines = output.out.splitlines()
    assert lines[0].startswith(f"policy {before} -> {after}")
    assert lines[1:4] == ["  ~ bans ban: networks", "  - networks first", "  + networks second"]
    assert lines[4].startswith("in force in ")
    assert "reading the policy" in output.err


def test_what_is_in_force_already(carrier: Carrier, capsys: pytest.CaptureFixture[str]) -> None:
    """A change that was noticed before anybody asked is shown all the same."""
    (carrier.policies / "a.yaml").write_text(policy("noticed"))
    until("it is noticed", lambda: carrier.has("noticed"))
    assert carrier.tokgate("reload", "--json") == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["unchanged"]
    assert answer["before"] != answer["version"]
    assert {"section": "networks", "name": "noticed", "how": "added", "what": []} in answer["changes"]


def loads(carrier: Carrier) -> list[tuple[str, str]]:
    """What the log says of policies that were read: the action, and the version in force after it."""
    records = [json.loads(line) for line in carrier.log.read_text().splitlines(keepends=True) if line.endswith("\n")]
    said = [record for record in records if record["event"]["action"].startswith("policy-load")]
    return [(record["event"]["action"], record["tokgate"]["policy"]["version"]) for record in said]


def test_a_wrong_policy(carrier: Carrier, capsys: pytest.CaptureFixture[str]) -> None:
    """Errors are shown as `tokgate check` shows them, and the last good policy stays; status says so, too."""
    (carrier.policies / "a.yaml").write_text(BROKEN)
    assert main(["check", str(carrier.policies)]) == 1
    checked = capsys.readouterr().out.splitlines()
    assert carrier.tokgate("reload") == 1
    output = capsys.readouterr()
    assert output.out.splitlines() == checked[:-1]
    assert "stays in force" in output.err
    assert carrier.has("first")
    assert carrier.tokgate("status") == 1
    assert "not in force: " in capsys.readouterr().out
    until("the failure is logged", lambda: "policy-load-failed" in [action for action, _ in loads(carrier)[-1:]])
    told, (_, kept) = carrier.narrated().count("are valid again"), loads(carrier)[-1]
    (carrier.policies / "a.yaml").write_text(policy("first"))
    until("it is told that the files are right", lambda: carrier.narrated().count("are valid again") == told + 1)
    until("the log's last word is not the failure", lambda: loads(carrier)[-1] == ("policy-loaded", kept))
    assert loads(carrier)[-2] == ("policy-load-failed", kept)
    (carrier.policies / "a.yaml").write_text(BROKEN)
    with carrier.never_passing():
        (carrier.policies / "a.yaml").write_text(policy("mended"))
        assert carrier.tokgate("reload") == 0
    assert carrier.tokgate("status") == 0


def test_settings_that_wait_for_a_restart(carrier: Carrier, capsys: pytest.CaptureFixture[str]) -> None:
    """The log is opened once: whoever changes its settings is told, in the answer, in status and in the log."""
    (carrier.policies / "b.yaml").write_text("settings: {log: {retention_days: 30}}")
    assert carrier.tokgate("reload") == 0
    assert "only after a restart: settings.log.retention_days" in capsys.readouterr().out
    assert carrier.tokgate("status") == 0
    assert "only after a restart: settings.log.retention_days" in capsys.readouterr().out
    until("it is logged", lambda: "Only after a restart: settings.log.retention_days." in carrier.log.read_text())


def test_an_emptied_file_of_settings(carrier: Carrier, capsys: pytest.CaptureFixture[str]) -> None:
    """The defaults take effect, and where that lets more pass the answer, standard error and the log say so."""
    (carrier.policies / "b.yaml").write_text("settings: {missing_sni: block, reminders: [P2D]}")
    assert carrier.tokgate("reload") == 0
    assert "lets more pass" not in capsys.readouterr().out
    (carrier.policies / "b.yaml").write_text("")
    assert carrier.tokgate("reload") == 0
    said = "a setting now lets more pass than before: missing_sni: block -> check-address"
    assert said in capsys.readouterr().out.splitlines()
    until("it is told", lambda: said in carrier.narrated())
    until("it is logged", lambda: "weaker_settings" in policies_of(carrier)[-1])
    assert policies_of(carrier)[-1]["weaker_settings"] == ["missing_sni: block -> check-address"]


def test_an_emptied_file_lifts_no_ban(carrier: Carrier, capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever empties a file by mistake opens nothing: status, reload and the log say that the ban is held."""
    (carrier.policies / "b.yaml").write_text("networks: {guests: {cidrs: [198.51.100.0/24]}}")
    with carrier.never_passing():
        (carrier.policies / "a.yaml").write_text("")
        assert carrier.tokgate("reload") == 1
        assert "held, since the files no longer state it: ban" in capsys.readouterr().out
    assert carrier.has("first")
    assert carrier.tokgate("status") == 1
    assert "needs attention: the ban ban is held" in capsys.readouterr().out
    assert carrier.tokgate("reload", "--lift", "bann") == 1
    assert "no ban bann is held back" in capsys.readouterr().err
    assert carrier.refuses()
    assert carrier.tokgate("reload", "--lift", "ban") == 0
    assert "bans lifted: ban\n" in capsys.readouterr().out
    until("it is lifted", carrier.lets_through)
    assert carrier.tokgate("status") == 0
    until("it is logged", lambda: "bans_lifted" in policies_of(carrier)[-1])
    held, lifted = policies_of(carrier)[-2:]
    assert (held["bans_held"], lifted["bans_lifted"]) == (["ban"], ["ban"])
    assert lifted["lifted_because"][0].startswith("ban: `tokgate reload --lift` (")


def policies_of(carrier: Carrier) -> list[dict[str, Any]]:
    """What the log says of policies that came into force."""
    loaded = [record for record in carrier.records() if record["event"]["action"] == "policy-loaded"]
    return [record["tokgate"]["policy"] for record in loaded]


def test_half_written(carrier: Carrier) -> None:
    """A file that is truncated and written slowly lifts no ban, even where half of it is valid and rests."""
    half = "version: 1\nnetworks: {here: {cidrs: [127.0.0.0/8]}}\n"
    with carrier.never_passing():
        with (carrier.policies / "a.yaml").open("w") as file:
            file.write(half)
            file.flush()
            assert carrier.ask(ControlRequest.RELOAD)["bans"]["held"]
            file.seek(0)
            file.write(policy("whole"))
        until("it is in force", lambda: carrier.has("whole"))


def test_nobody_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a tokgate the exit code is 3, with a line that says so."""
    assert main(["reload", "--confdir", str(tmp_path)]) == 3
    assert "no tokgate runs" in capsys.readouterr().err
