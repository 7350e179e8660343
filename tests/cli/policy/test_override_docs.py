"""docs/overrides.md: its examples load, and it names every reason for which an override ends."""

import re
from pathlib import Path

import pytest
from whenever import Instant

from tokgate.config.diagnostics import render
from tokgate.config.loader import load

ROOT = Path(__file__).parents[3]
DOCS = (ROOT / "docs" / "overrides.md").read_text()
AROUND = """\
version: 1
services: {tiktok: {names: {suffix: [tiktok.com]}}}
networks: {offices: {cidrs: [10.32.0.0/14], timezone: Europe/Brussels}}
bans: {offices-2027: {title: TikTok, services: [tiktok], networks: [offices], starts: 2027-03-01}}
"""


@pytest.mark.parametrize("text", re.findall(r"```yaml\n(.*?)```", DOCS, re.DOTALL))
def test_examples_load(text: str, tmp_path: Path) -> None:
    """Each example is a valid part of a policy."""
    (tmp_path / "a.yaml").write_text(AROUND)
    (tmp_path / "b.yaml").write_text(text)
    loaded = load(tmp_path, Instant.from_utc(2027, 3, 1, 10))
    assert loaded.diagnostics == (), "\n".join(map(render, loaded.diagnostics))


def test_reasons_of_an_end() -> None:
    source = (ROOT / "addons" / "tokgate" / "runtime" / "notified.py").read_text()
    reasons = set(re.findall(r'"((?:it|its|ended) [a-z ]+)"', source))
    assert len(reasons) == 4
    assert all(f"`{reason}`" in DOCS for reason in reasons)
