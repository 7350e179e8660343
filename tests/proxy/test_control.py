"""The control socket's listening end: who may ask, and what happens where two tokgates share a folder."""

import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tokgate.proxy.control import NAME, Control, Request, ask


def serve(control: Control) -> Callable[[], None]:
    """Answer one caller in another thread; call the result to wait for it."""

    def answer() -> None:
        callers = []
        while not callers:
            callers = list(control.callers())
        callers[0].tell("thinking")
        callers[0].answer({"asked": callers[0].request})

    thread = threading.Thread(target=answer)
    thread.start()
    return thread.join


@pytest.mark.parametrize("request_", list(Request))
def test_ask(tmp_path: Path, request_: Request) -> None:
    """A request is answered, after word of how far it is."""
    control, said = Control(tmp_path), list[str]()
    assert control.open() is not None
    served = serve(control)
    assert ask(tmp_path, request_, said.append) == {"asked": request_}
    served()
    assert said == ["thinking"]
    control.close(remove=True)
    assert ask(tmp_path, request_) is None


def test_only_its_user(tmp_path: Path) -> None:
    """Nobody else may ask, from the first moment on."""
    control = Control(tmp_path)
    control.open()
    assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o600
    control.close(remove=True)


def test_the_first_keeps_its_socket(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A second tokgate says that it can't be asked, and takes nothing away when it ends."""
    first, second = Control(tmp_path), Control(tmp_path)
    assert first.open() is not None
    assert second.open() is None
    assert "another tokgate answers there" in caplog.text
    second.close(remove=True)
    [caller] = first.callers()  # the question whether anybody is there
    assert caller.request is None
    caller.close()
    served = serve(first)
    assert ask(tmp_path, Request.STATUS) == {"asked": "status"}
    served()
    first.close(remove=True)


def test_a_socket_that_was_left_behind(tmp_path: Path) -> None:
    """What a killed tokgate left is taken over."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(tmp_path / NAME))
    assert ask(tmp_path, Request.STATUS) is None
    control = Control(tmp_path)
    assert control.open() is not None
    control.close(remove=True)


def test_a_folder_that_is_too_deep(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A path that no socket can have is told, and keeps nobody from filtering."""
    deep = tmp_path / ("a" * 120)
    deep.mkdir()
    assert Control(deep).open() is None
    assert "tokgate status" in caplog.text


def test_whoever_ends_without_an_answer(tmp_path: Path) -> None:
    """A tokgate that ends meanwhile is no answer."""
    control = Control(tmp_path)
    control.open()

    def drop() -> None:
        callers = []
        while not callers:
            callers = list(control.callers())
        callers[0].close()

    thread = threading.Thread(target=drop)
    thread.start()
    with pytest.raises(ConnectionError):
        ask(tmp_path, Request.RELOAD)
    thread.join()
    control.close(remove=True)
