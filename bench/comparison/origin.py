"""The servers that the client wants to reach: nginx, and raw servers that cost next to nothing."""

import contextlib
from pathlib import Path
from string import Template
from typing import Final, Self

from comparison.namespaces import Lab, run
from comparison.processes import Service
from comparison.settings import ALLOWED_NAME, BANNED_NAME, BULK, BULK_ANSWER, HELD, SMALL, SMALL_ANSWER, WEB

OBJECTS: Final = 40
_NGINX: Final = Template("""\
user root; worker_processes 2; worker_rlimit_nofile 65536; daemon off;
pid $folder/nginx.pid; error_log $folder/nginx.err;
events { worker_connections 16384; }
http {
  access_log off; sendfile on; tcp_nodelay on; open_file_cache max=100;
  types { text/html html; image/svg+xml svg; } default_type application/octet-stream;
  server {
    listen $address:443 ssl reuseport backlog=8192; http2 on; root $folder/www;
    ssl_certificate $folder/certificate.pem; ssl_certificate_key $folder/key.pem;
    ssl_protocols TLSv1.3; ssl_session_tickets off;
  }
}
""")


class Origin:
    """All of them, from start to end. `certificate` and `key` are nginx's."""

    def __init__(self, lab: Lab, rawserver: Path, folder: Path) -> None:
        self._lab, self._rawserver, self._folder = lab, rawserver, folder
        self._running = contextlib.ExitStack()
        self._services: list[Service] = []
        self.certificate, self.key = folder / "certificate.pem", folder / "key.pem"

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as starting:
            self._write_site()
            self._start(starting, 443, "nginx", "-c", str(self._folder / "nginx.conf"))
            for address, size, more in (
                (SMALL, SMALL_ANSWER, ()),
                (BULK, BULK_ANSWER, ()),
                (HELD, SMALL_ANSWER, ("--hold",)),
            ):
                self._start(starting, 443, str(self._rawserver), "--address", address, "--bytes", str(size), *more)
            self._running = starting.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._running.close()

    def cpu(self) -> float:
        """Seconds of processor used so far."""
        return sum(service.cpu() for service in self._services)

    def _start(self, starting: contextlib.ExitStack, port: int, *command: str) -> None:
        output = self._folder / f"{Path(command[0]).name}.out"
        service = starting.enter_context(Service(self._lab.inside(self._lab.origin, *command), output))
        service.await_listening(port)
        self._services.append(service)

    def _write_site(self) -> None:
        site = self._folder / "www"
        site.mkdir(parents=True)
        names = ",".join(f"DNS:{name}" for name in (ALLOWED_NAME, BANNED_NAME))
        run(
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"),
            *("-keyout", str(self.key), "-out", str(self.certificate), "-days", "30"),
            *("-subj", f"/CN={ALLOWED_NAME}", "-addext", f"subjectAltName={names}"),
        )
        self.key.chmod(0o644)  # peers that drop their privileges read it too
        (site / "small").write_bytes(bytes(1024))
        for number in range(OBJECTS):
            # From 0.3 to 60 kB, most of them small: as on pages.
            padding = "x" * (256 << number % 8)
            (site / object_name(number)).write_text(
                f'<svg xmlns="http://www.w3.org/2000/svg" width="8" height="8"><!--{padding}--></svg>'
            )
        images = "".join(f'<img src="/{object_name(number)}" width="8" height="8" alt="">' for number in range(OBJECTS))
        (site / "page.html").write_text(f"<!doctype html><title>page</title>{images}")
        (self._folder / "nginx.conf").write_text(_NGINX.substitute(folder=self._folder, address=WEB))


def object_name(number: int) -> str:
    """The file of one of the page's objects."""
    return f"object{number}.svg"
