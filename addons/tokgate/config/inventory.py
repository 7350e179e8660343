"""Device inventories: CSV files beside the policy, checked row by row, with the position of each error."""

import csv
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Network
from pathlib import Path
from typing import Final

from tokgate.config.diagnostics import Code, listed, near
from tokgate.config.yaml.source import Report, Source, TextSpan, decode, read_named_file
from tokgate.policy.networks import Device, hardware_address
from tokgate.policy.values import Origin
from tokgate.policy.values.hostname import parse_address
from tokgate.policy.values.prefixes import IPNetwork

COLUMNS: Final = ("name", "address", "mac", "owner", "paid_by")
"""The columns that are read, in any order; others are ignored."""
_EXPECTED: Final = f"the first row names the columns, of {listed(COLUMNS)}"
MAX_REPORTED: Final = 20
"""Most rows whose errors are reported one by one; the rest is counted."""
_MISSPELT: Final = 2
"""Most letters by which a misspelt column's name is longer or shorter than the suggestion."""
_DELIMITERS: Final = ",;\t"
"""The most frequent of these in the first row separates cells."""
_BETWEEN_ADDRESSES: Final = str.maketrans(dict.fromkeys(";,| \t", "\n"))
_BETWEEN_WORDS: Final = str.maketrans(dict.fromkeys(";,|+/", "\n"))
_EVERYBODY: Final = IPv4Address("255.255.255.255")
_NOBODY: Final = ("00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff")


@dataclass(frozen=True, slots=True)
class Inventory:
    """The devices of one file; `digest` is the SHA-256 of its rows, whatever their order and layout."""

    devices: tuple[Device, ...]
    digest: str

    def paid_by(self, payers: Sequence[str]) -> tuple[Device, ...]:
        """The devices paid for, in whole or in part, by one of `payers`; without payers all devices."""
        if not payers:
            return self.devices
        wanted = {payer.casefold() for payer in payers}
        return tuple(each for each in self.devices if not wanted.isdisjoint(each.paid_by))


def read_inventory(path: Path, needs: Iterable[str], report: Report) -> Inventory | None:
    """Read a file that must have the columns `needs`; None, and errors, if it is invalid."""
    before = len(report.diagnostics)
    data = read_named_file(path, report)
    source = None if data is None else decode(path, data, report)
    if source is None:
        return None
    reading = _Reading(source, report, tuple(needs))
    header = next(reading.rows, None)
    if header is None:
        report.error(source, TextSpan(1, 1), Code.BAD_INVENTORY, f"the file is empty; {_EXPECTED}")
        return None
    columns = reading.columns(header)
    if columns is None:
        return None
    devices: list[Device] = []
    rows: list[str] = []
    for cells in reading.rows:
        device = reading.device(cells, columns, len(header))
        if device is not None:
            devices.append(device)
            words = (*device.hardware, device.name or "", device.owner or "", *sorted(device.paid_by))
            rows.append("\x1f".join((*map(str, device.addresses), *words)))
    reading.close()
    if len(report.diagnostics) > before and reading.broken:
        return None
    rows.sort()
    return Inventory(tuple(devices), hashlib.sha256("\x1e".join(rows).encode()).hexdigest())


class _Wrong(Exception):
    """A row is no device: the column because of which, empty if as a whole, and a message."""


