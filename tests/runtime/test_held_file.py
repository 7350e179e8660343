"""The file of held bans: the same bans come back from it, over restarts, whatever they state."""

import threading
from pathlib import Path

import pytest
from whenever import Instant

from labs.builders import present, valid
from tokgate.blocklog import atomic_file
from tokgate.config.loader import load
from tokgate.config.reload.holder import PolicyError, PolicyHolder, open_policy
from tokgate.policy.analysis.definitions import redefinitions
from tokgate.policy.bans import Lifted
from tokgate.policy.decide import decide
from tokgate.policy.decision import Verdict
from tokgate.policy.snapshot import Policy
from tokgate.runtime import held_file
from tokgate.runtime.held_file import HeldFile

ROOT = Path(__file__).parents[2]
NOW = Instant.from_utc(2023, 5, 1)
POLICY = """\
services: {clips: {names: {suffix: [clips.example.org]}}}
networks:
  pool: {devices: {file: devices.csv}, timezone: Europe/Brussels}
  lab: {cidrs: [192.0.2.128/25]}
  here: {networks: [pool], except: [lab]}
  guests: {cidrs: [198.51.100.0/24]}
bans:
  kept: {title: Kept, services: [clips], networks: [guests], starts: 2023-03-10}
  gone: {title: Gone, services: [clips], networks: [here], starts: 2023-03-10}
exemptions:
  one: {ban: gone, clients: [192.0.2.9], until: 2043-01-01T00:00, reason: Press}
"""
REST = """\
services: {clips: {names: {suffix: [clips.example.org]}}}
networks: {guests: {cidrs: [198.51.100.0/24]}}
bans: {kept: {title: Kept, services: [clips], networks: [guests], starts: 2023-03-10}}
"""


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """A folder of policies with an inventory."""
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "policy.yaml").write_text(POLICY)
    (folder / "devices.csv").write_text(
        "name,address,mac,owner,paid_by\npc,192.0.2.7 192.0.2.9 192.0.2.129,00:53:00:aa:bb:cc,A,x+y\n"
    )
    return folder


@pytest.fixture
def held(tmp_path: Path, policies: Path) -> HeldFile:
    return HeldFile.of(tmp_path / "keys", policies)


def blocked(holder: PolicyHolder, client: str) -> bool:
    """Whether a client of the network `here` is refused."""
    return decide(holder.snapshot, client, "clips.example.org", NOW).verdict == "block"


async def emptied(policies: Path, held: HeldFile) -> PolicyHolder:
    """A holder of whose policy a ban has vanished, with all that it needs."""
    holder = open_policy(policies, NOW, held)
    (policies / "policy.yaml").write_text(REST)
    (policies / "devices.csv").unlink()
    assert (await holder.reload()).effects.held == ("gone",)
    return holder


async def test_lifted_by_command(policies: Path, held: HeldFile) -> None:
    """What was lifted stays so over restarts; when the files state the ban again, it can be held again."""
    holder = await emptied(policies, held)
    assert holder.lift(("gone", "kept", "never"), "alice") == ("kept", "never")
    reloaded = await holder.reload()
    assert (reloaded.effects.lifted, holder.snapshot.policy.held) == (("gone",), ())
    assert reloaded.snapshot.policy.lifted == (Lifted(ban="gone", reason="`tokgate reload --lift`", by="alice"),)
    assert not list(held.path.parent.glob("*.csv"))
    for again in (open_policy(policies, NOW, held), holder):
        assert not blocked(again, "192.0.2.7")
    (policies / "policy.yaml").write_text(POLICY.replace("devices: {file: devices.csv}", "cidrs: [192.0.2.0/24]"))
    await holder.reload()
    assert (held.read().lifted, blocked(holder, "192.0.2.7")) == ((), True)
    (policies / "policy.yaml").write_text(REST)
    await holder.reload()
    assert holder.snapshot.policy.held == ("gone",)


async def test_lifted_while_it_is_still_held(policies: Path, held: HeldFile) -> None:
    """What keeps bans before the next reload, a change of phase or a reload under way, undoes no command."""
    holder = await emptied(policies, held)
    holder.lift(("gone",), "alice")
    holder.keep(NOW)
    assert open_policy(policies, NOW, held).snapshot.policy.held == ()
    assert (await holder.reload()).effects.lifted == ("gone",)


