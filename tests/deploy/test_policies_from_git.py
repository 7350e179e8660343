"""Two gateways that follow one git repository, by the command of the unit in deploy/ha."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from labs.running_lab import POLICY, WITHOUT_BAN, Running, until
from tokgate.runtime.control_socket import ControlRequest, ask

HA: Final = Path(__file__).parents[2] / "deploy/ha"
ENVIRONMENT: Final = {
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_SYSTEM": "/dev/null",
    **{f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}


def git(folder: Path, *words: str) -> str:
    """What a git command in this folder says. Raises CalledProcessError."""
    command = ("git", "-C", str(folder), *words)
    return subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | ENVIRONMENT).stdout


class Repository:
    """A bare repository that both gateways follow, and an author's checkout, from which commits come."""

    def __init__(self, folder: Path) -> None:
        self.bare, self.work = folder / "policies.git", folder / "author"
        git(folder, "init", "--quiet", "--bare", "--initial-branch=main", str(self.bare))
        git(folder, "clone", "--quiet", str(self.bare), str(self.work))
        git(self.work, "checkout", "--quiet", "-B", "main")
        self.commit({"policy.yaml": POLICY})

    def commit(self, files: dict[str, dict[str, Any] | str]) -> str:
        """Publish these files and no others; the commit."""
        for old in self.work.glob("*.yaml"):
            old.unlink()
        for name, content in files.items():
            text = content if isinstance(content, str) else yaml.safe_dump(content)
            (self.work / name).write_text(text)
        git(self.work, "add", "--all")
        git(self.work, "commit", "--quiet", "--message", "Change")
        git(self.work, "push", "--quiet", "origin", "HEAD:main")
        return self.head(self.work)

    @staticmethod
    def head(folder: Path) -> str:
        """The commit that is checked out there."""
        return git(folder, "rev-parse", "HEAD").strip()


def take(checkout: Path) -> subprocess.CompletedProcess[str]:
    """Run what the timer runs, for this checkout."""
    (command,) = re.findall(r"^ExecStart=(.*)$", (HA / "tokgate-policies.service").read_text(), re.MULTILINE)
    words = [
        word.replace("/usr/local/sbin", str(HA)).replace("/etc/tokgate/policies", str(checkout))
        for word in command.split()
    ]
    return subprocess.run(words, check=False, capture_output=True, text=True, env=os.environ | ENVIRONMENT)


def state(running: Running) -> dict[str, Any]:
    """What its status says of the policy."""
    answer = ask(running.confdir, ControlRequest.STATUS)
    assert answer is not None
    found: dict[str, Any] = answer["policy"]
    return found


def refuses(running: Running, name: str) -> bool:
    """Whether a tunnel to this name is refused by a ban."""
    status, sock = running.connect(name, 443)
    sock.close()
    return " 403 " in status or " 451 " in status


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    """With a first policy."""
    return Repository(tmp_path)


@pytest.fixture
def checkouts(repository: Repository, tmp_path: Path) -> list[Path]:
    """One for each gateway."""
    folders = [tmp_path / name / "policies" for name in ("gw1", "gw2")]
    for each in folders:
        git(tmp_path, "clone", "--quiet", str(repository.bare), str(each))
    return folders


@pytest.fixture
def gateways(checkouts: list[Path]) -> Iterator[list[Running]]:
    """tokgate on each of the two checkouts."""
    with ExitStack() as stack:
        yield [stack.enter_context(closing(Running(each.parent, workers=1, policy=None))) for each in checkouts]


def with_ban_of(*domains: str) -> dict[str, Any]:
    """The policy with a ban for each of these domains besides."""
    services = {f"service{number}": {"names": {"suffix": [name]}} for number, name in enumerate(domains)}
    bans = {f"ban-{service}": POLICY["bans"]["ban"] | {"services": [service]} for service in services}
    return POLICY | {"services": POLICY["services"] | services, "bans": POLICY["bans"] | bans}


def test_a_ban_comes_to_both(repository: Repository, gateways: list[Running]) -> None:
    """An error changes nothing, and its place is said; the next commit is taken, and no file of one machine's own."""
    before = [(repository.head(each.policies), state(each)) for each in gateways]
    wrong = with_ban_of("videos.invalid")
    wrong["bans"]["ban-service0"]["networks"] = ["hree"]
    repository.commit({"policy.yaml": wrong})
    for each in gateways:
        done = take(each.policies)
        assert done.returncode == 1
        assert re.search(r"^policy\.yaml:[0-9]+:[0-9]+: error: .*hree", done.stdout, re.MULTILINE), done.stdout
        assert git(each.policies, "status", "--porcelain") == ""
        assert [path.name for path in each.policies.parent.glob("policies*")] == ["policies"]
    assert [(repository.head(each.policies), state(each)) for each in gateways] == before
    assert not any(refuses(each, "videos.invalid") for each in gateways)

    own = gateways[0].policies / "overrides" / "own.yaml"
    own.parent.mkdir()
    own.write_text("# of this machine\n")
    commit = repository.commit({"policy.yaml": with_ban_of("videos.invalid")})
    for each in gateways:
        for _ in range(2):
            done = take(each.policies)
            assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == ""  # without a new commit nothing is done
        assert repository.head(each.policies) == commit
        until("it refuses", partial(refuses, each, "videos.invalid"))
    assert own.exists()
    assert len({state(each)["version"] for each in gateways}) == 1


