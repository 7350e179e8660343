"""QUIC: no first packets make a server read a name that the gate did not judge; a real server says what it reads."""

import asyncio
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import aioquic.tls
import pytest
import trustme
from aioquic.asyncio.server import QuicServer
from aioquic.quic.configuration import QuicConfiguration

from evasion.rows.quic import ALLOWED, BANNED, Attempt, Ends, Said, attempts
from labs.quic_lab import KEY, QuicGate, flow
from labs.records import Records

ATTEMPTS = list(attempts())


class NoNetwork(asyncio.DatagramTransport):
    """Where a server's answers go."""

    def sendto(self, data: Any, addr: Any = None) -> None:
        """Nowhere."""

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture(scope="module")
def configuration(tmp_path_factory: pytest.TempPathFactory) -> QuicConfiguration:
    """A server's, with a certificate."""
    folder: Path = tmp_path_factory.mktemp("quic")
    issued = trustme.CA().issue_cert(ALLOWED)
    issued.cert_chain_pems[0].write_to_path(str(folder / "pem"))
    issued.private_key_pem.write_to_path(str(folder / "key"))
    made = QuicConfiguration(is_client=False)
    made.load_cert_chain(folder / "pem", folder / "key")
    return made


@pytest.fixture
def read_by_server(
    configuration: QuicConfiguration, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Iterable[bytes]], set[str | None]]:
    """Says which names aioquic's server reads in datagrams."""
    names: set[str | None] = set()
    pull = aioquic.tls.pull_client_hello

    def noting(*arguments: Any) -> Any:
        hello = pull(*arguments)
        names.add(hello.server_name)
        return hello

    monkeypatch.setattr(aioquic.tls, "pull_client_hello", noting)

    async def serve(datagrams: Iterable[bytes]) -> None:
        server = QuicServer(configuration=configuration)
        server.connection_made(NoNetwork())
        for datagram in datagrams:
            server.datagram_received(datagram, KEY[:2])
        server.close()  # type: ignore[no-untyped-call]

    def read(datagrams: Iterable[bytes]) -> set[str | None]:
        names.clear()
        asyncio.run(serve(datagrams))
        return set(names)

    return read


def come(gate: QuicGate, said: Said) -> QuicGate:
    for one in said:
        if isinstance(one, tuple):
            gate.comes(one[1], key=flow(one[0]))
        else:
            gate.comes(one)
    return gate


@pytest.mark.parametrize("attempt", ATTEMPTS, ids=lambda attempt: attempt.id)
def test_attempt(
    attempt: Attempt, records: Records, read_by_server: Callable[[Iterable[bytes]], set[str | None]]
) -> None:
    """The banned name reaches no server, the client is told, and the log has it; the twin is served."""
    sent = come(QuicGate(records), attempt.said(BANNED)).sent
    assert BANNED not in read_by_server(sent.to_server)
    told = {Ends.TOLD: bool(sent.to_client), Ends.UNREACHABLE: bool(sent.unreachable), Ends.SILENT: True}
    assert told[attempt.ends]
    assert any("denied" in record["event"]["type"] for record in records.all) is (attempt.ends is not Ends.SILENT)

    twin = attempt if attempt.innocent else ATTEMPTS[0]
    passed = come(QuicGate(records), twin.said(ALLOWED)).sent.to_server
    assert read_by_server(passed) == {ALLOWED}


def test_the_server_reads_the_name(read_by_server: Callable[[Iterable[bytes]], set[str | None]]) -> None:
    """The control: without a gate, it is read in what innocent attempts say."""
    for attempt in ATTEMPTS:
        said = [one for one in attempt.said(BANNED) if isinstance(one, bytes)]
        assert (BANNED in read_by_server(said)) or not attempt.innocent, attempt.id