async def test_lifted_while_bans_are_kept(
    policies: Path, held: HeldFile, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A command that comes while a reload keeps bans in a thread waits for it: neither undoes what the other wrote."""
    holder = await emptied(policies, held)
    held.path.unlink()  # as it is when a reload keeps the first one
    lifting = threading.Thread(target=holder.lift, args=(("gone",), "alice"))
    read = HeldFile.read

    def interrupted(self: HeldFile) -> Policy:
        kept = read(self)
        if threading.current_thread() is not lifting and not lifting.ident:
            lifting.start()
            lifting.join(0.1)  # which it does not end in, since it waits
        return kept

    monkeypatch.setattr(HeldFile, "read", interrupted)
    holder.keep(NOW)
    lifting.join()
    assert (await holder.reload()).effects.lifted == ("gone",)
    assert not caplog.records


async def test_a_reload_that_lifts_nothing_writes_nothing(policies: Path, held: HeldFile) -> None:
    """`tokgate reload` without `--lift` leaves the file alone."""
    holder = await emptied(policies, held)
    written = held.path.stat().st_ino
    assert holder.lift((), "alice") == ()
    assert held.path.stat().st_ino == written


async def test_who_follows_holds_the_same_and_writes_nothing(policies: Path, held: HeldFile) -> None:
    """An opener reads the policy by itself, and may neither lift a ban nor bring one back that was lifted."""
    before = open_policy(policies, NOW)
    opener = PolicyHolder(policies, before.snapshot, before.loaded, held=held, follows=True)
    holder = await emptied(policies, held)
    written = held.path.read_bytes()
    await opener.reload()
    assert opener.snapshot.version == holder.snapshot.version
    holder.lift(("gone",), "alice")
    for each in (holder, opener):
        await each.reload()
    assert opener.snapshot.version == holder.snapshot.version
    assert opener.snapshot.policy.held == ()
    assert written != held.path.read_bytes()


@pytest.mark.parametrize("content", ["bans: {gone: {title: x}}", "bans: [", "\x00", "[]", "bans: {gone: 1}"])
def test_a_file_that_is_no_longer_valid(
    held: HeldFile, policies: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A damaged file is told of, and keeps nobody from starting."""
    held.path.parent.mkdir()
    held.path.write_text(content)
    assert open_policy(policies, NOW, held).snapshot.policy.held == ()
    assert str(held.path) in caplog.text


@pytest.mark.parametrize(
    "path",
    [
        "policies",
        "docs/examples/federal-devices",
        "docs/examples/commented.yaml",
        "tests/config/data/ok/every-key.yaml",
    ],
)
def test_whatever_a_policy_states_comes_back(path: str, tmp_path: Path) -> None:
    """Whatever keys it has, they are the same after a restart."""
    policy, file = valid(load(ROOT / path, NOW)), HeldFile(tmp_path / "held-x.yaml")
    file.write_enforced(policy, ())
    last = present(file.last())
    assert list(redefinitions(policy, last)) == []
    assert (last.settings, last.stated["settings"]) == (policy.settings, policy.stated["settings"])


def restarted(folder: Path, confdir: Path, now: Instant = NOW) -> PolicyHolder:
    """A start of tokgate: it reads the policy, and keeps what it enforces."""
    holder = open_policy(folder, now, HeldFile.of(confdir, folder))
    holder.keep(now)
    return holder


def test_a_ban_that_vanishes_while_stopped(policies: Path, tmp_path: Path) -> None:
    """It is held at the next start, and at those after it, until the files say that it is lifted; no other policy's."""
    first = restarted(policies, tmp_path)
    (policies / "policy.yaml").write_text(REST)
    for holder in (restarted(policies, tmp_path), restarted(policies, tmp_path)):
        assert holder.snapshot.policy.held == ("gone",)
        assert holder.snapshot.policy.networks["here"].timezone == "Europe/Brussels"
        assert not redefinitions_of("gone", first, holder)
        assert decide(holder.snapshot, "192.0.2.7", "clips.example.org", NOW).verdict is Verdict.BLOCK
        for client in ("192.0.2.9", "192.0.2.129"):
            assert decide(holder.snapshot, client, "clips.example.org", NOW).verdict is Verdict.ALLOW
    (tmp_path / "other.yaml").write_text(REST)
    assert restarted(tmp_path / "other.yaml", tmp_path).snapshot.policy.held == ()
    (policies / "policy.yaml").write_text(REST + "lifted: {ban: gone, reason: Repealed}\n")
    assert restarted(policies, tmp_path).snapshot.policy.held == ()
    (policies / "policy.yaml").write_text(REST)
    assert restarted(policies, tmp_path).snapshot.policy.held == ()


def redefinitions_of(ban: str, old: PolicyHolder, new: PolicyHolder) -> list[str]:
    """The keys of a ban that differ."""
    found = redefinitions(old.snapshot.policy, new.snapshot.policy)
    return [str(each.key) for each in found if (each.kind, each.name) == ("bans", ban)]


def test_only_what_was_in_force_is_held(policies: Path, tmp_path: Path) -> None:
    """Not a ban that was announced when tokgate stopped, although it would have begun since; nor one that has ended."""
    before, later = Instant.from_utc(2023, 3, 1), Instant.from_utc(2023, 6, 1)
    restarted(policies, tmp_path, before)
    (policies / "policy.yaml").write_text(REST)
    assert restarted(policies, tmp_path, later).snapshot.policy.held == ()
    (policies / "policy.yaml").write_text(POLICY.replace("networks: [here], ", "networks: [here], duration: P3M, "))
    restarted(policies, tmp_path, NOW)
    (policies / "policy.yaml").write_text(REST)
    assert restarted(policies, tmp_path, Instant.from_utc(2023, 6, 9)).snapshot.policy.held == ("gone",)
    assert restarted(policies, tmp_path, Instant.from_utc(2023, 6, 11)).snapshot.policy.held == ()


def test_a_ban_that_began_while_running(policies: Path, tmp_path: Path) -> None:
    """The files of the last run follow phases, without another policy."""
    holder = restarted(policies, tmp_path, Instant.from_utc(2023, 3, 1))
    holder.keep(NOW)
    (policies / "policy.yaml").write_text(REST)
    assert restarted(policies, tmp_path).snapshot.policy.held == ("gone",)


BROKEN = "bans: {kept: {title: Kept}}\n"


@pytest.mark.parametrize("octets", [b"bans: [", b"\xff", b"", b"bans: {}\n"])
def test_damaged_files_of_the_last_run(
    policies: Path, tmp_path: Path, octets: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """They hold nothing, and with wrong files there is nothing to start with, as at a first start; it is told why."""
    restarted(policies, tmp_path)
    (enforced,) = tmp_path.glob("enforced-*.yaml")
    enforced.write_bytes(octets)
    (policies / "policy.yaml").write_text(BROKEN)
    with pytest.raises(PolicyError):
        restarted(policies, tmp_path)
    assert str(enforced) in caplog.text
    caplog.clear()
    (policies / "policy.yaml").write_text(REST)
    assert restarted(policies, tmp_path).snapshot.policy.held == ()
    assert "gone" in caplog.text


async def test_wrong_files_at_a_start(policies: Path, tmp_path: Path) -> None:
    """What was in force last stays so, settings and held bans too, until the files are right."""
    settings = "settings: {unknown_clients: block, overrides: {longest: PT8H}}\n"
    (policies / "policy.yaml").write_text(POLICY + settings)
    restarted(policies, tmp_path)
    (policies / "policy.yaml").write_text(REST + settings)
    before = restarted(policies, tmp_path).snapshot.policy
    (policies / "policy.yaml").write_text(BROKEN)
    for holder in (restarted(policies, tmp_path), restarted(policies, tmp_path)):
        policy = holder.snapshot.policy
        assert list(redefinitions(before, policy)) == []
        assert (policy.version, policy.held, policy.settings) == (before.version, ("gone",), before.settings)
        assert holder.failing_since == NOW
        assert [each.code for each in holder.errors] == [each.code for each in load(policies, NOW).errors]
        assert blocked(holder, "192.0.2.7")
        assert not blocked(holder, "192.0.2.9")
    assert (await holder.reload()).repeated
    (policies / "policy.yaml").write_text(REST + settings)
    assert (await holder.reload()).recovered
    assert (holder.last_error, holder.errors, holder.failing_since) == (None, (), None)


@pytest.mark.parametrize("phase", [Instant.from_utc(2022, 1, 1), NOW])
def test_the_last_policy_is_kept_whatever_is_in_force(policies: Path, tmp_path: Path, phase: Instant) -> None:
    """Also before any ban begins; nobody else may read it."""
    restarted(policies, tmp_path, phase)
    (policies / "policy.yaml").write_text(BROKEN)
    assert set(restarted(policies, tmp_path, phase).snapshot.policy.bans) == {"kept", "gone"}
    kept = [*tmp_path.glob("enforced-*")]
    assert len(kept) == 3
    assert not any(each.stat().st_mode & 0o007 for each in kept)


def test_power_lost_while_the_policy_is_kept(policies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one before it is whole, with the devices that it had."""
    before = restarted(policies, tmp_path).snapshot.policy
    (policies / "devices.csv").write_text("name,address,mac,owner,paid_by\nother,192.0.2.200,,A,x\n")

    def replace_lists_only(path: Path, content: bytes, mode: int) -> None:
        if path.suffix != ".csv":
            raise KeyboardInterrupt
        atomic_file.replace_file(path, content, mode)

    monkeypatch.setattr(held_file, "replace_file", replace_lists_only)
    with pytest.raises(KeyboardInterrupt):
        restarted(policies, tmp_path)
    monkeypatch.undo()
    (policies / "policy.yaml").write_text(BROKEN)
    after = restarted(policies, tmp_path).snapshot.policy
    assert [each.name for each in after.networks["pool"].devices] == ["pc"]
    assert after.version == before.version
