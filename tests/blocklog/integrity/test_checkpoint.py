"""Checkpoints as they are written and read, and the key's file."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tokgate.blocklog.integrity.checkpoint import (
    KeyUnusable,
    Signer,
    Tree,
    checkpoint_of,
    parse_checkpoints,
    public_pem,
    read_key,
    read_public_key,
    replace_secret,
    sign,
)
from tokgate.blocklog.records.chain import Head

AT = "2023-03-10T11:00:00.000000Z"
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
FULL = sign(KEY, Head("c", 5, "0" * 64), AT, 3, "next", Tree(2, "ab" * 32))


_NO_TREES: list[Any] = [None, [], {}, {"first": 1}, {"root": "ab" * 32}]


def test_they_come_back_as_they_were_written() -> None:
    """With all that they may have, and with nothing but what each has."""
    plain = sign(KEY, Head("c", 5, "0" * 64), AT, 0)
    for made in (FULL, plain):
        assert checkpoint_of("c", made.as_json()) == made
        assert list(parse_checkpoints([made.message()])) == [made]
        assert made.genuine
    assert not {"next_key", "tree"} & set(plain.as_json())


@pytest.mark.parametrize(
    "wrong",
    [
        *({"sequence": value} for value in (None, "5", 5.0, True)),
        *({"epoch": value} for value in (None, "0", False)),
        *({"hash": value} for value in (None, 7, "ab", "AB" * 32)),
        *({name: 7} for name in ("at", "key", "signature")),
        *({name: None} for name in ("at", "key", "signature")),
        {"next_key": 7},
        *({"tree": value} for value in _NO_TREES),
        *({"tree": {"first": first, "root": "ab" * 32}} for first in (None, "1", True)),
        *({"tree": {"first": 1, "root": root}} for root in (None, "ab")),
    ],
    ids=str,
)
def test_another_shape(wrong: dict[str, Any]) -> None:
    """Whatever somebody wrote in a checkpoint's place, verification reports it and goes on."""
    assert checkpoint_of("c", FULL.as_json() | wrong) is None


def test_no_checkpoint_at_all() -> None:
    """Nor is one that belongs to no chain, or a text that only looks like one."""
    assert checkpoint_of(None, FULL.as_json()) is None
    assert checkpoint_of("c", [FULL.as_json()]) is None
    mark = "tokgate-checkpoint "
    assert list(parse_checkpoints([mark, f"{mark}[1]", mark + "[" * 200_000, f"{mark}{{}}", "nothing"])) == []
    said = FULL.message()
    lines = [f"Mar 10 12:00:00 gw tokgate[7]: {said}", json.dumps({"MESSAGE": said, "_PID": "7"}), f"{mark}{{"]
    assert list(parse_checkpoints(lines)) == [FULL, FULL]  # in syslog lines, and in journal output as JSON


def test_keys_that_follow_each_other_have_one_secret(tmp_path: Path) -> None:
    """By it a run knows what an earlier one wrote, also after the key was replaced; a new key has another one."""
    path = tmp_path / "block.key"
    signer = Signer(path, evolving=True)
    for epoch in range(3):
        assert Signer(path, evolving=True).secret == signer.secret
        checkpoint = signer.sign(Head("c", 5, "0" * 64), AT)
        assert checkpoint.epoch == epoch
        signer.used(checkpoint)
    assert Signer(tmp_path / "other.key").secret != signer.secret
    damaged = path.read_text().partition("secret: ")[0]
    for secret in ("secret: \n", "secret: xy\n", ""):
        replace_secret(path, (damaged + secret).encode())
        assert len(Signer(path).secret) == 32


def test_a_replaced_secret_is_gone_from_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Overwritten there, not only in memory: a power failure right after gives nothing back."""
    path, sync, synced = tmp_path / "block.key", os.fsync, list[bytes]()

    def kept(descriptor: int) -> None:
        sync(descriptor)
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            synced.append(Path(f"/proc/self/fd/{descriptor}").read_bytes())

    replace_secret(path, b"first")
    monkeypatch.setattr(os, "fsync", kept)
    replace_secret(path, b"second")
    assert synced == [b"second", bytes(len(b"first"))]


@pytest.mark.parametrize("permissions", [0o640, 0o604, 0o660, 0o610])
def test_a_key_that_others_may_read(tmp_path: Path, permissions: int) -> None:
    """Whoever can read it can sign another log with it: it is not used."""
    path = tmp_path / "block.key"
    Signer(path)
    path.chmod(permissions)
    with pytest.raises(KeyUnusable, match="chmod 600"):
        read_key(path)


def test_keys_of_other_kinds(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What can't sign is no key; what is read is the key that was written."""
    path, other = tmp_path / "block.key", X25519PrivateKey.generate()
    signer = Signer(path)
    assert read_public_key(tmp_path / "block.pub") == signer.public
    (plain := tmp_path / "plain").touch(0o644)
    assert (tmp_path / "block.pub").stat().st_mode == plain.stat().st_mode
    key, epoch = read_key(path)
    assert (public := public_pem(key.public_key()), epoch) == ((tmp_path / "block.pub").read_text(), 0)
    assert public in caplog.text, "it is to be kept elsewhere"
    without_epoch = path.read_bytes().partition(b"\n")[2]
    replace_secret(path, without_epoch)
    assert read_key(path)[0].private_bytes_raw() == key.private_bytes_raw()
    replace_secret(path, b"epoch: x\n" + without_epoch)
    with pytest.raises(KeyUnusable, match="no key"):
        read_key(path)
    replace_secret(path, other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(KeyUnusable, match="no Ed25519 key"):
        read_key(path)
    path.write_bytes(other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with pytest.raises(KeyUnusable, match="no Ed25519 key"):
        read_public_key(path)
    path.write_text("no key")
    with pytest.raises(KeyUnusable, match="no key"):
        read_key(path)
    with pytest.raises(KeyUnusable, match="no public key"):
        read_public_key(path)


def test_something_else_in_the_keys_place(tmp_path: Path) -> None:
    """A pipe or a link is replaced; nothing is written into it, and no descriptor of it stays open."""
    pipe, link, target = tmp_path / "pipe", tmp_path / "link", tmp_path / "target"
    os.mkfifo(pipe)
    target.write_text("mine")
    link.symlink_to(target)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    for path in (pipe, link):
        replace_secret(path, b"key")
        assert path.read_bytes() == b"key"
    assert (os.read(reader, 10), target.read_text()) == (b"", "mine")
    os.close(reader)
    replace_secret(pipe, b"another")
