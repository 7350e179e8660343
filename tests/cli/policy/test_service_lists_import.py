"""`tokgate service import`: the file, what is said of what is not taken, and what is never overwritten."""

import random
import string
import time
from pathlib import Path

import pytest
from whenever import Instant

from labs.command_line import POLICY, Command
from tokgate.config.loader import load
from tokgate.policy.snapshot import compile_policy

LIST = "# Clips\nclips.example\nfull:www.clips.example.org\ncloudfront.net\nkeyword:clips\nnot a line\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a policy and a list."""
    monkeypatch.chdir(tmp_path)
    Path("policies").mkdir()
    Path("policies/policy.yaml").write_text(POLICY)
    Path("clips.list").write_text(LIST)
    return tmp_path


def test_import(folder: Path, tokgate: Command) -> None:
    """The file holds the list's names and where they are from; what is not taken is told line by line."""
    outcome = tokgate("service", "import", "clips.list", "--name", "films", "--licence", "MIT", "--date", "2026-08-19")
    assert outcome.code == 1
    assert outcome.out == "policies/services/films.yaml: 1 suffix, 1 exact; 2 dropped, 1 not read, 0 repeated\n"
    assert outcome.err.splitlines() == [
        "tokgate: clips.list is read as domain-list-community",
        "clips.list:4: dropped cloudfront.net: a public suffix: everybody's names are below it",
        "clips.list:5: dropped clips: a keyword matches parts of strangers' names",
        "clips.list:6: not read: not a line: `a` is neither an `@attribute` nor an `&affiliation`",
        "tokgate: `tokgate diff` shows what it changes; a ban has to name it",
    ]
    policy = load(folder / "policies", Instant.now()).policy
    assert policy is not None
    films = policy.services["films"]
    assert [pattern.value for pattern in films.patterns] == ["www.clips.example.org", "clips.example"]
    assert films.source is not None
    assert films.source.revision is not None
    assert films.source.revision.startswith("sha256:")
    assert (films.source.list, films.source.licence, films.source.date) == ("clips.list", "MIT", "2026-08-19")
    assert (folder / "policies/services/films.yaml").stat().st_mode & 0o777 == 0o644


@pytest.mark.usefixtures("folder")
def test_import_is_reviewed_with_diff(tokgate: Command) -> None:
    """What an import adds to a policy is in the diff, with its provenance."""
    Path("before").mkdir()
    Path("before/policy.yaml").write_text(POLICY)
    tokgate("service", "import", "clips.list", "--name", "films", "--source", "https://www.example.org/clips")
    said = tokgate("diff", "before", "policies").out
    assert "services.films" in said
    assert "+exact:www.clips.example.org" in said
    assert "+source.list:https://www.example.org/clips" in said


@pytest.mark.usefixtures("folder")
def test_import_to_standard_output(tokgate: Command) -> None:
    """A file that is only looked at is written nowhere."""
    outcome = tokgate("service", "import", "clips.list", "--name", "films", "-o", "-")
    assert "films:" in outcome.out
    assert not Path("policies/services").exists()


@pytest.mark.usefixtures("folder")
def test_import_overwrites_nothing(tokgate: Command) -> None:
    """A file with somebody's comments, or a service of the same name elsewhere, stays as it is."""
    assert tokgate("service", "import", "clips.list", "--name", "clips").err.startswith(
        "tokgate: the policy has a service clips already: policies/policy.yaml:3:"
    )
    Path("policies/services").mkdir()
    Path("policies/services/films.yaml").write_text("# mine\n")
    outcome = tokgate("service", "import", "clips.list", "--name", "films")
    assert outcome.code == 1
    assert "is there already" in outcome.err
    assert Path("policies/services/films.yaml").read_text() == "# mine\n"
    assert tokgate("service", "import", "clips.list", "--name", "films", "--force").code == 1
    assert "clips.example" in Path("policies/services/films.yaml").read_text()


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("content", "arguments", "code", "said"),
    [
        ("com\n", (), 1, "has nothing to take: no file is written"),
        ("# nothing\n", (), 1, "has nothing to take: no file is written"),
        ("a.example\n", ("--format", "hots"), 2, "invalid choice"),
        ("a.example\n", ("--date", "yesterday"), 2, "argument --date"),
    ],
)
def test_what_cannot_be_imported(
    tokgate: Command, content: str, arguments: tuple[str, ...], code: int, said: str
) -> None:
    """A list without anything for a service ends with its reason, and no file."""
    Path("x.list").write_text(content)
    outcome = tokgate("service", "import", "x.list", "--name", "films", *arguments)
    assert outcome.code == code
    assert said in outcome.err
    assert not Path("policies/services").exists()


@pytest.mark.usefixtures("folder")
def test_files_that_are_none(tokgate: Command) -> None:
    """A missing list is an error of the environment; a folder, and bytes that are no text, are said to be that."""
    assert tokgate("service", "import", "none", "--name", "films").code == 3
    assert "is not a file" in tokgate("service", "import", "policies", "--name", "films").err
    Path("x").write_bytes(b"\xff\xfe\x00")
    assert "is not UTF-8" in tokgate("service", "import", "x", "--name", "films").err


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize("name", ["", "a b", "-a", "a" * 65, "../x"])
def test_names_that_no_service_can_have(tokgate: Command, name: str) -> None:
    """A name that would make a broken policy, or a file elsewhere, is refused before anything is read."""
    outcome = tokgate("service", "import", "clips.list", f"--name={name}")
    assert outcome.code == 2
    assert "can't be a name" in outcome.err


@pytest.mark.usefixtures("folder")
def test_a_policy_of_one_file(tokgate: Command) -> None:
    """There is no folder to write to beside it, and the message says what to do."""
    outcome = tokgate("service", "import", "clips.list", "--name", "films", "--policies", "policies/policy.yaml")
    assert outcome.code == 2
    assert "say with --output" in outcome.err
    assert tokgate("service", "import", "clips.list", "--name", "films", "-o", "films.yaml").code == 1
    assert Path("films.yaml").exists()


@pytest.mark.usefixtures("folder")
def test_a_long_list_loads_in_a_second(tokgate: Command) -> None:
    """1,922 imported patterns, a twelfth of them regular expressions, are a policy within a second of this process."""
    chance = random.Random(7)

    def word() -> str:
        return "".join(chance.choices(string.ascii_lowercase, k=10))

    shapes = ("{}.example", "full:{}.{}.example", "{}.example.org", "regexp:^{}[0-9]+\\.{}\\.example$")
    lines = [
        shapes[number % 4 if number % 3 == 0 or number % 4 != 3 else 0].format(word(), word()) for number in range(1922)
    ]
    Path("long").write_text("\n".join(lines))
    assert tokgate("service", "import", "long", "--name", "long").code == 0
    before = time.process_time()
    policy = load(Path("policies"), Instant.now()).policy
    assert policy is not None
    compile_policy(policy)
    assert time.process_time() - before < 1
    assert len(policy.services["long"].patterns) == 1922
