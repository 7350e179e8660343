"""Files of names: where they may lie, what changes with them, and that reloading sees it."""

from pathlib import Path

import pytest
from whenever import Instant

from labs.builders import valid
from tokgate.config.diagnostics import Code
from tokgate.config.loader import Loaded, load

NOW = Instant.from_utc(2023, 5, 1)
BAN = """\
networks: {here: {cidrs: [192.0.2.0/24]}}
bans: {clips: {title: Clips, services: [clips], networks: [here], starts: 2023-03-10}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of policies, with a list beside the file that names it."""
    folder = tmp_path / "policies"
    (folder / "services").mkdir(parents=True)
    (folder / "bans.yaml").write_text(BAN)
    (folder / "services" / "clips.yaml").write_text("services: {clips: {names: {suffix: {file: clips.txt}}}}\n")
    (folder / "services" / "clips.txt").write_text("clips.example.org\n")
    return folder


def named(folder: Path, file: str, settings: str = "") -> Loaded:
    """What loading finds where the service names this file."""
    (folder / "services" / "clips.yaml").write_text(
        f"services: {{clips: {{names: {{suffix: {{file: {file}}}}}}}}}\n{settings}"
    )
    return load(folder, NOW)


def test_the_version_follows_the_names(folder: Path) -> None:
    """Other names make another policy; comments and order don't."""
    first, file = valid(load(folder, NOW)), folder / "services" / "clips.txt"
    file.write_text("# more\nclips.example.org\nclips.example.net\n")
    more = valid(load(folder, NOW))
    file.write_text("clips.example.net # b\n\nclips.example.org\n")
    assert (first.version != more.version, valid(load(folder, NOW)).version) == (True, more.version)
    assert {each.value for each in more.services["clips"].patterns} == {"clips.example.org", "clips.example.net"}
    origin = more.services["clips"].patterns[1].origin
    assert origin is not None
    assert (origin.file, origin.line) == (str(file), 3)


def test_a_file_outside_needs_a_setting(folder: Path, tmp_path: Path) -> None:
    """Also one behind a link, or by way of `..`; a folder that the settings name is allowed, with what is below it."""
    outside = tmp_path / "lists" / "deep"
    outside.mkdir(parents=True)
    (outside / "clips.txt").write_text("clips.example.net\n")
    (folder / "link.txt").symlink_to(outside / "clips.txt")
    allowed = f"settings: {{name_files: [{tmp_path / 'lists'}]}}\n"
    for file in ("../../lists/deep/clips.txt", str(outside / "clips.txt"), "../link.txt"):
        assert [each.code for each in named(folder, file).errors] == [Code.FILE_OUTSIDE]
        assert named(folder, file, allowed).policy is not None
    beside = f"settings: {{name_files: [{tmp_path / 'list'}]}}\n"
    assert [each.code for each in named(folder, "../../lists/deep/clips.txt", beside).errors] == [Code.FILE_OUTSIDE]
    assert named(folder, "../services/clips.txt").policy is not None


def test_folders_and_other_octets(folder: Path) -> None:
    (folder / "services" / "utf16.txt").write_bytes("clips.example.org\n".encode("utf-16"))
    assert [each.code for each in named(folder, ".").errors] == [Code.UNREADABLE]
    assert [each.code for each in named(folder, "utf16.txt").errors] == [Code.ENCODING]


def test_many_wrong_lines_are_counted(folder: Path) -> None:
    """A list in another format doesn't fill the screen."""
    (folder / "services" / "clips.txt").write_text("||clips.example.org^\n" * 100)
    errors = load(folder, NOW).errors
    assert len(errors) == 21
    assert "80 more lines" in errors[-1].message


def test_a_policy_in_one_file(folder: Path) -> None:
    """Its folder is that of the file."""
    (folder / "one.yaml").write_text("services: {clips: {names: {suffix: {file: services/clips.txt}}}}\n" + BAN)
    assert load(folder / "one.yaml", NOW).policy is not None
