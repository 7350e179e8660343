"""`tokgate authority`: make, show and replace the certificate authority of the block page."""

import argparse
import os
import secrets
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypedDict

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from whenever import Instant

from tokgate.block_page.authority import (
    AUTHORITY,
    DEFAULT_CONFDIR,
    CertifiedKey,
    believes_addresses,
    make_issuing,
    make_root,
    page_names,
    pem,
    permitted,
    secure_folder,
)
from tokgate.blocklog.atomic_file import replace_file
from tokgate.blocklog.integrity.checkpoint import KEY_MODE, PUBLIC_MODE
from tokgate.cli.commands import Subparsers, add_command, add_subcommand
from tokgate.cli.exits import CommandError, Exit
from tokgate.cli.policy_source import add_policies_option, open_policy
from tokgate.cli.terminal import narrate, print_json, visible
from tokgate.policy.values.hostname import DomainName, normalise

EPILOG: Final = """\
examples:
  tokgate authority init --confdir ~/.tokgate       for the names of bans with `response: page`; used by this machine
  tokgate authority rotate                          a new issuing key, below the same root: devices notice nothing

A refusal by `response: refuse`, the default, needs no authority. certs/README.md has the rest: where the files go, how
devices get the root, what to do when a key leaks."""
_INIT_EPILOG: Final = """\
examples:
  tokgate authority init --confdir ~/.tokgate       for the names of bans with `response: page`; used by this machine
  tokgate authority init --name tiktok.com tiktokv.com --organisation 'Example Council'"""
_ROTATE_EPILOG: Final = """\
examples:
  tokgate authority rotate                          a new issuing key, below the same root: devices notice nothing
  tokgate authority rotate --root                   a new root, when names must grow or it ends"""
_SHOW_EPILOG: Final = """\
examples:
  tokgate authority show                            what ~/.tokgate has
  tokgate authority show authority/root.pem         what devices get

Exit code 1: an authority that has ended, or is believed for any name."""
_FOLDER: Final = Path("authority")
ROOT_DAYS: Final = 730
ISSUING_DAYS: Final = 365


class CertificateOutput(TypedDict):
    """A certificate of the authority; `names` is null for one that is believed for any."""

    subject: str
    role: Literal["root", "issuing"]
    sha256: str
    valid_from: str
    valid_until: str
    days_left: int
    valid: bool
    names: list[str] | None


class AuthorityShown(TypedDict):
    """`tokgate authority show --json`: the chain, from the gateway's certificate to the root."""

    certificates: list[CertificateOutput]


@dataclass(frozen=True, slots=True)
class AuthorityFolder:
    """`root.key` and `root.passphrase` stay offline, `root.pem` and `root.cer` go to devices, the rest to gateways."""

    path: Path

    @property
    def for_gateways(self) -> Path:
        """The issuing key, its certificate and the root's."""
        return self.path / AUTHORITY

    @property
    def exists(self) -> bool:
        """Whether any file of an authority is there."""
        return any((self.path / name).exists() for name in (*_ROOT_FILES, AUTHORITY))

    def write_root(self, root: CertifiedKey) -> None:
        """Write a root, its key encrypted with a new passphrase. Raises OSError."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        secure_folder(self.path)
        passphrase = secrets.token_urlsafe(30).encode()
        encrypted = root.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase))
        replace_file(self.path / "root.passphrase", passphrase + b"\n", KEY_MODE)
        replace_file(self.path / "root.key", encrypted, KEY_MODE)
        replace_file(self.path / "root.pem", pem([root.certificate]), PUBLIC_MODE)
        replace_file(self.path / "root.cer", root.certificate.public_bytes(Encoding.DER), PUBLIC_MODE)

    def read_root(self, passphrase: Path | None = None) -> CertifiedKey:
        """The root with its key; `passphrase` is the file with it, where it isn't in the folder.

        Raises:
            OSError: a file can't be read.
            ValueError: the passphrase or the key is wrong.
        """
        word = (passphrase or self.path / "root.passphrase").read_bytes().strip()
        key = load_pem_private_key((self.path / "root.key").read_bytes(), word)
        certificate = x509.load_pem_x509_certificate((self.path / "root.pem").read_bytes())
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise ValueError("root.key is not the key of root.pem")
        return CertifiedKey(key, certificate)

    def write_for_gateways(self, issuing: CertifiedKey, root: x509.Certificate) -> None:
        """Write the gateway's file: key first, then the certificates up to the root. Raises OSError."""
        key = issuing.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        replace_file(self.for_gateways, key + pem([issuing.certificate, root]), KEY_MODE)

    def set_aside(self, now: Instant, *, root: bool) -> Path:
        """Move what is about to be replaced to a folder below `old`, and return that. Raises OSError."""
        (self.path / OLD).mkdir(mode=0o700, exist_ok=True)
        folder = self.path / OLD / _stamp(now)
        folder.mkdir(mode=0o700)
        for name in (*(_ROOT_FILES if root else ()), AUTHORITY):
            if (self.path / name).exists():
                (self.path / name).rename(folder / name)
        return folder


