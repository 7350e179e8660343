"""What the log's threads tell whoever runs tokgate."""

import contextlib
import logging
from typing import Final

_logger: Final = logging.getLogger(__name__)


def warn(message: str, *arguments: object) -> None:
    """Log a warning. Where mitmproxy's handler raises, since its event loop is closed, the caller goes on."""
    with contextlib.suppress(RuntimeError):
        _logger.warning(message, *arguments)
