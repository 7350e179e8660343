"""mitmproxy's context for tests of addons, which takes back what it put on the root logger."""

import contextlib
from collections.abc import Iterator
from typing import Any

from mitmproxy.test import taddons


@contextlib.contextmanager
def addon_context(*addons: Any) -> Iterator[Any]:
    """`taddons.context`, whose own end leaves a log handler that raises in whoever logs afterwards, in any thread."""
    with taddons.context(*addons) as made:
        try:
            yield made
        finally:
            made.master._legacy_log_events.uninstall()
