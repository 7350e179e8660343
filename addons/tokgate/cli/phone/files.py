"""The files of a tunnel: its own, which root alone reads, and the inventory among the policies, without secrets."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from tokgate.blocklog.atomic_file import replacing
from tokgate.cli.exits import CommandError, Exit
from tokgate.cli.output_file import locked, replace_policy_file
from tokgate.cli.terminal import shown
from tokgate.gateway.phones.tunnel import Phone, Tunnel, inventory, phones_in

DEFAULT_FOLDER: Final = Path("/var/lib/tokgate-phones")
NETWORK: Final = "phones"
"""The policy's name for them."""
_TUNNEL: Final = "tunnel.json"
_INVENTORY: Final = "phones.csv"
_POLICY: Final = "phones.yaml"
_SECRET: Final = 0o600
_HEAD: Final = """\
# yaml-language-server: $schema=../schema/policy.schema.json
# Written by `tokgate phone up`; you may add a title and a time zone, and other networks of the same phones elsewhere.
"""


@dataclass(frozen=True, slots=True)
class PhoneFiles:
    """`folder` is the tunnel's own, `policies` that of the policies. Methods raise GatewayError and OSError."""

    folder: Path
    policies: Path

    @contextmanager
    def locked(self) -> Iterator[None]:
        """A context with the lock of all commands that change phones. It is released if the process dies."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked(self.folder):
            yield

    def tunnel(self) -> Tunnel | None:
        """The tunnel; None before the first `phone up`."""
        try:
            return Tunnel.decode((self.folder / _TUNNEL).read_text())
        except FileNotFoundError:
            return None
        except PermissionError:
            raise CommandError(f"{self.folder} is root's: run this as root") from None

    def need_tunnel(self) -> Tunnel:
        """The tunnel; a CommandError where there is none."""
        found = self.tunnel()
        if found is None:
            raise CommandError("there is no tunnel yet: tokgate phone up --help", Exit.USAGE)
        return found

    def keep_tunnel(self, tunnel: Tunnel) -> None:
        """Write the tunnel's file, with its private key."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with replacing(self.folder / _TUNNEL, _SECRET) as draft:
            draft.write_text(tunnel.encode())

    def phones(self) -> tuple[Phone, ...]:
        """The phones that may use the tunnel, in the order in which they were added."""
        try:
            return phones_in((self.policies / _INVENTORY).read_text())
        except FileNotFoundError:
            return ()

    def keep_phones(self, phones: Iterable[Phone]) -> None:
        """Write the inventory. A running tokgate reads it at once."""
        self._write(_INVENTORY, inventory(phones))

    def state_network(self, tunnel: Tunnel) -> Path | None:
        """Write the policy file that names the phones as a network; None where there is one already.

        The whole prefixes are in it, so that a phone is under its bans before tokgate has read the inventory.
        """
        path = self.policies / _POLICY
        if path.exists():
            return None
        cidrs = [str(each) for each in tunnel.prefixes]
        network = {"title": "Phones, by WireGuard", "cidrs": cidrs, "devices": {"file": _INVENTORY}}
        document = {"version": 1, "networks": {NETWORK: network}}
        self._write(_POLICY, _HEAD + yaml.safe_dump(document, sort_keys=False))
        return path

    def _write(self, name: str, text: str) -> None:
        if not self.policies.is_dir():
            raise CommandError(f"{shown(str(self.policies))} is no folder of policies", Exit.USAGE)
        replace_policy_file(self.policies / name, text.encode())


def write_secret(path: Path, content: bytes) -> None:
    """Write a new file that its owner alone reads. Raises FileExistsError: what may hold another key stays."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _SECRET)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
