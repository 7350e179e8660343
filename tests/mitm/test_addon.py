"""The addon's own affairs: options it requires, health, upkeep."""

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mitmproxy import exceptions
from mitmproxy.addons import proxyserver, tlsconfig
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.test import tflow

from labs.addon_context import addon_context
from labs.proxy_lab import NOW, policy
from tokgate.mitm.addon import PolicyRefused, ScriptedTokgate, Tokgate, announcement
from tokgate.mitm.hooks.connection import ConnectionHooks

POLICY = """\
version: 1
services: {clips: {title: Clips, names: {suffix: [clips.example.org]}}}
networks: {here: {cidrs: [127.0.0.0/8], timezone: Europe/Brussels}}
bans: {clips-2023: {title: Clips, services: [clips], networks: [here], starts: 2023-03-10T00:00, duration: P6M}}
"""


@pytest.fixture
def addon(tmp_path: Path) -> Iterator[tuple[Tokgate, Any]]:
    """The addon in a master of mitmproxy's test tools, beside the addons whose options it sets."""
    tokgate = Tokgate(now=lambda: NOW)
    (tmp_path / "policy.yaml").write_text(POLICY)
    with addon_context(proxyserver.Proxyserver(), tlsconfig.TlsConfig(), tokgate) as context:
        yield tokgate, context
        tokgate.done()


def opened(context: Any, tokgate: Tokgate, folder: Path) -> None:
    context.configure(tokgate, tokgate_policies=str(folder / "policy.yaml"), tokgate_log=str(folder / "block.ndjson"))


async def test_options(addon: tuple[Tokgate, Any], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What a filter needs is set; where someone had said otherwise, with a warning."""
    tokgate, context = addon
    context.options.update(ignore_hosts=["example"])

    opened(context, tokgate, tmp_path)

    assert context.options.connection_strategy == "lazy"
    assert context.options.ignore_hosts == []
    warned = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert any("ignore_hosts" in message for message in warned)
    assert not any("connection_strategy" in message for message in warned)
    context.options.update(validate_inbound_headers=False)
    assert context.options.validate_inbound_headers is True


async def test_compromised_keys(addon: tuple[Tokgate, Any], tmp_path: Path) -> None:
    """An option that signs with a public key is refused at any time."""
    tokgate, context = addon
    opened(context, tokgate, tmp_path)

    for option in ("emudhra", "emudhra_old"):
        with pytest.raises(exceptions.OptionsError, match="compromised"):
            context.options.update(**{option: True})
        assert getattr(context.options, option) is False


async def test_no_second_policy(addon: tuple[Tokgate, Any], tmp_path: Path) -> None:
    """Policy and log stay what they were at the start."""
    tokgate, context = addon
    opened(context, tokgate, tmp_path)

    with pytest.raises(exceptions.OptionsError, match="can't change"):
        context.options.update(tokgate_policies="elsewhere")
    assert tokgate.holder is not None


async def test_invalid_policy(addon: tuple[Tokgate, Any], tmp_path: Path) -> None:
    """An invalid policy is refused with its diagnostics, and no client gets through."""
    tokgate, context = addon
    (tmp_path / "policy.yaml").write_text("bans: {a: {}}")

    with pytest.raises(PolicyRefused, match=r"policy\.yaml:1"):
        opened(context, tokgate, tmp_path)

    client = tflow.tclient_conn()
    client.error = None
    ConnectionHooks(tokgate.traffic).client_connected(client)
    assert client.error


async def test_upkeep_that_fails(addon: tuple[Tokgate, Any], tmp_path: Path) -> None:
    """A background task that fails is counted, and the rest goes on."""
    tokgate, context = addon
    opened(context, tokgate, tmp_path)

    async def broken() -> None:
        raise RuntimeError("broken on purpose")

    tokgate._keep(broken())
    while not tokgate.counters.errors:
        await asyncio.sleep(0)
    assert tokgate.counters.errors == {"upkeep": 1}


def test_announcement() -> None:
    listening = [
        (ProxyMode.parse("regular"), [("127.0.0.1", 8080)]),
        (ProxyMode.parse("transparent"), [("0.0.0.0", 8081), ("::", 8081)]),
    ]

    said = list(announcement(policy(), listening, NOW))
    before = list(announcement(policy(), listening, NOW.subtract(hours=24 * 365)))

    assert said[0] == "regular: listening on 127.0.0.1:8080"
    assert said[1] == "transparent: listening on *:8081"
    assert "  block: The ban [ban] for office" in said
    assert said[-1] == "try it: curl -v -x http://127.0.0.1:8080 https://clips.example.org/"
    assert "no ban is in force" in before[-1]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"mode": ["reverse:http://192.0.2.1:80"]}, "does not filter in mode reverse"),
        ({"mode": ["upstream:http://192.0.2.1:80"]}, "does not filter in mode upstream"),
        *(
            ({"mode": [mode]}, "the modes are regular, transparent, socks5, dns; phones come through the gateway")
            for mode in ("wireguard", "tun:tg0", "local:curl")
        ),
        ({"tokgate_policies": "/nowhere"}, "/nowhere:1:1: error: no such file or folder"),
    ],
)
async def test_as_a_script_it_says_what_is_wrong(
    wrong: dict[str, Any], said: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever mistypes an option of mitmdump reads what is wrong, and no traceback; an error ends mitmproxy's start."""
    tokgate = ScriptedTokgate(now=lambda: NOW)
    with addon_context(proxyserver.Proxyserver(), tlsconfig.TlsConfig()) as context:
        context.master.addons.add(tokgate)
        caplog.clear()
        context.options.update(tokgate_log=str(tmp_path / "block.ndjson"), **wrong)
        (error,) = [record for record in caplog.records if record.levelno == logging.ERROR][:1]
        assert said in error.getMessage()
        assert error.exc_info is None
        assert tokgate.holder is None
