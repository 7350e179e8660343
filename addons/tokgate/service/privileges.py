"""Drops root privileges: started as root, tokgate becomes another user before it opens or reads anything.

All that it creates (the log, keys, the control socket) then belongs to that user. It keeps the capabilities that its
modes need. The supervisor drops those for listening once it listens.
"""

import os
import pwd
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tokgate.block_page.authority import AUTHORITY, DEFAULT_CONFDIR
from tokgate.blocklog import paths
from tokgate.config.yaml.source import SUFFIXES
from tokgate.gate.sockets import Entry
from tokgate.gateway import capabilities
from tokgate.gateway.capabilities import Capability

if TYPE_CHECKING:
    from tokgate.service.listeners import ListenEndpoint

DEFAULT_USER: Final = "tokgate"
_LOWEST_FREE_PORT: Final = 1024
"""Below it a port takes CAP_NET_BIND_SERVICE (ip(7), ip_unprivileged_port_start)."""
_PORT: Final = re.compile(r"@(?:.*:)?([0-9]+)$")
_DEFAULT_PORTS: Final = {"dns": 53}
_PACKAGE: Final = Path(__file__).parents[1]


class PrivilegeError(Exception):
    """The user can't be changed as requested, or could not do the work. The text says why and what helps."""


@dataclass(frozen=True, slots=True)
class Places:
    """Paths that the user must be able to use. `confdir` None: `.tokgate` in the user's home."""

    policies: Path
    log: Path
    confdir: Path | None


def account_to_become(name: str | None) -> pwd.struct_passwd | None:
    """The account to change to; None if this process is not root's, or is to stay root's.

    `name` is that of `--user`; None: `tokgate`, if that user exists.

    Raises:
        PrivilegeError: there is no such user, or only root could change to it.
    """
    try:
        account = pwd.getpwnam(name or DEFAULT_USER)
    except KeyError:
        if name is None:
            return None
        raise PrivilegeError(f"--user {name}: no such user on this machine") from None
    if os.geteuid() != 0:
        if name is not None and account.pw_uid != os.geteuid():
            raise PrivilegeError(f"--user {name}: only root can become another user")
        return None
    if name is None and not capabilities.held() >> Capability.SETUID & 1:  # root by name, as in a container
        return None
    return account if account.pw_uid else None


def needed_to_listen(ports: Iterable[int], running: frozenset[Capability]) -> frozenset[Capability]:
    """The capabilities needed to listen on all these ports, and then those needed while it is `running`."""
    if any(0 < each < _LOWEST_FREE_PORT for each in ports):
        running |= {Capability.NET_BIND_SERVICE}
    if Capability.NET_RAW in running:  # QUIC is passed on, and refused, by raw sockets (raw(7)) with marks
        running |= {Capability.NET_ADMIN}
    return running


def needed_to_run(
    mark: int | None, endpoints: "Sequence[ListenEndpoint]", *, gateway: bool = False
) -> frozenset[Capability]:
    """The capabilities needed while it runs: by gates and openers CAP_NET_ADMIN for a firewall mark (socket(7)).

    And CAP_NET_RAW where TPROXY brings clients, to connect from their addresses (ip(7): IP_TRANSPARENT).
    `gateway`: also by the supervisor, which keeps the kernel in step.
    """
    needed = {Capability.NET_ADMIN} if gateway or mark is not None else set()
    if any(endpoint.entry is Entry.TPROXY for endpoint in endpoints):
        needed.add(Capability.NET_RAW)
    return frozenset(needed)


def become(account: pwd.struct_passwd, kept: frozenset[Capability], places: Places) -> None:
    """Change to `account`, after creating missing folders, and check that all paths can be used.

    Raises:
        PrivilegeError: that failed; the process should exit.
    """
    confdir = places.confdir or _own_confdir(account)
    try:
        for folder in (places.log.parent, confdir):
            _make(folder, account)
        groups = os.getgrouplist(account.pw_name, account.pw_gid)
        capabilities.become(account.pw_uid, account.pw_gid, groups, kept)
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise PrivilegeError(
            f"can't become {account.pw_name}: {where}{error.strerror}; --user root goes on as root"
        ) from error
    os.environ |= {"HOME": account.pw_dir, "USER": account.pw_name, "LOGNAME": account.pw_name}
    if found := list(_hindrances(places, confdir)):
        first = f"{account.pw_name} can't use what tokgate needs:"
        raise PrivilegeError("\n".join((first, *map("  {}".format, found))))


