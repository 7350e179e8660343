"""`tokgate review`: the log in a browser. Turns options into an authentication method, a listener and files."""

import argparse
import socket
import time
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from whenever import Instant

from tokgate.blocklog.records.record import this_observer
from tokgate.cli.arguments import argument_of, host_and_port
from tokgate.cli.commands import COMMANDS, CommandError, Exit, Subparsers
from tokgate.cli.configuration import default_log
from tokgate.cli.log.access import add_reason, purpose_of
from tokgate.cli.log.source import add_log_option, add_no_rotated, add_server, server_of
from tokgate.cli.log.verify import add_trust, trust_of, verifier_of
from tokgate.cli.policy_source import add_policies_option
from tokgate.cli.terminal import narrate, you
from tokgate.config.extras import Extra
from tokgate.config.format.networks import cidr
from tokgate.runtime.banner import written

if TYPE_CHECKING:
    from tokgate.webui.auth import Authenticator
    from tokgate.webui.queries import Source

DEFAULT_LISTEN: Final = ("127.0.0.1", 8090)
_EVERYWHERE: Final = ("0.0.0.0", "::")
_BACKLOG: Final = 128

_EPILOG: Final = """\
examples:
  tokgate review                                    ./block.ndjson on 127.0.0.1:8090; opens by the link that is printed
  tokgate review --log /var/log/tokgate/block.ndjson --policies /etc/tokgate/policies
  htpasswd -B -c analysts.htpasswd alice; tokgate review --htpasswd analysts.htpasswd
  tokgate review --listen 10.0.0.5:8443 --htpasswd analysts.htpasswd --tls-cert page.pem --tls-key page.key
  tokgate review --listen 10.0.0.5:8090 --trusted-header X-Remote-User --trusted-proxy 10.0.0.4/32 \\
                 --origin https://review.example.org

From another machine without any of these: ssh -L 8090:127.0.0.1:8090 GATEWAY. Each look is reported on stderr, and
recorded in --access-log. docs/review.md says what the page shows and how it is kept closed. Ctrl-C ends it."""


def add_parser(subparsers: Subparsers) -> None:
    summary = COMMANDS["review"]
    parser = subparsers.add_parser(
        "review", help=summary, description="Show the block log in a browser.", epilog=_EPILOG
    )
    parser.add_argument(
        "--listen", type=partial(host_and_port, first=0), default=DEFAULT_LISTEN, metavar="HOST:PORT",
        help=f"where to be reached (default: {written(*DEFAULT_LISTEN)})",
    )  # fmt: skip
    add_log_option(parser, f"logs to show, those rotated away included (default: {default_log()})")
    add_no_rotated(parser)
    parser.add_argument(
        "--access-log", type=Path, metavar="FILE", help="record each look in this file, or show nothing"
    )
    add_policies_option(parser, revisions=True)
    add_server(parser)
    add_trust(parser.add_argument_group("by what proofs are verified"))
    add_reason(parser.add_argument_group("why they look"))
    signing_in = parser.add_argument_group("who may look (default: whoever opens the link that is printed, once)")
    signing_in.add_argument("--htpasswd", type=Path, metavar="FILE", help="users and bcrypt hashes, by `htpasswd -B`")
    signing_in.add_argument(
        "--trusted-header", metavar="NAME", help="the header in which a proxy names who is signed in"
    )
    signing_in.add_argument(
        "--trusted-proxy",
        action="append",
        type=argument_of(cidr),
        metavar="CIDR",
        help="the proxies that are believed: about that header, and about clients, in X-Forwarded-For",
    )
    outside = parser.add_argument_group("for other machines")
    outside.add_argument(
        "--origin", type=_origin, metavar="URL", help="how browsers call the page, as in https://review.example.org"
    )
    outside.add_argument("--tls-cert", type=Path, metavar="PEM", help="certificate, and those up to its authority")
    outside.add_argument("--tls-key", type=Path, metavar="PEM", help="its key")
    parser.set_defaults(run=run, usage_error=parser.error, extra=Extra.REVIEW)


