"""What `make release` writes, and the workflows that call it."""

import json
import os
import re
import runpy
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
SBOM = runpy.run_path(str(ROOT / "deploy/sbom.py"))

READY = ("-o", ".venv/.ready", "-o", ".venv/.runtime")
"""What runs these tests is installed."""


def release(folder: Path) -> Path:
    quiet = os.environ | {"PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        ["make", *READY, "release", f"DIST={folder}"], cwd=ROOT, env=quiet, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with a release."""
    return release(tmp_path_factory.mktemp("release") / "dist")


def test_its_files(released: Path) -> None:
    """Wheel, source archive and SBOM, whose SHA-256 stand in a file that `sha256sum` reads."""
    name = f"tokgate-{PROJECT['version']}"
    wheel, source = f"{name}-py3-none-any.whl", f"{name}.tar.gz"
    assert {path.name for path in released.iterdir()} == {wheel, source, "tokgate.cdx.json", "SHA256SUMS"}
    told = (released / "SHA256SUMS").read_text()
    assert {line.split()[1] for line in told.splitlines()} == {wheel, source, "tokgate.cdx.json"}
    subprocess.run(["sha256sum", "--check", "--strict", "SHA256SUMS"], cwd=released, check=True, capture_output=True)
    assert "tokgate/py.typed" in zipfile.ZipFile(released / wheel).namelist()
    with tarfile.open(released / source) as archive:
        names = set(archive.getnames())
    wanted = ("Makefile", "requirements.lock", "deploy/deb/build.sh", "deploy/compose/gateway.yaml", ".dockerignore")
    assert {f"{name}/{each}" for each in wanted} <= names


def test_the_same_source_gives_the_same_octets(released: Path, tmp_path: Path) -> None:
    """Whoever builds it again can compare."""
    assert (release(tmp_path / "again") / "SHA256SUMS").read_text() == (released / "SHA256SUMS").read_text()


def test_the_bill_of_materials(released: Path) -> None:
    """It names each requirement of this Python with version, hashes, licence and supplier, and which needs which."""
    bill = json.loads((released / "tokgate.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    told = bill["metadata"]["component"]
    assert (told["name"], told["version"], told["supplier"]) == ("tokgate", PROJECT["version"], SBOM["OWN"])
    lines = re.findall(r"^([a-z0-9-]+==[^\\\n]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    pinned = [each for each in map(Requirement, lines) if each.marker is None or each.marker.evaluate()]
    found = {(canonicalize_name(each["name"]), f"=={each['version']}") for each in bill["components"]}
    assert found == {(each.name, str(each.specifier)) for each in pinned}
    for each in bill["components"]:
        assert any(reference.get("hashes") for reference in each["externalReferences"]), each["name"]
        assert each["licenses"], each["name"]
        assert each["supplier"]["name"], each["name"]
    edges = {each["ref"]: each["dependsOn"] for each in bill["dependencies"]}
    reached, further = set[str](), [told["bom-ref"]]
    while further:
        if (ref := further.pop()) not in reached:
            reached.add(ref)
            further += edges[ref]
    assert reached == {told["bom-ref"], *(each["bom-ref"] for each in bill["components"])}


@pytest.mark.parametrize(
    ("said", "name", "contact"),
    [
        ({"author": "Ann", "author_email": "ann@example.org"}, "Ann", [{"email": "ann@example.org"}]),
        (
            {"author_email": '"Ann B. Cee" <ann@example.org>, Dee <dee@example.org>'},
            "Ann B. Cee, Dee",
            [{"name": "Ann B. Cee", "email": "ann@example.org"}, {"name": "Dee", "email": "dee@example.org"}],
        ),
        (
            {"author": "Ann", "maintainer": "Eve", "maintainer_email": "Dee <dee@example.org>"},
            "Eve, Dee",
            [{"name": "Dee", "email": "dee@example.org"}],
        ),
        ({"author": "Ann", "author_email": "Ann <a@example.org>"}, "Ann", [{"name": "Ann", "email": "a@example.org"}]),
        ({"author_email": "ann@example.org"}, "ann@example.org", [{"email": "ann@example.org"}]),
    ],
    ids=["name-and-address", "addresses", "maintainer", "twice", "no-name"],
)
def test_a_supplier(said: dict[str, str], name: str, contact: list[dict[str, str]]) -> None:
    """Who maintains it stands before who wrote it, and each name once."""
    assert SBOM["supplier"](said) == {"name": name, "contact": contact}
    assert SBOM["supplier"]({"author": "Ann"}) == {"name": "Ann"}
    assert SBOM["supplier"]({}) is None


@pytest.fixture
def environment(tmp_path: Path) -> Path:
    """Packages with and without an author, a licence, and a requirement that only an extra has."""
    folder = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python3*/site-packages")
    for name, fields in {
        "one": "Author: Ann\nLicense-Expression: MIT\nRequires-Dist: Two\nRequires-Dist: three; extra == 'more'\n",
        "two": "License-Expression: MIT\nRequires-Dist: three[more]\nRequires-Dist: one; sys_platform == 'win32'\n",
        "three": "Provides-Extra: more\nRequires-Dist: one; extra == 'more'\n",
    }.items():
        (packages / f"{name}-1.dist-info").mkdir()
        metadata = f"Metadata-Version: 2.4\nName: {name}\nVersion: 1\n{fields}"
        (packages / f"{name}-1.dist-info" / "METADATA").write_text(metadata)
        (packages / f"{name}-1.dist-info" / "RECORD").write_text("three-1.dist-info/sboms/Three.cyclonedx.json,,\n")
    own = {"author": "Eve <eve@example.org>", "licenses": [{"expression": "ISC"}]}
    (packages / "three-1.dist-info" / "sboms").mkdir()
    (packages / "three-1.dist-info" / "sboms" / "Three.cyclonedx.json").write_text(
        json.dumps({"metadata": {"component": own}})
    )
    return folder


def test_the_bill_of_an_environment(environment: Path, tmp_path: Path) -> None:
    """As of package and image: a package's own SBOM says what its metadata doesn't, and edges are what is needed."""
    assert SBOM["main"](environment, tmp_path / "bill.json") == 0
    bill = json.loads((tmp_path / "bill.json").read_text())
    assert {each["name"]: each["supplier"] for each in bill["components"]} == {
        "one": {"name": "Ann"},
        "two": SBOM["INDEX"],
        "three": {"name": "Eve", "contact": [{"name": "Eve", "email": "eve@example.org"}]},
    }
    (three,) = (each for each in bill["components"] if each["name"] == "three")
    assert three["licenses"] == [{"expression": "ISC"}]
    assert {each["ref"]: each["dependsOn"] for each in bill["dependencies"]} == {
        "root-component": [],
        "one==1": ["two==1"],
        "two==1": ["three==1"],
        "three==1": ["one==1"],
    }


def test_a_bill_of_what_is_not_installed(environment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another version than the pinned one, or none, is no bill of the pinned ones; a mark for other systems is none."""
    lock = tmp_path / "requirements.lock"
    lines = ("one==1", "two==2", "four==1", "five==1 ; sys_platform == 'win32'")
    lock.write_text("".join(f"{line} \\\n    --hash=sha256:{'0' * 64}\n" for line in lines))
    assert SBOM["main"](environment, tmp_path / "bill.json", lock) == 1
    assert re.findall(r"pins (\S+), which", capsys.readouterr().err) == ["two==2", "four==1"]
    assert not (tmp_path / "bill.json").exists()


def test_an_audit_of_nothing_fails() -> None:
    """Where an index tells of no vulnerabilities, pip-audit alone skips a requirement, finds nothing, and succeeds."""
    line = subprocess.run(
        ["make", *READY, "--dry-run", "audit"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert "--strict" in line.split()


@pytest.mark.parametrize(
    ("kind", "files"),
    [
        pytest.param("github-workflows", [*WORKFLOWS, ROOT / "deploy/github/policies.yml"], id="workflows"),
        pytest.param("compose-spec", sorted((ROOT / "deploy/compose").glob("*.yaml")), id="compose"),
    ],
)
def test_files_for_others(kind: str, files: list[Path]) -> None:
    """Workflows and compose files are as their programs want them."""
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", f"vendor.{kind}", *map(str, files)]
    done = subprocess.run(check, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_workflows_call_what_there_is() -> None:
    """Each target of `make` exists, and each program of ours."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    steps = [
        step.get("run", "")
        for path in WORKFLOWS
        for job in yaml.safe_load(path.read_text())["jobs"].values()
        for step in job["steps"]
    ]
    asked = [re.match(r"make PYTHON=\S+((?: [a-z]+(?![A-Z_=]))+)", step) for step in steps]
    called = {target for found in asked if found for target in found[1].split()}
    assert called <= targets
    assert {"release", "audit", "deb", "image"} <= called
    programs = [path for step in steps for path in re.findall(r"(?:deploy|\.ci)/[a-z/.]+", step)]
    assert programs
    assert all((ROOT / path).exists() for path in programs)


def test_every_python_is_tried() -> None:
    """Those that the package names are those of the matrix."""
    named = re.findall(r"Python :: (3\.\d+)$", "\n".join(PROJECT["classifiers"]), re.MULTILINE)
    jobs = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]
    assert jobs["unit"]["strategy"]["matrix"]["python"] == named


def test_actions_are_pinned() -> None:
    """A tag can be moved to other code, a digest can't; the version stands behind it for whoever updates it."""
    used = [
        line
        for path in (*WORKFLOWS, ROOT / "deploy/github/policies.yml")
        for line in re.findall(r"uses: (.*)$", path.read_text(), re.MULTILINE)
    ]
    assert used
    assert [line for line in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[\d.]+", line)] == []
