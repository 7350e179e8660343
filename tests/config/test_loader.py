"""Loading as a whole: what a policy becomes, what does not change it, and texts nobody foresaw."""

import gc
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from whenever import Instant, Time

from labs.builders import valid
from tokgate.config.diagnostics import Code, render
from tokgate.config.loader import Loaded, load
from tokgate.policy.analysis.definitions import redefinitions
from tokgate.policy.decide import decide
from tokgate.policy.decision import Reason
from tokgate.policy.services import NamePattern, PatternKind
from tokgate.policy.settings import (
    Settings,
)
from tokgate.policy.snapshot import NOTHING, Policy, compile_policy

EVERY_KEY = Path(__file__).parent / "data" / "ok" / "every-key.yaml"
Say = Callable[[str], Loaded]


@pytest.fixture(scope="module")
def every_key() -> Policy:
    return valid(load(EVERY_KEY, Instant.from_utc(2023, 5, 1)))


def test_every_key(every_key: Policy) -> None:
    """Each key becomes what it says. With TOKGATE_GOLDEN=write the statements are written anew."""
    golden = EVERY_KEY.with_suffix(".statements")
    said = (
        f"{each.kind}.{each.name}{f'.{each.key}' if each.key else ''}: {', '.join(each.added)}\n"
        for each in redefinitions(NOTHING, every_key)
    )
    stated = "".join(said)
    if os.environ.get("TOKGATE_GOLDEN") == "write":
        golden.write_text(stated)
    assert stated == golden.read_text()


def test_settings_that_are_not_given(say: Say, minimal: str) -> None:
    """Saying nothing is the same as the core's defaults."""
    settled = valid(say(minimal)).settings
    assert (settled.overrides, settled.reminders) == (Settings().overrides, Settings().reminders)


def test_files_as_they_would_be(folder: Path, minimal: str, now: Instant) -> None:
    """A proposed file counts beside those on the disk, or in place of one; nothing is written."""
    extra = b"networks: {guests: {cidrs: [198.51.100.0/24]}}\n"
    beside = load(folder, now, proposed={folder / "deep" / "b.yaml": extra})
    assert set(valid(beside).networks) == {"offices", "guests"}
    assert beside.files == (folder / "a.yaml", folder / "deep" / "b.yaml")
    instead = load(folder, now, proposed={folder / "a.yaml": minimal.encode() + b"nonsense: 1\n"})
    assert [each.code for each in instead.errors] == [Code.UNKNOWN_KEY]
    assert [path.name for path in folder.iterdir()] == ["a.yaml"]


def test_origins_lead_to_the_file(every_key: Policy) -> None:
    """Everything knows where it was said."""
    lines = EVERY_KEY.read_text().splitlines()
    for name, ban in every_key.bans.items():
        assert ban.origin is not None
        assert lines[ban.origin.line - 1][ban.origin.column - 1 :].startswith(f"{name}:")
    for pattern in every_key.services["tiktok"].patterns:
        assert isinstance(pattern, NamePattern)
        assert pattern.origin is not None
        held = Path(pattern.origin.file).read_text().splitlines()
        written = held[pattern.origin.line - 1][pattern.origin.column - 1 :]
        assert pattern.kind is not PatternKind.EXACT or written.lower().startswith(pattern.value)


def test_unquoted_words_mean_what_they_say() -> None:
    """22:00 is a time, NO is Norway, and a date is a date, without quotes."""
    policy = valid(load(EVERY_KEY.with_name("unquoted.yaml"), Instant.from_utc(2023, 5, 1)))
    ban = policy.bans["2023"]
    assert ban.title == "2023-03-10"
    assert ban.windows[0].start == Time(22)
    assert ban.windows[0].except_holidays == ("NO",)
    decision = decide(compile_policy(policy), "192.0.2.1", "www.on.example", Instant.from_utc(2023, 5, 2, 7))
    assert decision.reason is Reason.NO_SERVICE  # `on` is a label under a public suffix, `example` is none
    decision = decide(compile_policy(policy), "192.0.2.1", "www.on.org", Instant.from_utc(2023, 5, 2, 7))
    assert decision.reason is Reason.BAN_BLOCK


