"""Words that nobody can take cost no more than the words."""

import subprocess
import sys
from pathlib import Path

from tokgate.runtime.banner import drop_what_cannot_be_written

PROGRAM = f"""
import logging, sys
from {drop_what_cannot_be_written.__module__} import {drop_what_cannot_be_written.__name__}
{drop_what_cannot_be_written.__name__}()
logging.basicConfig(stream=sys.stderr)
logging.error("first")
print("the word \u00fc", file=sys.stderr)
sys.stderr.flush()
print("goes on")
"""


def test_a_full_disk_ends_nobody() -> None:
    """Not at once, when it is flushed, or at the interpreter's end, which would be exit code 120."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run([sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=full, check=False)
    assert (done.returncode, done.stdout) == (0, b"goes on\n")


def test_what_can_be_written_is() -> None:
    """In its order."""
    done = subprocess.run([sys.executable, "-X", "utf8", "-c", PROGRAM], capture_output=True, check=True)
    assert done.stderr.decode() == "ERROR:root:first\nthe word \u00fc\n"
