"""The moment at which a ban begins or ends, for what is open then: whatever carries it, and whatever made it begin."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from whenever import Instant

from labs.clients import UNRECOGNIZED_NAME, downloading, python
from labs.gateway import Gateway, Record, office_policy
from labs.netns import Lab, Namespace, wait_until
from labs.origin import ALLOWED, BANNED, LARGE, Origin


class Download(threading.Thread):
    """A download of some eight seconds, and how and when it ended."""

    def __init__(self, namespace: Namespace, origin: Origin, name: str, family: int = 4, *, tls: bool = True) -> None:
        super().__init__()
        self.tls = tls
        self.octets = 0
        self.error: OSError | None = None
        self.ended: Instant | None = None
        self._where = namespace, origin.authority, LARGE, name, family
        self.start()

    def sends(self) -> bool:
        """Whether anything has come."""
        return bool(self.octets or self.ended)

    def run(self) -> None:
        """Download."""
        try:
            with downloading(*self._where, tls=self.tls) as stream:
                while piece := stream.read(1 << 14):
                    self.octets += len(piece)
        except OSError as error:
            self.error = error
        self.ended = Instant.now()


def is_cut(record: Record) -> bool:
    """Whether a record tells of a connection that was cut."""
    return bool(record["event"]["action"] == "connection-cut")


def between(starts: Instant, expires: Instant) -> dict[str, Any]:
    """The office's policy with a ban for that long."""
    stated = office_policy(starts=str(starts), expires=str(expires))
    del stated["bans"]["office-ban"]["last_day"]
    return stated


def check_cut(gateway: Gateway, address: str, since: Instant, *, tls: bool = True) -> None:
    """A record of the cut: who, what, by which ban and policy, and how much had passed."""

    def matches(record: Record) -> bool:
        return is_cut(record) and record["source"]["ip"] == address and tls != ("url" in record)

    record = gateway.wait_for_record("the cut is recorded", matches)
    assert record["destination"]["domain"] == BANNED
    assert record["destination"]["bytes"] > 0
    assert record["tokgate"]["ban"] == "office-ban"
    assert record["tokgate"]["rule"] == "suffix:tiktok.com"
    assert record["tokgate"]["connection"]
    assert Instant.parse_iso(record["@timestamp"]) >= since
    (*_, loaded) = (r for r in gateway.records() if r["event"]["action"] in ("started", "policy-loaded"))
    assert record["tokgate"]["policy"]["version"] == loaded["tokgate"]["policy"]["version"]


@contextmanager
def going_on(*downloads: Download, beyond: Iterable[Download]) -> Iterator[None]:
    """Downloads that are none of the ban's business get every octet, beyond the end of others that are."""
    yield
    for download in downloads:
        download.join(60)
        assert (download.error, download.octets) == (None, LARGE)
        assert download.ended is not None
        assert all(cut.ended and download.ended > cut.ended for cut in beyond), "it ended too early to show anything"


@pytest.mark.parametrize("carrier", ["mitmproxy", "gates"], indirect=True)
def test_downloads_end_where_a_ban_starts(
    lab: Lab, origin: Origin, gateway_factory: Callable[..., Gateway], tmp_path: Path
) -> None:
    """What is under way to the banned name, also in plain HTTP, is reset then; all else goes on."""
    with gateway_factory(tmp_path, policy=office_policy() | {"bans": {}}) as gateway:
        starts = gateway.soon(8)
        expires = starts.add(seconds=3)
        gateway.enforces(between(starts, expires))
        wait_until("the ban is near", lambda: Instant.now() >= starts.subtract(seconds=6))
        kinds = ((4, True), (6, True), (4, False))
        doomed = {(family, tls): Download(lab.client, origin, BANNED, family, tls=tls) for family, tls in kinds}
        others = Download(lab.client, origin, ALLOWED), Download(lab.guest, origin, BANNED)
        wait_until("all send", lambda: all(each.sends() for each in (*doomed.values(), *others)))
        with going_on(*others, beyond=doomed.values()):
            assert Instant.now() < starts, "too slow to show anything"
            for (family, tls), download in doomed.items():
                download.join(60)
                assert isinstance(download.error, ConnectionResetError)
                assert download.ended
                assert download.ended >= starts
                check_cut(gateway, Lab.CLIENT[family], starts, tls=tls)
            assert sum(map(is_cut, gateway.records())) == 3
            refused = python(lab.client, BANNED, 4, False, origin.authority)
            assert refused.error == UNRECOGNIZED_NAME
        wait_until("the ban is over", lambda: Instant.now() >= expires)
        assert not python(lab.client, BANNED, 4, False, origin.authority).error
    assert sum(record["event"]["action"] == "phase-changed" for record in gateway.records()) >= 2
