"""`tokgate service import` and `update`: the file, what is not taken, what a newer list changes, what is never lost."""

import os
from pathlib import Path

import pytest
from whenever import Instant

from labs.builders import policy_in
from labs.command_line import Command
from tokgate.policy.services import Service

MADE = int(Instant.from_utc(2026, 8, 19).timestamp())
LIST = "# Clips\nclips.example\nfull:www.clips.example.org\ncloudfront.net\nkeyword:clips\nnot a line\n"


@pytest.fixture
def folder(policies: Path) -> Path:
    Path("clips.list").write_text(LIST)
    os.utime("clips.list", (MADE, MADE))
    return policies.parent


def test_import(folder: Path, tokgate: Command) -> None:
    """The file holds the list's names and where they are from; what is not taken is told line by line."""
    outcome = tokgate("service", "import", "clips.list", "--name", "films")
    assert outcome.code == 1
    assert outcome.out == "policies/services/films.yaml: 1 suffix, 1 exact; 2 dropped, 1 not read, 0 repeated\n"
    assert outcome.err.splitlines() == [
        "tokgate: clips.list is read as domain-list-community",
        "clips.list:4: dropped cloudfront.net: a public suffix: everybody's names are below it",
        "clips.list:5: dropped clips: a keyword matches parts of strangers' names",
        "clips.list:6: not read: not a line: `a` is neither an `@attribute` nor an `&affiliation`",
        "tokgate: `tokgate diff` shows what it changes; a ban has to name it",
    ]
    films = policy_in(folder / "policies").services["films"]
    assert [pattern.value for pattern in films.patterns] == ["www.clips.example.org", "clips.example"]
    assert films.source is not None
    assert films.source.revision is not None
    assert films.source.revision.startswith("sha256:")
    assert (films.source.list, films.source.date) == ("clips.list", "2026-08-19")
    assert (folder / "policies/services/films.yaml").stat().st_mode & 0o777 == 0o644


@pytest.mark.usefixtures("folder")
def test_import_overwrites_nothing(tokgate: Command) -> None:
    """A file with somebody's comments, or a service of the same name elsewhere, stays as it is."""
    assert tokgate("service", "import", "clips.list", "--name", "clips").err.startswith(
        "tokgate: there is a service clips already, policies/policy.yaml:3:"
    )
    Path("policies/services").mkdir()
    Path("policies/services/films.yaml").write_text("version: 1 # mine\n")
    outcome = tokgate("service", "import", "clips.list", "--name", "films")
    assert outcome.code == 1
    assert "there is a service films already, policies/services/films.yaml" in outcome.err
    assert Path("policies/services/films.yaml").read_text() == "version: 1 # mine\n"


@pytest.mark.usefixtures("folder")
@pytest.mark.parametrize(
    ("content", "arguments", "code", "said"),
    [
        ("com\n", (), 1, "has nothing to take: nothing is written"),
        ("# nothing\n", (), 1, "has nothing to take: nothing is written"),
        ("a.example\n", ("--format", "hots"), 2, "invalid choice"),
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
    outcome = tokgate("service", "import", "clips.list", "--name", "films", "--policies", "policies/policy.yaml")
    assert outcome.code == 2
    assert "import into a folder" in outcome.err


@pytest.fixture
def imported(folder: Path, tokgate: Command) -> Path:
    """An imported service with a title and licence of its own, its list, and a newer one."""
    Path("old").write_text("a.example\nb.example @ads\nfull:www.example.net\n")
    Path("new").write_text("a.example\nc.example\nd.example @ads\nfull:www.example.net\n")
    for name in ("old", "new"):
        os.utime(name, (MADE, MADE))
    assert tokgate("service", "import", "old", "--name", "films").code == 0
    file = Path("policies/services/films.yaml")
    said = file.read_text().replace("title: films", "title: Films")
    file.write_text(said.replace("list: old", "list: https://www.example.org/films\n      licence: MIT"))
    return folder


def films() -> Service:
    return policy_in(Path("policies")).services["films"]


@pytest.mark.usefixtures("imported")
def test_the_difference(tokgate: Command) -> None:
    """What a newer list changes is seen before it is so, and nothing is written."""
    before = Path("policies/services/films.yaml").read_bytes()
    outcome = tokgate("service", "update", "films", "new")
    assert outcome.code == 0
    old, new, *changes = outcome.out.splitlines()
    assert old.startswith("old: films (sha256:")
    assert new.startswith("new: https://www.example.org/films (sha256:")
    assert new.endswith(" 2026-08-19)")
    assert changes == [
        "+suffix c.example",
        "+suffix d.example",
        "-suffix b.example",
        "2 added, 1 removed",
    ]
    assert Path("policies/services/films.yaml").read_bytes() == before
    assert tokgate("service", "update", "films", "old").out.endswith("0 added, 0 removed\n")


@pytest.mark.usefixtures("imported")
def test_it_is_written(tokgate: Command) -> None:
    """The file has the newer list's names and revision; title, apps and description stay."""
    file = Path("policies/services/films.yaml")
    file.write_text(file.read_text() + "    description: For films\n    store: {apple: ['835599320']}\n")
    assert tokgate("service", "update", "films", "new", "--write").code == 0
    service = films()
    assert {pattern.value for pattern in service.patterns} == {"a.example", "c.example", "d.example", "www.example.net"}
    assert service.title == "Films"
    assert [each.identifier for each in service.stores] == ["835599320"]
    assert service.source is not None
    assert (service.source.list, service.source.licence) == ("https://www.example.org/films", "MIT")
    assert "description: For films" in file.read_text()


@pytest.mark.usefixtures("imported")
def test_the_list_is_read_as_the_last_one_was(tokgate: Command) -> None:
    """Attributes that were asked for once are asked for again."""
    tokgate("service", "update", "films", "old", "--write", "--attribute=-ads")
    assert {pattern.value for pattern in films().patterns} == {"a.example", "www.example.net"}
    assert tokgate("service", "update", "films", "new").out.splitlines()[2:] == [
        "+suffix c.example",
        "1 added, 0 removed",
    ]


@pytest.mark.usefixtures("imported")
def test_files_with_comments_are_not_written(tokgate: Command) -> None:
    """A file that was written by hand, one with more in it, and the catalogue's are left alone, with the reason."""
    assert "was not imported" in tokgate("service", "update", "clips", "new", "--write").err
    assert "is the catalogue's" in tokgate("service", "update", "deepseek", "new", "--write").err
    file = Path("policies/services/films.yaml")
    file.write_text(file.read_text() + "  more: {names: {suffix: [more.example.org]}}\n")
    outcome = tokgate("service", "update", "films", "new", "--write")
    assert outcome.code == 1
    assert "holds more than films" in outcome.err
    assert "more.example.org" in file.read_text()


@pytest.mark.usefixtures("imported")
def test_a_list_without_names_writes_nothing(tokgate: Command) -> None:
    """A download that failed doesn't empty a ban."""
    before = Path("policies/services/films.yaml").read_bytes()
    Path("new").write_text("<html>\n")
    assert tokgate("service", "update", "films", "new", "--write").code == 1
    assert Path("policies/services/films.yaml").read_bytes() == before