def add_parser(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "authority", EPILOG)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="authority_command", required=True)
    making = add_subcommand(commands, "init", "make a root and an issuing authority", _INIT_EPILOG)
    making.add_argument("--organisation", metavar="TEXT", default="tokgate", help="whose it is, as devices show it")
    making.add_argument("--addresses", action="store_true", help="believed for addresses too, as plain mitmdump needs")
    making.set_defaults(run=_init)
    rotating = add_subcommand(commands, "rotate", "replace the issuing key, or all", _ROTATE_EPILOG)
    rotating.add_argument("--root", action="store_true", help="also the root, which devices must then get")
    rotating.add_argument("--passphrase", metavar="FILE", type=Path, help="of the root's key, where it is elsewhere")
    rotating.set_defaults(run=_rotate)
    for each in (making, rotating):
        add_policies_option(each)
        each.add_argument(
            "--folder", metavar="DIR", type=Path, default=_FOLDER, help="its folder (default: ./authority)"
        )
        each.add_argument(
            "--name", nargs="+", metavar="NAME", help="believed for these (default: as the policies need)"
        )
        each.add_argument("--confdir", metavar="DIR", type=Path, help="also put the gateway's file there")
    showing = add_subcommand(commands, "show", "show fingerprints, validity and names", _SHOW_EPILOG)
    showing.add_argument("--json", action="store_true", help="one JSON object")
    showing.set_defaults(run=_show)
    showing.add_argument(
        "path", metavar="PATH", nargs="?", type=Path, default=DEFAULT_CONFDIR, help="folder or file (~/.tokgate)"
    )


def _init(options: argparse.Namespace) -> int:
    """Make an authority where none is."""
    folder = AuthorityFolder(options.folder)
    if folder.exists:
        raise CommandError(
            f"{visible(str(folder.path))} has an authority already: see `rotate`, or name another --folder", Exit.USAGE
        )
    now = Instant.now()
    names = _names(options, now)
    root = make_root(names, options.organisation, now, ROOT_DAYS, addresses=options.addresses)
    folder.write_root(root)
    folder.write_for_gateways(make_issuing(root, names, now, ISSUING_DAYS), root.certificate)
    _tell(folder, options.confdir, now)
    narrate(f"tokgate: give devices {folder.path}/root.pem (or root.cer): certs/README.md says how")
    narrate(f"tokgate: keep root.key and root.passphrase of {folder.path} offline, in two places")
    return Exit.DONE


def _rotate(options: argparse.Namespace) -> int:
    """Replace the issuing key, or with `--root` everything. What was is kept below `old`."""
    folder, now = AuthorityFolder(options.folder), Instant.now()
    try:
        root = folder.read_root(options.passphrase)
    except FileNotFoundError as error:
        raise CommandError(
            f"{visible(str(error.filename))} is missing: a new key needs the root's; `tokgate authority init` makes one"
        ) from error
    except ValueError as error:
        raise CommandError(f"the root of {visible(str(folder.path))} can't be used: {error}") from error
    believed = permitted(root.certificate) or ()
    names = _names(options, now) if options.name or options.root else believed
    outside = [name for name in names if not any(name == each or name.endswith(f".{each}") for each in believed)]
    if not options.root and outside:
        raise CommandError(
            f"the root is not believed for {', '.join(outside)}: that takes a new one (--root)", Exit.USAGE
        )
    if not options.root and root.certificate.not_valid_after_utc <= now.to_stdlib():
        raise CommandError("the root has ended: that takes a new one (--root)", Exit.USAGE)
    organisation = str(root.certificate.subject.get_attributes_for_oid(x509.NameOID.ORGANIZATION_NAME)[0].value)
    old = folder.set_aside(now, root=options.root)
    if options.root:
        root = make_root(names, organisation, now, ROOT_DAYS, addresses=believes_addresses(root.certificate))
        folder.write_root(root)
    folder.write_for_gateways(make_issuing(root, names, now, ISSUING_DAYS), root.certificate)
    _tell(folder, options.confdir, now)
    narrate(f"tokgate: what was is kept in {old}; delete it once nobody needs it")
    if options.root:
        narrate(f"tokgate: give devices {folder.path}/root.pem beside the old root, then gateways the new file, then")
        narrate(
            "tokgate: take the old root away from devices; until they have the new one, keep the gateways as they are"
        )
    else:
        narrate("tokgate: devices need nothing")
    return Exit.DONE


