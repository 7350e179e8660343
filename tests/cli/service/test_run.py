"""`tokgate run` as a command: what it takes, and how it says no. What it does is tested in tests/proxy."""

import logging
import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest

from labs.command_line import Command
from tokgate.cli.commands import Exit
from tokgate.gate.sockets import Entry
from tokgate.gateway.capabilities import Capability
from tokgate.gateway.ruleset import Bypass, Redirect, TableOptions, Tproxy
from tokgate.policy.settings import PortRange
from tokgate.service import privileges, start
from tokgate.service.child_programs import SuperviseOptions

type Supervised = Callable[..., SuperviseOptions]


@pytest.fixture
def supervised(tokgate: Command, monkeypatch: pytest.MonkeyPatch) -> Supervised:
    """Runs `tokgate run` with these words, and gives what a supervisor would have been started with."""
    given: list[SuperviseOptions] = []

    def supervise(options: SuperviseOptions, _: object) -> int:
        given.append(options)
        return 0

    monkeypatch.setattr(start, "supervise", supervise)
    monkeypatch.setattr(privileges, "account_to_become", lambda name: None)
    monkeypatch.setattr(privileges, "become", lambda *_: None)

    def run(*words: str) -> SuperviseOptions:
        assert tokgate("run", *words).code == 0
        return given[-1]

    return run


@pytest.mark.parametrize(
    ("said", "hosts"),
    [((), ["127.0.0.1"]), (("--listen-host", "192.0.2.1"), ["192.0.2.1"]), (("--listen-host", ""), ["0.0.0.0", "::"])],
)
def test_the_mode_unless_told(said: tuple[str, ...], hosts: list[str], supervised: Supervised) -> None:
    """Without --mode gates serve explicit clients, on loopback unless told: an open proxy is found within hours."""
    assert [(each.host, each.port, each.entry) for each in supervised(*said).endpoints] == [
        (host, 8080, Entry.EXPLICIT) for host in hosts
    ]


def test_what_gates_are_started_with(supervised: Supervised) -> None:
    said = "--drain 1.5 --mark 0x10 --metrics 9300 --workers 3 --policies p --log l --confdir /c"
    assert supervised().drain == 30.0
    options = supervised(*said.split())
    assert (options.drain, options.mark) == (1.5, 0x10)
    assert (options.metrics, options.workers) == (("127.0.0.1", 9300), 3)
    assert (options.policies, options.log, options.confdir) == (Path("p"), Path("l"), Path("/c"))


