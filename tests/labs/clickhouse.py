"""A ClickHouse server: chdb within the test's process, behind the HTTP interface; lines inserted as a shipper would."""

import re
import threading
from base64 import b64encode
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

from chdb.session import Session

from labs.siem import clickhouse_statements
from tokgate.analytics.clickhouse_server import Server, ServerAddress
from tokgate.analytics.sql import QueryResult, Row

USER: Final = "analyst"
PASSWORD: Final = "not-shown"
_OF_HTTP: Final = (
    *("query", "database", "session_id", "session_timeout", "session_check", "query_id", "default_format", "role"),
    *("enable_http_compression", "compress", "client_protocol_version", "wait_end_of_query"),
)
"""Parameters of the HTTP interface; all others are settings of the query."""


class ClickHouse:
    """The shipped tables, and a server for them that lets one user in."""

    def __init__(self, folder: Path) -> None:
        self._session: Final = Session(str(folder))
        self._lock: Final = threading.Lock()
        for statement in clickhouse_statements():
            self.do(statement)
        self.do("SYSTEM STOP TTL MERGES")  # the samples are of 2023, and would be gone at once
        self._http: Final = self._server()
        self._thread: Final = threading.Thread(target=self._http.serve_forever)
        self._thread.start()
        port = self._http.server_address[1]
        self.address: Final = ServerAddress(secure=False, host="127.0.0.1", port=port, user=USER, password=PASSWORD)
        self._own: Final = Server(replace(self.address, database="default"), {}, {}, session=True, seconds=60)

    def close(self) -> None:
        """End it: a process has one at a time."""
        self._own.close()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()
        self._session.close()

    def answer(self, sql: str) -> QueryResult:
        """The answer to a question in ClickHouse's own SQL."""
        return self._own.native(sql, {}, {"final": 0})

    def one(self, sql: str) -> Row:
        """The one row of an answer."""
        (row,) = self.answer(sql).rows
        return row

    def take(self, *files: Path) -> None:
        """Insert the lines of files, packed ones too."""
        for path in files:
            self.do(f"INSERT INTO tokgate.lines SELECT line, _file FROM file('{path}', 'LineAsString', 'line String')")

    def do(self, sql: str) -> None:
        """A statement as an administrator."""
        with self._lock:
            self._session.query(sql)

    def result(self, database: str, sql: str, settings: dict[str, str], parameters: dict[str, str]) -> bytes:
        """What the HTTP interface answers. Raises RuntimeError."""
        text, form, kind = sql.strip().rpartition("FORMAT Native")
        if not form:
            text, kind = sql, ""
        said = ", ".join(f"{name} = '{value}'" for name, value in settings.items())
        if said and re.match(r"[ (\n]*(SELECT|WITH)\b|CREATE .*? AS SELECT\b", text, re.IGNORECASE | re.DOTALL):
            text += f" SETTINGS {said}"
        with self._lock:
            self._session.query(f"USE {database}")
            return bytes(self._session.query(f"{text} {form}{kind}", "TabSeparated", params=parameters).bytes())

    def _server(self) -> ThreadingHTTPServer:
        clickhouse = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
                said = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
                known = (self.headers.get("X-ClickHouse-User"), self.headers.get("X-ClickHouse-Key"))
                if known != (USER, PASSWORD) and not self._basic():
                    self._answer(401, b"Code: 516. DB::Exception: analyst: Authentication failed")
                    return
                parameters = {
                    key.removeprefix("param_"): said.pop(key) for key in list(said) if key.startswith("param_")
                }
                sql = "\n".join(filter(None, (said.get("query"), body)))
                settings = {key: value for key, value in said.items() if key not in _OF_HTTP}
                try:
                    self._answer(200, clickhouse.result(said.get("database", "default"), sql, settings, parameters))
                except RuntimeError as error:
                    self._answer(500, str(error).encode())

            def do_GET(self) -> None:
                self.do_POST()

            def _basic(self) -> bool:
                expected = b64encode(f"{USER}:{PASSWORD}".encode()).decode()
                return self.headers.get("Authorization") == f"Basic {expected}"

            def _answer(self, status: int, content: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        return server
