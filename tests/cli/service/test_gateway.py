"""`tokgate gateway`: loaded, shown, checked and taken out again by one command each, for people and programs."""

import io
import json
import os
import re
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from labs.command_line import Outcome
from labs.json_outputs import check_output
from labs.netns import Namespace
from tokgate.cli.main import main
from tokgate.gateway.kernel import GatewayLock

POLICY = """\
services: {clips: {names: {suffix: [clips.example.org]}}}
networks: {office: {cidrs: [192.0.2.0/24, "2001:db8:c::/48"]}}
bans: {clips: {title: No clips, services: [clips], networks: [office], starts: 2023-03-10T00:00}}
"""


@pytest.fixture
def words(tmp_path: Path) -> tuple[str, ...]:
    """A policy, and a folder for what settings were before."""
    (tmp_path / "policy.yaml").write_text(POLICY)
    return ("--policies", str(tmp_path / "policy.yaml"), "--confdir", str(tmp_path / "keys"))


def gateway(namespace: Namespace, *words: str, before: tuple[str, ...] = ()) -> tuple[int, str, str]:
    """Exit code, output and narration of the command inside; of a process of its own with something before it."""
    if before:
        done = namespace.run(*before, sys.executable, "-m", "tokgate", "gateway", *words, check=False)
        return done.returncode, done.stdout, done.stderr
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        code = namespace.inside(lambda: main(("gateway", *words)))
    return code, out.getvalue(), err.getvalue()


def said(namespace: Namespace, *words: str) -> Any:
    answer = Outcome(*gateway(namespace, *words, "--json"))
    check_output(("gateway", *words, "--json"), answer)
    return json.loads(answer.out)


def test_up_check_down(namespace: Namespace, words: tuple[str, ...]) -> None:
    """An admin sees what is missing, loads it, is told what was changed, and gets the machine back as it was."""
    code, out, _ = gateway(namespace, "check", *words)
    assert code == 1
    assert "table inet tokgate is not loaded\n" in out
    code, out, err = gateway(namespace, "up", *words)
    assert (code, out) == (0, "")
    assert "net.ipv4.ip_forward was 0: it is 1 until `tokgate gateway down`" in err
    assert "net.ipv4.tcp_early_demux was 1: it is 0 until" in err
    assert "table inet tokgate is loaded, policy" in err
    with namespace.listen(4, 8080), namespace.listen(6, 8080):
        assert gateway(namespace, "check", *words) == (0, "", "")
    code, out, err = gateway(namespace, "down", *words)
    assert (code, out) == (0, "")
    assert "net.ipv4.ip_forward is 0 again" in err
    assert namespace.output("nft", "list", "ruleset") == ""


