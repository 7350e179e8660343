"""docs/examples/commented.yaml: valid, of the same mind as its tests, and without a key that it doesn't explain."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel
from whenever import Instant

from labs.builders import valid
from tokgate.config.diagnostics import render
from tokgate.config.format.policy_file import PolicyFile
from tokgate.config.loader import load
from tokgate.policy.decision import Verdict
from tokgate.policy.snapshot import compile_policy
from tokgate.traffic.policy_tests import run_tests

EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "commented.yaml"


def models(annotation: object) -> Iterator[type[BaseModel]]:
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
    results = run_tests(compile_policy(valid(loaded)), loaded.tests)
    assert [f"{result.test.origin}: {result.decision}" for result in results if not result.passed] == []
    assert {result.test.expect for result in results} == set(Verdict)


@pytest.mark.parametrize("model", dict.fromkeys(models(PolicyFile)), ids=lambda model: model.__name__)
def test_every_key_is_in_it(model: type[BaseModel]) -> None:
    """A key that the format gains is added here, in use or commented out."""
    text = EXAMPLE.read_text()
    keys = [field.alias or name for name, field in model.model_fields.items()]
    assert keys
    assert [key for key in keys if not re.search(rf"[\s{{]{re.escape(key)}:", text)] == []


def test_what_it_offers_instead_is_allowed(tmp_path: Path) -> None:
    """Of a line as ``clients: plain  # or `pseudonym` ``, each word after `or` may stand in place of the value."""
    offer = re.compile(
        r"^ +(?P<key>\w+): (?P<value>[\w-]+) +#[^\n]*\bor (?P<words>`[\w-]+`(?:, `[\w-]+`)*)", re.MULTILINE
    )
    text = (
        EXAMPLE.read_text()
        .replace("{file: commented-names.txt}", "x.example")
        .replace("federal-devices/", f"{EXAMPLE.parent}/federal-devices/")
    )
    offers = list(offer.finditer(text))
    assert offers
    for found in offers:
        for word in re.findall(r"[\w-]+", found["words"]):
            start, end = found.span("value")
            copy = tmp_path / "policy.yaml"
            copy.write_text(text[:start] + word + text[end:])
            assert load(copy, Instant.from_utc(2027, 1, 1)).policy is not None, f"{found['key']}: {word}"
