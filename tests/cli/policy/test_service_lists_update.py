"""`tokgate service update`: what a newer list adds and removes, what is written, and what is never lost."""

from pathlib import Path

import pytest
from whenever import Instant

from labs.command_line import POLICY, Command
from tokgate.config.loader import load
from tokgate.policy.services import Service


@pytest.fixture
def imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tokgate: Command) -> Path:
    """A policy with an imported service, its list, and a newer one."""
    monkeypatch.chdir(tmp_path)
    Path("policies").mkdir()
    Path("policies/policy.yaml").write_text(POLICY)
    Path("old").write_text("a.example\nb.example @ads\nfull:www.example.net\n")
    Path("new").write_text("a.example\nc.example\nd.example @ads\nfull:www.example.net\n")
    arguments = ("--name", "films", "--title", "Films", "--revision", "1", "--date", "2026-08-19", "--licence", "MIT")
    assert tokgate("service", "import", "old", *arguments).code == 0
    return tmp_path


def films() -> Service:
    policy = load(Path("policies"), Instant.now()).policy
    assert policy is not None
    return policy.services["films"]


@pytest.mark.usefixtures("imported")
def test_the_difference(tokgate: Command) -> None:
    """What a newer list changes is seen before it is so, and nothing is written."""
    before = Path("policies/services/films.yaml").read_bytes()
    outcome = tokgate("service", "update", "films", "new", "--revision", "2", "--date", "2026-09-19")
    assert outcome.code == 0
    assert outcome.out.splitlines() == [
        "old: films (1 2026-08-19)",
        "new: old (2 2026-09-19)",
        "+suffix c.example",
        "+suffix d.example",
        "-suffix b.example",
        "2 added, 1 removed",
    ]
    assert Path("policies/services/films.yaml").read_bytes() == before
    assert tokgate("service", "update", "films", "new", "--exit-code").code == 1
    assert tokgate("service", "update", "films", "old", "--exit-code").code == 0


@pytest.mark.usefixtures("imported")
def test_it_is_written(tokgate: Command) -> None:
    """The file has the newer list's names and revision; title, apps and description stay."""
    file = Path("policies/services/films.yaml")
    file.write_text(file.read_text() + "    description: For films\n    store: {apple: ['835599320']}\n")
    assert tokgate("service", "update", "films", "new", "--write", "--revision", "2").code == 0
    service = films()
    assert {pattern.value for pattern in service.patterns} == {"a.example", "c.example", "d.example", "www.example.net"}
    assert service.title == "Films"
    assert [each.identifier for each in service.stores] == ["835599320"]
    assert service.source is not None
    assert (service.source.revision, service.source.licence) == ("2", "MIT")
    assert "description: For films" in file.read_text()


@pytest.mark.usefixtures("imported")
def test_names_of_ones_own_are_kept(tokgate: Command) -> None:
    """Who has added names by hand keeps them."""
    assert tokgate("service", "update", "films", "new", "--write", "--keep").code == 0
    assert "b.example" in {pattern.value for pattern in films().patterns}


@pytest.mark.usefixtures("imported")
def test_the_list_is_read_as_the_last_one_was(tokgate: Command) -> None:
    """Attributes that were asked for once are asked for again."""
    tokgate("service", "import", "old", "--name", "films", "--force", "--attribute=-ads")
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
