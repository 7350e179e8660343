"""What is told once: reminders and overrides, across policies, clocks, restarts and damaged files."""

import json
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from whenever import Instant

from labs.builders import at, ban, exemption, snapshot, wall
from labs.records import Records
from labs.samples import exception_request, stamp
from tokgate.blocklog.paths import requests_path_for
from tokgate.blocklog.records import lifecycle
from tokgate.blocklog.records.record import Observer, Record, Stamp, new_stamp
from tokgate.blocklog.records.requests import RequestState
from tokgate.policy.settings import ClientsShown, LogSettings
from tokgate.policy.snapshot import Snapshot
from tokgate.runtime.notified import NotificationHistory
from tokgate.traffic.exception_requests import RequestFolder

OBSERVER = Observer(hostname="gateway.example.org", version="0")
NOW = at("2023-03-15T09:00:00Z")
START, MIDDLE, END = at("2023-03-15T10:00:00Z"), at("2023-03-15T11:00:00Z"), at("2023-03-15T12:00:00Z")
WEEK_BEFORE = at("2023-09-02T22:00:00Z")


class Desk:
    """The history as a process has it; a new one beside the same log is the process after a restart."""

    def __init__(self, log: Path, records: Records) -> None:
        self.records = records
        self.history = NotificationHistory(log, self._write)

    def _write(self, build: Callable[[Stamp], Record]) -> None:
        self.records.put(build(new_stamp(NOW, OBSERVER)))

    def tell(self, policy: Snapshot, now: Instant) -> list[tuple[str, str]]:
        """What is told at an instant: action and message of each record."""
        before = len(self.records.all)
        if self.history.look(policy, now):
            self.history.save()
        return [(record["event"]["action"], record["message"]) for record in self.records.all[before:]]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log" / "block.ndjson"


def ending(**settings: Any) -> Snapshot:
    return snapshot(ban(expires=wall("2023-09-10T00:00")), **settings)


def overridden(settings: dict[str, Any] | None = None, **stated: Any) -> Snapshot:
    """A policy with an override for two hours."""
    quick = {"starts": START, "until": END, "override": True, "by": "alice", "ticket": "CHG-1"}
    return snapshot(ban(), exemptions=(exemption("quick", **(quick | stated)),), **(settings or {}))


def test_a_reminder_is_told_once(log: Path, records: Records) -> None:
    """In the log, and not again however often it is looked, nor after a restart."""
    desk = Desk(log, records)
    assert desk.tell(ending(), WEEK_BEFORE.subtract(nanoseconds=1)) == [
        ("ban-near-expiry", "Ban The ban [ban] ends at 2023-09-10 00:00 Europe/Brussels, for office; then: lapse.")
    ]  # thirty days before, late
    ((action, _),) = desk.tell(ending(), WEEK_BEFORE)
    assert action == "ban-near-expiry"
    assert desk.tell(ending(), WEEK_BEFORE.add(hours=1)) == []
    assert Desk(log, records).tell(ending(), WEEK_BEFORE.add(hours=2)) == []
    assert len(Desk(log, records).tell(ending(), at("2023-09-08T22:00:00Z"))) == 1


def test_an_override_starts(log: Path, records: Records) -> None:
    """At its instant, with who made it; one that appears later, as soon as it is read."""
    desk, policy = Desk(log, records), overridden()
    assert desk.tell(policy, START.subtract(nanoseconds=1)) == []
    ((action, message),) = desk.tell(policy, START)
    assert action == "override-started"
    assert "made by alice: Monitoring of public statements (CHG-1)" in message
    assert records.all[-1]["user"] == {"name": "alice"}
    assert desk.tell(policy, END.subtract(nanoseconds=1)) == []
    late = Desk(log.with_name("late.ndjson"), records)
    assert late.tell(snapshot(ban()), MIDDLE) == []
    assert [action for action, _ in late.tell(policy, MIDDLE)] == ["override-started"]


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize(
    ("policy", "moment", "why", "user"),
    [
        (overridden(), END, "its time is over", None),
        (snapshot(ban()), END.add(hours=1), "its time is over", None),
        (overridden(until=MIDDLE, ended_by="bob"), MIDDLE, "ended early", {"name": "bob"}),
        (snapshot(ban()), MIDDLE, "it was taken out of the policy", None),
        (overridden(starts=END.subtract(minutes=30)), MIDDLE, "it starts later now", None),
    ],
)
def test_an_override_ends(
    log: Path, records: Records, policy: Snapshot, moment: Instant, why: str, user: Any, restarted: bool
) -> None:
    """Once, with why and who ended it, if anybody did; also when nobody was there to see it."""
    desk = Desk(log, records)
    desk.tell(overridden(), START)
    desk = Desk(log, records) if restarted else desk
    ((action, message),) = desk.tell(policy, moment)
    record = records.all[-1]
    assert (action, record["event"]["reason"], record.get("user")) == ("override-ended", why, user)
    assert (record["tokgate"]["by"], record["tokgate"]["ticket"]) == ("alice", "CHG-1")
    assert message.endswith("ended early by bob.") is (user is not None)
    assert desk.tell(policy, moment.add(seconds=1)) == []


