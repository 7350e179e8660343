"""Writes a service file: whole or not at all, readable by every process, and never one that doesn't load."""

from pathlib import Path
from tempfile import TemporaryDirectory

from whenever import Instant

from tokgate.cli.exits import CommandError
from tokgate.cli.output_file import POLICY_MODE, becoming
from tokgate.config.loader import load


def write(path: Path, text: str) -> None:
    """Write the file. Raises CommandError where the text is no valid policy, and OSError."""
    _check(text)
    path.parent.mkdir(parents=True, exist_ok=True)
    with becoming(path) as draft:
        draft.write_text(text, encoding="utf-8")
    if path.is_file():
        path.chmod(POLICY_MODE)


def _check(text: str) -> None:
    with TemporaryDirectory(prefix="tokgate-") as folder:
        draft = Path(folder, "service.yaml")
        draft.write_text(text, encoding="utf-8")
        errors = load(draft, Instant.now()).errors
    if errors:
        raise CommandError(f"the file would not load: {errors[0].message} (line {errors[0].origin.line})")
