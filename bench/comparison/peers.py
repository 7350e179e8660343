"""The proxies that are compared: what each needs, how it is set up and started, and what it does with a banned name.

What can do so gets its connections by TPROXY, and then once more by REDIRECT, for a table of its own.

Their configurations are the templates in ../peers; all of them ban the names of ../policy/refuse.yaml.
"""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import Template
from typing import Final

import yaml

from comparison.namespaces import Lab, Way, run
from comparison.origin import Origin
from comparison.processes import Service
from comparison.settings import HOSTS, PEER_TEMPLATES, POLICIES, PROJECT

SQUID_HELPER: Final = "/usr/lib/squid/security_file_certgen"
E2GUARDIAN_HOME: Final = Path("/etc/e2guardian")
DIRECT: Final = "no-proxy"
ONE_GATE: Final = "tokgate-1-gate"
_SQUID: Final = ("squid", SQUID_HELPER)


@dataclass(frozen=True, slots=True)
class Place:
    """Where one instance of a proxy runs: its folder, its port and a second one for those that insist on it."""

    lab: Lab
    origin: Origin
    folder: Path
    port: int

    @property
    def plain_port(self) -> int:
        """A port beside the one that matters, never redirected to."""
        return self.port + 1


@dataclass(frozen=True, slots=True)
class Started:
    """What to run in the gateway, with what environment, and the authority of the pages that it shows."""

    command: Sequence[str]
    env: Mapping[str, str]
    authority: Path | None = None


@dataclass(frozen=True, slots=True)
class Peer:
    """A kind of proxy. `refuses`, `opens`: what it does with a banned name; `passes`: allowed names go undecrypted.

    `way`: how connections come to it. `again`: it is there once more for the table by REDIRECT.
    """

    name: str
    needs: tuple[str, ...]
    package: str
    version: Callable[[], str]
    prepare: Callable[[Place], Started] | None
    passes: bool = True
    refuses: bool = False
    opens: bool = False
    way: Way = Way.TPROXY
    ports: int = 1
    again: bool = False

    def missing(self) -> str | None:
        """Why it can't run here, and what to install."""
        absent = [program for program in self.needs if shutil.which(program) is None]
        return f"{', '.join(absent)} not installed (apt-get install {self.package})" if absent else None


class Proxy:
    """A running instance, or with no peer process the plain way through the gateway."""

    def __init__(self, peer: Peer, place: Place) -> None:
        self.peer, self._place = peer, place
        self.authority: Path | None = None
        self.service: Service | None = None
        self.policies = place.folder / "policies"
        if peer.prepare is None:
            return
        place.folder.mkdir(parents=True)
        started = peer.prepare(place)
        self.authority = started.authority
        command = place.lab.inside(place.lab.gateway, *started.command)
        self.service = Service(command, place.folder / "output", started.env)
        try:
            self.service.await_listening(place.port)
        except BaseException:
            self.service.end()
            raise

    def __enter__(self) -> "Proxy":
        return self

    def __exit__(self, *_: object) -> None:
        if self.service is not None:
            self.service.end()

    def intercept(self) -> None:
        """Put it in the client's way."""
        port = None if self.service is None else self._place.port
        self._place.lab.intercept(port, self.peer.way, self.peer.ports)

    def cpu(self) -> float:
        """Seconds of processor used so far."""
        return 0.0 if self.service is None else self.service.cpu()


def banned_names() -> list[str]:
    """The names that the bench's policy bans, with everything below them."""
    policy = yaml.safe_load((POLICIES / "refuse.yaml").read_text("utf-8"))
    return [name for service in policy["services"].values() for name in service["names"]["suffix"]]


def _fill(template: str, place: Place, **more: str) -> str:
    names = banned_names()
    values = {
        "port": place.port,
        "plain_port": place.plain_port,
        "folder": place.folder,
        "names": " ".join(names),
        "suffixes": " ".join(f".{name}" for name in names),
    }
    return Template((PEER_TEMPLATES / template).read_text("utf-8")).substitute({**values, **more})


def _haproxy(template: str, way: Way = Way.TPROXY) -> Callable[[Place], Started]:
    def prepare(place: Place) -> Started:
        configuration = place.folder / "haproxy.cfg"
        transparent = "transparent" if way is Way.TPROXY else ""
        configuration.write_text(_fill(template, place, transparent=transparent))
        return Started(["haproxy", "-db", "-f", str(configuration)], {})

    return prepare


