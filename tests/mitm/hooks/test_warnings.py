"""Warnings where something goes wrong: a full disk, an odd address, clients that reject the page's certificate."""

import contextlib
import errno
import re
import ssl
from html import unescape
from urllib.parse import urlencode

from whenever import Instant

from labs.proxy_lab import BANNED, Client, Lab, Proxy, Reply, ban, client, eventually, policy
from tokgate.block_page.continue_form import MAX_TARGET, PATH
from tokgate.mitm.client_connection import ClientConnection
from tokgate.mitm.hooks.warnings import STRIKES, Warnings
from tokgate.mitm.raw_sockets import ClientSockets
from tokgate.policy.observation import Endpoint
from tokgate.traffic.warning_state import Person, WarnedClients

NAVIGATES = {
    "Accept": "text/html,application/xhtml+xml",
    "User_Agent": "Mozilla/5.0 (X11; Linux x86_64)",
    "Sec_Fetch_Mode": "navigate",
    "Sec_Fetch_Dest": "document",
}


async def warning_proxy(lab: Lab, port: int) -> Proxy:
    """A proxy whose ban warns with a page, its authority ready."""
    proxy = await lab.proxy(policy(ban(action="warn", response="page")), destination=("127.0.0.1", port))
    await eventually("the authority is there", proxy.ca.exists)
    return proxy


async def press(guest: Client, page: Reply) -> Reply:
    found = re.findall(r'name="(token|target)" value="([^"]*)"', page.body.decode())
    body = urlencode({name: unescape(value) for name, value in found})
    head = f"POST {PATH} HTTP/1.1\r\nHost: {BANNED}\r\nSec-Fetch-Site: same-origin\r\n"
    head += f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
    await guest.send((head + body).encode())
    return await guest.response()


def first_message(context: ssl.SSLContext) -> bytes:
    """The ClientHello of a client that will say no more."""
    outgoing = ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=BANNED).do_handshake()
    return outgoing.read()


class Full(WarnedClients):
    """Remembers here, and can't tell the other processes."""

    def continues(self, who: Person, ban: str, until: Instant) -> None:
        """As on a full disk."""
        super().continues(who, ban, until)
        raise OSError(errno.ENOSPC, "No space left on device")


async def test_a_full_disk_keeps_nobody_from_continuing(lab: Lab) -> None:
    """The button leads on, it is in the log that this could not be told, and it holds in this process."""
    origin = await lab.web_origin()
    proxy = await warning_proxy(lab, origin.port)
    lab.monkeypatch.setattr(proxy.traffic.enforcer, "warned", Full())
    async with client(proxy.port) as guest:
        await guest.tls(lab.authority.client(proxy.ca), BANNED)
        assert (await press(guest, await guest.get(BANNED, **NAVIGATES))).status == 303
    async with client(proxy.port) as guest:
        await guest.tls(lab.authority.client(proxy.ca), BANNED)
        assert (await guest.get(BANNED, **NAVIGATES)).body == b"origin"
    assert {"internal-error", "warning-continued"} <= set(lab.records.actions)


async def test_an_address_that_can_not_be_sent_again_passes(lab: Lab) -> None:
    """On a connection from before continuing, what is too long for a redirection isn't sent round in a circle."""
    origin = await lab.web_origin()
    proxy = await warning_proxy(lab, origin.port)
    context = lab.authority.client(proxy.ca)
    async with client(proxy.port) as kept, client(proxy.port) as guest:
        for each in (kept, guest):
            await each.tls(context, BANNED)
            assert "mitmproxy" in each.issuer
        assert (await press(guest, await guest.get(BANNED, **NAVIGATES))).status == 303
        reply = await kept.get(BANNED, "/" + "x" * MAX_TARGET, **NAVIGATES)
    assert (reply.status, reply.body) == (200, b"origin")


async def test_a_connection_ends_once(lab: Lab) -> None:
    """An interrupted handshake is one strike and not two: the client is still shown the page after fewer than three."""
    origin = await lab.web_origin()
    proxy = await warning_proxy(lab, origin.port)
    context = lab.authority.client(proxy.ca)
    hello = first_message(context)
    for _ in range(STRIKES - 1):
        async with client(proxy.port) as guest:
            await guest.send(hello)
            await guest.exactly(1)
        await eventually("it is gone", lambda: not proxy.connections)
    async with client(proxy.port) as guest:
        await guest.tls(context, BANNED)
        assert "mitmproxy" in guest.issuer


async def test_clients_that_come_once_fill_no_memory(lab: Lab) -> None:
    """Of those who went without a word only so many are known; whoever was longest away begins anew."""
    lab.monkeypatch.setattr("tokgate.mitm.hooks.warnings.MAX_KNOWN", 2)
    proxy = await lab.proxy(policy(ban(action="warn", response="page")))
    enforcer, warnings, given_up = proxy.traffic.enforcer, Warnings(), list[str]()
    lab.monkeypatch.setattr(enforcer.warned, "has_no_page", lambda client, *_: given_up.append(client))

    def gives_up(host: int) -> bool:
        address = f"192.0.2.{host}"
        opened = ClientConnection(Endpoint(address, 50000), address, ClientSockets(None), software=b"browser")
        warnings.left(enforcer, opened)
        return given_up == [address]

    assert not any(map(gives_up, [1] * (STRIKES - 1) + [2, 3, 4, 5]))
    assert [gives_up(1) for _ in range(STRIKES)] == [False] * (STRIKES - 1) + [True], "forgotten, and known again"
