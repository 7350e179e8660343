"""tokgate behind Squid: gates and openers reach destinations by it, signed in, and nothing without it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import bcrypt
import pytest

from labs.requirements import require
from labs.running_lab import POLICY, Running
from labs.waiting import DEADLINE, until
from labs.web_server import served, web_server

STARTS = 5
"""How often Squid is started, each time with another port."""
SIGN_IN = Path("/usr/lib/squid/basic_ncsa_auth")
CONFIG = """\
http_port 127.0.0.1:{port}
auth_param basic program {sign_in} {users}
acl users proxy_auth REQUIRED
acl web port 80 {web}
acl CONNECT method CONNECT
http_access deny CONNECT web
http_access allow users
cache deny all
access_log stdio:{folder}/access.log
cache_log {folder}/cache.log
pid_filename {folder}/squid.pid
coredump_dir {folder}
shutdown_lifetime 1 seconds
"""


class Squid:
    """Squid on loopback. As usual it takes CONNECT for no port of plain HTTP, and only from who signs in."""

    def __init__(self, folder: Path, web: int) -> None:
        users, self._log, self._stderr = folder / "users", folder / "access.log", folder / "stderr"
        secret = bcrypt.hashpw(b"sesame", bcrypt.gensalt(4, prefix=b"2a")).decode()
        users.write_text(f"alice:{secret}\n")
        config = folder / "squid.conf"

        def start() -> subprocess.Popen[bytes]:
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", 0))
                self.port = probe.getsockname()[1]
            config.write_text(CONFIG.format(port=self.port, sign_in=SIGN_IN, users=users, folder=folder, web=web))
            command: list[str | Path] = [
                shutil.which("squid") or "squid",
                "--foreground",
                "-d1",  # what goes to cache_log also goes to stderr
                "-n",
                f"tokgate{os.getpid()}",
                "-f",
                config,
            ]
            with self._stderr.open("ab") as stderr:
                return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr)

        self._starts = (start() for _ in range(STARTS))
        self._process = next(self._starts)
        until("Squid listens", self._listens)

    def _listens(self) -> bool:
        if self._process.poll() is not None:  # another test was quicker to take the port
            another = next(self._starts, None)
            assert another is not None, self._stderr.read_text()
            self._process = another
        try:
            socket.create_connection(("127.0.0.1", self.port), DEADLINE).close()
        except OSError:
            return False
        return True

    def log(self) -> str:
        """What it was asked for."""
        return self._log.read_text() if self._log.exists() else ""

    def stop(self) -> None:
        """End it."""
        self._process.terminate()
        self._process.wait(DEADLINE)


@pytest.fixture
def web() -> Iterator[int]:
    """The port of a web server in the clear."""

    with served(web_server(b"origin")) as port:
        yield port


@pytest.fixture
def squid(web: int) -> Iterator[Squid]:
    """A Squid; where there is none the test skips, but for CI.

    As root's it becomes the user `proxy`, who can't reach the folders that pytest makes for root.
    """
    require("squid", str(SIGN_IN))
    with tempfile.TemporaryDirectory(prefix="tokgate-squid-") as made:
        folder = Path(made)
        folder.chmod(0o777)
        running = Squid(folder, web)
        yield running
        running.stop()


def test_behind_squid(squid: Squid, web: int, tmp_path: Path) -> None:
    """Tunnels, plain requests and bans are as without it; when Squid is gone nothing passes."""
    secret = tmp_path / "credentials"
    secret.write_text("alice:sesame\n")
    folder = tmp_path / "tokgate"
    folder.mkdir()
    with closing(Running(folder, workers=1)) as running:
        upstream = [{"proxy": f"http://127.0.0.1:{squid.port}", "credentials": str(secret)}]
        running.write(POLICY | {"settings": {"upstream": upstream}})
        until("the policy with the parent is in force", lambda: running.passes() and "CONNECT" in squid.log())
        assert running.refuses()
        assert f"CONNECT 127.0.0.1:{running.origin.getsockname()[1]} alice" in squid.log()
        asked = f"GET http://127.0.0.1:{web}/ alice"
        until(
            "the opener has the policy, too",
            lambda: _get(running.port, web).endswith(b"origin") and asked in squid.log(),
        )
        assert "clips.example.org" not in squid.log()
        squid.stop()
        assert not running.passes()
        assert not _get(running.port, web).endswith(b"origin")


def _get(proxy: int, port: int) -> bytes:
    """The answer to a plain request by way of tokgate."""
    with socket.create_connection(("127.0.0.1", proxy), DEADLINE) as client:
        client.settimeout(DEADLINE)
        client.sendall(
            f"GET http://127.0.0.1:{port}/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nConnection: close\r\n\r\n".encode()
        )
        answer = b""
        while piece := client.recv(65536):
            answer += piece
        return answer