def _squid(way: Way) -> Callable[[Place], Started]:
    def prepare(place: Place) -> Started:
        configuration, certificates = place.folder / "squid.conf", place.folder / "certificates"
        more = {"certificate": str(place.origin.certificate), "key": str(place.origin.key)}
        mode = "tproxy" if way is Way.TPROXY else "intercept"
        configuration.write_text(_fill("squid.conf", place, mode=mode, **more))
        (place.folder / "hosts").write_text("".join(f"{address} {name}\n" for name, address in HOSTS.items()))
        run(SQUID_HELPER, "-c", "-s", str(certificates), "-M", "4MB")
        _give_away(place.folder)
        return Started(["squid", "-N", "-n", f"bench{place.port}", "-f", str(configuration)], {})

    return prepare


def _e2guardian(place: Place) -> Started:
    home = place.folder / "home"
    shutil.copytree(E2GUARDIAN_HOME, home)
    for path in home.rglob("*"):
        if path.is_file() and not path.is_symlink():
            text = path.read_bytes()
            if str(E2GUARDIAN_HOME).encode() in text:
                path.write_bytes(text.replace(str(E2GUARDIAN_HOME).encode(), str(home).encode()))
    private = home / "private"
    (private / "generated").mkdir(parents=True, exist_ok=True)
    for key in ("ca.key", "cert.key"):
        run("openssl", "genrsa", "-out", str(private / key), "2048")
    request = ["openssl", "req", "-x509", "-new", "-key", str(private / "ca.key"), "-days", "30", "-subj", "/CN=bench"]
    run(*request, "-out", str(private / "ca.pem"))
    configuration = home / "e2guardian.conf"
    stated = _fill("e2guardian.settings", Place(place.lab, place.origin, home, place.port))
    configuration.write_text(_with_settings(configuration.read_text("utf-8"), stated))
    with (home / "lists/example.group/localbannedsitelist").open("a") as banned:
        banned.writelines(f"{name}\n" for name in banned_names())
    _give_away(place.folder)
    return Started(["e2guardian", "-N", "-c", str(configuration)], {})


def _with_settings(configuration: str, settings: str) -> str:
    """The configuration with each setting replaced, whether it was commented out or not."""
    stated = [line for line in settings.splitlines() if line and not line.startswith("#")]
    keys = {line.partition("=")[0].strip() for line in stated}
    kept = [line for line in configuration.splitlines() if line.lstrip("# ").partition("=")[0].strip() not in keys]
    return "\n".join([*kept, *(line for line in stated if line.partition("=")[2].strip())]) + "\n"


def _give_away(folder: Path) -> None:
    """To the user as whom Squid and e2guardian run, who must also be able to reach it."""
    for path in (folder, *folder.rglob("*")):
        shutil.chown(path, "proxy", "proxy")


def _mitmproxy(*, open_all: bool) -> Callable[[Place], Started]:
    def prepare(place: Place) -> Started:
        command = [
            *(_beside_python("mitmdump"), "--quiet", "--mode", "transparent", "--listen-port", str(place.port)),
            *("--set", f"confdir={place.folder}", "--scripts", str(PEER_TEMPLATES / "mitmproxy_filter.py")),
            *("--set", f"ssl_verify_upstream_trusted_ca={place.origin.certificate}"),
        ]
        env = {"BENCH_BANNED": " ".join(banned_names()), "BENCH_OPEN": "1" if open_all else "0"}
        return Started(command, env, place.folder / "mitmproxy-ca-cert.pem")

    return prepare


def tokgate_with(policy: str, template: str) -> Callable[[Place], Started]:
    """How a tokgate is set up and started, by a command with {port}, {policies} and so on."""

    def prepare(place: Place) -> Started:
        policies, keys = place.folder / "policies", place.folder / "keys"
        policies.mkdir()
        keys.mkdir(mode=0o700)
        shutil.copy(POLICIES / policy, policies / "bench.yaml")
        values = {
            "python": sys.executable,
            "policies": str(policies),
            "log": str(place.folder / "block.ndjson"),
            "port": str(place.port),
            "last": str(place.port + REDIRECT_PORTS - 1),
            "keys": str(keys),
        }
        path = os.pathsep.join(filter(None, (str(PROJECT / "addons"), os.environ.get("PYTHONPATH"))))
        command = [word.format_map(values) for word in shlex.split(template)]
        return Started(command, {"PYTHONPATH": path}, keys / "mitmproxy-ca-cert.pem")

    return prepare


