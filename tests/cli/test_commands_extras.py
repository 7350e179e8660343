"""An installation without extras: it enforces and explains, and says what to install for the rest."""

import json
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import pytest

from labs.command_line import Outcome
from tokgate.config.extras import MODULES, Extra, missing_extra

ROOT: Final = Path(__file__).parents[2]
PACKAGING: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
_HIDDEN: Final = """\
import json, sys
hidden, commands = json.loads(sys.argv[1])
sys.modules.update(dict.fromkeys(hidden))  # what is None there can't be found, and not be imported
from tokgate.cli.main import main
sys.exit(max(main(arguments) for arguments in commands))
"""


def without(modules: tuple[str, ...], *commands: Sequence[str]) -> Outcome:
    done = subprocess.run(
        [sys.executable, "-c", _HIDDEN, json.dumps([modules, commands])],
        capture_output=True,
        text=True,
        check=False,
    )
    return Outcome(done.returncode, done.stdout, done.stderr)


def distributions(requirements: list[str]) -> set[str]:
    return {requirement.partition(";")[0].split(">")[0].strip() for requirement in requirements}


EVERY: Final = tuple(sorted({module for modules in MODULES.values() for module in modules}))


def test_each_extra_names_its_modules() -> None:
    """What an error advises to install is what was missing: the packages of the extra that the base doesn't have."""
    base = distributions(PACKAGING["dependencies"])
    declared = dict(PACKAGING["optional-dependencies"])
    assert declared.pop("all") == [f"tokgate[{','.join(Extra)}]"]
    packages = metadata.packages_distributions()
    assert {extra: distributions(listed) - base for extra, listed in declared.items()} == {
        extra.value: {packages[module][0].lower().replace("_", "-") for module in modules}
        for extra, modules in MODULES.items()
    }


@pytest.mark.parametrize(
    ("extra", "commands"),
    [
        (Extra.REVIEW, ("review", "log summary", "log query", "log export --format csv")),
        (Extra.REPORT, ("log report -o march.html", "timeline --plot bans.svg")),
        (Extra.METRICS, ("run --metrics 9300", "run --mode regular --metrics 9300")),
        (Extra.GATEWAY, ("gateway check",)),
        (
            Extra.ANCHOR,
            ("log anchor -o a.txt --tsa https://tsa.example.org/", "log anchor --check a.txt --tsa-ca b.pem"),
        ),
    ],
)
def test_a_missing_extra_is_named(policies: Path, extra: Extra, commands: tuple[str, ...]) -> None:
    """Whoever runs a command without its extra learns in a line what to install; nothing was begun."""
    before = sorted(policies.parent.rglob("*"))
    done = without(MODULES[extra], *(command.split() for command in commands))
    missing, verb = ", ".join(MODULES[extra]), "is" if len(MODULES[extra]) == 1 else "are"
    expected = f"tokgate: {missing} {verb} missing: pip install -e '{ROOT}[{extra}]'\n"
    assert (done.code, done.out, done.err) == (3, "", expected * len(commands))
    assert sorted(policies.parent.rglob("*")) == before


@pytest.mark.parametrize(
    ("came_from", "expected"),
    [
        (None, "'./tokgate-7.1-py3-none-any.whl[phones]'"),
        ("file:///nowhere/tokgate-7.1-py3-none-any.whl", "'./tokgate-7.1-py3-none-any.whl[phones]'"),
        ("https://example.org/tokgate-7.1-py3-none-any.whl", "'./tokgate-7.1-py3-none-any.whl[phones]'"),
        ("file://{folder}/a%20wheel.whl", "'{folder}/a wheel.whl[phones]'"),
    ],
)
def test_what_to_install_is_ours(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, came_from: str | None, expected: str
) -> None:
    """The advice is the folder or wheel that this tokgate came from: of the name alone somebody else's may be had."""
    (tmp_path / "a wheel.whl").touch()
    url = None if came_from is None else json.dumps({"url": came_from.format(folder=tmp_path)})
    installed = SimpleNamespace(version="7.1", read_text=lambda name: url if name == "direct_url.json" else None)
    monkeypatch.setattr("importlib.metadata.distribution", lambda name: installed)
    monkeypatch.setattr("tokgate.config.extras.find_spec", lambda name: None)
    assert missing_extra(Extra.PHONES, "segno") == "segno is missing: pip install " + expected.format(folder=tmp_path)


def test_the_base_needs_no_extra(policies: Path) -> None:
    """A plain installation checks, explains, plans and reads its log: none of these asks for an extra."""
    (policies.parent / "block.ndjson").touch()
    commands = (
        *("check", "explain --client 192.0.2.7 --host www.clips.example.org", "timeline --json", "override list"),
        *("diff policies policies", "ruleset", "schema policy", "log tail", "log verify"),
        *(f"{command} --help" for command in ("run", "log", "review", "simulate", "status", "reload")),
    )
    done = without(EVERY, *(command.split() for command in commands))
    assert (done.code, "pip install" in done.err) == (0, False), done.err


def test_the_proxy_needs_no_extra() -> None:
    """A plain installation enforces: no module of the running proxy imports what an extra brings."""
    modules = "tokgate_addon, tokgate.service.start, tokgate.service.opener_process, tokgate.service.mitmproxy_process"
    code = f"import sys; sys.modules.update(dict.fromkeys({EVERY})); import {modules}"
    subprocess.run([sys.executable, "-c", code], check=True)


WINDOW: Final = "    windows: [{days: mon-fri, from: '08:00', to: '16:00', except_holidays: BE}]\n"
"""What takes the place of a ban's duration."""


def test_a_policy_that_needs_an_extra(policies: Path) -> None:
    """A policy that can't be enforced as written is an error at its place, and says what to install."""
    policy = policies / "policy.yaml"
    policy.write_text(policy.read_text().partition("tests:")[0].replace("    duration: P6M\n", WINDOW))
    assert without((), ["check"]).code == 0
    done = without(("holidays",), ["check"])
    assert done.code == 1
    assert f"holidays is missing: pip install -e '{ROOT}[calendar]' [missing-extra]" in done.out
