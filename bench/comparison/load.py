"""Runs the load generators in the client's namespace and reads their figures."""

import contextlib
import json
import re
import signal
import statistics
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from comparison import hello
from comparison.namespaces import Lab, run
from comparison.origin import OBJECTS, object_name
from comparison.settings import (
    ALLOWED_NAME,
    BANNED_NAME,
    BULK,
    BULK_ANSWER,
    BULK_NAME,
    HELD,
    HELD_NAME,
    SMALL,
    SMALL_ANSWER,
    SMALL_NAME,
    WEB,
)

_GRACE: Final = 15.0
_UNLIMITED: Final = 10_000_000
_IDLE_LIMIT: Final = 60.0


class LoadError(RuntimeError):
    """The load generator could not do its work, or nothing of it succeeded."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What tlsload measured; times in milliseconds. `refusals` counts how refusals came: alert, reset, end."""

    ok: int
    err: int
    unfinished: int
    oldest_ms: float
    seconds: float
    rate: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    over_threshold: int
    bytes: int
    mb_per_s: float
    errors: Mapping[str, int]
    refusals: Mapping[str, int]
    first_failure: str

    @classmethod
    def parse(cls, text: str) -> "Figures":
        """From its line of JSON, the last that it prints."""
        lines = text.strip().splitlines()
        if not lines:
            raise LoadError("tlsload printed nothing")
        stated: dict[str, Any] = json.loads(lines[-1])
        return cls(**{name: stated[name] for name in cls.__slots__})


class Running:
    """A load generator in the background."""

    def __init__(self, command: list[str], seconds: float) -> None:
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._seconds = seconds

    def __enter__(self) -> "Running":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()

    def await_held(self) -> int:
        """Wait until all idle connections are open; how many they are."""
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise LoadError("tlsload ended early")
        stated: dict[str, Any] = json.loads(line)
        if "held" not in stated or "ok" in stated:
            raise LoadError(f"idle connections were not held: {line.strip()}")
        return int(stated["held"])

    def stop(self) -> Figures:
        """End it now; its figures so far."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)
        return self.finish()

    def finish(self) -> Figures:
        """Wait for its end."""
        try:
            out, err = self._process.communicate(timeout=self._seconds + _GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise LoadError("tlsload did not end in time") from None
        if self._process.returncode:
            raise LoadError(f"tlsload: exit {self._process.returncode}: {err.strip()}")
        return Figures.parse(out)


class Load:
    """What clients do. Times in seconds; a name's ClientHello is made once."""

    def __init__(self, lab: Lab, tlsload: Path, folder: Path, kind: str) -> None:
        self._lab, self._tlsload, self._folder = lab, tlsload, folder
        self._make: Final = hello.KINDS[kind]
        folder.mkdir()

    def small(self, concurrency: int, seconds: float, count: int = _UNLIMITED) -> Running:
        """New connections that carry 1,200 octets, without the cost of TLS at the ends."""
        return self._raw("raw", SMALL_NAME, SMALL, SMALL_ANSWER, concurrency, seconds, count)

    def bulk(self, concurrency: int, seconds: float) -> Running:
        """Downloads of 256 MiB each."""
        return self._raw("bulk", BULK_NAME, BULK, BULK_ANSWER, concurrency, seconds, _UNLIMITED)

    def refused(
        self, concurrency: int, seconds: float, count: int = _UNLIMITED, name: str = BANNED_NAME, address: str = WEB
    ) -> Running:
        """ClientHellos of a banned name."""
        return self._raw("refused", name, address, SMALL_ANSWER, concurrency, seconds, count)

    def idle(self, count: int) -> Running:
        """Connections that carry 1,200 octets and then stay, until stopped."""
        return self._raw("idle", HELD_NAME, HELD, SMALL_ANSWER, 1, _IDLE_LIMIT, count)

    def tls(self, concurrency: int, seconds: float, authority: Path, count: int = _UNLIMITED) -> Running:
        """Full handshakes with nginx and a GET of 1 kB each, verified against the authority."""
        return self._tls("tls", ALLOWED_NAME, "/small", concurrency, seconds, authority, count)

    def pages(self, concurrency: int, seconds: float, authority: Path, count: int = _UNLIMITED) -> Running:
        """Full handshakes for a banned name and the whole block page each, verified against the proxy's authority."""
        return self._tls("page", BANNED_NAME, "/", concurrency, seconds, authority, count)

    def http2_page(self, repetitions: int) -> float:
        """Milliseconds for the page's objects over one new HTTP/2 connection: the median of some repetitions."""
        urls = [f"https://{ALLOWED_NAME}/{object_name(number)}" for number in range(OBJECTS)]
        command = self._lab.inside(
            self._lab.client,
            *("h2load", "-n", str(OBJECTS), "-c", "1", "-m", str(OBJECTS), "-T", "10"),
            *(f"--connect-to={WEB}:443", f"--sni={ALLOWED_NAME}", *urls),
        )
        return statistics.median(_h2load_ms(run(*command)) for _ in range(repetitions))

    def _raw(
        self, mode: str, name: str, address: str, expect: int, concurrency: int, seconds: float, count: int
    ) -> Running:
        stored = self._folder / name
        if not stored.exists():
            stored.write_bytes(self._make(name))
        return self._start(
            *("--mode", mode, "--hello", str(stored), "--address", address, "--expect", str(expect)),
            *("--concurrency", str(concurrency), "--count", str(count)),
            seconds=seconds,
        )

    def _tls(
        self, mode: str, name: str, path: str, concurrency: int, seconds: float, authority: Path, count: int
    ) -> Running:
        return self._start(
            *("--mode", mode, "--name", name, "--address", WEB, "--path", path, "--ca", str(authority)),
            *("--concurrency", str(concurrency), "--count", str(count)),
            seconds=seconds,
        )

    def _start(self, *options: str, seconds: float) -> Running:
        command = self._lab.inside(self._lab.client, str(self._tlsload), *options, "--seconds", f"{seconds:g}")
        return Running(command, seconds)


def _h2load_ms(output: str) -> float:
    """The time that h2load states, once it has said that all objects came over HTTP/2."""
    if f" {OBJECTS} succeeded" not in output or "Application protocol: h2" not in output:
        raise LoadError(f"h2load: {output.strip()[-300:]}")
    found = re.search(r"finished in ([\d.]+)(us|ms|s)\b", output)
    if found is None:
        raise LoadError("h2load states no time")
    return float(found[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[found[2]]
