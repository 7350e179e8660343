"""docs/examples/commented.yaml: valid, of the same mind as its tests, and without a key that it doesn't explain."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel
from whenever import Instant

from tokgate.config.diagnostics import render
from tokgate.config.format.policy_file import PolicyFile
from tokgate.config.loader import load
from tokgate.policy.decision import Verdict
from tokgate.policy.snapshot import compile_policy
from tokgate.traffic.policy_tests import run_tests

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "commented.yaml"


def models(annotation: object) -> Iterator[type[BaseModel]]:
    """The models in an annotation, and those in their fields."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        for field in annotation.model_fields.values():
            yield from models(field.annotation)
    for part in get_args(annotation):
        yield from models(part)


def test_it_is_valid_and_its_tests_pass() -> None:
    """Whoever copies from it copies nothing that is refused or warned of; each verdict is shown."""
    loaded = load(EXAMPLE, Instant.from_utc(2027, 1, 1))
    assert [render(each) for each in loaded.diagnostics] == []
    assert loaded.policy is not None
    results = run_tests(compile_policy(loaded.policy), loaded.tests)
    assert [f"{result.test.origin}: {result.decision}" for result in results if not result.passed] == []
    assert {result.test.expect for result in results} == set(Verdict)


@pytest.mark.parametrize("model", dict.fromkeys(models(PolicyFile)), ids=lambda model: model.__name__)
def test_every_key_is_in_it(model: type[BaseModel]) -> None:
    """A key that the format gains is added here, in use or commented out."""
    text = EXAMPLE.read_text()
    keys = [field.alias or name for name, field in model.model_fields.items()]
    assert keys
    assert [key for key in keys if not re.search(rf"[\s{{]{re.escape(key)}:", text)] == []
