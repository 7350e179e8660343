"""Inventories: read with the policy, part of its version, and read again when they change."""

import os
from pathlib import Path

import pytest
from whenever import Instant

from labs.builders import valid
from tokgate.config.diagnostics import Code
from tokgate.config.inventory import MAX_REPORTED, read_inventory
from tokgate.config.loader import load
from tokgate.config.reload.holder import open_policy
from tokgate.config.yaml.source import Report

NOW = Instant.from_utc(2023, 5, 1)
POLICY = """
services: {tiktok: {names: {suffix: [tiktok.com]}}}
networks: {federal: {devices: {file: FILE, paid_by: [federal]}}}
bans: {ban: {title: Ban, services: [tiktok], networks: [federal], starts: 2023-03-10}}
"""
ROWS = "name,address,mac,owner,paid_by\nlaptop-1,192.0.2.1,,alice,federal\nlaptop-2,,00:53:00:00:00:02,bob,federal\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "policies"
    made.mkdir()
    (made / "policy.yaml").write_text(POLICY.replace("FILE", "devices.csv"))
    (made / "devices.csv").write_text(ROWS)
    return made


def test_payers_are_found_however_they_are_written(folder: Path) -> None:
    """`HQ` in the policy are the devices that the inventory says `hq` paid for, and `Hq`."""
    (folder / "policy.yaml").write_text(POLICY.replace("FILE", "devices.csv").replace("[federal]", "[HQ]", 1))
    (folder / "devices.csv").write_text(ROWS.replace("alice,federal", "alice,hq").replace("bob,federal", "bob,Hq"))
    policy = valid(load(folder, NOW))
    assert [device.name for device in policy.networks["federal"].devices] == ["laptop-1", "laptop-2"]


def test_version_is_that_of_what_is_said(folder: Path) -> None:
    """Order, layout, spelling and other columns make no difference; a device, its owner and who paid do."""
    first = valid(load(folder, NOW)).version
    inventory = folder / "devices.csv"
    inventory.write_text(
        "Room;Paid by;MAC;Address;Owner;Name\nB 12;Federal;0053-0000-0002;;bob;laptop-2\n\n"
        "B 14;federal;;192.0.2.1 ;alice;laptop-1\n"
    )
    assert valid(load(folder, NOW)).version == first
    changed = {
        ROWS.replace("192.0.2.1", "192.0.2.3"),
        ROWS.replace("bob", "carol"),
        ROWS.replace(",federal", ",shared"),
    }
    found = {first}
    for rows in (*changed, ROWS + "laptop-3,192.0.2.3,,,federal\n"):
        inventory.write_text(rows)
        found.add(valid(load(folder, NOW)).version)
    assert len(found) == 5


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_separators(folder: Path, separator: str) -> None:
    """Whatever a spreadsheet puts between cells: commas, semicolons or tabs, and the others inside them."""
    first = valid(load(folder, NOW)).version
    (folder / "devices.csv").write_text(ROWS.replace(",", separator))
    assert valid(load(folder, NOW)).version == first
    inside = "|" if separator == ";" else ";"
    row = separator.join(("laptop-3", f"192.0.2.3{inside}192.0.2.4", "", "carol", f"federal{inside}shared"))
    (folder / "devices.csv").write_text(ROWS.replace(",", separator) + row + "\n")
    policy = valid(load(folder, NOW))
    assert [len(device.addresses) for device in policy.networks["federal"].devices] == [1, 0, 2]


def test_inventories_that_change_places(folder: Path) -> None:
    """Which inventory is whose is part of what is said: the same files under each other's names are another policy."""
    other = ROWS.replace("192.0.2.1", "192.0.2.9")
    (folder / "policy.yaml").write_text(
        POLICY.replace("FILE", "devices.csv").replace(
            "networks: {", "networks: {regional: {devices: {file: others.csv, paid_by: [federal]}}, "
        )
    )
    found = []
    for devices, others in ((ROWS, other), (other, ROWS)):
        (folder / "devices.csv").write_text(devices)
        (folder / "others.csv").write_text(others)
        found.append(valid(load(folder, NOW)).version)
    assert found[0] != found[1]


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_is_not_waited_for(folder: Path, kind: str) -> None:
    """A pipe or folder under the name of an inventory is an error, at once."""
    (folder / "devices.csv").unlink()
    (folder / "devices.csv").mkdir() if kind == "folder" else os.mkfifo(folder / "devices.csv")
    loaded = load(folder, NOW)
    assert [each.code for each in loaded.errors] == [Code.UNREADABLE]


def test_errors_are_counted_beyond_the_first(tmp_path: Path) -> None:
    """An export that is wrong in every row does not bury everything else."""
    path = tmp_path / "devices.csv"
    path.write_text("address\n" + "nowhere\n" * 1000)
    report = Report()
    assert read_inventory(path, (), report) is None
    assert len(report.diagnostics) == MAX_REPORTED + 1
    assert f"{1000 - MAX_REPORTED} more" in report.diagnostics[-1].message


def test_a_hundred_thousand_rows(folder: Path) -> None:
    """An inventory of a whole government is read whole."""
    rows = (f"d{n},10.{n >> 16}.{n >> 8 & 255}.{n & 255},,x,federal\n" for n in range(100_000))
    (folder / "devices.csv").write_text("name,address,mac,owner,paid_by\n" + "".join(rows))
    assert len(valid(load(folder, NOW)).networks["federal"].devices) == 100_000


async def test_reload_when_it_changes(folder: Path, tmp_path: Path) -> None:
    """A changed inventory is a changed policy, also one that lies elsewhere; a broken one keeps the last good."""
    elsewhere = tmp_path / "export.csv"
    elsewhere.write_text(ROWS)
    os.utime(elsewhere, (1, 1))
    (folder / "policy.yaml").write_text(POLICY.replace("FILE", str(elsewhere)))
    holder = open_policy(folder, NOW)
    await holder.reload()  # settles what was written a moment ago
    assert not holder.changed()

    elsewhere.write_text(ROWS.replace("192.0.2.1", "192.0.2.9"))
    assert holder.changed()
    before = holder.snapshot.version
    assert (await holder.reload()).ok
    assert holder.snapshot.version != before
    assert holder.snapshot.membership("192.0.2.9").networks
    assert not holder.changed()

    elsewhere.write_text(ROWS.replace("192.0.2.1", "192.0.2."))
    assert not (await holder.reload()).ok
    assert holder.snapshot.membership("192.0.2.9").networks
    elsewhere.unlink()
    assert not (await holder.reload()).ok
    assert not holder.changed()
    elsewhere.write_text(ROWS)
    assert holder.changed()
    assert (await holder.reload()).ok
    assert holder.snapshot.membership("192.0.2.1").networks
