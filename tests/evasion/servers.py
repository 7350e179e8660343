"""The servers that decide whether a banned name was served: one that records, and real ones of different strictness."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from enum import StrEnum
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Final

import trustme

from evasion.python_server import ALLOWED_PAGE, BANNED_PAGE, Pages, accept
from labs.ports import answers, held_port
from labs.waiting import until

DEADLINE: Final = 60.0
BANNED: Final = "www.clips.example.org"
ALLOWED: Final = "www.example.org"
IDLE: Final = 0.1
"""Seconds of silence after which the recording server takes it that all has been said."""


class Server(StrEnum):
    """Who is behind the gateway."""

    RECORDER = "recorder"
    """Serves nothing and keeps every octet: whatever arrives there has passed."""
    PYTHON = "python"
    """OpenSSL by Python's ssl, and Python's http.server."""
    NGINX = "nginx"
    NODE = "node"
    HAPROXY = "haproxy"
    CADDY = "caddy"
    """Go's TLS and HTTP."""
    NAMELESS = "nameless"
    """Serves the banned name over TLS whatever is asked for: who asks for none gets it, too."""

    @property
    def missing(self) -> str | None:
        """The program that would have to be installed."""
        known = self in (Server.RECORDER, Server.PYTHON, Server.NAMELESS)
        return None if known or shutil.which(self.value) else self.value