class _Reading:
    """The reading of one file: its rows with their lines, and the addresses seen so far."""

    def __init__(self, source: Source, report: Report, needs: tuple[str, ...]) -> None:
        self.line = 0
        """The line at which the current row begins."""
        self.broken = False
        self._source: Final = source
        self._report: Final = report
        self._needs: Final = needs
        self._seen: Final[dict[str | IPNetwork, int]] = {}
        self._cells: list[str] = []
        self._wrong = 0
        lines = source.lines
        self._delimiter: Final = max(_DELIMITERS, key=(lines[0] if lines else "").count)
        self.rows: Final = self._rows(lines)

    def _rows(self, lines: Sequence[str]) -> Iterator[list[str]]:
        reader = csv.reader(lines, delimiter=self._delimiter, strict=True, skipinitialspace=True)
        while True:
            self.line = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                self.broken = True
                where = TextSpan(self.line, 1)
                self._report.error(self._source, where, Code.BAD_INVENTORY, f"not CSV: {error}")
                return
            self._cells = cells
            if any(cell and not cell.isspace() for cell in cells):
                yield cells

    def columns(self, header: Sequence[str]) -> dict[str, int] | None:
        """The index of each column; None, and errors, if one is missing, repeated or misspelt."""
        found: dict[str, int] = {}
        for number, cell in enumerate(header):
            name = cell.strip().casefold().replace(" ", "_").replace("-", "_")
            meant = name if name in COLUMNS else near(name, COLUMNS)
            if name in found:
                self._fault(number, Code.BAD_INVENTORY, f"the column `{name}` is there twice")
            elif name in COLUMNS:
                found[name] = number
            elif meant is not None and abs(len(meant) - len(name)) <= _MISSPELT:
                self._fault(number, Code.BAD_INVENTORY, f"unknown column `{cell.strip()}`; did you mean `{meant}`?")
        missing = [need for need in self._needs if need not in found]
        if "address" not in found and "mac" not in found:
            missing.append("address` or `mac")
        for need in missing if not self.broken else ():
            message = f"there is no column `{need}`; {_EXPECTED}"
            self._fault(0, Code.BAD_INVENTORY, message, length=0)
        return None if self.broken else found

    def device(self, cells: Sequence[str], columns: dict[str, int], width: int) -> Device | None:
        """A row as a device; None, and an error, if it is none."""

        def cell(name: str) -> str:
            number = columns.get(name, width)
            return cells[number].strip() if number < len(cells) else ""

        try:
            if len(cells) > width:
                many = f"{len(cells)} cells where the header has {width}: quote cells with several values"
                raise _Wrong("", many)
            for need in self._needs:
                if columns[need] >= len(cells):
                    raise _Wrong("", f"{len(cells)} cells where the header has {width}: there is none for `{need}`")
            addresses = tuple(_address(word) for word in _values(cell("address"), _BETWEEN_ADDRESSES))
            hardware = tuple(_hardware(word) for word in _values(cell("mac"), _BETWEEN_ADDRESSES))
            if not addresses and not hardware:
                raise _Wrong("", "the device has neither an address nor a hardware address")
        except _Wrong as wrong:
            column, message = wrong.args
            self._fault(columns.get(column, 0), Code.BAD_DEVICE, message, None if column else 0)
            return None
        for each in (*addresses, *hardware):
            first = self._seen.setdefault(each, self.line)
            if first != self.line and self._counted():
                column, shown = ("mac", each) if isinstance(each, str) else ("address", str(each.network_address))
                message = f"`{shown}` is another device's as well; first in line {first}"
                self._report.warning(self._source, self._place(columns[column]), Code.DUPLICATE_DEVICE, message)
        payers = tuple(word.casefold() for word in _values(cell("paid_by"), _BETWEEN_WORDS))
        origin = Origin(self._source.file, self.line, 1)
        return Device(cell("name") or None, addresses, hardware, cell("owner") or None, payers, origin)

    def close(self) -> None:
        """Report how many more rows were wrong."""
        if self._wrong <= MAX_REPORTED:
            return
        message = f"{self._wrong - MAX_REPORTED} more like these were found by here"
        if self.broken:
            self._report.error(self._source, TextSpan(self.line, 1), Code.BAD_DEVICE, message)
        else:
            self._report.warning(self._source, TextSpan(self.line, 1), Code.DUPLICATE_DEVICE, message)

    def _fault(self, column: int, code: Code, message: str, length: int | None = None) -> None:
        self.broken = True
        if self._counted():
            self._report.error(self._source, self._place(column, length), code, message)

    def _counted(self) -> bool:
        self._wrong += 1
        return self._wrong <= MAX_REPORTED

    def _place(self, column: int, length: int | None = None) -> TextSpan:
        """The place of a cell in the current row."""
        text, start, end = self._source.line(self.line) or "", 0, 0
        for cell in (each.strip() for each in self._cells[: column + 1]):
            start = max(text.find(cell, end), end)
            end = start + len(cell)
        return TextSpan(self.line, start + 1, end - start if length is None else length)


def _values(cell: str, between: dict[int, str]) -> list[str]:
    """The values in a cell, without repeats."""
    if not cell or cell.isalnum():
        return [cell] if cell else []
    words = (word.strip() for word in cell.translate(between).split("\n"))
    return list(dict.fromkeys(word for word in words if word))


def _address(word: str) -> IPNetwork:
    address = parse_address(word)
    if address is None:
        raise _Wrong("address", f"`{word}` is no address of a device")
    if address.is_multicast or address.is_unspecified or address == _EVERYBODY:
        raise _Wrong("address", f"`{word}` is not the address of one device")
    return IPv4Network(address) if isinstance(address, IPv4Address) else IPv6Network(address)


def _hardware(word: str) -> str:
    known = hardware_address(word)
    if known is None:
        raise _Wrong("mac", f"`{word}` is no hardware address; write it as `00:53:00:aa:bb:cc`")
    if known in _NOBODY or int(known[:2], 16) & 1:  # IEEE 802: the group bit
        raise _Wrong("mac", f"`{word}` is not the address of one device")
    return known
