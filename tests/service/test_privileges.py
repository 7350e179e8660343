"""Which user a tokgate of root's becomes, and with which capabilities. tests/e2e/test_privileges.py runs it."""

import os
import pwd
import stat
from pathlib import Path
from typing import Any

import pytest

from tokgate.gate.sockets import Entry
from tokgate.gateway import capabilities
from tokgate.gateway.capabilities import Capability
from tokgate.service import privileges
from tokgate.service.listeners import ListenEndpoint
from tokgate.service.privileges import Places, PrivilegeError, account_to_become

BIND, ADMIN, RAW = Capability.NET_BIND_SERVICE, Capability.NET_ADMIN, Capability.NET_RAW
HERE = "127.0.0.1"


@pytest.mark.parametrize(
    ("port", "entry", "more", "needed"),
    [
        (8080, Entry.REDIRECT, {}, set()),
        (0, Entry.EXPLICIT, {}, set()),
        (1023, Entry.EXPLICIT, {}, {BIND}),
        (1024, Entry.EXPLICIT, {}, set()),
        (8080, Entry.TPROXY, {}, {ADMIN, RAW}),
        (8080, Entry.REDIRECT, {"gateway": True}, {ADMIN}),
        (8080, Entry.REDIRECT, {"mark": 1}, {ADMIN}),
    ],
)
def test_only_what_the_modes_need_is_kept(port: int, entry: Entry, more: Any, needed: set[Capability]) -> None:
    """A capability too few and tokgate can't listen; one too many and whoever takes it over may change the firewall."""
    running = privileges.needed_to_run(**{"mark": None, "endpoints": [ListenEndpoint(HERE, port, entry)], **more})
    assert privileges.needed_to_listen([port], running) == needed


@pytest.mark.parametrize(
    ("mode", "port", "expected"),
    [
        ("regular", None, 8080),
        ("regular", 80, 80),
        ("regular@8080", 80, 8080),
        ("transparent@192.0.2.1:443", None, 443),
        ("dns", None, 53),
        ("dns@5300", None, 5300),
    ],
)
def test_the_port_of_a_mode(mode: str, port: int | None, expected: int) -> None:
    """Ports of mitmproxy's own modes may need the same capability."""
    assert privileges.port_of(mode, port) == expected


@pytest.fixture
def root(monkeypatch: pytest.MonkeyPatch) -> None:
    """This process would be root's."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(capabilities, "held", lambda: (1 << 41) - 1)


def account_of(name: str, uid: int, home: Path) -> pwd.struct_passwd:
    return pwd.struct_passwd((name, "x", uid, uid, "", str(home), "/bin/false"))


def add_user(monkeypatch: pytest.MonkeyPatch, name: str, uid: int, home: Path) -> None:
    """Beside those whom the machine has."""
    known = pwd.getpwnam
    entry = account_of(name, uid, home)
    monkeypatch.setattr(pwd, "getpwnam", lambda asked: entry if asked == name else known(asked))


@pytest.mark.usefixtures("root")
def test_root_becomes_the_user_that_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever has made the user `tokgate` needn't name it; another one, and root itself, can be asked for."""
    add_user(monkeypatch, "tokgate", 10451, tmp_path)
    assert account_to_become(None) == account_of("tokgate", 10451, tmp_path)
    assert account_to_become("root") is None
    nobody = account_to_become("nobody")
    assert nobody is not None
    assert nobody.pw_uid == pwd.getpwnam("nobody").pw_uid


@pytest.mark.usefixtures("root")
def test_a_user_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that was mistyped doesn't leave root in place; without any, root stays, and is warned of."""
    monkeypatch.setattr(privileges, "DEFAULT_USER", "no-such-user")
    assert account_to_become(None) is None
    with pytest.raises(PrivilegeError, match="--user no-such-user: no such user"):
        account_to_become("no-such-user")


@pytest.mark.usefixtures("root")
def test_root_of_a_container_without_capabilities_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Root that may not become anybody goes on, unless somebody was named: then the kernel's error is told."""
    add_user(monkeypatch, "tokgate", 10451, tmp_path)
    monkeypatch.setattr(capabilities, "held", lambda: 0)
    assert account_to_become(None) is None
    assert account_to_become("tokgate") is not None


def test_others_become_nobody_else(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Under systemd tokgate is its own user already; asked to be another it says that it can't."""
    monkeypatch.setattr(os, "geteuid", lambda: 10451)
    add_user(monkeypatch, "tokgate", 10451, tmp_path)
    assert account_to_become(None) is None
    assert account_to_become("tokgate") is None
    with pytest.raises(PrivilegeError, match="only root"):
        account_to_become("nobody")


def test_the_authority_that_devices_trust_is_not_replaced(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An authority that root made stays in a folder that the user can't read: a new one would be trusted nowhere."""
    home, roots = tmp_path / "home", tmp_path / "root"
    home.mkdir()
    (roots / ".tokgate").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(roots))
    account = account_of("tokgate", 10451, home)
    assert privileges._own_confdir(account) == home / ".tokgate"
    (roots / ".tokgate" / "mitmproxy-ca.pem").touch()
    with pytest.raises(PrivilegeError, match=rf"mv {roots}/\.tokgate {home}/\.tokgate && chown -R tokgate:"):
        privileges._own_confdir(account)
    (home / ".tokgate").mkdir()
    (home / ".tokgate" / "mitmproxy-ca.pem").touch()
    assert privileges._own_confdir(account) == home / ".tokgate"


def test_a_user_without_a_home_has_no_folder_for_keys(tmp_path: Path) -> None:
    """None is made where the user database points at nothing, as it does for `nobody`."""
    with pytest.raises(PrivilegeError, match="name a folder for keys with --confdir"):
        privileges._own_confdir(account_of("nobody", 65534, tmp_path / "nonexistent"))


@pytest.mark.usefixtures("root")
def test_becoming_another_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The user's groups, by which it may read the policy, are kept; folders that are made are closed to others."""
    own, became = (os.getuid(), os.getgid()), []
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(os, "getgrouplist", lambda name, gid: [gid, 4711])
    monkeypatch.setattr(capabilities, "become", lambda *given: became.append(given))
    account = pwd.struct_passwd(("tokgate", "x", *own, "", str(home), "/bin/false"))
    log = tmp_path / "a" / "b" / "block.ndjson"
    umask = os.umask(0)
    try:
        privileges.become(account, frozenset({BIND}), Places(tmp_path, log, None))
    finally:
        os.umask(umask)
    assert became == [(*own, [own[1], 4711], frozenset({BIND}))]
    made = (log.parent, log.parent.parent, home / ".tokgate")
    assert [stat.S_IMODE(folder.stat().st_mode) for folder in made] == [0o750] * 3
    assert (os.environ["HOME"], os.environ["USER"]) == (str(home), "tokgate")


@pytest.mark.usefixtures("root")
def test_root_finds_the_tokgate_that_became_another_user(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`sudo tokgate status` asks the one that `sudo tokgate run` started, without being told where its keys are."""
    home, roots = tmp_path / "home", tmp_path / "root"
    for folder in (home, roots):
        (folder / ".tokgate").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(roots))
    add_user(monkeypatch, "tokgate", 10451, home)
    assert privileges.confdir_of_running("control.sock") == roots / ".tokgate"
    (home / ".tokgate" / "control.sock").touch()
    assert privileges.confdir_of_running("control.sock") == home / ".tokgate"
    (roots / ".tokgate" / "control.sock").touch()
    assert privileges.confdir_of_running("control.sock") == roots / ".tokgate"