def _tell(folder: AuthorityFolder, confdir: Path | None, now: Instant) -> None:
    """Print the file for gateways, and put it into a gateway's folder if that is wanted."""
    sys.stdout.write(f"{folder.for_gateways}\n")
    if confdir is None:
        narrate("tokgate: that file goes to the gateway's --confdir, mode 0600; then restart tokgate there")
        return
    kept = install(folder, confdir.expanduser(), now)
    narrate(
        f"tokgate: put into {confdir}: restart tokgate" + ("" if kept is None else f"; what was there is {kept.name}")
    )


def _names(options: argparse.Namespace, now: Instant) -> tuple[str, ...]:
    """The names on the command line, else those that the policies' pages need."""
    if options.name:
        names = tuple(dict.fromkeys(str(normalise(name)) for name in options.name))
        wrong = [name for name in options.name if not isinstance(normalise(name), DomainName)]
        if wrong:
            raise CommandError(f"{visible(wrong[0])} is no host name", Exit.USAGE)
        return names
    names = page_names(open_policy(options.policies, now))
    if not names:
        raise CommandError(
            "no ban has `response: page`, so nothing needs an authority; name the names with --name", Exit.USAGE
        )
    return names


def _read(path: Path) -> Sequence[x509.Certificate]:
    try:
        return certificates_at(path.expanduser())
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "no certificate in it"
        raise CommandError(f"{visible(str(path))}: {why}; `tokgate authority init` makes an authority") from error


def _show(options: argparse.Namespace) -> int:
    """Show each certificate; exit code 1 if one is not valid now, or believed for any name."""
    now = Instant.now()
    told = [_described(certificate, now) for certificate in _read(options.path)]
    if options.json:
        print_json(AuthorityShown(certificates=told), indent=2)
    else:
        sys.stdout.write("\n\n".join("\n".join(_lines(each)) for each in told) + "\n")
    return Exit.DONE if all(each["valid"] and each["names"] is not None for each in told) else Exit.FINDINGS


def _described(certificate: x509.Certificate, now: Instant) -> CertificateOutput:
    names, ends = permitted(certificate), Instant(certificate.not_valid_after_utc)
    return {
        "subject": certificate.subject.rfc4514_string(),
        "role": "root" if certificate.subject == certificate.issuer else "issuing",
        "sha256": certificate.fingerprint(SHA256()).hex(":").upper(),
        "valid_from": Instant(certificate.not_valid_before_utc).format_iso(),
        "valid_until": ends.format_iso(),
        "days_left": int((ends - now).total("hours") // 24),
        "valid": Instant(certificate.not_valid_before_utc) <= now < ends,
        "names": None if names is None else list(names),
    }


def _lines(told: CertificateOutput) -> Iterator[str]:
    yield f"{told['role']}: {told['subject']}"
    yield f"  SHA-256      {told['sha256']}"
    left = f"{told['days_left']} days left" if told["valid"] else "NOT VALID NOW"
    yield f"  valid        {told['valid_from']} to {told['valid_until']} ({left})"
    believed = (
        "ANY NAME: whoever has its key can forge every site" if told["names"] is None else " ".join(told["names"])
    )
    yield f"  believed for {believed}"


OLD: Final = "old"
"""The folder, below the authority's, of what was replaced."""
_ROOT_FILES: Final = ("root.key", "root.passphrase", "root.pem", "root.cer")


def install(made: AuthorityFolder, confdir: Path, now: Instant) -> Path | None:
    """Put the gateway's file into a gateway's folder; the one before it is kept there, and returned. Raises OSError.

    By root it is made a file of the folder's owner, as which tokgate runs.
    """
    secure_folder(confdir)
    target, kept = confdir / AUTHORITY, None
    content = made.for_gateways.read_bytes()
    if target.exists() and target.read_bytes() != content:
        kept = confdir / f"{AUTHORITY}.{_stamp(now)}"
        target.rename(kept)
        kept.chmod(KEY_MODE)
    replace_file(target, content, KEY_MODE)
    if os.geteuid() == 0:
        owner = confdir.stat()
        os.chown(target, owner.st_uid, owner.st_gid)
    return kept


def _stamp(now: Instant) -> str:
    return now.format_iso(unit="millisecond", basic=True)


def certificates_at(path: Path) -> Sequence[x509.Certificate]:
    """The certificates of a PEM file, or of the gateway's file in a folder.

    Raises:
        OSError: it can't be read.
        ValueError: it holds no certificate.
    """
    return x509.load_pem_x509_certificates((path / AUTHORITY if path.is_dir() else path).read_bytes())
