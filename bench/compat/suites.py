"""Commands of real clients, each with what it prints made comparable, and the servers of the origin that they need."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import trustme

from compat.lab import DIRECT, ROADS, Lab, Road, Way
from compat.raw import PROXY_PORT
from labs.waiting import until

SCRIPTS: Final = Path(__file__).with_name("scripts")
SYSTEM_PYTHON: Final = "/usr/bin/python3"
LARGE: Final = 16 << 20
_NGINX: Final = """\
daemon off; user root; worker_processes 1; pid {folder}/nginx.pid; error_log {folder}/nginx.err;
events {{ worker_connections 2048; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; gzip_types text/plain; gzip_min_length 1; etag on;
  ssl_certificate {folder}/cert.pem; ssl_certificate_key {folder}/key.pem; ssl_session_cache shared:a:1m;
  client_max_body_size 64m; types {{ text/html html; }} default_type text/plain;
  server {{ listen 80; listen 443 ssl; listen 4430 ssl; http2 on; include {folder}/places; }}
  server {{ listen 4431 ssl; ssl_protocols TLSv1.2; http2 on; include {folder}/places; }}
  server {{ listen 4432 ssl; ssl_protocols TLSv1.3; include {folder}/places; }}
  server {{ listen 4433 ssl; ssl_client_certificate {folder}/ca.pem; ssl_verify_client on; include {folder}/places; }}
}}
"""
_PLACES: Final = """\
location / {{ root {folder}/www; }}
location /echo {{ return 200 "$request_method $request_uri $http_x_case $http_content_type $ssl_client_verify\\n"; }}
location /version {{ return 200 "$server_protocol\\n"; }}
location /who {{ return 200 "$remote_addr\\n"; }}
location /moved {{ return 301 /page.html; }}
location /nothing {{ return 204; }}
location /teapot {{ return 418 "teapot\\n"; }}
location /gzip {{ gzip on; root {folder}/www; rewrite .* /text break; }}
"""


@dataclass(frozen=True, slots=True)
class Command:
    """One client's command for a road, or none where the client can't go such a way.

    `tidy` makes outputs comparable; the exit code is compared, too. `seconds`: how long it may take.
    """

    name: str
    words: Callable[[Road], list[str] | None]
    tidy: Callable[[str], str] = lambda text: text
    seconds: float = 40


@dataclass(frozen=True, slots=True)
class Suite:
    """Commands of one client. `opened`: they are tried where TLS is opened, too."""

    name: str
    program: str
    package: str
    commands: tuple[Command, ...]
    opened: bool = True


class Origin:
    """nginx, and the servers of gRPC and WebSocket, for all names; `bundle` is what clients are to trust."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        self.authority, self.bundle = folder / "ca.pem", folder / "bundle.pem"
        self.certificate, self.key = folder / "cert.pem", folder / "key.pem"
        self.missing: list[str] = []

    @contextmanager
    def running(self) -> Iterator[None]:
        """All of them."""
        self._write()
        with ExitStack() as stack:
            commands = [["nginx", "-c", str(self.folder / "nginx.conf")]]
            for module, port in (("grpc", 4440), ("websockets", 4441)):
                if subprocess.run(
                    [SYSTEM_PYTHON, "-c", f"import {module}"], capture_output=True, check=False
                ).returncode:
                    self.missing.append(f"{module} (apt-get install python3-{module.replace('grpc', 'grpcio')})")
                    continue
                script = SCRIPTS / f"{module}_peer.py"
                commands.append([SYSTEM_PYTHON, str(script), "serve", str(port), str(self.certificate), str(self.key)])
            for number, command in enumerate(commands):
                process = self.lab.origin.start(*command, output=self.folder / f"server{number}.out")
                stack.callback(process.wait)
                stack.callback(process.terminate)
            ports = (443, *((4440, 4441) if not self.missing else ()))
            until(
                "the origin serves",
                lambda: all(f":{port} " in self.lab.origin.run("ss", "-Hltn").stdout for port in ports),
            )
            yield

    def trust(self, more: Path) -> None:
        """Let clients trust the origin's authority and a proxy's."""
        self.bundle.write_text(self.authority.read_text() + more.read_text())

    def _write(self) -> None:
        site = self.folder / "www"
        site.mkdir()
        (site / "page.html").write_text("<!doctype html><title>page</title><p id=a>text</p>")
        (site / "text").write_text("some text\n" * 500)
        (site / "large").write_bytes(bytes(range(256)) * (LARGE // 256))
        (self.folder / "upload").write_bytes(os.urandom(1 << 20))
        authority = trustme.CA(organization_name="Origin authority")
        issued = authority.issue_cert(*(road.name for road in ROADS), "www.tiktok.com")
        authority.cert_pem.write_to_path(self.authority)
        authority.cert_pem.write_to_path(self.bundle)
        self.certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(self.key)
        self.key.chmod(0o644)  # Squid reads it as another user
        (self.folder / "places").write_text(_PLACES.format(folder=self.folder))
        (self.folder / "nginx.conf").write_text(_NGINX.format(folder=self.folder))


def proxy_of(road: Road) -> str:
    """`http://host:port` of an explicit proxy; empty on other roads."""
    return f"http://{road.gateway}:{PROXY_PORT}" if road.way is Way.EXPLICIT else ""


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _brief_tls(text: str) -> str:
    """Of what `openssl s_client` prints: what was agreed, and what the origin's page says; no keys or tickets."""
    wanted = (
        *(r"(?:Protocol|Protocol version|Ciphersuite|CONNECTION \w+|Peer certificate|Hash used|Signature type): .*",),
        *(r"Verif\w+: .*", r"(?:Negotiated TLS1.3 group|Server Temp Key|Peer Temp Key): .*", r"ALPN protocol: .*"),
        *(r"No ALPN negotiated", r"HTTP/1.1 \d+.*", r"GET /echo .*", r"Reused, .*", r"New, .*", r"Early data was \w+"),
    )
    return "\n".join(found[0] for found in re.finditer("(?m)^(?:" + "|".join(wanted) + ")$", text))


def suites(origin: Origin) -> tuple[Suite, ...]:
    """All suites."""
    folder = origin.folder

    def curl(name: str, *options: str, scheme: str = "https", port: int = 0, path: str = "/echo") -> Command:
        def words(road: Road) -> list[str]:
            url = f"{scheme}://{road.name}{f':{port}' if port else ''}"
            filled = [option.replace("URL", url) for option in options]
            via = ["-x", proxy_of(road)] if proxy_of(road) else []
            out = "%{http_code} %{http_version} %{size_download} %{num_redirects} %{content_type}\n"
            urls = [] if any("URL" in option for option in options) else [url + path]
            always = ["curl", "-sS", "--max-time", "30", "--cacert", str(origin.bundle), *via, *urls, "-w", out]
            return [*always, *filled]

        return Command(name, words, lambda text: f"{_digest(text)} {text[-120:].strip()}")

    upload = f"@{folder}/upload"
    http = ("http", "https")
    curls = (
        *(curl(f"{scheme} GET", scheme=scheme, path="/page.html") for scheme in http),
        *(curl(f"{scheme} HEAD", "-I", "-o", "/dev/null", scheme=scheme, path="/page.html") for scheme in http),
        *(curl(f"{scheme} POST", "-d", "a=b", scheme=scheme) for scheme in http),
        *(curl(f"{scheme} upload", "--data-binary", upload, scheme=scheme) for scheme in http),
        *(
            curl(f"{scheme} PUT chunked", "-T", "-", "-H", "Transfer-Encoding: chunked", scheme=scheme)
            for scheme in http
        ),
        *(curl(f"{scheme} expect", "-H", "Expect: 100-continue", "-d", "a=b", scheme=scheme) for scheme in http),
        *(curl(f"{scheme} form", "-F", f"a={upload}", "-o", "/dev/null", scheme=scheme) for scheme in http),
        *(curl(f"{scheme} range", "-r", "5-9", scheme=scheme, path="/text") for scheme in http),
        *(curl(f"{scheme} gzip", "--compressed", scheme=scheme, path="/gzip") for scheme in http),
        *(curl(f"{scheme} redirect", "-L", scheme=scheme, path="/moved") for scheme in http),
        *(curl(f"{scheme} 204", scheme=scheme, path="/nothing") for scheme in http),
        *(curl(f"{scheme} 404", scheme=scheme, path="/none") for scheme in http),
        *(curl(f"{scheme} 418", scheme=scheme, path="/teapot") for scheme in http),
        *(curl(f"{scheme} two on a connection", "URL/text", "URL/echo", scheme=scheme) for scheme in http),
        *(curl(f"{scheme} large", "-o", "-", scheme=scheme, path="/large") for scheme in http),
        *(curl(f"{scheme} 1.0", "--http1.0", scheme=scheme) for scheme in http),
        *(curl(f"{scheme} basic", "-u", "a:b", "-H", "X-Case: x", scheme=scheme) for scheme in http),
        curl("h2c upgrade", "--http2", scheme="http", path="/version"),
        curl("h2c prior knowledge", "--http2-prior-knowledge", scheme="http", path="/text"),
        curl("https 1.1", "--http1.1", path="/version"),
        curl("https 2", "--http2", path="/version"),
        curl("TLS 1.2", "--tls-max", "1.2", path="/version"),
        curl("TLS 1.3", "--tlsv1.3", path="/version"),
        curl("port with TLS 1.2 only", port=4431, path="/version"),
        curl("port with TLS 1.3 only", port=4432, path="/version"),
        curl("no ALPN", "--no-alpn", path="/version"),
        curl("unknown authority", "--cacert", "/etc/hostname"),
    )

    def s_client(name: str, *options: str, port: int = 443, sni: bool = True, brief: bool = True) -> Command:
        def words(road: Road) -> list[str]:
            via = ["-proxy", proxy_of(road).removeprefix("http://")] if proxy_of(road) else []
            named = ["-servername", road.name] if sni else ["-noservername"]
            ask = f"printf 'GET /echo HTTP/1.1\\r\\nHost: {road.name}\\r\\nConnection: close\\r\\n\\r\\n'"
            tls = ["openssl", "s_client", "-ign_eof", "-connect", f"{road.name}:{port}", *named, *via, *options]
            tls += ["-CAfile", str(origin.bundle), *(["-brief"] if brief else [])]
            quoted = " ".join(f"'{word}'" for word in tls)
            return ["sh", "-c", f"{ask} | timeout 20 {quoted} 2>&1"]

        return Command(name, words, _brief_tls)

    groups = ["X25519", "X25519MLKEM768", "P-256", "P-384", "P-521", "X448", "SecP256r1MLKEM768"]
    ciphers = [
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "AES128-SHA",
    ]
    client_certificate = ("-cert", str(origin.certificate), "-key", str(origin.key))
    ciphers13 = ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"]
    variants = (
        s_client("plain"),
        s_client("no server_name", sni=False),
        *(s_client(f"TLS 1.{minor}", f"-tls1_{minor}") for minor in (1, 2, 3)),
        *(s_client(f"group {group}", "-groups", group) for group in groups),
        s_client("group changed by HelloRetryRequest", "-groups", "X448:P-256"),
        *(s_client(f"cipher {cipher}", "-tls1_2", "-cipher", cipher) for cipher in ciphers),
        *(s_client(f"cipher {cipher}", "-ciphersuites", cipher) for cipher in ciphers13),
        *(s_client(f"ALPN {alpn}", "-alpn", alpn) for alpn in ("http/1.1", "http/1.0,http/1.1", "x-odd", "x" * 200)),
        s_client("status request", "-status"),
        s_client("no tickets", "-no_ticket"),
        s_client("no extended master secret", "-tls1_2", "-no_ems"),
        s_client("no encrypt-then-MAC", "-tls1_2", "-no_etm"),
        s_client("no middlebox compatibility", "-no_middlebox"),
        s_client("small fragments", "-max_send_frag", "512"),
        s_client("fragment length extension", "-tls1_2", "-maxfraglen", "512"),
        s_client("signature algorithms", "-sigalgs", "ECDSA+SHA256"),
        s_client("transparency", "-ct"),
        s_client("client certificate", *client_certificate, port=4433),
        s_client("no client certificate", port=4433),
        s_client("session again", "-tls1_2", "-reconnect", brief=False),
        s_client("renegotiation refused", "-tls1_2", "-legacy_renegotiation"),
        s_client("TLS 1.2 only", port=4431),
        s_client("TLS 1.3 only", port=4432),
        s_client("verified name", "-verify_hostname", "x.example.net", "-verify_return_error"),
    )

    def testssl(name: str, *options: str) -> Command:
        def words(road: Road) -> list[str]:
            via = ["--proxy", proxy_of(road).removeprefix("http://")] if proxy_of(road) else []
            csv = folder / f"testssl{road.number}.csv"
            run = " ".join(["testssl", "--quiet", "--color", "0", "--ip", road.address, "--csvfile", str(csv)])
            run += " " + " ".join([*options, *via, f"{road.name}:443"])
            return ["sh", "-c", f"rm -f {csv}; {run} > /dev/null 2>&1; cat {csv}; rm -f {csv}"]

        def tidy(text: str) -> str:
            rows = [row.split('","') for row in text.splitlines()[1:]]
            kept = [(row[0], row[3], row[4]) for row in rows if len(row) > 4 and "scan" not in row[0].lower()]
            return "\n".join(map(str, kept))

        return Command(name, words, tidy, 280)

    def script(name: str, runner: list[str], *, plain: bool = False, port: int = 0) -> Command:
        def words(road: Road) -> list[str]:
            scheme = "http" if plain else "https"
            url = f"{scheme}://{road.name}{f':{port}' if port else ''}"
            return [*runner, url, proxy_of(road) or "direct", str(origin.bundle)]

        return Command(name, words)

    def wget(name: str, *options: str, scheme: str = "https", path: str = "/page.html") -> Command:
        def words(road: Road) -> list[str]:
            via = ["-e", "use_proxy=yes", "-e", f"{scheme}_proxy={proxy_of(road)}"] if proxy_of(road) else []
            trust = f"--ca-certificate={origin.bundle}"
            return [
                "wget",
                "-q",
                "-t",
                "1",
                "-T",
                "20",
                "-O",
                "-",
                trust,
                *via,
                *options,
                f"{scheme}://{road.name}{path}",
            ]

        return Command(name, words, _digest)

    def h2load(name: str, *options: str, port: int = 443) -> Command:
        def words(road: Road) -> list[str] | None:
            if proxy_of(road):
                return None  # it knows no proxy
            return ["h2load", *options, f"https://{road.name}:{port}/text"]

        def tidy(text: str) -> str:
            return "\n".join(re.findall(r"(?m)^(?:requests|status codes): .*|^Application protocol: .*", text))

        return Command(name, words, tidy)

    def chromium(name: str, scheme: str, path: str) -> Command:
        def words(road: Road) -> list[str]:
            via = [f"--proxy-server={proxy_of(road)}"] if proxy_of(road) else []
            home = folder / f"chromium{road.number}"
            flags = "--headless --no-sandbox --disable-gpu --disable-background-networking --ignore-certificate-errors"
            return [
                "timeout",
                "50",
                "chromium",
                *flags.split(),
                f"--user-data-dir={home}",
                *via,
                "--dump-dom",
                f"{scheme}://{road.name}{path}",
            ]

        return Command(name, words)

    go, java = folder / "client-go", folder / "classes"
    return (
        Suite("curl", "curl", "curl", curls),
        Suite(
            "wget",
            "wget",
            "wget",
            tuple(wget(f"{s} {p}", scheme=s, path=p) for s in http for p in ("/page.html", "/moved", "/large")),
        ),
        Suite("openssl", "openssl", "openssl", variants, opened=False),
        Suite("testssl.sh", "testssl", "testssl.sh", (testssl("protocols", "--protocols"),), opened=False),
        Suite(
            "Node.js",
            "node",
            "nodejs",
            (
                script("https", ["node", str(SCRIPTS / "client.js")]),
                script("http", ["node", str(SCRIPTS / "client.js")], plain=True),
            ),
        ),
        Suite("Go", "go", "golang-go", (script("https", [str(go)]), script("http", [str(go)], plain=True))),
        Suite(
            "Java",
            "javac",
            "default-jdk-headless",
            (
                script("https", ["java", "-cp", str(java), "Client"]),
                script("http", ["java", "-cp", str(java), "Client"], plain=True),
            ),
        ),
        Suite(
            "Python",
            SYSTEM_PYTHON,
            "python3",
            (
                script("https", [SYSTEM_PYTHON, str(SCRIPTS / "client.py")]),
                script("http", [SYSTEM_PYTHON, str(SCRIPTS / "client.py")], plain=True),
            ),
        ),
        Suite(
            "gRPC",
            SYSTEM_PYTHON,
            "python3-grpcio",
            (script("calls", [SYSTEM_PYTHON, str(SCRIPTS / "grpc_peer.py"), "call"], port=4440),),
        ),
        Suite(
            "WebSocket",
            SYSTEM_PYTHON,
            "python3-websockets",
            (
                script("wss", [SYSTEM_PYTHON, str(SCRIPTS / "websockets_peer.py"), "call"], port=4441),
                script("ws", [SYSTEM_PYTHON, str(SCRIPTS / "websockets_peer.py"), "call"], plain=True, port=20_499),
            ),
        ),
        Suite(
            "h2load",
            "h2load",
            "nghttp2-client",
            (
                h2load("HTTP/2", "-n", "200", "-c", "4", "-m", "10"),
                h2load("HTTP/1.1", "--h1", "-n", "100", "-c", "4", port=4432),
            ),
        ),
        Suite(
            "Chromium",
            "chromium",
            "chromium",
            (chromium("https", "https", "/page.html"), chromium("http", "http", "/page.html")),
        ),
    )


def built(suite: Suite, folder: Path) -> str | None:
    """Build what a suite needs; why it can't run, if so."""
    if shutil.which(suite.program) is None:
        return f"apt-get install {suite.package}"
    build = {
        "Go": ["go", "build", "-o", str(folder / "client-go"), str(SCRIPTS / "client.go")],
        "Java": ["javac", "-d", str(folder / "classes"), str(SCRIPTS / "Client.java")],
        "gRPC": [SYSTEM_PYTHON, "-c", "import grpc"],
        "WebSocket": [SYSTEM_PYTHON, "-c", "import websockets"],
    }.get(suite.name)
    if build is not None:
        env = {**os.environ, "GO111MODULE": "off", "GOFLAGS": "", "HOME": str(folder)}
        done = subprocess.run(build, capture_output=True, text=True, env=env, check=False)
        if done.returncode:
            return f"apt-get install {suite.package}" if build[0] == SYSTEM_PYTHON else done.stderr[-300:]
    return None


def outcome(lab: Lab, command: Command, road: Road) -> str | None:
    """A command's exit code and output, comparable; None where it can't go that way."""
    words = command.words(road)
    if words is None:
        return None
    try:
        environment = {k: v for k, v in os.environ.items() if "proxy" not in k.lower()} | {"OPENSSL_CONF": "/dev/null"}
        done = subprocess.run(
            lab.clients[road].command(*words),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=command.seconds,
            env=environment,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return "timeout"
    text = command.tidy(done.stdout.decode("utf-8", "replace"))
    for own in (road.name, road.address, road.gateway):
        text = text.replace(own, DIRECT.name if own == road.name else "ADDRESS")
    error = done.stderr.decode("utf-8", "replace").strip()[-160:] if done.returncode else ""
    return f"exit {done.returncode} {text} {error}".strip()
