"""How long a destination that answered nothing is believed to have nothing to say, and how many names one may have."""

import asyncio
import contextlib

import trustme
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificate

from labs.serving import DEADLINE, serving
from tokgate.mitm.origin_certificate import MAX_NAMES, OriginCertificates, certificate_names
from tokgate.traffic.limits import ProbeLimits


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
    """Four silent destinations of one client at a time, some that wait, and no more; others are answered meanwhile."""
    asked, silent = [], asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(writer.get_extra_info("sockname")[0])
        await silent.wait()
        writer.close()

    certificates = OriginCertificates(ProbeLimits(per_client=2, waiting_per_client=3, deadline=DEADLINE))
    async with serving(say_nothing, host="0.0.0.0") as port:
        ways = [certificates.names(f"127.0.0.{n}", port, client="192.0.2.1") for n in range(1, 6)]
        waiting = [asyncio.create_task(way) for way in ways]
        other = asyncio.create_task(certificates.names("127.0.0.9", port, client="192.0.2.2"))
        async with asyncio.timeout(DEADLINE):
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            assert [task.result() for task in done] == [()] * len(done)
            while len(asked) < 3:
                await asyncio.sleep(0)
        assert sorted(asked) == ["127.0.0.1", "127.0.0.2", "127.0.0.9"]
        silent.set()
        await asyncio.gather(*waiting, other)