class Recorder:
    """A listener of its own for one attempt, which keeps what arrives, and answers when nothing more comes.

    With `until` it answers as soon as that is true of what has arrived, however slowly it comes.
    """

    def __init__(self, address: str = "127.0.0.1", until: Callable[[bytes], bool] | None = None) -> None:
        self._until = until
        self._socket = socket.create_server((address, 0))
        self.port: int = self._socket.getsockname()[1]
        self.received = bytearray()
        self.connections = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                self.connections += 1
                with client:
                    self._serve(client)

    def _serve(self, client: socket.socket) -> None:
        client.settimeout(DEADLINE)
        with contextlib.suppress(OSError):
            while piece := client.recv(1 << 16):
                self.received += piece
                if self._until is None:
                    client.settimeout(IDLE)
                elif self._until(bytes(self.received)):
                    break
        with contextlib.suppress(OSError):
            client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\nrecorded")
            client.shutdown(socket.SHUT_WR)
            client.settimeout(IDLE)
            while piece := client.recv(1 << 16):  # of a client that was held up
                self.received += piece

    def close(self) -> None:
        """Stop listening, and wait for what is being read."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(DEADLINE)


class Servers:
    """Starts the real servers that are asked for, each once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self._ports: dict[tuple[Server, bool], int] = {}
        self._lock = threading.Lock()
        authority = trustme.CA()
        for name, names in (("banned", (BANNED, "*.clips.example.org")), ("allowed", (ALLOWED,))):
            issued = authority.issue_cert(*names)
            chain = b"".join(blob.bytes() for blob in issued.cert_chain_pems)
            (folder / f"{name}.pem").write_bytes(chain)
            (folder / f"{name}.key").write_bytes(issued.private_key_pem.bytes())
            (folder / f"{name}.both").write_bytes(chain + issued.private_key_pem.bytes())

    def port(self, server: Server, *, tls: bool) -> int:
        with self._lock:
            if (server, tls) not in self._ports:
                self._start(server)
            return self._ports[server, tls]

    def close(self) -> None:
        self._stack.close()

    def _start(self, server: Server) -> None:
        secure, plain = (self._stack.enter_context(held_port()) for _ in range(2))
        self._ports[server, True], self._ports[server, False] = secure, plain
        getattr(self, f"_{server}")(secure, plain)
        for port in (secure, plain):
            until(f"{server} listens", partial(answers, port))

    def _run(self, server: Server, *command: str | Path) -> None:
        home = {"HOME": str(self._folder), "XDG_DATA_HOME": str(self._folder), "XDG_CONFIG_HOME": str(self._folder)}
        with (self._folder / f"{server}.log").open("wb") as log:
            process = subprocess.Popen(
                [str(word) for word in command], stdout=log, stderr=log, cwd=self._folder, env=os.environ | home
            )

        def end() -> None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

        self._stack.callback(end)

    def _nginx(self, secure: int, plain: int) -> None:
        f = self._folder
        user = "user root; " if os.geteuid() == 0 else ""
        (f / "nginx.conf").write_text(
            f"""daemon off; {user}worker_processes 1; pid {f}/nginx.pid; error_log stderr;
            events {{ worker_connections 1024; }}
            http {{
              access_log off; client_body_temp_path {f}/n1; proxy_temp_path {f}/n2; fastcgi_temp_path {f}/n3;
              uwsgi_temp_path {f}/n4; scgi_temp_path {f}/n5; http2 on; keepalive_timeout 2s; lingering_close off;
              server {{ listen 127.0.0.1:{secure} ssl default_server; listen 127.0.0.1:{plain} default_server;
                ssl_certificate {f}/allowed.pem; ssl_certificate_key {f}/allowed.key;
                location / {{ return 200 "{ALLOWED_PAGE.decode()}\\n"; }} }}
              server {{ listen 127.0.0.1:{secure} ssl; listen 127.0.0.1:{plain};
                server_name clips.example.org *.clips.example.org;
                ssl_certificate {f}/banned.pem; ssl_certificate_key {f}/banned.key;
                location / {{ return 200 "{BANNED_PAGE.decode()}\\n"; }} }}
            }}"""
        )
        self._run(Server.NGINX, "nginx", "-e", "stderr", "-c", f / "nginx.conf")

    def _node(self, secure: int, plain: int) -> None:
        (self._folder / "server.js").write_text(
            f"""const fs = require('fs'), http = require('http'), https = require('https'), tls = require('tls');
            const pair = name => ({{key: fs.readFileSync(name + '.key'), cert: fs.readFileSync(name + '.pem')}});
            const banned = tls.createSecureContext(pair('banned'));
            const page = (request, response) => response.end(
              /clips[.]example[.]org/i.test(request.headers.host + ' ' + request.url)
                ? '{BANNED_PAGE.decode()}' : '{ALLOWED_PAGE.decode()}');
            const lenient = {{insecureHTTPParser: true, requireHostHeader: false}};
            const SNICallback = (name, done) => done(null, /clips[.]example[.]org/i.test(name) ? banned : undefined);
            https.createServer({{...pair('allowed'), SNICallback, ...lenient}}, page).listen({secure}, '127.0.0.1');
            http.createServer(lenient, page).listen({plain}, '127.0.0.1');"""
        )
        self._run(Server.NODE, "node", self._folder / "server.js")

    def _haproxy(self, secure: int, plain: int) -> None:
        f = self._folder
        (f / "list").write_text(f"{f}/allowed.both\n{f}/banned.both [] *.clips.example.org clips.example.org\n")
        (f / "haproxy.cfg").write_text(
            f"""global
              nbthread 1
            defaults
              mode http
              timeout client 5s
              timeout server 5s
              timeout connect 5s
            frontend all
              bind 127.0.0.1:{secure} ssl crt-list {f}/list
              bind 127.0.0.1:{plain}
              option accept-invalid-http-request
              acl banned hdr(host) -m sub -i clips.example.org
              http-request return status 200 content-type text/plain string "{BANNED_PAGE.decode()}" if banned
              http-request return status 200 content-type text/plain string "{ALLOWED_PAGE.decode()}"
            """.replace("            ", "")
        )
        self._run(Server.HAPROXY, "haproxy", "-db", "-f", f / "haproxy.cfg")

    def _caddy(self, secure: int, plain: int) -> None:
        f = self._folder
        (f / "Caddyfile").write_text(
            f"""{{
              admin off
              auto_https off
              default_bind 127.0.0.1
              servers {{
                protocols h1 h2 h2c
                strict_sni_host insecure_off
              }}
            }}
            https://clips.example.org:{secure}, https://*.clips.example.org:{secure} {{
              tls {f}/banned.pem {f}/banned.key
              respond "{BANNED_PAGE.decode()}"
            }}
            https://:{secure} {{
              tls {f}/allowed.pem {f}/allowed.key
              respond "{ALLOWED_PAGE.decode()}"
            }}
            http://clips.example.org:{plain}, http://*.clips.example.org:{plain} {{
              respond "{BANNED_PAGE.decode()}"
            }}
            http://:{plain} {{
              respond "{ALLOWED_PAGE.decode()}"
            }}"""
        )
        self._run(Server.CADDY, "caddy", "run", "--config", f / "Caddyfile")

    def _python(self, secure: int, plain: int) -> None:
        contexts = {}
        for name in ("allowed", "banned"):
            contexts[name] = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            contexts[name].load_cert_chain(self._folder / f"{name}.pem", self._folder / f"{name}.key")

        def chosen(connection: ssl.SSLObject | ssl.SSLSocket, name: str | None, _: ssl.SSLContext) -> None:
            if name and "clips.example.org" in name.lower():
                connection.context = contexts["banned"]

        contexts["allowed"].sni_callback = chosen
        self._serve_tls(secure, contexts["allowed"])
        pages = ThreadingHTTPServer(("127.0.0.1", plain), Pages)
        self._stack.callback(pages.server_close)
        self._stack.callback(pages.shutdown)
        threading.Thread(target=pages.serve_forever, args=(0.05,), daemon=True).start()

    def _nameless(self, secure: int, plain: int) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self._folder / "banned.pem", self._folder / "banned.key")
        self._serve_tls(secure, context)
        self._serve_tls(plain, context)

    def _serve_tls(self, port: int, context: ssl.SSLContext) -> None:
        listener = socket.create_server(("127.0.0.1", port), backlog=512)
        self._stack.callback(listener.close)
        self._stack.callback(listener.shutdown, socket.SHUT_RDWR)
        threading.Thread(target=accept, args=(listener, context), daemon=True).start()


@contextlib.contextmanager
def running_servers(folder: Path) -> Iterator[Servers]:
    with closing(Servers(folder)) as servers:
        yield servers