TOKGATE_COMMAND: Final = (
    "{python} -m tokgate run --mode gate:tproxy@{port} --policies {policies} --log {log} --confdir {keys}"
)
"""How the proxy under test is started."""
REDIRECT_PORTS: Final = 64
"""From `port` to `last`, as many as `tokgate ruleset --redirect` has."""


def peers(tokgate_command: str = TOKGATE_COMMAND) -> dict[str, Peer]:
    """All proxies, by name, in the order of the tables."""
    return {peer.name: peer for peer in (*_first_table(tokgate_command), *_second_table(tokgate_command))}


def _first_table(tokgate: str) -> Iterator[Peer]:
    version = _first_line("haproxy", "-v")
    yield Peer(DIRECT, (), "", lambda: "", None)
    yield Peer("haproxy", ("haproxy",), "haproxy", version, _haproxy("haproxy.cfg"), refuses=True)
    yield Peer("haproxy-splice", ("haproxy",), "haproxy", version, _haproxy("haproxy-splice.cfg"), refuses=True)
    yield Peer("squid", _SQUID, "squid-openssl", _first_line("squid", "-v"), _squid(Way.TPROXY), refuses=True)
    # Neither e2guardian nor mitmproxy has listeners for TPROXY.
    version = _first_line("e2guardian", "-v")
    yield Peer("e2guardian", ("e2guardian",), "e2guardian", version, _e2guardian, refuses=True, way=Way.REDIRECT)
    plain, all_opened = _mitmproxy(open_all=False), _mitmproxy(open_all=True)
    yield Peer("mitmproxy", (), "", _mitmproxy_version, plain, opens=True, way=Way.REDIRECT)
    yield Peer(*("mitmproxy-open", (), "", _mitmproxy_version, all_opened), passes=False, opens=True, way=Way.REDIRECT)
    yield Peer("tokgate", (), "", _tokgate_version, tokgate_with("refuse.yaml", tokgate), refuses=True)
    yield Peer(ONE_GATE, (), "", _tokgate_version, tokgate_with("refuse.yaml", f"{tokgate} --workers 1"), refuses=True)
    yield Peer("tokgate-page", (), "", _tokgate_version, tokgate_with("page.yaml", tokgate), opens=True)


def _second_table(tokgate: str) -> Iterator[Peer]:
    """The same by REDIRECT: to one port each, as their manuals have it; to 64 of tokgate's."""
    haproxy, squid = _haproxy("haproxy.cfg", Way.REDIRECT), _squid(Way.REDIRECT)
    redirected = tokgate.replace("--mode gate:tproxy@{port}", "--mode gate@{port}-{last}")
    for peer in (
        Peer("haproxy-redirect", ("haproxy",), "haproxy", _first_line("haproxy", "-v"), haproxy),
        Peer("squid-redirect", _SQUID, "squid-openssl", _first_line("squid", "-v"), squid),
        Peer(
            "tokgate-redirect", (), "", _tokgate_version, tokgate_with("refuse.yaml", redirected), ports=REDIRECT_PORTS
        ),
    ):
        yield replace(peer, refuses=True, way=Way.REDIRECT, again=True)


def _first_line(*command: str) -> Callable[[], str]:
    return lambda: (run(*command, check=False).splitlines() or ["?"])[0]


def _mitmproxy_version() -> str:
    return (run(_beside_python("mitmdump"), "--version").splitlines() or ["?"])[0]


def _tokgate_version() -> str:
    """The commit, and whether the tree differs from it."""
    try:
        described = run("git", "-C", str(PROJECT), "describe", "--always", "--dirty")
    except (OSError, RuntimeError, subprocess.TimeoutExpired):
        return "tokgate, not in a repository"
    return f"tokgate {described.strip()}, Python {sys.version.split()[0]}"


def _beside_python(program: str) -> str:
    """A program of the environment whose interpreter runs this."""
    return str(Path(sys.executable).with_name(program))