def test_version_depends_on_what_is_said_alone(say: Say, minimal: str, tmp_path: Path, now: Instant) -> None:
    """Comments, formatting, order and the split into files don't change the version; any content does."""
    version = valid(say(minimal)).version
    rewritten = minimal.replace("version: 1\n", "# A comment\n").replace("[tiktok.com]", '[\n  "tiktok.com",\n]')
    assert valid(say(rewritten)).version == version
    folder = tmp_path / "split"
    folder.mkdir()
    for number, line in enumerate(reversed(minimal.splitlines())):
        (folder / f"{number}.yaml").write_text(line)
    assert valid(load(folder, now)).version == version
    for old, new in (("tiktok.com", "tiktok.org"), ("2023-03-10", "2023-03-11"), ("192.0.2.0/24", "192.0.2.0/25")):
        assert valid(say(minimal.replace(old, new))).version != version
    assert valid(say(minimal + "settings: {on_error: allow}\n")).version != version


def test_byte_order_mark_and_line_ends(tmp_path: Path, minimal: str, now: Instant) -> None:
    """Files from other systems load, and their columns are right."""
    path = tmp_path / "windows.yaml"
    path.write_bytes(b"\xef\xbb\xbf" + minimal.replace("\n", "\r\n").encode())
    valid(load(path, now))
    path.write_bytes(b"\xef\xbb\xbfbanns: {}\r\nbans:\r\n\ta: 1\r\n")
    (tab,) = load(path, now).errors
    assert (tab.code, tab.origin.line, tab.line) == (Code.TAB, 3, "\ta: 1")


def test_empty_file_is_a_warning(folder: Path, now: Instant) -> None:
    """An empty file, or one with nothing but a comment or dashes, says nothing."""
    for name, text in (("b", ""), ("c", "# nothing\n"), ("d", "---\n"), ("e", "~\n")):
        (folder / f"{name}.yaml").write_text(text)
    loaded = load(folder, now)
    assert [each.code for each in loaded.diagnostics] == [Code.EMPTY_FILE] * 4
    valid(loaded)


def test_an_entry_with_errors_is_not_unknown(say: Say, minimal: str) -> None:
    """A service that is wrong is still a service: no error follows from another."""
    loaded = say(minimal.replace("tiktok.com", "co.uk"))
    assert [each.code for each in loaded.errors] == [Code.PUBLIC_SUFFIX]


def test_a_section_given_twice_is_one_error(say: Say, minimal: str) -> None:
    """What stands under a section that is given twice is not unknown, and is checked."""
    loaded = say(f"{minimal}services: {{other: {{names: {{suffix: [com]}}}}}}\n")
    assert [each.code for each in loaded.errors] == [Code.DUPLICATE_KEY, Code.PUBLIC_SUFFIX]
    again = minimal.replace("[tiktok]", "[other]")
    loaded = say(f"{again}services: {{other: {{names: {{suffix: [example.org]}}}}}}\n")
    assert [each.code for each in loaded.errors] == [Code.DUPLICATE_KEY]


def test_thousands_of_unknown_names(say: Say) -> None:
    """Near misses are looked for within a bound: a policy of nothing but typos is reported in seconds."""
    networks = "".join(f"  network-{n}: {{cidrs: [10.{n >> 8}.{n & 255}.0/24]}}\n" for n in range(10_000))
    bans = "".join(
        f"  b{n}: {{title: x, services: [s], networks: [netwerk-{n}], starts: 2023-03-10}}\n" for n in range(500)
    )
    start = time.process_time()
    loaded = say(f"services: {{s: {{names: {{suffix: [example.org]}}}}}}\nnetworks:\n{networks}bans:\n{bans}")
    assert time.process_time() - start < 30
    assert {each.code for each in loaded.errors} == {Code.UNKNOWN_NETWORK}
    assert "did you mean `network-0`?" in loaded.errors[0].message


