"""Warnings about clients: each kind once a minute, with the client, its count and no more than a line."""

import logging

import pytest

from tokgate.service.mitmproxy_process import FOLDED_FOR, FoldedWarnings


@pytest.fixture
def clock() -> list[float]:
    """Monotonic seconds."""
    return [1000.0]


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was shown, and is not again."""
    messages = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return messages


def test_a_client_that_repeats_itself(caplog: pytest.LogCaptureFixture, clock: list[float]) -> None:
    """A thousand hellos in hex are one line, and one more with their number when a minute has passed."""
    folded = FoldedWarnings(lambda: clock[0])
    caplog.handler.addFilter(folded)
    logger = logging.getLogger("mitmproxy.proxy.server")
    failed = "Client TLS handshake failed. Cannot parse ClientHello: "
    for number in range(1000):
        logger.warning(f"{failed}{number:04x}{'16030100' * 500}", extra={"client": ("192.0.2.1", 40000 + number)})
    logger.warning(f"{failed}16", extra={"client": ("192.0.2.2", 40000)})
    logger.warning("Another kind", extra={"client": ("192.0.2.1", 40000)})
    logger.warning("about nobody")
    logger.warning("about nobody")
    first, second, *others = told(caplog)
    assert first.startswith(failed + "0000")
    assert first.endswith("[client 192.0.2.1]")
    assert len(first) < 500
    assert second == f"{failed}16 [client 192.0.2.2]"
    assert others == ["Another kind [client 192.0.2.1]", "about nobody", "about nobody"]
    clock[0] += FOLDED_FOR
    logger.warning(f"{failed}17", extra={"client": ("192.0.2.1", 40000)})
    assert told(caplog) == [f"{failed}17 [client 192.0.2.1] (999 more like it since the last)"]
    caplog.handler.removeFilter(folded)
