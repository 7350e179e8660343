"""A newcomer guesses where a behaviour and its tests are: packages say what they hold, and tests lie as modules do."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "addons" / "tokgate"
TESTS = ROOT / "tests"
BESIDE = {"carriers", "drills", "e2e", "evasion", "labs"}
"""Folders of tests that belong to no single package."""
OTHERS = {"bench", "deploy", "policies", "siem"}
"""Folders of tests of what is shipped beside the package."""


def test_packages_say_what_they_hold() -> None:
    """Each folder with modules is a package whose docstring says what lives there."""
    folders = {path.parent for path in PACKAGE.rglob("*.py")}
    assert [
        str(folder) for folder in folders if not (folder / "__init__.py").read_text("utf-8").startswith('"""')
    ] == []


def test_tests_mirror_the_package() -> None:
    """The tests of a module are in the folder of its name, in files that begin with its name."""
    strangers = []
    for path in TESTS.rglob("test_*.py"):
        folder = path.parent.relative_to(TESTS)
        if not folder.parts or folder.parts[0] in BESIDE | OTHERS:
            continue
        subject = path.stem.removeprefix("test_")
        modules = [module.stem for module in (PACKAGE / folder).glob("*.py")]
        if not any(subject == module or subject.startswith(f"{module}_") for module in modules):
            strangers.append(path.relative_to(TESTS).as_posix())
    assert strangers == []
