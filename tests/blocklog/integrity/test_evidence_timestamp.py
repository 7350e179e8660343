"""Timestamps by an authority of the test (openssl ts): asked over HTTP, verified, and refused where they don't fit."""

import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import trustme

from tokgate.blocklog.integrity import evidence
from tokgate.blocklog.integrity.evidence import NoTimestamp, certificates_in, verify_stamp

OPENSSL = shutil.which("openssl") or "openssl"
CONFIG = """
[req]
distinguished_name = name
[name]
[ca]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[tsa]
extendedKeyUsage = critical, timeStamping
keyUsage = critical, digitalSignature
[tsa_config]
serial = {folder}/serial
signer_cert = {folder}/tsa.pem
signer_key = {folder}/tsa.key
default_policy = 1.2.3.4.1
digests = sha256, sha512
signer_digest = sha256
ess_cert_id_alg = sha256
"""


def openssl(folder: Path, *command: str) -> None:
    subprocess.run([OPENSSL, *command], cwd=folder, check=True, capture_output=True)


class Authority(HTTPServer):
    """A timestamp authority on loopback. `reply` is what it answers instead, if it is to misbehave."""

    def __init__(self, folder: Path, *, chain: bool = False) -> None:
        """With a `chain` an authority between signs for it, and answers hold all three certificates."""
        self.folder, self.reply = folder, b""
        folder.mkdir()
        certs = "certs = chain.pem\n" if chain else ""
        (folder / "config").write_text(CONFIG.format(folder=folder) + certs)
        (folder / "serial").write_text("01\n")
        new = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-config", "config", "-keyout")
        openssl(folder, *new, "ca.key", "-out", "ca.pem", "-subj", "/CN=example.org CA", "-extensions", "ca")
        request = ("req", "-newkey", "rsa:2048", "-nodes", "-config", "config", "-keyout", "tsa.key", "-out", "tsa.csr")
        openssl(folder, *request, "-subj", "/CN=tsa.example.org")
        if chain:
            between = ("req", "-newkey", "rsa:2048", "-nodes", "-config", "config", "-subj", "/CN=between.example.org")
            openssl(folder, *between, "-keyout", "between.key", "-out", "between.csr")
            self._sign("between", "ca", "ca")
            (folder / "chain.pem").write_bytes((folder / "between.pem").read_bytes() + (folder / "ca.pem").read_bytes())
        self._sign("tsa", "between" if chain else "ca", "tsa")
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def _sign(self, name: str, signer: str, extensions: str) -> None:
        ca = ("-CA", f"{signer}.pem", "-CAkey", f"{signer}.key", "-extfile", "config", "-extensions", extensions)
        openssl(self.folder, "x509", "-req", "-in", f"{name}.csr", "-days", "2", "-out", f"{name}.pem", *ca)

    def answer(self, asked: bytes) -> bytes:
        """A response to a request, by openssl."""
        (self.folder / "query").write_bytes(asked)
        reply = ("ts", "-reply", "-config", "config", "-section", "tsa_config", "-queryfile", "query", "-out", "reply")
        openssl(self.folder, *reply)
        return (self.folder / "reply").read_bytes()

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: Authority

    def do_POST(self) -> None:
        asked = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.server.reply or self.server.answer(asked))

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module", params=[False, True], ids=["", "a chain"])
def authority(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Authority]:
    made = Authority(tmp_path_factory.mktemp("authority") / "tsa", chain=request.param)
    yield made
    made.close()


def test_a_checkpoint_is_stamped(authority: Authority, tmp_path: Path) -> None:
    """The authority's timestamp of a text verifies with its root, and with nobody else's."""
    content = b"tokgate-checkpoint {}"
    response = evidence.stamp(content, authority.url)
    roots = certificates_in(authority.folder / "ca.pem")
    found = verify_stamp(content, response, roots)
    assert found.serial >= 1
    with pytest.raises(NoTimestamp):
        verify_stamp(content + b" ", response, roots)
    trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
    with pytest.raises(NoTimestamp):
        verify_stamp(content, response, certificates_in(tmp_path / "other.pem"))


def test_answers_that_are_no_timestamps(authority: Authority) -> None:
    """Rubbish, a timestamp of something else that was asked earlier, nobody there: each is an error with the URL."""
    replayed = evidence.stamp(b"something else", authority.url)
    for reply in (b"rubbish", replayed):
        authority.reply = reply
        with pytest.raises(NoTimestamp):
            evidence.stamp(b"content", authority.url)
    for status, said in (("300d300b0201023006 0c04 62757379", "busy"), ("30053003020102", "status 2")):
        authority.reply = bytes.fromhex(status)
        with pytest.raises(NoTimestamp, match=f"the authority refused: {said}"):
            evidence.stamp(b"content", authority.url)
    authority.reply = b""
    for url in ("ftp://tsa.example.org/", "file:///etc/passwd", "http://127.0.0.1:1/"):
        with pytest.raises(NoTimestamp, match=r"tsa.example.org|passwd|127"):
            evidence.stamp(b"content", url)
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            with other.accept()[0] as client:
                client.recv(1 << 16)
                client.sendall(b"no HTTP\r\n\r\n")

        answering = threading.Thread(target=answer)
        answering.start()
        with pytest.raises(NoTimestamp, match="no HTTP"):
            evidence.stamp(b"content", f"http://127.0.0.1:{other.getsockname()[1]}/")
        answering.join()
    with pytest.raises(NoTimestamp, match="no certificate"):
        certificates_in(authority.folder / "config")