def confdir_of_running(socket_name: str) -> Path:
    """The folder of the running tokgate: if root started it, it may be that of the user `tokgate`."""
    own = DEFAULT_CONFDIR.expanduser()
    if os.geteuid() != 0 or (own / socket_name).exists():
        return own
    try:
        theirs = Path(pwd.getpwnam(DEFAULT_USER).pw_dir, DEFAULT_CONFDIR.name)
    except KeyError:
        return own
    return theirs if (theirs / socket_name).exists() else own


def _own_confdir(account: pwd.struct_passwd) -> Path:
    """`.tokgate` in the user's home. Raises PrivilegeError rather than create a new authority: devices trust root's."""
    folder, roots = Path(account.pw_dir, DEFAULT_CONFDIR.name), DEFAULT_CONFDIR.expanduser()
    if not folder.parent.is_dir():
        raise PrivilegeError(f"{account.pw_name} has no home folder: name a folder for keys with --confdir")
    if roots != folder and (roots / AUTHORITY).exists() and not (folder / AUTHORITY).exists():
        raise PrivilegeError(
            f"the page's authority is in {roots}, which {account.pw_name} can't read: move it with "
            f"`mv {roots} {folder} && chown -R {account.pw_name}: {folder}`, or name a folder with --confdir"
        )
    return folder


def _make(folder: Path, account: pwd.struct_passwd) -> None:
    """Create a folder and its missing parents, owned by `account`. Raises OSError."""
    for each in (*reversed(folder.absolute().parents), folder):
        if not each.exists():
            each.mkdir(mode=0o750)
            os.chown(each, account.pw_uid, account.pw_gid, follow_symlinks=False)


def _hindrances(places: Places, confdir: Path) -> Iterator[str]:
    """The paths that the current user can't use, with what helps."""
    name, log = pwd.getpwuid(os.geteuid()).pw_name, places.log.absolute()
    for path in (Path(sys.executable), _PACKAGE, *_policy_paths(places.policies.absolute())):
        if not _usable(path, os.R_OK) or (path.is_dir() and not _usable(path, os.X_OK)):
            yield f"{path} can't be read: `chmod a+rX` it and the folders above, or put it elsewhere"
    for folder in dict.fromkeys((log.parent, confdir.absolute())):
        if not _usable(folder, os.R_OK | os.W_OK | os.X_OK):
            yield f"{folder} can't be written to: `chown {name}: {folder}`, or name another folder"
    kept = [paths.key_path_for(log), paths.secret_path_for(log), paths.successions_path_for(log)]
    beside = (paths.warned_path_for, paths.notified_path_for, paths.heads_path_for, paths.requests_path_for)
    kept += [path_for(log) for path_for in beside]
    for each in (*kept, confdir / AUTHORITY):
        if not _usable(each, os.R_OK):
            yield f"{each} can't be read: `chown {name}: {each}`"
    if not _usable(log, os.W_OK):
        yield f"{log} can't be written to: `chown {name}: {log}`"


def _policy_paths(path: Path) -> Iterator[Path]:
    """The file or folder and all files in it, without hidden ones, which are no part of a policy."""
    yield path
    for folder, folders, files in os.walk(path):
        folders[:] = [each for each in folders if not each.startswith(".")]
        ours = [each for each in files if each.endswith(SUFFIXES) and not each.startswith(".")]
        yield from (Path(folder, each) for each in (*folders, *ours))


def _usable(path: Path, access: int) -> bool:
    """Whether a path is missing, or allows this access."""
    try:
        path.stat()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return os.access(path, access)


def port_of(mode: str, port: int | None) -> int:
    """The port of one of mitmproxy's own modes; `port` is that of modes which name none."""
    named = _PORT.search(mode)
    if named:
        return int(named[1])
    return _DEFAULT_PORTS.get(kind_of(mode), 8080) if port is None else port


def kind_of(mode: str) -> str:
    """`regular` of `regular@127.0.0.1:8080`."""
    return re.split("[:@]", mode, maxsplit=1)[0]
