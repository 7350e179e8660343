"""Comments that silence a warning; what policy files may say is in tests/config/data/ok/ignores.yaml."""

from pathlib import Path

from whenever import Instant

from tokgate.config.loader import load

POLICY = "services: {clips: {names: {suffix: {file: names.txt}}}}\n"
NAMES = """\
google.com  # tokgate: ignore shared-suffix all of Google
# tokgate: ignore shared-suffix all of Apple
apple.com
github.com
office.com  # tokgate: ignore shared-suffix
"""


def test_in_a_file_of_names(tmp_path: Path) -> None:
    """As in a policy file."""
    (tmp_path / "policy.yaml").write_text(POLICY)
    (tmp_path / "names.txt").write_text(NAMES)
    told = [(each.origin.line, str(each.code)) for each in load(tmp_path, Instant.from_utc(2023, 5, 1)).diagnostics]
    assert told == [(4, "shared-suffix"), (5, "shared-suffix"), (5, "bad-ignore")]


def test_a_file_of_comments_alone(tmp_path: Path) -> None:
    """One that silences nothing hides no name that other files lack."""
    (tmp_path / "a.yaml").write_text("# tokgate: ignore nothing\n")
    (tmp_path / "b.yaml").write_text("bans: {it: {title: x, services: [none], networks: [none], starts: 2023-03-10}}\n")
    codes = [str(each.code) for each in load(tmp_path, Instant.from_utc(2023, 5, 1)).diagnostics]
    assert codes == ["empty-file", "bad-ignore", "unknown-service", "unknown-network"]