@pytest.mark.parametrize("shown", [ClientsShown.PSEUDONYM, ClientsShown.PREFIX])
def test_an_override_beside_a_disguised_log(log: Path, records: Records, shown: ClientsShown) -> None:
    """The file tells no more of its clients than the log does, and a restart still knows the override."""
    settings: dict[str, Any] = {"log": LogSettings(clients=shown)}
    clients = (ip_network("192.0.2.77/32"), ip_network("2001:db8:1:2::7/128"), ip_network("10.0.0.0/8"))
    policy = overridden(settings, clients=clients)
    Desk(log, records).tell(policy, START)
    path = log.with_name("block.told.json")
    assert "192.0.2.77" not in path.read_text()
    assert "2001:db8:1:2" not in path.read_text()
    (said,) = json.loads(path.read_text())["overrides"]
    assert said["clients"] == ["192.0.2.0/24", "2001:db8:1::/48", "10.0.0.0/8"]
    assert Desk(log, records).tell(policy, START.add(hours=1)) == []
    gone = snapshot(ban(), **settings)
    assert [action for action, _ in Desk(log, records).tell(gone, END.add(hours=1))] == ["override-ended"]
    desk = Desk(log, records)
    desk.tell(policy, START)
    narrower = overridden(settings, clients=(ip_network("192.0.2.78/32"),))
    assert [action for action, _ in desk.tell(narrower, START)] == ["override-ended", "override-started"]


def test_the_file(log: Path, records: Records) -> None:
    """It stands beside the log, readable for its group, and nothing is left beside it."""
    desk = Desk(log, records)
    desk.tell(ending(), WEEK_BEFORE)
    path = log.with_name("block.told.json")
    assert [each.name for each in log.parent.iterdir()] == [path.name]
    assert path.stat().st_mode & 0o137 == 0
    assert [each["before"] for each in json.loads(path.read_text())["reminders"]] == ["P30D", "P7D"]


def test_what_is_long_over_is_forgotten(log: Path, records: Records) -> None:
    """The file doesn't grow with the years."""
    desk = Desk(log, records)
    desk.tell(ending(), WEEK_BEFORE)
    later = snapshot(ban(expires=wall("2024-09-10T00:00")))
    desk.tell(later, at("2024-09-03T00:00:00Z"))
    ends = {each["ends"] for each in json.loads(log.with_name("block.told.json").read_text())["reminders"]}
    assert ends == {"2024-09-09T22:00:00Z"}


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"version": 2}', '{"version": 1, "reminders": [{}], "overrides": []}', "\0", "null"]
)
def test_a_damaged_file(log: Path, records: Records, text: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is told again rather than not at all, and said why."""
    log.parent.mkdir()
    log.with_name("block.told.json").write_text(text)
    assert len(Desk(log, records).tell(ending(), WEEK_BEFORE)) == 1
    assert "will be told again" in caplog.text
    assert Desk(log, records).tell(ending(), WEEK_BEFORE) == []


def test_a_file_that_cannot_be_kept(tmp_path: Path, records: Records, caplog: pytest.LogCaptureFixture) -> None:
    """The process still tells once, and says that a restart may repeat it."""
    (tmp_path / "file").write_text("")
    desk = Desk(tmp_path / "file" / "block.ndjson", records)
    assert len(desk.tell(ending(), WEEK_BEFORE)) == 1
    assert "may tell it again" in caplog.text
    assert desk.tell(ending(), WEEK_BEFORE) == []


def test_what_failed_is_not_told_every_second(log: Path, records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """One record that can't be made is one record missing; the others are told once."""
    desk = Desk(log, records)

    def fail(*_: object, **__: object) -> Record:
        raise ValueError("broken on purpose")

    monkeypatch.setattr(lifecycle, "override_started", fail)
    with pytest.raises(ValueError, match="on purpose"):
        desk.tell(overridden(), START)
    assert desk.tell(overridden(), START.add(seconds=1)) == []
    assert [action for action, _ in desk.tell(overridden(), END)] == ["override-ended"]


def test_answers_to_requests_are_told_once(log: Path, records: Records) -> None:
    """Each with its action, when its file says so; not again, nor after a restart, and what is pending not at all."""
    log.parent.mkdir()
    folder, desk = RequestFolder(requests_path_for(log)), Desk(log, records)
    names = [stamp(number=number).id for number in range(3)]
    for number, name in enumerate(names):
        folder.add(exception_request(id=name, client=f"192.0.2.{number}"))
    assert not desk.history.follow_requests(ending())
    folder.answer(names[0], state=RequestState.DECLINED, by="bob", reason="No")
    until = {"override": "o", "until": "2023-03-15T10:00:00.000000Z"}
    folder.answer(names[1], state=RequestState.APPROVED, by="bob", **until)
    assert desk.history.follow_requests(ending())
    desk.history.save()
    assert records.actions == ["exception-declined", "exception-approved"]
    assert not desk.history.follow_requests(ending())
    assert not Desk(log, records).history.follow_requests(ending())
    assert len(records.all) == 2
