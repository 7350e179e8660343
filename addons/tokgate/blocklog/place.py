"""Where the block log is, unless something else is asked for."""

from pathlib import Path
from typing import Final

DEFAULT_LOG: Final = Path("block.ndjson")