def test_read_only_settings(namespace: Namespace, words: tuple[str, ...]) -> None:
    """In a container that sees its settings but can't change them early demultiplexing is warned of, no more."""
    namespace.sysctl("net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
    mount = 'mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys && exec "$@"'
    before = ("unshare", "--mount", "sh", "-c", mount, "sh")
    code, _, err = gateway(namespace, "up", *words, before=before)
    assert code == 0
    assert "tokgate: warning: net.ipv4.tcp_early_demux is 1, and this process may not change it" in err
    code, out, _ = gateway(namespace, "show", *words, before=before)
    assert "settings: as it should be\n  net.ipv4.tcp_early_demux is 1, and this process may not" in out
    with namespace.listen(4, 8080), namespace.listen(6, 8080):
        assert gateway(namespace, "check", *words, before=before) == (0, "", "")
    assert gateway(namespace, "down", *words, before=before)[0] == 0


def test_show(namespace: Namespace, words: tuple[str, ...]) -> None:
    """What is loaded stands beside what should be."""
    gateway(namespace, "up", *words)
    namespace.run("nft", "flush", "set", "inet", "tokgate", "clients6")
    code, out, _ = gateway(namespace, "show", *words)
    assert code == 0
    assert "table: differs\n  set clients6 lacks 2 elements and has 0 that it should not\n  clients4: 2 of 2" in out
    assert "  clients6: 0 of 2 elements\n" in out
    assert "routes: as it should be\n" in out


def test_json(namespace: Namespace, words: tuple[str, ...]) -> None:
    missing = said(namespace, "check", *words)
    assert not missing["ok"]
    assert missing["differences"]["table"] == ["table inet tokgate is not loaded"]
    assert missing["sets"]["clients4"] == {"wanted": 2, "loaded": None}
    loaded = said(namespace, "up", *words)
    assert loaded == {
        "ok": True,
        "problems": [],
        "policy": missing["policy"],
        "changed": {"net.ipv4.ip_forward": "0", "net.ipv6.conf.all.forwarding": "0", "net.ipv4.tcp_early_demux": "1"},
        "until": None,
    }
    shown = said(namespace, "show", *words)
    assert shown["differences"]["table"] == shown["differences"]["routes"] == shown["differences"]["settings"] == []
    assert shown["sets"]["clients4"] == {"wanted": 2, "loaded": 2}
    assert said(namespace, "down", *words) == {"ok": True, "restored": loaded["changed"]}


def test_a_host_that_does_not_allow_it(namespace: Namespace, words: tuple[str, ...]) -> None:
    """All obstacles at once, and nothing changed."""
    namespace.run("nft", "add", "table", "inet", "tokgate")
    namespace.run("ip", "rule", "add", "fwmark", "0x746b", "lookup", "5")
    code, out, err = gateway(namespace, "up", *words)
    assert (code, out) == (3, "")
    assert err.startswith("tokgate: nothing was changed:\nthere is a table inet tokgate that tokgate did not make")
    assert "sends packets of mark 0x746b to table 5" in err
    assert len(said(namespace, "up", *words)["problems"]) == 2
    namespace.run("nft", "delete", "table", "inet", "tokgate")
    assert gateway(namespace, "up", *words, "--route-mark", "77")[0] == 0


def test_the_commands_of_the_docs(namespace: Namespace, tmp_path: Path) -> None:
    """Those that docs/gateway.md prints under “Loading it” work as they are typed, one after another."""
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies/policy.yaml").write_text(POLICY)
    said = (Path(__file__).parents[3] / "docs/gateway.md").read_text().partition("## Loading it")[2]
    typed = re.findall(r"^tokgate gateway .*", said.partition("```sh")[2].partition("```")[0], re.MULTILINE)
    program = f'export HOME={tmp_path}; cd {tmp_path}; tokgate() {{ {sys.executable} -m tokgate "$@"; }}'
    codes = {}
    with namespace.listen(4, 8080), namespace.listen(6, 8080):
        for line in typed:
            command = line.partition("#")[0].strip()
            codes[command.split()[-1]] = namespace.run("sh", "-c", f"{program}; {command}", check=False).returncode
    assert codes == dict.fromkeys(("up", "check", "show", "down", "boot"), 0)
    assert "made_by_tokgate" in namespace.output("nft", "list", "table", "inet", "tokgate")


def test_beside_a_running_tokgate(namespace: Namespace, words: tuple[str, ...]) -> None:
    """`up` and `down` would be undone at once: they say by whom, and change nothing."""
    assert gateway(namespace, "up", *words)[0] == 0
    before, lock = namespace.output("nft", "list", "ruleset"), GatewayLock()
    namespace.inside(lock.take)
    code, out, err = gateway(namespace, "down", *words)
    assert (code, out) == (3, "")
    assert err.startswith(f"tokgate: process {os.getpid()}")
    assert "would load it again: stop that, which takes it out" in err
    assert "loads what its own policy needs" in said(namespace, "up", *words)["problems"][0]
    assert gateway(namespace, "up", *words)[0] == 3
    assert namespace.output("nft", "list", "ruleset") == before
    lock.close()
    assert gateway(namespace, "down", *words)[0] == 0


def test_without_the_capability(namespace: Namespace, words: tuple[str, ...]) -> None:
    """Who may not change the firewall is told what is missing."""
    drop = ("setpriv", "--inh-caps=-net_admin", "--bounding-set=-net_admin")
    code, _, err = gateway(namespace, "up", *words, before=drop)
    assert (code, err) == (
        3,
        "tokgate: nothing was changed:\nCAP_NET_ADMIN is missing: run this as root, or give the capability\n",
    )
    assert gateway(namespace, "down", *words, before=drop)[0] == 3
