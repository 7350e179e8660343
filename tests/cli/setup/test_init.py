"""`tokgate init`: a first policy, which is valid, tested, and nobody's work overwritten."""

import io
import sys
from pathlib import Path

import pytest

from labs.builders import policy_in
from labs.command_line import Command
from tokgate.cli.setup import init
from tokgate.policy.snapshot import Policy

HERE = ("127.0.0.0/8", "192.0.2.0/24", "::1/128", "2001:db8:1::/64")


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(init, "host_networks", lambda: HERE)
    monkeypatch.setattr(init, "_zone", lambda: "Europe/Brussels")
    return tmp_path


def written(folder: str = "policies") -> Policy:
    return policy_in(Path(folder))


def answer(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def test_nothing_asked(tokgate: Command) -> None:
    """Two commands after the installation TikTok is banned on this host's networks, with tests that pass."""
    outcome = tokgate("init", "--yes")
    assert (outcome.code, outcome.out) == (0, "policies/policy.yaml\n")
    assert "curl -i -x http://127.0.0.1:8080 https://www.tiktok.com/" in outcome.err
    checked = tokgate("check", "--strict")
    assert checked.code == 0, checked.out
    assert checked.out.endswith("1 files, 0 errors, 0 warnings, 4 tests passed, 0 failed\n")
    assert tokgate("explain", "--client", "192.0.2.9", "--host", "www.tiktok.com").out.startswith("block: ")
    assert tokgate("explain", "--client", "192.0.2.9", "--host", "www.example.org").out.startswith("allow: ")
    assert tuple(map(str, written().networks["here"].cidrs)) == HERE


def test_every_answer_is_in_the_policy(tokgate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is typed is written; a wrong answer is explained and asked for again, an empty one is the default."""
    answer(
        monkeypatch,
        "?",
        "tiktk",
        "tiktok, tiktok-ads",
        "10.1.2.3/8",
        "10.0.0.0/8 2001:db8:2::/48",
        "CET+1",
        "",
        "tomorrow",
        "2027-03-01T08:00",
        "2027-02-28",
        "P6M",
        'Board "A": 1',
        "Décision nº 12 # of 2027",
    )
    outcome = tokgate("init", "elsewhere")
    assert (outcome.code, outcome.out) == (0, "elsewhere/policy.yaml\n"), outcome.err
    for said in ("encrypted-dns", "did you mean `tiktok`", "host bits", "CET+1", "tomorrow", "is not after the start"):
        assert said in outcome.err
    policy = written("elsewhere")
    (ban,) = policy.bans.values()
    assert ban.services == ("tiktok", "tiktok-ads")
    assert tuple(map(str, policy.networks["here"].cidrs)) == ("10.0.0.0/8", "2001:db8:2::/48")
    assert (str(ban.starts), policy.networks["here"].timezone) == ("2027-03-01T08:00:00", "Europe/Brussels")
    assert (ban.authority, ban.basis) == ('Board "A": 1', "Décision nº 12 # of 2027")
    checked = tokgate("check", "elsewhere")
    assert checked.out.endswith("1 files, 0 errors, 0 warnings, 8 tests passed, 0 failed\n")
    # 127.0.0.1 is under no ban: the hint names a client that is.
    assert "tokgate explain --client 10.0.0.1 --host www.tiktok.com elsewhere" in outcome.err
    assert "127.0.0.1" not in outcome.err.rpartition("elsewhere/policy.yaml")[2].rpartition("next:")[2]


@pytest.mark.parametrize(
    ("ends", "before", "over"),
    [
        ("P6M", "2027-08-31T21:59:59Z", "2027-08-31T22:00:00Z"),
        ("2027-08-31", "2027-08-31T21:59:59Z", "2027-08-31T22:00:00Z"),
        ("2027-08-31T12:00", "2027-08-31T09:59:59Z", "2027-08-31T10:00:00Z"),
    ],
)
def test_an_end(tokgate: Command, ends: str, before: str, over: str) -> None:
    """However it is said, the ban ends then, and its tests say so on both sides."""
    assert tokgate("init", "--yes", "--starts", "2027-03-01", "--ends", ends).code == 0
    assert tokgate("check").out.endswith(" 6 tests passed, 0 failed\n")
    asked = ("explain", "--client", "192.0.2.9", "--host", "www.tiktok.com", "--at")
    assert tokgate(*asked, over).out.startswith("allow: ")
    assert tokgate(*asked, before).out.startswith("block: ")


def test_options_are_not_asked_for(tokgate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script can say everything, and a person is asked for the rest alone."""
    answer(monkeypatch, "lifted", "Board", "Decision 1")
    said = "--service encrypted-dns --network 192.0.2.0/25 ::1/128 --timezone UTC --starts 2027-01-01"
    outcome = tokgate("init", *said.split())
    assert outcome.code == 0, outcome.err
    assert outcome.err.count("]: ") == 3
    (ban,) = written().bans.values()
    assert (ban.name, ban.services, ban.authority) == ("encrypted-dns-ban", ("encrypted-dns",), "Board")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--service", "tiktk"), "did you mean `tiktok`"),
        (("--network", "192.0.2.1/24"), "host bits"),
        (("--timezone", "Mars"), "unknown time zone"),
        (("--starts", "soon"), "is no time"),
        (("--ends", "never"), "is no time"),
        (("--ends", "PT6X"), "is no ISO 8601 duration"),
    ],
    ids=["service", "network", "timezone", "starts", "ends", "duration"],
)
def test_a_wrong_option(tokgate: Command, arguments: tuple[str, str], said: str) -> None:
    outcome = tokgate("init", "--yes", *arguments)
    assert (outcome.code, said in outcome.err, Path("policies").exists()) == (2, True, False), outcome.err


def test_the_answers_end(tokgate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Started from a script without answers it says which option it needs, and writes nothing."""
    answer(monkeypatch, "tiktok")
    outcome = tokgate("init")
    assert (outcome.code, "--yes" in outcome.err, Path("policies").exists()) == (2, True, False)


@pytest.mark.parametrize("there", ["policies/policy.yaml", "policies/sub/bans.yml"])
def test_nothing_is_overwritten(tokgate: Command, there: str) -> None:
    """A policy that is there stays as it is, whatever its file is called."""
    Path(there).parent.mkdir(parents=True)
    Path(there).write_text("version: 1\n")
    outcome = tokgate("init", "--yes")
    assert (outcome.code, f"{there} is there already" in outcome.err) == (2, True)
    assert [str(path) for path in Path("policies").rglob("*.y*ml")] == [there]
    assert Path(there).read_text() == "version: 1\n"


def test_a_file_in_place_of_the_folder(tokgate: Command) -> None:
    Path("policies").write_text("mine")
    assert tokgate("init", "--yes").code == 2
    assert Path("policies").read_text() == "mine"


def test_the_name_of_a_file(tokgate: Command) -> None:
    """Whoever names the file that should be written is told to name its folder; none of that name is made."""
    outcome = tokgate("init", "--yes", "bans/offices.yaml")
    assert (outcome.code, "name the folder in which policy.yaml is to be" in outcome.err) == (2, True)
    assert not Path("bans").exists()


def test_without_a_policy_the_command_is_named(tokgate: Command) -> None:
    """Who starts in an empty folder learns what to do."""
    assert "`tokgate init` writes a first policy" in tokgate("check").out
    Path("policies").mkdir()
    assert "`tokgate init` writes a first policy" in tokgate("check").out