def run(args: argparse.Namespace) -> int:
    _check(args)
    # A web server and DuckDB take a while to import: only this command waits for them.
    from tokgate.analytics.sql import LogError
    from tokgate.cli.service.policy_context import PolicyExplainer
    from tokgate.webui.app import build, serve, server
    from tokgate.webui.audit_log import AuditLog
    from tokgate.webui.context import Site
    from tokgate.webui.queries import QueryCache

    with closing(_listener(args.listen)) as listener:
        port = listener.getsockname()[1]
        address = f"{'https' if args.tls_cert else 'http'}://{written(args.listen[0], port)}"
        audit_log = AuditLog(this_observer(), Instant.now, narrate, args.access_log, purpose_of(args))
        authenticator = _authenticator(args, args.origin or address)
        secure = bool(args.tls_cert) or (args.origin or "").startswith("https:")
        cookie = f"__Host-tokgate-{port}" if secure else f"tokgate-{port}"
        try:
            index = _index(args)
        except LogError as error:
            raise CommandError(str(error)) from error
        with closing(index):
            if not index.found:
                narrate(f"tokgate: there is no log at {', '.join(map(str, args.log or [default_log()]))} yet")
            site = Site(QueryCache(index), authenticator, audit_log, PolicyExplainer(args.policies), cookie, secure)
            proxies = args.trusted_proxy or ()
            hosts = {urlsplit(args.origin).netloc} if args.origin else set()  # besides those of loopback
            hosts |= set() if args.listen[0] in _EVERYWHERE else {written(args.listen[0], port)}
            app, live = build(site, hosts=hosts, clock=time.monotonic, proxies=proxies)
            if not authenticator.has_sessions or args.htpasswd:
                narrate(f"tokgate: {args.origin or address}/")
            serve(server(app, live.close, args.tls_cert, args.tls_key), listener)
    return Exit.DONE


def _index(args: argparse.Namespace) -> "Source":
    """The log that the page shows. Raises LogError, CommandError."""
    if (address := server_of(args)) is not None:
        from tokgate.analytics.clickhouse_log import ClickHouseIndex

        return ClickHouseIndex(address)
    from tokgate.analytics.index import Index

    trusted, kept = trust_of(args)
    return Index(
        args.log or [default_log()], rotated=not args.no_rotated,
        verifier_of=lambda files: verifier_of(files, trusted, kept),
    )  # fmt: skip


def _check(args: argparse.Namespace) -> None:
    """Refuse a page that other machines can reach without authentication."""
    from tokgate.webui.middleware import is_loopback

    listen = f"--listen {written(*args.listen)}:"
    if args.trusted_header and not args.trusted_proxy:
        args.usage_error("--trusted-header needs --trusted-proxy")
    if args.trusted_proxy and not args.trusted_header and not args.htpasswd:
        args.usage_error("--trusted-proxy needs --trusted-header or --htpasswd")
    if args.trusted_header and args.htpasswd:
        args.usage_error("argument --trusted-header: not allowed with argument --htpasswd")
    if bool(args.tls_cert) != bool(args.tls_key):
        args.usage_error("--tls-cert and --tls-key need each other")
    if args.listen[0] in _EVERYWHERE and not args.origin:
        args.usage_error(f"{listen} say how browsers call the page: --origin https://review.example.org")
    if is_loopback(args.listen[0]) or args.trusted_header:
        return
    if not args.htpasswd:
        args.usage_error(f"{listen} other machines could reach it: say who may look: --htpasswd or --trusted-header")
    if not args.tls_cert:
        args.usage_error(
            f"{listen} passwords would cross the network in the clear: give --tls-cert and --tls-key, "
            "or listen on 127.0.0.1 behind a proxy that has TLS"
        )


def _authenticator(args: argparse.Namespace, address: str) -> "Authenticator":
    from tokgate.accounts import AccountsError
    from tokgate.accounts.htpasswd import Htpasswd
    from tokgate.webui.auth import HeaderAuthenticator, LinkAuthenticator, PasswordAuthenticator, Sessions

    if args.trusted_header:
        return HeaderAuthenticator(args.trusted_header, args.trusted_proxy)
    sessions = Sessions(time.monotonic)
    if args.htpasswd:
        try:
            passwords = (users := Htpasswd(args.htpasswd)).passwords()
        except AccountsError as error:
            raise CommandError(str(error)) from error
        if passwords.unusable or not passwords.hashes:
            unusable = ", ".join(sorted(passwords.unusable)) or "no user"
            raise CommandError(f"{args.htpasswd}: {unusable}: write each with a bcrypt hash (`htpasswd -B`)")
        return PasswordAuthenticator(sessions, users, time.monotonic)
    return LinkAuthenticator(
        sessions, you(), lambda token: narrate(f"tokgate: open, once: {address}/enter?token={token}")
    )


def _listener(address: tuple[str, int]) -> socket.socket:
    """The listening socket; opened first, so that a port in use is reported at once. Raises CommandError."""
    try:
        return socket.create_server(
            address, family=socket.AF_INET6 if ":" in address[0] else socket.AF_INET, backlog=_BACKLOG
        )
    except OSError as error:
        raise CommandError(f"can't listen on {written(*address)}: {error.strerror or error}") from error


def _origin(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path not in ("", "/") or parts.query:
        raise argparse.ArgumentTypeError(f"{text!r} is no origin: https://review.example.org")
    return f"{parts.scheme}://{parts.netloc.lower()}"
