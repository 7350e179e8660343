"""The key's file: what lies in its place, and the secret that keys leave to each other."""

import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tokgate.blocklog.integrity.checkpoint import (
    KeyUnusable,
    Signer,
    public_pem,
    read_key,
    read_public_key,
    replace_secret,
)
from tokgate.blocklog.records.chain import Head

AT = "2023-03-10T11:00:00.000000Z"


def descriptors() -> int:
    """How many files this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


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


def test_keys_of_other_kinds(tmp_path: Path) -> None:
    """What can't sign is no key; what is read is the key that was written."""
    path, other = tmp_path / "block.key", X25519PrivateKey.generate()
    signer = Signer(path)
    assert read_public_key(tmp_path / "block.pub") == signer.public
    assert (tmp_path / "block.pub").stat().st_mode & 0o777 == 0o644 & ~_umask()
    key, epoch = read_key(path)
    assert (public_pem(key.public_key()), epoch) == ((tmp_path / "block.pub").read_text(), 0)
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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_something_else_in_the_keys_place(tmp_path: Path) -> None:
    """A pipe or a link is replaced; nothing is written into it, and no descriptor of it stays open."""
    pipe, link, target = tmp_path / "pipe", tmp_path / "link", tmp_path / "target"
    os.mkfifo(pipe)
    target.write_text("mine")
    link.symlink_to(target)
    before = descriptors()
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    for path in (pipe, link):
        replace_secret(path, b"key")
        assert path.read_bytes() == b"key"
    assert (os.read(reader, 10), target.read_text()) == (b"", "mine")
    os.close(reader)
    replace_secret(pipe, b"another")
    assert descriptors() == before