def test_an_error_that_a_machine_makes_itself(repository: Repository, checkouts: list[Path]) -> None:
    """What is checked is what would be in force: only the machine whose override a commit contradicts refuses it."""
    own = {"ban": "ban", "clients": ["127.0.0.9"], "until": "2099-12-31T00:00", "reason": "A test"}
    (checkouts[0] / "own.yaml").write_text(yaml.safe_dump({"exemptions": {"own": own}}))
    repository.commit({"policy.yaml": with_ban_of("videos.invalid")})
    assert [take(each).returncode for each in checkouts] == [0, 0]
    repository.commit({"policy.yaml": WITHOUT_BAN})
    first, second = (take(each) for each in checkouts)
    assert (first.returncode, second.returncode) == (1, 0), first.stdout + second.stdout
    assert re.search(r"^own\.yaml:[0-9:]+ error: .*`ban`", first.stdout, re.MULTILINE), first.stdout


def test_a_history_that_was_rewritten(repository: Repository, checkouts: list[Path]) -> None:
    """It is not followed: somebody has to look."""
    before = repository.commit({"policy.yaml": with_ban_of("videos.invalid")})
    assert take(checkouts[0]).returncode == 0
    git(repository.work, "commit", "--quiet", "--amend", "--message", "Another")
    git(repository.work, "push", "--quiet", "--force", "origin", "HEAD:main")
    done = take(checkouts[0])
    assert done.returncode != 0
    assert "fast-forward" in done.stderr
    assert repository.head(checkouts[0]) == before


def test_pulls_amid_reloads(repository: Repository, gateways: list[Running]) -> None:
    """Commits of many files come while reloads are asked for all the time: what is banned stays so, and others pass."""
    ended, asked = threading.Event(), []
    first = gateways[0]

    def reload() -> None:
        while not ended.is_set():
            asked.append(ask(first.confdir, ControlRequest.RELOAD) is not None)

    asker = threading.Thread(target=reload)
    asker.start()
    try:
        for number in range(4):
            services = {f"s{n}": {"names": {"suffix": [f"s{n}.invalid"]}} for n in range(number % 2, 40, 2)}
            files: dict[str, dict[str, Any] | str] = {
                f"{name}.yaml": {"services": {name: service}} for name, service in services.items()
            }
            ban = POLICY["bans"]["ban"] | {"services": ["clips", *services]}
            repository.commit({"policy.yaml": POLICY | {"bans": {"ban": ban}}, **files})
            done = take(first.policies)
            assert done.returncode == 0, done.stderr
            wanted, other = f"s{number % 2}.invalid", f"s{1 - number % 2}.invalid"
            until("the new one is in force", lambda: refuses(first, wanted) and first.refuses() and first.passes())  # noqa: B023
            assert not refuses(first, other)
    finally:
        ended.set()
        asker.join()
    assert asked
    assert all(asked)
    assert take(gateways[1].policies).returncode == 0
    until("both enforce the same", lambda: len({state(each)["version"] for each in gateways}) == 1)
    assert [state(each)["error"] for each in gateways] == [None, None]


def test_what_nobody_signed(repository: Repository, checkouts: list[Path]) -> None:
    """It is not taken where the checkout says so."""
    repository.commit({"policy.yaml": with_ban_of("videos.invalid")})
    git(checkouts[0], "config", "merge.verifySignatures", "true")
    first, second = (take(each) for each in checkouts)
    assert (first.returncode != 0, second.returncode) == (True, 0)
    assert "does not have a GPG signature" in first.stderr


def test_readme(repository: Repository, tmp_path: Path) -> None:
    """Its commands, as they stand, on a machine where `tokgate init` has written a policy, and a pull after them."""
    (block,) = re.findall(r"```sh\n(.*?)```", (HA / "README.md").read_text(), re.DOTALL)
    machine, programs = tmp_path / "machine", tmp_path / "programs"
    for folder in ("etc/tokgate/policies", "etc/systemd/system", "usr/local/sbin"):
        (machine / folder).mkdir(parents=True)
    (machine / "etc/tokgate/policies/policy.yaml").write_text(yaml.safe_dump(POLICY))
    programs.mkdir()
    (programs / "sudo").write_text('#!/bin/sh\nexec "$@"\n')
    (programs / "systemctl").write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    for each in programs.iterdir():
        each.chmod(0o755)
    typed = re.sub(r" (/etc/|/usr/)", rf" {machine}\1", block).replace(
        "https://git.example.org/policies.git", str(repository.bare)
    )
    environment = os.environ | ENVIRONMENT | {"GIT_CONFIG_SYSTEM": str(tmp_path / "gitconfig")}
    environment["PATH"] = f"{programs}:{ENVIRONMENT['PATH']}"
    subprocess.run(("sh", "-ec", typed), check=True, cwd=HA.parents[1], env=environment)
    commit = repository.commit({"policy.yaml": with_ban_of("videos.invalid")})
    checkout = machine / "etc/tokgate/policies"
    subprocess.run((machine / "usr/local/sbin/tokgate-policies", checkout), check=True, env=environment)
    assert repository.head(checkout) == commit
    asked = (tmp_path / "asked").read_text().splitlines()
    assert asked == ["daemon-reload", "enable --now tokgate-policies.timer"]
    installed = {path.name for path in (machine / "etc/systemd/system").iterdir()}
    assert installed == {"tokgate-policies.service", "tokgate-policies.timer"}
    another_user = environment | {"GIT_TEST_ASSUME_DIFFERENT_OWNER": "1"}
    command = ("git", "-C", str(checkout), "rev-parse", "HEAD")
    assert (
        subprocess.run(command, check=True, capture_output=True, text=True, env=another_user).stdout.strip() == commit
    )
