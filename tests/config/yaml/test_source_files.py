"""Which files are read, and what can be wrong with files and folders."""

import os
from pathlib import Path

import pytest
from whenever import Instant

from tokgate.config.diagnostics import Code
from tokgate.config.loader import Loaded, load
from tokgate.config.yaml.source import Report, policy_files

EMPTY = "version: 1\n"


def codes(loaded: Loaded) -> set[Code]:
    return {each.code for each in loaded.diagnostics}


def test_read_recursively_in_name_order(tmp_path: Path) -> None:
    """All of *.yaml and *.yml below the folder, sorted; nothing hidden, nothing else."""
    for name in (
        "b/x.yml",
        "a.yaml",
        "d.yaml/e.yaml",
        "b/.hidden.yaml",
        ".git/y.yaml",
        "c.yaml.bak",
        "b/a/z.yaml",
        "README.md",
        ".#a.yaml",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(EMPTY)
    found = policy_files(tmp_path, Report())
    assert [str(path.relative_to(tmp_path)) for path in found] == ["a.yaml", "b/a/z.yaml", "b/x.yml", "d.yaml/e.yaml"]


def test_a_single_file_needs_no_suffix(tmp_path: Path, minimal: str, now: Instant) -> None:
    """A file that is named is read, whatever it is called."""
    path = tmp_path / "policy"
    path.write_text(minimal)
    assert load(path, now).policy is not None


@pytest.mark.parametrize("name", ["absent", "absent.yaml", "a.yaml/x"])
def test_no_such_path(folder: Path, name: str, now: Instant) -> None:
    loaded = load(folder / name, now)
    assert [each.code for each in loaded.errors] in ([Code.NOT_FOUND], [Code.UNREADABLE])
    assert name in loaded.errors[0].origin.file


def test_folder_without_policy_files(tmp_path: Path, now: Instant) -> None:
    """A folder with nothing to read is an error, also beside a misnamed file: an empty policy would filter nothing."""
    (tmp_path / "README.md").write_text("hello")
    assert codes(load(tmp_path, now)) == {Code.NO_POLICY_FILES}
    (tmp_path / "BAN.YAML").write_text(EMPTY)
    assert codes(load(tmp_path, now)) == {Code.NO_POLICY_FILES, Code.SKIPPED_FILE}


@pytest.mark.parametrize("name", ["ban.yaml.txt", "BAN.YAML", "ban.Yml", "2026/ban.v2.YML"])
def test_named_as_other_systems_name_it(folder: Path, name: str, now: Instant) -> None:
    """A policy that an editor or file manager named differently is not read, and that is said; all else is."""
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("version: 1\nbans: {}\n")
    loaded = load(folder, now)
    assert loaded.policy is not None
    (warning,) = loaded.warnings
    assert (warning.code, warning.origin.file) == (Code.SKIPPED_FILE, str(folder / name))


def test_broken_link(folder: Path, now: Instant) -> None:
    """A link to nothing is an error that names its target, as file and as folder of policies."""
    (folder / "b.yaml").symlink_to("gone.yaml")
    loaded = load(folder, now)
    assert codes(loaded) == {Code.BROKEN_LINK}
    assert "gone.yaml" in loaded.errors[0].message
    (folder.parent / "link").symlink_to("gone")
    assert codes(load(folder.parent / "link", now)) == {Code.BROKEN_LINK}


def test_links_that_never_end(folder: Path, now: Instant) -> None:
    """A link that leads to itself, or to a folder above, is an error, as file, as folder and as the path given."""
    (folder / "b.yaml").symlink_to("b.yaml")
    assert codes(load(folder, now)) == {Code.LINK_LOOP}
    assert load(folder / "b.yaml", now).policy is None
    (folder / "b.yaml").unlink()
    (folder / "sub").mkdir()
    (folder / "sub" / "up").symlink_to("..", target_is_directory=True)
    assert codes(load(folder, now)) == {Code.LINK_LOOP}


def test_content_is_read_once(folder: Path, now: Instant) -> None:
    """The same file under two names, and the same folder, are not defined twice."""
    (folder / "b.yaml").symlink_to("a.yaml")
    os.link(folder / "a.yaml", folder / "c.yaml")
    (folder.parent / "elsewhere").mkdir()
    (folder / "one").symlink_to("../elsewhere", target_is_directory=True)
    (folder / "two").symlink_to("../elsewhere", target_is_directory=True)
    (folder.parent / "elsewhere" / "x.yaml").write_text("networks: {guests: {cidrs: [198.51.100.0/24]}}")
    loaded = load(folder, now)
    assert loaded.diagnostics == ()
    assert [path.name for path in loaded.files] == ["a.yaml", "x.yaml"]


def test_links_that_multiply(folder: Path, now: Instant) -> None:
    """Thirty folders with two links each to the next are walked thirty times, not a billion."""
    for number in range(30):
        (folder.parent / f"f{number}").mkdir()
        for name in ("one", "two"):
            (folder.parent / f"f{number}" / name).symlink_to(f"../f{number + 1}", target_is_directory=True)
    (folder.parent / "f30").mkdir()
    (folder / "in").symlink_to("../f0", target_is_directory=True)
    assert load(folder, now).diagnostics == ()


def test_pipe(folder: Path, now: Instant) -> None:
    """A named pipe is an error instead of waiting for ever."""
    os.mkfifo(folder / "pipe.yaml")
    assert codes(load(folder, now)) == {Code.UNREADABLE}


@pytest.mark.parametrize("error", [PermissionError(13, "Permission denied"), FileNotFoundError(2, "No such file")])
def test_unreadable_and_vanished(folder: Path, now: Instant, error: OSError, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that may not be read, or is gone when it is opened, is an error; others are read all the same."""
    (folder / "b.yaml").write_text("networks: {x: {cidrs: [192.0.2.1/24]}}")
    opened = Path.open

    def refuse(path: Path, *args: object, **more: object) -> object:
        if path.name == "a.yaml":
            raise error
        return opened(path, *args, **more)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", refuse)
    assert codes(load(folder, now)) == {Code.UNREADABLE, Code.HOST_BITS}


def test_folder_vanishes_while_reading(folder: Path, now: Instant, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is gone when it is listed is an error."""
    (folder / "sub").mkdir()
    listed = Path.iterdir

    def vanish(path: Path) -> object:
        if path.name == "sub":
            path.rmdir()
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", vanish)
    loaded = load(folder, now)
    assert codes(loaded) == {Code.UNREADABLE}
    assert "vanished" in loaded.errors[0].message


def test_too_large(tmp_path: Path, now: Instant) -> None:
    """A file of 20 MB is refused at once; so is a smaller one of too many values."""
    path = tmp_path / "large.yaml"
    path.write_bytes(b"# " + b"x" * 20_000_000 + b"\n")
    assert codes(load(path, now)) == {Code.TOO_LARGE}
    path.write_text("tests: [" + "a," * 1_100_000 + "]")
    assert codes(load(path, now)) == {Code.TOO_LARGE}


def test_missing_names_are_not_reported_while_a_file_is_unreadable(folder: Path, now: Instant) -> None:
    """What an unreadable file may define is not called unknown."""
    (folder / "b.yaml").write_text("bans: {x: {title: x, services: [y], networks: [z], starts: 2023-03-10}}")
    assert codes(load(folder, now)) == {Code.UNKNOWN_SERVICE, Code.UNKNOWN_NETWORK}
    (folder / "c.yaml").symlink_to("gone")
    assert codes(load(folder, now)) == {Code.BROKEN_LINK}
