"""The account of the person who runs a command."""

import getpass
import os


def you() -> str:
    """The name of the user; behind `sudo`, of the user who called it."""
    try:
        return os.environ.get("SUDO_USER") or os.environ.get("DOAS_USER") or getpass.getuser()
    except (KeyError, OSError):  # a container's user without an entry anywhere
        return f"uid {os.getuid()}"
