"""The folder of requests: one a person and ban, limits by what the files say, answers, and files of others."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from whenever import Instant

from labs.builders import at
from labs.samples import exception_request
from tokgate.blocklog.records.record import new_event_id, timestamp
from tokgate.blocklog.records.requests import ExceptionRequest, RequestState
from tokgate.traffic import exception_requests as module
from tokgate.traffic.exception_requests import AlreadyAnswered, NotTaken, RequestFolder

NOW = at("2023-04-01T12:00:00Z")


def asked(moment: Instant = NOW, **stated: Any) -> ExceptionRequest:
    """A request of a client, made at a moment."""
    ids = {"id": new_event_id(moment), "refusal": new_event_id(moment), "at": timestamp(moment)}
    return exception_request(**(ids | stated))


@pytest.fixture
def folder(tmp_path: Path) -> RequestFolder:
    """A folder that isn't there yet."""
    return RequestFolder(tmp_path / "block.requests")


def test_it_is_there_for_other_processes(folder: RequestFolder) -> None:
    """Before the first there is nothing, and no folder; then what was kept, as it was."""
    assert (folder.all(), folder.folder.exists()) == ({}, False)
    request = asked()
    assert folder.add(request) is request
    other = RequestFolder(folder.folder)
    assert other.all() == {request["id"]: request}
    assert other.latest("192.0.2.7", None, "ban") == request


@pytest.mark.parametrize(
    ("one", "other", "is_the_same"),
    [
        ({}, {}, True),
        ({}, {"client": "192.0.2.8"}, False),
        ({}, {"ban": "other"}, False),
        ({}, {"user": "alice"}, False),
        ({"user": "alice"}, {"user": "Alice", "client": "192.0.2.8"}, True),
    ],
)
def test_one_that_waits_for_each_person_and_ban(
    folder: RequestFolder, one: dict[str, Any], other: dict[str, Any], is_the_same: bool
) -> None:
    """A second one of the same person under the same ban is the first; a user is the same at any client."""
    first, second = asked(**one), asked(**other)
    folder.add(first)
    assert folder.add(second) == (first if is_the_same else second)
    assert len(folder.all()) == (1 if is_the_same else 2)


def test_so_many_an_hour(folder: RequestFolder) -> None:
    """Answered ones count; an hour later they don't; addresses of one IPv6 subnet are one client's."""
    clients = [f"2001:db8:1::{number}" for number in range(module.PER_HOUR + 1)]
    assert all(folder.add(each) is each for each in (asked(client=client) for client in clients[1:]))
    folder.answer(next(iter(folder.all())), state=RequestState.DECLINED)
    assert folder.add(asked(client=clients[0])) is NotTaken.TOO_OFTEN
    elsewhere, later = asked(client="2001:db8:2::1"), asked(NOW.add(hours=1), client=clients[0])
    assert [folder.add(elsewhere), folder.add(later)] == [elsewhere, later]


def test_so_many_that_wait(folder: RequestFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all clients; an answer makes room."""
    monkeypatch.setattr(module, "MAX_PENDING", 2)
    first, second, third = (asked(client=f"192.0.2.{number}") for number in range(3))
    assert [folder.add(each) for each in (first, second, third)] == [first, second, NotTaken.TOO_MANY]
    folder.answer(first["id"], state=RequestState.DECLINED)
    assert folder.add(third) is third


def test_processes_that_ask_at_once_keep_the_limit(folder: RequestFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files count, whoever wrote them."""
    monkeypatch.setattr(module, "MAX_PENDING", 3)

    def ask(number: int) -> ExceptionRequest | NotTaken:
        return RequestFolder(folder.folder).add(asked(client=f"192.0.2.{number}"))

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(16)))
    assert (found.count(NotTaken.TOO_MANY), len(folder.all())) == (13, 3)


def test_an_answer_is_given_once(folder: RequestFolder) -> None:
    """The second one is an error, and so is one to what isn't there; the file keeps its rights."""
    request = asked()
    folder.add(request)
    path = folder.folder / f"{request['id']}.json"
    path.chmod(0o640)
    answered = folder.answer(request["id"], state=RequestState.APPROVED, override="o")
    assert folder.all()[request["id"]] == answered == request | {"state": "approved", "override": "o"}
    assert path.stat().st_mode & 0o777 == 0o640
    with pytest.raises(AlreadyAnswered):
        folder.answer(request["id"], state=RequestState.DECLINED)
    with pytest.raises(KeyError):
        folder.answer("01870000-0000-7000-8000-000000000000", state=RequestState.DECLINED)


def test_old_ones_are_deleted(folder: RequestFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Thirty days later with the next one, answered or not; of many the oldest that were answered."""
    monkeypatch.setattr(module, "MAX_KEPT", 3)
    requests = [asked(NOW.add(hours=number), client=f"192.0.2.{number}") for number in range(5)]
    for request in requests:
        folder.add(request)
    for request in requests[1:4]:
        folder.answer(request["id"], state=RequestState.DECLINED)
    folder.add(late := asked(NOW.add(hours=5), client="192.0.2.99"))
    assert list(folder.all()) == [each["id"] for each in (requests[0], requests[3], requests[4], late)]
    folder.add(last := asked(NOW.add(hours=5 + 24 * 30, seconds=1), client="192.0.2.99"))
    assert list(folder.all()) == [last["id"]]


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"id": 1}', "\0"])
def test_what_is_no_request_is_passed_over(folder: RequestFolder, content: str) -> None:
    """Damaged files and other hands' don't hide the others, and are left alone."""
    request = asked()
    folder.add(request)
    other = folder.folder / "other.json"
    other.write_text(content)
    (folder.folder / ".draft.json").write_text("{")
    (folder.folder / "renamed.json").write_bytes((folder.folder / f"{request['id']}.json").read_bytes())
    assert list(RequestFolder(folder.folder).all()) == [request["id"]]
    assert other.exists()


def test_what_another_process_wrote_is_seen(folder: RequestFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the page a second later at most; the limits compare with it at once."""
    request, now = asked(), [0.0]
    monkeypatch.setattr("tokgate.traffic.exception_requests.time.monotonic", lambda: now[0])
    folder.add(request)
    RequestFolder(folder.folder).answer(request["id"], state=RequestState.DECLINED)
    now[0] += 1.1
    found = folder.latest("192.0.2.7", None, "ban")
    assert found is not None
    assert found["state"] == "declined"


def test_a_folder_that_can_not_be_read_is_told(folder: RequestFolder) -> None:
    """It is not taken for an empty one: whoever may not look is not shown that nobody has asked."""
    folder.folder.write_text("no folder")
    with pytest.raises(NotADirectoryError):
        folder.all()
