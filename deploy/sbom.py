"""The SBOM (CycloneDX) of a Python environment: licences, edges, and who supplies each component.

    deploy/sbom.py ENVIRONMENT OUTPUT [LOCK]

cyclonedx-py writes what is installed. A supplier is who maintains the package by its own metadata, else its author,
else the index. With LOCK, requirements with hashes, the SBOM is of what they pin for this Python, with their hashes;
exit 1 where that is not what is installed.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Collection, Mapping
from email.utils import getaddresses
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any, Final

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT: Final = Path(__file__).parents[1]
OWN: Final = {"name": "The tokgate developers"}
INDEX: Final = {"name": "Python Package Index"}
"""Supplies what names neither maintainer nor author."""


def written(kind: str, of: Path) -> dict[str, Any]:
    """What cyclonedx-py writes of an environment or of requirements."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "bill.json")
        command = (sys.executable, "-m", "cyclonedx_py", kind, "--pyproject", ROOT / "pyproject.toml")
        options = ("--mc-type", "application", "--output-reproducible", "--no-validate", "--output-file", output, of)
        done = subprocess.run((*command, *options), capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(done.stderr)
        bill: dict[str, Any] = json.loads(output.read_text("utf-8"))
    return bill


def supplier(said: Mapping[str, Any]) -> dict[str, Any] | None:
    """Who maintains a package, else who wrote it: name and addresses, from its metadata as JSON."""
    for role in ("maintainer", "author"):
        name, addresses = said.get(role, ""), said.get(f"{role}_email", "")
        contact = [
            {field: text for field, text in (("name", who), ("email", address)) if text}
            for who, address in getaddresses([addresses])
            if address
        ]
        more = [each["name"] for each in contact if each.get("name", name) not in name]
        if told := ", ".join(filter(None, (name, *more))) or addresses:
            return {"name": told} | ({"contact": contact} if contact else {})
    return None


def own_component(package: Distribution) -> dict[str, Any]:
    """What the SBOM that a package brings (PEP 770) says of the package itself."""
    for path in package.files or ():
        told = path.name.removesuffix(".cyclonedx.json")
        if path.parent.name == "sboms" and canonicalize_name(told) == canonicalize_name(package.name):
            component: dict[str, Any] = json.loads(path.read_text("utf-8"))["metadata"]["component"]
            return component
    return {}


def holds(requirement: Requirement, extras: Collection[str] = ()) -> bool:
    """Whether this Python needs it, of a package of which these extras are wanted."""
    return requirement.marker is None or any(requirement.marker.evaluate({"extra": each}) for each in ("", *extras))


def pin(bill: dict[str, Any], lock: Path) -> bool:
    """Keep what a lock pins, and add its hashes; whether that is what is installed."""
    lines = [line.rstrip("\\\n ") for line in lock.read_text("utf-8").splitlines() if line[:1].isalnum()]
    wanted = {canonicalize_name(each.name): each for each in map(Requirement, lines) if holds(each)}
    installed = {canonicalize_name(each["name"]): each for each in bill["components"]}
    wrong = [
        str(each)
        for name, each in wanted.items()
        if name not in installed or installed[name]["version"] not in each.specifier
    ]
    for each in wrong:
        print(f"{lock} pins {each}, which is not installed: make setup", file=sys.stderr)
    hashed = {
        canonicalize_name(each["name"]): each["externalReferences"]
        for each in written("requirements", lock)["components"]
    }
    for name in wanted.keys() & installed.keys():
        installed[name]["externalReferences"] = [*installed[name].get("externalReferences", ()), *hashed[name]]
    bill["components"] = [each for name, each in installed.items() if name in wanted]
    return not wrong


def main(environment: Path, output: Path, lock: Path | None = None) -> int:
    """Write the SBOM."""
    bill = written("environment", environment)
    if lock is not None and not pin(bill, lock):
        return 1
    root = bill["metadata"]["component"]
    folders = map(str, environment.glob("lib/python3*/site-packages"))
    packages = {canonicalize_name(each.name): each for each in distributions(path=list(folders))}
    edges = {each["ref"]: each.get("dependsOn", []) for each in bill["dependencies"]}
    named = {each["bom-ref"]: canonicalize_name(each["name"]) for each in bill["components"]}
    kept = {root["bom-ref"]: [ref for ref in edges[root["bom-ref"]] if ref in named]}
    for each in bill["components"]:
        package = packages[canonicalize_name(each["name"])]
        own = own_component(package)
        each.setdefault("licenses", own.get("licenses", []))
        each["supplier"] = supplier(package.metadata.json) or supplier({"author_email": own.get("author", "")}) or INDEX
        # cyclonedx-py also draws an edge for an extra that nobody wants.
        extras = [told["value"] for told in each.get("properties", ()) if told["name"].endswith(":required-extra")]
        needs = {
            canonicalize_name(told.name) for told in map(Requirement, package.requires or ()) if holds(told, extras)
        }
        kept[each["bom-ref"]] = [ref for ref in edges[each["bom-ref"]] if named.get(ref) in needs]
    root["supplier"] = OWN
    bill["dependencies"] = [{"ref": ref, "dependsOn": needs} for ref, needs in kept.items()]
    text = json.dumps(bill, indent=2) + "\n"
    if (error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)) is not None:
        print(f"{output} would not be CycloneDX: {error}", file=sys.stderr)
        return 1
    output.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
