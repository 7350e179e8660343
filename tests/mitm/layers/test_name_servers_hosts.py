"""The hosts file: which names it answers for."""

import os
from pathlib import Path

import pytest

from tokgate.mitm.layers.name_servers import names_host


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("printer.example.org", True),
        ("PRINTER.Example.org", True),
        ("printer", True),
        ("office.example.org", True),
        ("example.org", False),
        ("192.0.2.9", False),
        ("commented.example.org", False),
        ("remark", False),
        ("", False),
    ],
)
def test_names(tmp_path: Path, name: str, there: bool) -> None:
    """A device that only the hosts file knows keeps its address, and no other name is taken for one."""
    file = tmp_path / "hosts"
    file.write_text(
        "192.0.2.9 Printer.example.org printer # remark\n#192.0.2.8 commented.example.org\n\n::1\toffice.example.org\n"
    )

    assert names_host(name, file) is there


def test_changes(tmp_path: Path) -> None:
    """A name that is added is known at once; without a file there is none."""
    file = tmp_path / "hosts"
    assert not names_host("a.example.org", file)
    file.write_text("192.0.2.9 b.example.org\n")
    assert not names_host("a.example.org", file)
    file.write_text("192.0.2.9 a.example.org\n")
    os.utime(file, ns=(1, 1))

    assert names_host("a.example.org", file)
