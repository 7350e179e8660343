"""`tokgate authority`: keys that nobody else can read, and nothing lost when they are replaced."""

import json
import os
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from whenever import Instant

from labs.command_line import POLICY, Command
from tokgate.block_page.authority import AUTHORITY, establish_authority
from tokgate.cli.setup import authority

NAMES = ("--name", "clips.example.org", "static.example.net")
SECRET = {"root.key", "root.passphrase", AUTHORITY}


@pytest.fixture(autouse=True)
def page(policies: Path) -> None:
    """A working directory with a policy that shows a page."""
    (policies / "policy.yaml").write_text(POLICY.replace("duration: P6M", "response: page"))


def chain(path: str) -> list[x509.Certificate]:
    text = Path(path).read_bytes()
    found = x509.load_pem_x509_certificates(text)
    assert load_pem_private_key(text, None).public_key() == found[0].public_key()
    return found


def test_names_come_from_the_policies(tokgate: Command) -> None:
    """Without a word about names the authority is believed for those that pages are shown for."""
    outcome = tokgate("authority", "init")
    assert (outcome.code, outcome.out) == (0, f"authority/{AUTHORITY}\n"), outcome.err
    shown = json.loads(tokgate("authority", "show", "authority", "--json").out)["certificates"]
    assert [(each["role"], each["names"]) for each in shown] == [
        ("issuing", ["clips.example.org", "static.example.net"]),
        ("root", ["clips.example.org", "static.example.net"]),
    ]


def test_only_the_owner_reads_keys(tokgate: Command) -> None:
    """Keys and the passphrase are closed to others, also in the gateway's folder, and what was there before."""
    for command in (("init", *NAMES), ("rotate",)):
        assert tokgate("authority", *command, "--confdir", "conf").code == 0
    files = [path for name in ("authority", "conf") for path in Path(name).rglob("*")]
    secret = [path for path in files if path.is_file() and path.name.partition(".2")[0] in SECRET]
    assert len(secret) == 5
    for path in [*secret, *(path for path in files if path.is_dir()), Path("authority"), Path("conf")]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    encrypted = Path("authority/root.key").read_bytes()
    with pytest.raises(TypeError, match="encrypted"):
        load_pem_private_key(encrypted, None)
    word = Path("authority/root.passphrase").read_bytes().strip()
    assert isinstance(load_pem_private_key(encrypted, word), ec.EllipticCurvePrivateKey)


def test_the_gateways_file_is_its_users(tokgate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """What root puts into tokgate's folder belongs to the user that owns the folder, as which tokgate reads it."""
    Path("conf").mkdir()
    given: list[tuple[str, int, int]] = []
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "chown", lambda path, uid, gid: given.append((Path(path).name, uid, gid)))
    monkeypatch.setattr(authority, "secure_folder", lambda folder: None)
    assert tokgate("authority", "init", *NAMES, "--confdir", "conf").code == 0
    owner = Path("conf").stat()
    assert (AUTHORITY, owner.st_uid, owner.st_gid) in given


def test_show(tokgate: Command) -> None:
    """Fingerprint, validity and names of each certificate; what devices compare is the root's fingerprint."""
    tokgate("authority", "init", *NAMES, "--organisation", "Example Council")
    outcome = tokgate("authority", "show", "authority")
    issuing, root = outcome.out.split("\n\n")
    assert outcome.code == 0
    assert issuing.startswith("issuing: CN=Example Council network filter issuing ")
    assert "believed for clips.example.org static.example.net" in issuing
    made = x509.load_pem_x509_certificate(Path("authority/root.pem").read_bytes())
    assert x509.load_der_x509_certificate(Path("authority/root.cer").read_bytes()) == made
    assert made.fingerprint(SHA256()).hex(":").upper() in root
    assert "days left" in root


def test_show_warns_of_an_unlimited_one(tokgate: Command) -> None:
    """The authority that a first start makes can forge every site: that is said, and is exit code 1."""
    Path("conf").mkdir()
    establish_authority(Path("conf"), Instant.now())
    outcome = tokgate("authority", "show", "conf")
    assert (outcome.code, "ANY NAME" in outcome.out) == (1, True)


def test_show_warns_of_an_ended_one(tokgate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """Devices refuse it, and so the page is a certificate warning."""
    monkeypatch.setattr(authority, "ISSUING_DAYS", 0)
    tokgate("authority", "init", *NAMES)
    outcome = tokgate("authority", "show", "authority")
    assert (outcome.code, outcome.out.count("NOT VALID NOW")) == (1, 1)


def test_rotate_needs_nothing_of_devices(tokgate: Command) -> None:
    """A new key below the same root, in use on this machine, where the old file is kept."""
    tokgate("authority", "init", *NAMES, "--confdir", "conf")
    before = chain(f"conf/{AUTHORITY}")
    outcome = tokgate("authority", "rotate", "--confdir", "conf")
    after = chain(f"conf/{AUTHORITY}")
    assert (outcome.code, "devices need nothing" in outcome.err) == (0, True)
    assert (after[0] == before[0], after[1] == before[1]) == (False, True)
    assert [chain(str(path)) for path in Path("conf").glob(f"{AUTHORITY}.*")] == [before]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("init",), 2, "has an authority already"),
        (("rotate", "--name", "other.example"), 2, "not believed for other.example"),
        (("rotate", "--folder", "elsewhere"), 3, "is missing: a new key needs the root's"),
        (("init", "--folder", "new", "--name", "not a name"), 2, "is no host name"),
        (("show", "policies/policy.yaml"), 3, "no certificate in it"),
        (("show", "nowhere"), 3, "`tokgate authority init` makes an authority"),
    ],
    ids=["again", "outside", "no-root", "name", "no-certificate", "nowhere"],
)
def test_refused(tokgate: Command, arguments: tuple[str, ...], code: int, said: str) -> None:
    """A wrong request changes nothing, and says why."""
    tokgate("authority", "init", *NAMES)
    before = {path: path.read_bytes() for path in Path("authority").rglob("*") if path.is_file()}
    outcome = tokgate("authority", *arguments)
    assert (outcome.code, said in outcome.err) == (code, True), outcome.err
    assert {path: path.read_bytes() for path in Path("authority").rglob("*") if path.is_file()} == before


def test_a_root_with_another_passphrase(tokgate: Command) -> None:
    """What can't be opened, or isn't the key of the certificate, signs nothing."""
    tokgate("authority", "init", *NAMES)
    tokgate("authority", "init", *NAMES, "--folder", "other")
    for name in ("root.passphrase", "root.key"):  # first alone, then with the key that it opens
        Path("authority", name).write_bytes(Path("other", name).read_bytes())
        outcome = tokgate("authority", "rotate")
        assert (outcome.code, "can't be used" in outcome.err) == (3, True)


def test_without_a_page_nothing_is_needed(tokgate: Command) -> None:
    """Who refuses without a page is told so, instead of getting a key that can only be stolen."""
    Path("policies/policy.yaml").write_text(POLICY)
    outcome = tokgate("authority", "init")
    assert (outcome.code, "nothing needs an authority" in outcome.err, Path("authority").exists()) == (2, True, False)


def test_a_root_that_has_ended(tokgate: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key is made below it, which no device would believe."""
    monkeypatch.setattr(authority, "ROOT_DAYS", 0)
    tokgate("authority", "init", *NAMES)
    outcome = tokgate("authority", "rotate")
    assert (outcome.code, "has ended" in outcome.err) == (2, True)
