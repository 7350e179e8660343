"""`tokgate authority`: make, show and replace the certificate authority of the block page."""

import argparse
import os
import secrets
import sys
from collections.abc import Iterator, Sequence
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
    make_issuing,
    make_root,
    page_names,
    pem,
    permitted,
    secure_folder,
)
from tokgate.blocklog.atomic_file import replace_file
from tokgate.blocklog.integrity.checkpoint import KEY_MODE, PUBLIC_MODE
from tokgate.cli.commands import CommandError, Exit, Subparsers, add_command, add_subcommand
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

A new root, when names must grow or it ends, is what `init` makes in another folder."""
_SHOW_EPILOG: Final = """\
examples:
  tokgate authority show                            what ~/.tokgate has
  tokgate authority show authority/root.pem         what devices get

Exit code 1: an authority that has ended, or is believed for any name."""
_FOLDER: Final = Path("authority")
ROOT_DAYS: Final = 730
ISSUING_DAYS: Final = 365
_NEW_ROOT: Final = "that takes a new one, of `tokgate authority init` with another --folder"


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


def add_parser(subparsers: Subparsers) -> None:
    parser = add_command(subparsers, "authority", EPILOG)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="authority_command", required=True)
    making = add_subcommand(commands, "init", "make a root and an issuing authority", _INIT_EPILOG)
    making.add_argument("--organisation", metavar="TEXT", default="tokgate", help="whose it is, as devices show it")
    making.add_argument("--addresses", action="store_true", help="believed for addresses too, as plain mitmdump needs")
    making.set_defaults(run=_init)
    rotating = add_subcommand(commands, "rotate", "replace the issuing key", _ROTATE_EPILOG)
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
    folder: Path = options.folder
    if any((folder / name).exists() for name in ("root.key", "root.passphrase", "root.pem", "root.cer", AUTHORITY)):
        why = "has an authority already: see `rotate`, or name another --folder"
        raise CommandError(f"{visible(str(folder))} {why}", Exit.USAGE)
    now = Instant.now()
    names = _names(options, now)
    root = make_root(names, options.organisation, now, ROOT_DAYS, addresses=options.addresses)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    secure_folder(folder)
    passphrase = secrets.token_urlsafe(30).encode()
    encrypted = root.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(passphrase))
    replace_file(folder / "root.passphrase", passphrase + b"\n", KEY_MODE)
    replace_file(folder / "root.key", encrypted, KEY_MODE)
    replace_file(folder / "root.pem", pem([root.certificate]), PUBLIC_MODE)
    replace_file(folder / "root.cer", root.certificate.public_bytes(Encoding.DER), PUBLIC_MODE)
    _issue(root, names, options, now)
    narrate(f"tokgate: give devices {folder}/root.pem (or root.cer): certs/README.md says how")
    narrate(f"tokgate: keep root.key and root.passphrase of {folder} offline, in two places")
    return Exit.DONE


def _rotate(options: argparse.Namespace) -> int:
    folder, now = options.folder, Instant.now()
    try:
        word = (folder / "root.passphrase").read_bytes().strip()
        key = load_pem_private_key((folder / "root.key").read_bytes(), word)
        certificate = x509.load_pem_x509_certificate((folder / "root.pem").read_bytes())
    except FileNotFoundError as error:
        raise CommandError(
            f"{visible(str(error.filename))} is missing: a new key needs the root's; `tokgate authority init` makes one"
        ) from error
    except ValueError as error:
        raise CommandError(f"the root of {visible(str(folder))} can't be used: {error}") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise CommandError(f"the root of {visible(str(folder))} can't be used: root.key is not the key of root.pem")
    believed = permitted(certificate) or ()
    names = _names(options, now) if options.name else believed
    outside = [name for name in names if not any(name == each or name.endswith(f".{each}") for each in believed)]
    if outside:
        raise CommandError(f"the root is not believed for {', '.join(outside)}: {_NEW_ROOT}", Exit.USAGE)
    if certificate.not_valid_after_utc <= now.to_stdlib():
        raise CommandError(f"the root has ended: {_NEW_ROOT}", Exit.USAGE)
    _issue(CertifiedKey(key, certificate), names, options, now)
    narrate("tokgate: devices need nothing")
    return Exit.DONE


def _issue(root: CertifiedKey, names: Sequence[str], options: argparse.Namespace, now: Instant) -> None:
    """Write the gateway's file, key first, then the certificates up to the root, and if wanted to a gateway's folder.

    There the one before it is kept. By root it is made a file of the folder's owner, as which tokgate runs.
    """
    issuing = make_issuing(root, names, now, ISSUING_DAYS)
    key = issuing.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    content = key + pem([issuing.certificate, root.certificate])
    replace_file(options.folder / AUTHORITY, content, KEY_MODE)
    sys.stdout.write(f"{options.folder / AUTHORITY}\n")
    if options.confdir is None:
        narrate("tokgate: that file goes to the gateway's --confdir, mode 0600; then restart tokgate there")
        return
    confdir = options.confdir.expanduser()
    secure_folder(confdir)
    target, kept = confdir / AUTHORITY, confdir / f"{AUTHORITY}.{now.format_iso(unit='millisecond', basic=True)}"
    if target.exists():
        target.rename(kept)
        kept.chmod(KEY_MODE)
        narrate(f"tokgate: what was there is {kept.name}")
    replace_file(target, content, KEY_MODE)
    if os.geteuid() == 0:
        owner = confdir.stat()
        os.chown(target, owner.st_uid, owner.st_gid)
    narrate(f"tokgate: put into {options.confdir}: restart tokgate")


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


def _show(options: argparse.Namespace) -> int:
    """Show each certificate; exit code 1 if one is not valid now, or believed for any name."""
    now, path = Instant.now(), options.path.expanduser()
    try:
        found = x509.load_pem_x509_certificates((path / AUTHORITY if path.is_dir() else path).read_bytes())
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "no certificate in it"
        raise CommandError(f"{visible(str(path))}: {why}; `tokgate authority init` makes an authority") from error
    told = [_described(certificate, now) for certificate in found]
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
