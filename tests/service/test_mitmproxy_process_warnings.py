"""Warnings about clients: each kind once a minute, with the client, its count and no more than a line."""

import logging
from collections.abc import Callable

import pytest

from tokgate.service.mitmproxy_process import FOLDED_FOR, FoldedWarnings


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What was shown, and is not again."""
    messages = [record.getMessage() for record in caplog.records]
    caplog.clear()
    return messages


def test_a_client_that_repeats_itself(caplog: pytest.LogCaptureFixture) -> None:
    """A thousand hellos in hex are one line, and one more with their number when a minute has passed."""
    due: list[Callable[[], object]] = []

    def later(seconds: float, call: Callable[[], object]) -> None:
        assert seconds == FOLDED_FOR
        due.append(call)

    folded = FoldedWarnings(later)
    caplog.handler.addFilter(folded)
    logger = logging.getLogger("mitmproxy.proxy.server")
    failed = "Client TLS handshake failed. Cannot parse ClientHello: "
    for number in range(1000):
        logger.warning(f"{failed}{number:04x}{'16030100' * 500}", extra={"client": ("192.0.2.1", 40000 + number)})
    logger.warning(f"{failed}16", extra={"client": ("192.0.2.2", 40000)})
    for number in range(2):
        logger.warning("Another kind", extra={"client": (f"2001:db8::{number}", 40000)})
    logger.warning("about nobody")
    logger.warning("about nobody")
    first, second, *others = told(caplog)
    assert first.startswith(failed + "0000")
    assert first.endswith("[client 192.0.2.1]")
    assert len(first) < 500
    assert second == f"{failed}16 [client 192.0.2.2]"
    assert others == ["Another kind [client 2001:db8::0]", "about nobody", "about nobody"]
    for call in due:
        call()
    assert told(caplog) == [
        f"{first} (999 more like it in a minute)",
        "Another kind [client 2001:db8::0] (1 more like it in a minute)",
    ]
    logger.warning(f"{failed}17", extra={"client": ("192.0.2.1", 40000)})
    assert told(caplog) == [f"{failed}17 [client 192.0.2.1]"]
    caplog.handler.removeFilter(folded)