def test_a_hundred_thousand_names(tmp_path: Path, now: Instant) -> None:
    """A policy of 3 MB loads in seconds, and leaves the garbage collector as it was."""
    with (tmp_path / "a.yaml").open("w") as file:
        file.write("services:\n")
        for service in range(1000):
            file.write(f"  s{service}:\n    names:\n      suffix:\n")
            file.writelines(f"        - n{service}x{name}.example.org\n" for name in range(100))
    with (tmp_path / "b.yaml").open("w") as file:
        file.write("networks:\n")
        file.writelines(
            f"  n{n}: {{cidrs: [10.{n >> 8}.{n & 255}.0/24], timezone: Europe/Brussels}}\n" for n in range(10_000)
        )
        file.write("bans:\n")
        for n in range(1000):
            networks = ", ".join(f"n{n * 10 + k}" for k in range(10))
            file.write(f"  b{n}: {{title: b, services: [s{n}], networks: [{networks}], starts: 2023-03-10}}\n")
    start = time.process_time()
    policy = valid(load(tmp_path, now))
    assert time.process_time() - start < 30  # about 1.3 on an idle machine
    assert sum(len(service.patterns) for service in policy.services.values()) == 100_000
    assert gc.isenabled()


def test_texts_by_language(say: Say, minimal: str) -> None:
    """A ban's texts may be given in the page's languages; the one that is stated first is the log's."""
    policy = valid(say(minimal.replace("title: TikTok at work", "title: {nl: Op het werk, en: At work}")))
    ban = policy.bans["tiktok"]
    assert (ban.title, ban.said("title", "en"), ban.said("title", "fr", "en")) == ("Op het werk", "At work", "At work")
    assert ban.said("reason", "en") is None
    for wrong in ("{pl: W pracy}", "{}", "{en: [x]}"):
        assert say(minimal.replace("title: TikTok at work", f"title: {wrong}")).policy is None


_PIECES = st.sampled_from(
    ["[", "]", "{", "}", ": ", ",", "\n", "\n  ", "- ", "&a ", "*a", "<<: *a", "~", "''", '"', "#", "\t", "!x ", "? ",
     "2023-03-10", "24:00", "P6M", "tiktok", "bans", "exemptions:", "networks:", "-1", "\u2028", "é", "|\n", "--- ",
     "10.0.0.0/8"]
)  # fmt: skip


@pytest.mark.parametrize("url", ["https://[", "https://www.tiktok.com]/", "https://:443/"])
def test_an_address_without_a_host_is_an_error(say: Say, minimal: str, url: str) -> None:
    """No exception, and no test of a name that nobody can ask for."""
    loaded = say(f"{minimal}\ntests:\n  - {{client: 192.0.2.1, url: '{url}', at: 2023-03-10T00:00, expect: allow}}\n")
    assert [each.code for each in loaded.errors] == [Code.BAD_VALUE]
    assert "is no web address" in loaded.errors[0].message


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(), pieces=st.lists(_PIECES, min_size=1, max_size=5), cut=st.integers(0, 20))
def test_broken_files_are_never_an_exception(say: Say, seed: int, pieces: list[str], cut: int) -> None:
    """Cut and splice the file that has every key: there is a policy that compiles, or there are errors with places."""
    text, chance = EVERY_KEY.read_text(), random.Random(seed)
    for piece in pieces:
        at = chance.randrange(len(text))
        text = text[:at] + piece + text[at + cut :]
    loaded = say(text)
    lines = text.count("\n") + text.count("\u2028") + 2
    assert all(render(each) and 1 <= each.origin.line <= lines for each in loaded.diagnostics)
    assert (loaded.policy is None) == bool(loaded.errors)
    if loaded.policy is not None:
        compile_policy(loaded.policy)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=300))
def test_any_bytes_are_never_an_exception(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(data)
    load(path, Instant.from_utc(2023, 5, 1))
