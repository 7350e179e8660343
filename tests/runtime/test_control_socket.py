"""The control socket's listening end: who may ask, and what happens where two tokgates share a folder."""

import shutil
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tokgate.runtime.control_socket import NAME, Call, Caller, Control, ControlRequest, ask


def thoughtful(caller: Caller) -> None:
    """Answer, after word of how far it is."""
    caller.tell("thinking")
    caller.answer({"asked": caller.request})


def serve(control: Control, react: Callable[[Caller], None] = thoughtful) -> Callable[[], None]:
    """React to one caller in another thread; call the result to wait for it."""

    def answer() -> None:
        callers: list[Caller] = []
        while not callers:
            callers = list(control.callers())
        react(callers[0])

    thread = threading.Thread(target=answer)
    thread.start()
    return thread.join


@pytest.fixture
def control(tmp_path: Path) -> Iterator[Control]:
    """One that listens."""
    made = Control(tmp_path)
    assert made.open() is not None
    yield made
    made.close(remove=True)


@pytest.mark.parametrize("request_", list(ControlRequest))
def test_ask(tmp_path: Path, control: Control, request_: ControlRequest) -> None:
    said = list[str]()
    served = serve(control)
    assert ask(tmp_path, request_, said.append) == {"asked": request_}
    served()
    assert said == ["thinking"]
    control.close(remove=True)
    assert ask(tmp_path, request_) is None


def connected(folder: Path) -> socket.socket:
    """A client that has asked for nothing yet."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(folder / NAME))
    return sock


def asked(control: Control) -> list[Call | None]:
    """What callers have asked for; they are closed."""
    calls = []
    for caller in control.callers():
        calls.append(caller.call)
        caller.close()
    return calls


def test_a_long_request(tmp_path: Path, control: Control) -> None:
    """A reload that lifts many bans arrives whole, however slowly; others are served before it."""
    call = Call(ControlRequest.RELOAD, tuple(f"order-{number:04}" for number in range(2_000)), "alice")
    with connected(tmp_path) as slow, connected(tmp_path) as client:
        slow.sendall(call.line[:1000])
        assert asked(control) == []
        client.sendall(b"status\n")
        assert asked(control) == [Call(ControlRequest.STATUS)]
        slow.sendall(call.line[1000:])
        assert asked(control) == [call]


@pytest.mark.parametrize("sent", [b"s", b"nonsense\n", b""])
def test_a_request_without_an_end(
    tmp_path: Path, control: Control, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who sends an octet now and then holds up nobody, and is given up."""
    monkeypatch.setattr("tokgate.runtime.control_socket.REQUEST", 0.0)
    with connected(tmp_path) as client:
        client.sendall(sent)
        assert asked(control) == [None]
        assert control.sockets == control.sockets[:1]


def test_a_folder_with_a_long_path(tmp_path: Path) -> None:
    """An address of a socket holds 107 octets; deeper folders can be asked too, and the working directory stays."""
    folder, here = tmp_path / ("deep" * 40), Path.cwd()
    folder.mkdir()
    control = Control(folder)
    assert control.open() is not None
    served = serve(control)
    assert ask(folder, ControlRequest.STATUS) == {"asked": "status"}
    served()
    control.close(remove=True)
    assert (list(folder.iterdir()), Path.cwd()) == ([], here)
    assert ask(folder, ControlRequest.STATUS) is None
    assert ask(folder / "gone", ControlRequest.STATUS) is None


def test_the_first_keeps_its_socket(tmp_path: Path, control: Control, caplog: pytest.LogCaptureFixture) -> None:
    """A second tokgate says that it can't be asked, and takes nothing away when it ends."""
    second = Control(tmp_path)
    assert second.open() is None
    assert "another tokgate answers there" in caplog.text
    second.close(remove=True)
    [caller] = control.callers()  # the question whether anybody is there
    assert caller.request is None
    caller.close()
    served = serve(control)
    assert ask(tmp_path, ControlRequest.STATUS) == {"asked": "status"}
    served()


def test_a_socket_that_was_left_behind(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(tmp_path / NAME))
    assert ask(tmp_path, ControlRequest.STATUS) is None
    control = Control(tmp_path)
    assert control.open() is not None
    control.close(remove=True)


def test_a_socket_that_was_deleted(tmp_path: Path) -> None:
    """It is noticed, also with its folder, and made again; the socket of another is neither fought nor removed."""
    folder = tmp_path / "keys"
    control, other = Control(folder), Control(folder)
    assert control.open() is not None
    assert not control.is_lost()
    shutil.rmtree(folder)
    assert control.is_lost()
    control.close(remove=False)
    assert control.open() is not None
    assert not control.is_lost()
    served = serve(control)
    assert ask(folder, ControlRequest.STATUS) == {"asked": "status"}
    served()
    (folder / NAME).unlink()
    assert other.open() is not None
    assert control.is_lost()
    control.close(remove=True)
    served = serve(other)
    assert ask(folder, ControlRequest.STATUS) == {"asked": "status"}
    served()
    other.close(remove=True)
    assert not (folder / NAME).exists()


def test_a_folder_that_can_not_be(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where no socket can be, that is told, and keeps nobody from filtering."""
    (tmp_path / "file").touch()
    assert Control(tmp_path / "file" / "keys").open() is None
    assert "tokgate status" in caplog.text


def test_whoever_ends_without_an_answer(tmp_path: Path, control: Control) -> None:
    dropped = serve(control, Caller.close)
    with pytest.raises(ConnectionError):
        ask(tmp_path, ControlRequest.RELOAD)
    dropped()


def test_only_its_user(tmp_path: Path) -> None:
    """Nobody else may ask, from the first moment on, also at the first start, where the folder is made."""
    folder = tmp_path / "new" / "keys"
    control = Control(folder)
    assert control.open() is not None
    assert [stat.S_IMODE(each.stat().st_mode) for each in (folder, folder / NAME)] == [0o700, 0o600]
    control.close(remove=True)
