"""The built wheel has all of the package and works: the editable install that tests run on hides what it lacks."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an installation of the wheel puts on the path."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def test_it_has_every_file(unpacked: Path) -> None:
    """Modules, templates and styles, the marker for types, and mitmproxy's entry."""
    source = ROOT / "addons"
    expected = {path.relative_to(source) for path in source.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    found = {path.relative_to(unpacked) for path in unpacked.rglob("*") if path.is_file()}
    assert {path for path in found if ".dist-info" not in path.parts[0]} == expected


def test_it_works_elsewhere(unpacked: Path, tmp_path: Path) -> None:
    """Away from the sources a command runs, and it is the wheel's that runs."""
    code = (
        "import sys, tokgate; from tokgate.cli.main import main; print(tokgate.__file__); sys.exit(main(sys.argv[1:]))"
    )
    query = ["explain", "--policies", str(ROOT / "policies"), "--client", "127.0.0.1", "--host", "www.tiktok.com"]
    done = subprocess.run(
        [sys.executable, "-c", code, *query],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(unpacked)},
        capture_output=True,
        text=True,
        check=True,
    )
    where, decision = done.stdout.splitlines()[:2]
    assert (where, decision) == (str(unpacked / "tokgate/__init__.py"), "block: 127.0.0.1 www.tiktok.com (ban-block)")
