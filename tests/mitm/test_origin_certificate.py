"""Asking a destination for its certificate: names as policy can match them, asked once, never for long."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import trustme
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificate

from labs.serving import DEADLINE, serving
from tokgate.mitm.origin_certificate import MAX_NAMES, OriginCertificates, certificate_names
from tokgate.traffic.limits import ProbeLimits

CA = trustme.CA()
PATIENT = ProbeLimits(deadline=DEADLINE)


@dataclass
class Origin:
    """A TLS server that only shakes hands; it keeps the names that clients asked for."""

    port: int = 0
    asked: list[str | None] = field(default_factory=list)


@contextlib.asynccontextmanager
async def an_origin(*names: str, tls: bool = True) -> AsyncIterator[Origin]:
    origin = Origin()
    context = None
    if tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        CA.issue_cert(*names).configure_cert(context)
        context.sni_callback = lambda _connection, name, _context: origin.asked.append(name)

    async def serve(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            await reader.read()

    async with serving(serve, context=context) as origin.port:
        yield origin


async def test_names() -> None:
    """The certificate's names come without `*.`, and no name was asked for."""
    async with an_origin("www.example.org", "*.example.net", "192.0.2.1") as origin:
        names = await OriginCertificates(PATIENT).names("127.0.0.1", origin.port, client="192.0.2.1")

    assert names == ("www.example.org", "example.net", "192.0.2.1")
    assert origin.asked == [None]


async def test_asked_once() -> None:
    """Many who ask at once, and those who ask soon after, share one handshake."""
    certificates = OriginCertificates(PATIENT)
    async with an_origin("www.example.org") as origin:
        together = await asyncio.gather(
            *(certificates.names("127.0.0.1", origin.port, client="192.0.2.1") for _ in range(10))
        )
        later = await certificates.names("127.0.0.1", origin.port, client="192.0.2.1")

    assert {*together, later} == {("www.example.org",)}
    assert len(origin.asked) == 1


async def test_forgotten_in_time_and_number() -> None:
    clock = [0.0]
    certificates = OriginCertificates(ProbeLimits(kept=10, size=1, deadline=DEADLINE), monotonic=lambda: clock[0])
    async with an_origin("www.example.org") as one, an_origin("www.example.net") as other:
        for origin in (one, other, one):
            await certificates.names("127.0.0.1", origin.port, client="192.0.2.1")
        assert len(one.asked) == 2
        clock[0] = 10.0
        await certificates.names("127.0.0.1", one.port, client="192.0.2.1")
        assert len(one.asked) == 3


async def test_somebody_who_says_nothing() -> None:
    """The deadline ends a handshake that gets no answer, and those that wait behind it."""
    certificates = OriginCertificates(ProbeLimits(deadline=0.05, per_client=1))
    async with an_origin(tls=False) as origin:
        asked = [certificates.names(f"127.0.0.{n}", origin.port, client="192.0.2.1") for n in (1, 2)]
        assert await asyncio.gather(*asked) == [(), ()]


async def test_who_asks_may_leave() -> None:
    """A client that goes away doesn't spoil the answer for others."""
    certificates = OriginCertificates(PATIENT)
    async with an_origin("www.example.org") as origin:
        leaver = asyncio.create_task(certificates.names("127.0.0.1", origin.port, client="192.0.2.1"))
        await asyncio.sleep(0)
        stayer = asyncio.create_task(certificates.names("127.0.0.1", origin.port, client="192.0.2.1"))
        await asyncio.sleep(0)
        leaver.cancel()
        assert await stayer == ("www.example.org",)


def test_common_name_without_alternatives() -> None:
    pem = CA.issue_cert(common_name="old.example.org").cert_chain_pems[0].bytes()
    der = load_pem_x509_certificate(pem).public_bytes(Encoding.DER)

    assert certificate_names(der) == ("old.example.org",)


async def test_a_failure_is_asked_about_again_soon() -> None:
    """A destination that was away for a moment isn't judged without its certificate for minutes."""
    clock, tries = [0.0], 0

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        with contextlib.suppress(OSError):
            await reader.read(1)

    certificates = OriginCertificates(
        ProbeLimits(kept=300, failure_kept=10, deadline=DEADLINE), monotonic=lambda: clock[0]
    )
    async with serving(hang_up) as port:
        for moment, expected in ((0.0, 1), (9.9, 1), (10.0, 2)):
            clock[0] = moment
            assert await certificates.names("127.0.0.1", port, client="192.0.2.1") == ()
            assert tries == expected


def test_a_certificate_with_thousands_of_names() -> None:
    """A destination can't make the proxy judge, and write down, as many names as it likes."""
    names = [f"v{number}.example.org" for number in range(3 * MAX_NAMES)]
    pem = trustme.CA().issue_cert(*names).cert_chain_pems[0].bytes()
    der = load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    assert certificate_names(der) == tuple(names[:MAX_NAMES])


async def test_a_client_has_a_bounded_number_of_destinations_asked() -> None:
    """A client would have the proxy knock at every address of the internet, and all others wait for their answers."""
    tries = 0
    limits = ProbeLimits(per_minute=2, failure_kept=0, deadline=DEADLINE)
    clock = [0.0]

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal tries
        tries += 1
        writer.close()

    certificates = OriginCertificates(limits, monotonic=lambda: clock[0])
    async with serving(hang_up) as port:
        for number in range(5):
            await certificates.names("127.0.0.1", port, client=f"2001:db8::{number}")
        assert tries == 2
        await certificates.names("127.0.0.1", port, client="192.0.2.1")
        assert tries == 3
        clock[0] += 60
        await certificates.names("127.0.0.1", port, client="2001:db8::1")
        assert tries == 4
        clock[0] += 60
        await certificates.names("127.0.0.1", port, client="192.0.2.2")
        assert list(certificates._clients) == ["192.0.2.2"]


async def test_destinations_that_answer_nothing_keep_only_their_client_waiting() -> None:
    """Some silent destinations of one client at a time, and no more; others are asked meanwhile."""
    asked, silent = [], asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(writer.get_extra_info("sockname")[0])
        await silent.wait()
        writer.close()

    certificates = OriginCertificates(ProbeLimits(per_client=2, deadline=DEADLINE))
    async with serving(say_nothing, host="0.0.0.0") as port:
        ways = [certificates.names(f"127.0.0.{n}", port, client="192.0.2.1") for n in range(1, 6)]
        waiting = [asyncio.create_task(way) for way in ways]
        other = asyncio.create_task(certificates.names("127.0.0.9", port, client="192.0.2.2"))
        async with asyncio.timeout(DEADLINE):
            while len(asked) < 3:
                await asyncio.sleep(0)
        assert sorted(asked) == ["127.0.0.1", "127.0.0.2", "127.0.0.9"]
        silent.set()
        await asyncio.gather(*waiting, other)
