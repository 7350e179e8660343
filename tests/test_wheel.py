"""The built wheel has all of the package and works: the editable install that tests run on hides what it lacks."""

import os
import re
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from labs.ports import held_port
from labs.waiting import until

ROOT = Path(__file__).parents[1]
HOME = "https://example.org/tokgate"


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What an installation of the wheel puts on the path."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder)]
    subprocess.run(build, cwd=ROOT, env=os.environ | {"TOKGATE_REPOSITORY": HOME}, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "installed")
    return folder / "installed"


def test_it_has_every_file(unpacked: Path) -> None:
    """Modules, templates and styles, the catalogue of services, the marker for types, and mitmproxy's entry."""
    source = ROOT / "addons"
    expected = {path.relative_to(source) for path in source.rglob("*") if path.is_file() and path.suffix != ".pyc"}
    catalogue = (ROOT / "policies" / "services").glob("*.yaml")
    expected |= {Path("tokgate/catalogue") / path.name for path in catalogue}
    found = {path.relative_to(unpacked) for path in unpacked.rglob("*") if path.is_file()}
    assert {path for path in found if path.parts[0].rpartition(".")[2] not in ("dist-info", "data")} == expected
    assert [path.as_posix().partition("/")[2] for path in found if path.parts[0].endswith(".data")] == [
        "data/share/man/man1/tokgate.1"
    ]


def test_its_page_leads_somewhere(unpacked: Path) -> None:
    """On the page of a package index no link is relative: whoever builds a release says where the repository is."""
    (metadata,) = unpacked.glob("*.dist-info/METADATA")
    told = metadata.read_text()
    links = re.findall(r"\]\(([^)]+)\)|(?:src|srcset)=\"([^\"]+)", told)
    assert {link for pair in links for link in pair if link and not link.startswith("https://")} == set()
    assert f"Project-URL: Repository, {HOME}\n" in told


CODE = "import sys, tokgate; from tokgate.cli.main import main; print(tokgate.__file__); sys.exit(main(sys.argv[1:]))"


def command(*words: str) -> list[str]:
    """A command line of the wheel's tokgate, which first prints where it is from."""
    return [sys.executable, "-c", CODE, *words]


@pytest.fixture
def port() -> Iterator[int]:
    with held_port() as held:
        yield held


def test_a_first_day(unpacked: Path, tmp_path: Path, port: int) -> None:
    """From an empty folder to a ban that holds: the catalogue comes with the wheel, and a client is refused."""
    environment = os.environ | {"PYTHONPATH": str(unpacked)}
    for words in (("init", "--yes"), ("check", "--strict")):
        done = subprocess.run(
            command(*words), cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.startswith(f"{unpacked}/tokgate/__init__.py\n"), "not the sources' run"
    assert "from the catalogue, version " in done.stdout

    def refused() -> bytes | None:
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as client:
                client.sendall(b"CONNECT www.tiktok.com:443 HTTP/1.1\r\nHost: www.tiktok.com:443\r\n\r\n")
                return client.recv(4096)
        except OSError:
            return None

    options = ("--listen-port", str(port), "--confdir", str(tmp_path / "keys"))
    running = subprocess.Popen(
        command("run", *options), cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        answer = until("the proxy answers", refused)
    finally:
        running.terminate()
        running.wait(60)
    assert answer.startswith(b"HTTP/1.1 451 "), answer
    assert '"tiktok-ban"' in (tmp_path / "block.ndjson").read_text()
