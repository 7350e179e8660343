"""What `make release` writes, and the workflows that call it."""

import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))

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
    """It names each pinned requirement with version and hashes, and what it is the bill of."""
    bill = json.loads((released / "tokgate.cdx.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    told = bill["metadata"]["component"]
    assert (told["name"], told["version"]) == ("tokgate", PROJECT["version"])
    pinned = re.findall(r"^([a-z0-9-]+)==([^ ;]+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert {(each["name"], each["version"]) for each in bill["components"]} == set(pinned)
    for each in bill["components"]:
        assert any(reference.get("hashes") for reference in each["externalReferences"]), each["name"]


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