@pytest.mark.parametrize(("said", "cores", "number"), [((), 6, 6), ((), 1, 2), ((), 64, 8), (("--openers", "1"), 6, 1)])
def test_how_many_openers(
    said: tuple[str, ...], cores: int, number: int, supervised: Supervised, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the cores that it may use, so that another one serves when one fails."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {*range(cores)})
    assert supervised(*said).openers == number


@pytest.mark.usefixtures("supervised")
@pytest.mark.parametrize(
    ("said", "why"),
    [
        *((f"--listen-port {port}", "--listen-port") for port in ("65536", "-1", "http")),
        *((f"--drain {seconds}", "--drain") for seconds in ("-1", "nan", "soon")),
        *((f"--mark {mark}", "--mark") for mark in ("0", "0x100000000", "1_0")),
        *((f"--openers {number}", "--openers") for number in ("0", "2-4", "9999")),
        ("--name-server resolver.example.org", "--name-server"),
        ("--unexpected", "--unexpected"),
        ("--gateway --mode gate:tproxy@8080 --mode gate:tproxy@8081", "needs one port"),
        ("--gateway --mode gate:tproxy@0", "needs one port"),
        ("--gateway --listen-port 0 --mode gate:explicit", "needs one port"),
        (
            "--gateway --mode gate:tproxy@8080 --mode gate:explicit",
            "gate:tproxy@8080 and gate:explicit both want port 8080",
        ),
        ("--gateway --mode gate:tproxy@192.0.2.1:8080", "leave its host out"),
        ("--gateway --mode regular", "start tokgate twice"),
        ("--redirect", "are for --gateway"),
        ("--local", "are for --gateway"),
        ("--gateway --mark 0x746b", "are for the gates"),
    ],
)
def test_usage_errors(tokgate: Command, said: str, why: str) -> None:
    """What makes no sense, or the kernel could not bring clients to, is refused before anything is loaded."""
    refused = tokgate("run", *said.split())
    assert (refused.code, why in refused.err) == (Exit.USAGE, True), refused.err


@pytest.mark.parametrize(
    ("said", "port", "explicit"),
    [
        ("--gateway", 8080, set()),
        ("--gateway --mode gate:tproxy@9000", 9000, set()),
        ("--gateway --mode gate:explicit@3128", 8080, {("127.0.0.1", 3128)}),
        ("--gateway --mode gate:explicit@192.0.2.1:8080 --metrics 8081", 8082, {("192.0.2.1", 8080)}),
        ("--gateway --mode gate:explicit --mode gate:tproxy", 8081, {("127.0.0.1", 8080)}),
    ],
)
def test_the_gateways_modes(said: str, port: int, explicit: set[tuple[str, int]], supervised: Supervised) -> None:
    """The kernel brings clients to the port at which gates await them, a free one; others may come as well."""
    options = supervised("--mark", "0x51", *said.split())
    found = {entry: {(e.host, e.port) for e in options.endpoints if e.entry is entry} for entry in Entry}
    assert found[Entry.TPROXY] == {("0.0.0.0", port), ("::", port)}
    assert (found[Entry.EXPLICIT], len(options.endpoints)) == (explicit, 2 + len(explicit))
    assert options.gateway == TableOptions(forwarded=Tproxy(port), bypass=Bypass.by_mark(0x51))


@pytest.mark.parametrize(
    ("said", "forwarded", "local", "entries"),
    [
        ("--redirect", Redirect(), None, {Entry.REDIRECT}),
        ("--redirect 9000-9003", Redirect(PortRange(9000, 9003)), None, {Entry.REDIRECT}),
        ("--local", Tproxy(), Redirect(), {Entry.REDIRECT, Entry.TPROXY}),
        ("--redirect --local", Redirect(), Redirect(), {Entry.REDIRECT}),
    ],
)
def test_redirection(
    said: str, forwarded: Tproxy | Redirect, local: Redirect | None, entries: set[Entry], supervised: Supervised
) -> None:
    """Where TPROXY can't be used gates listen at each of the ports, once."""
    options = supervised("--gateway", "--mark", "0x51", *said.split())
    assert options.gateway == TableOptions(forwarded=forwarded, local=local, bypass=Bypass.by_mark(0x51))
    assert {each.entry for each in options.endpoints} == entries
    wanted = {port for way in (forwarded, local) if way for port in range(way.to.first, way.to.last + 1)}
    assert sorted(each.port for each in options.endpoints if each.host == "::") == sorted(wanted)


def test_the_proxys_own_connections(
    supervised: Supervised, tokgate: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With `--local` they are known by the user that it becomes, or is; root's could be anybody's."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    refused = tokgate("run", "--gateway", "--local")
    assert (refused.code, "needs a user of tokgate's own" in refused.err) == (Exit.USAGE, True)
    monkeypatch.setattr(os, "geteuid", lambda: 999)
    assert (supervised("--gateway", "--local").gateway or TableOptions()).bypass == Bypass.by_uid(999)
    account = pwd.struct_passwd(("tokgate", "x", 10451, 10451, "", str(tmp_path), "/bin/false"))
    monkeypatch.setattr(privileges, "account_to_become", lambda name: account)
    assert (supervised("--gateway", "--local").gateway or TableOptions()).bypass == Bypass.by_uid(10451)


@pytest.fixture
def became(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[object, ...]]:
    """Run as root, which here becomes nobody else, and supervises nothing: with whom it would have been called."""
    made: list[tuple[object, ...]] = []
    account = pwd.struct_passwd(("tokgate", "x", 10451, 10451, "", str(tmp_path), "/bin/false"))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(privileges, "account_to_become", lambda name: account)
    monkeypatch.setattr(privileges, "become", lambda *given: made.append(given))
    monkeypatch.setattr(start, "supervise", lambda options, say: 0)
    return made


def test_root_is_left_before_anything_is_opened(became: list[tuple[object, ...]], tokgate: Command) -> None:
    """With what the modes need, and after what it will use was named, so that it can be looked at."""
    outcome = tokgate("run", "--mode", "gate:tproxy", "--log", "/l/b.ndjson", "--confdir", "/k")
    ((account, kept, places),) = became
    assert getattr(account, "pw_name", None) == "tokgate"
    assert kept == {Capability.NET_ADMIN, Capability.NET_RAW}
    assert places == privileges.Places(Path("policies"), Path("/l/b.ndjson"), Path("/k"))
    assert (outcome.code, outcome.err) == (0, "tokgate: running as tokgate\n")


@pytest.mark.parametrize(("said", "warns"), [((), True), (("--user", "root"), False)])
def test_root_that_stays_is_warned_of(
    became: list[tuple[object, ...]],
    monkeypatch: pytest.MonkeyPatch,
    tokgate: Command,
    said: tuple[str, ...],
    warns: bool,
) -> None:
    """Whoever has made no user for it learns what that means; whoever asks for root gets it."""
    monkeypatch.setattr(privileges, "account_to_become", lambda name: None)
    outcome = tokgate("run", *said)
    assert (outcome.code, became) == (0, [])
    assert ("WARNING: running as root" in outcome.err) is warns


def test_what_keeps_root_in_place_ends_it(
    became: list[tuple[object, ...]], tokgate: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A user that can't do the work is no reason to do it as root."""

    def fail(*given: object) -> None:
        raise privileges.PrivilegeError("tokgate can't use what tokgate needs")

    monkeypatch.setattr(privileges, "become", fail)
    outcome = tokgate("run")
    assert (outcome.code, "can't use what" in outcome.err, became) == (Exit.FAILURE, True, [])


@pytest.mark.filterwarnings("ignore:.* is deprecated. Please use:DeprecationWarning")  # ldap3's, of pyasn1
def test_an_unknown_mode(tokgate: Command) -> None:
    """A mistyped mode ends with 2 before anything is started, and says which there are."""
    mistyped = tokgate("run", "--mode", "transparant@8443")
    assert mistyped.code == 2
    assert "did you mean `transparent`?" in mistyped.err
    assert "`gate:explicit`" in mistyped.err
    for mode in ("foo", "upstream:http://192.0.2.1:80", "reverse:http://192.0.2.1:80", "wireguard", "local:curl"):
        code, said = (unknown := tokgate("run", "--mode", mode)).code, unknown.err
        assert (code, f"unknown mode `{mode}`; " in said) == (2, True)
        assert ("docs/phones.md" in said) == (mode == "wireguard")
        assert "did you mean" not in said
    high = tokgate("run", "--mode", "regular@99999")
    assert (high.code, "invalid port: 99999" in high.err) == (2, True)
    assert not any(handler.filters for handler in logging.getLogger().handlers)  # warnings are folded while it runs
