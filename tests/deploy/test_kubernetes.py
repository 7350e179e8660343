"""deploy/kubernetes: the manifests follow Kubernetes' schemas, and what they give tokgate is what it takes."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from whenever import Instant

from tokgate.cli.main import build_parser
from tokgate.config.loader import load
from tokgate.policy.snapshot import compile_policy
from tokgate.traffic.policy_tests import run_tests

FOLDER = Path(__file__).parents[2] / "deploy/kubernetes"
FILES = sorted(FOLDER.glob("*.yaml"))
VERSIONS = ("1.31", "1.34", "1.37")


def manifest(name: str) -> dict[str, Any]:
    """The one object in a file."""
    found: dict[str, Any] = yaml.safe_load((FOLDER / name).read_text())
    return found


def validate(data: dict[str, Any], version: str) -> None:
    """Raise unless it follows the schema of its kind; unknown keys are errors."""
    kubernetes = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate: make setup")
    kubernetes.validate(data, version, strict=True)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_manifests_follow_their_schemas(path: Path, version: str) -> None:
    """In each version of Kubernetes, with no key that the schema doesn't know."""
    validate(manifest(path.name), version)


def test_the_schemas_refuse_what_is_wrong() -> None:
    """A key that is misspelt, and a value of another type."""
    for wrong in ({"hostNetwrk": True}, {"hostNetwork": "yes"}):
        gateway = manifest("gateway.yaml")
        gateway["spec"]["template"]["spec"] |= wrong
        with pytest.raises(Exception, match=r"hostNetwrk|'yes'"):
            validate(gateway, VERSIONS[-1])


def test_the_policy_is_valid(tmp_path: Path) -> None:
    """No errors, no warnings, and its own tests pass."""
    data = manifest("policies.yaml")["data"]
    for name, text in data.items():
        (tmp_path / name).write_text(text)
    loaded = load(tmp_path, Instant.from_utc(2026, 12, 2))
    assert loaded.policy is not None
    assert not loaded.diagnostics
    results = [result.passed for result in run_tests(compile_policy(loaded.policy), loaded.tests)]
    assert results == [True, True]


def test_the_quota() -> None:
    """Where a pod of critical priority needs a quota in its namespace it has one; else it would never be created."""
    quota, pods = manifest("quota.yaml"), manifest("gateway.yaml")
    assert (
        quota["metadata"]["namespace"]
        == pods["metadata"]["namespace"]
        == manifest("namespace.yaml")["metadata"]["name"]
    )
    (scope,) = quota["spec"]["scopeSelector"]["matchExpressions"]
    assert (scope["scopeName"], scope["operator"]) == ("PriorityClass", "In")
    assert scope["values"] == [pods["spec"]["template"]["spec"]["priorityClassName"]]


def test_the_pod() -> None:
    """tokgate understands its arguments, and each of their paths is on a volume that is there."""
    pod = manifest("gateway.yaml")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    args = build_parser(("run",)).parse_args(container["args"])
    mounts = {each["mountPath"]: each["name"] for each in container["volumeMounts"]}
    assert set(mounts.values()) == {each["name"] for each in pod["volumes"]}
    for path in (args.policies, args.log, args.confdir):
        assert any(Path(path).is_relative_to(mount) for mount in mounts)
    assert args.gateway
    probe = container["readinessProbe"]["httpGet"]
    assert args.metrics == (probe["host"], probe["port"])
    config = {each["name"]: each.get("configMap", {}).get("name") for each in pod["volumes"]}
    assert config["policies"] == manifest("policies.yaml")["metadata"]["name"]
