"""Asking for an exception on the page of a refusal: who can, what is kept, and what others can't do in one's name."""

import json
import re
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from labs.carriers import OPENING, Lab, Way
from labs.proxy_lab import BANNED, ban, policy
from labs.raw_client import RawClient, Reply
from tokgate.blocklog.records.requests import ExceptionRequest
from tokgate.policy.bans import Overrides
from tokgate.policy.settings import ClientsShown, LogSettings, OverrideLimits
from tokgate.policy.snapshot import Snapshot
from tokgate.traffic import exception_requests
from tokgate.traffic.exception_requests import RequestFolder

PATH = "/.tokgate/request"
WHY = "The press conference\nis only there: é"
ASKING = OverrideLimits(requests=True)


def asking(limits: OverrideLimits = ASKING, log: LogSettings | None = None, **stated: Any) -> Snapshot:
    """A policy whose ban refuses with a page, on which people may ask."""
    return policy(ban(**({"response": "page"} | stated)), overrides=limits, log=log or LogSettings())


@pytest.fixture
def folder(tmp_path: Path) -> RequestFolder:
    return RequestFolder(tmp_path / "block.requests")


def begin(lab: Lab, folder: RequestFolder, snapshot: Snapshot | None = None) -> None:
    """Start a carrier under a policy, beside a folder for requests."""
    carrier: Any = lab.start(snapshot or asking())
    carrier.proxy.traffic.requests = folder


def fields_of(page: Reply) -> dict[str, str]:
    """The fields that the form of a page would send without a word."""
    text = page.body.decode()
    assert f'<form method="post" action="{PATH}"' in text
    found = dict(re.findall(r'name="(token|event)" value="([^"]*)"', text))
    (first, *_) = re.findall(r'<option value="([^"]*)"', text)
    return {name: unescape(value) for name, value in found.items()} | {"lasting": first}


def send(client: RawClient, fields: dict[str, str], /, *, host: str = BANNED, **headers: str) -> Reply:
    body = urlencode({"why": WHY} | fields).encode()
    sent = {"Content_Type": "application/x-www-form-urlencoded", "Sec_Fetch_Site": "same-origin"} | headers
    return client.request("POST", PATH, host, body, Content_Length=str(len(body)), **sent)


def kept(folder: RequestFolder) -> list[ExceptionRequest]:
    return list(RequestFolder(folder.folder).all().values())


@OPENING
def test_a_request_is_kept_and_grants_nothing(lab: Lab, way: Way, folder: RequestFolder) -> None:
    """It is in the folder and in the log, its state is on the page, and the name stays refused."""
    origin = lab.web()
    begin(lab, folder)
    with lab.reach(way, origin.port) as client:
        client.tls(lab.trusting(), BANNED)
        page = client.get(BANNED)
        assert "form-action 'self'" in page.headers["content-security-policy"]
        answer = send(client, fields_of(page) | {"lasting": "PT4H"}, Origin=f"https://{BANNED}")
        again = client.get(BANNED, Accept="application/problem+json")
    (request,) = kept(folder)
    assert (answer.status, again.status, origin.accepted) == (202, 451, 0)
    assert (request["id"].encode() in answer.body, b"It is not decided yet" in answer.body) == (True, True)
    assert answer.headers["tokgate-event"] == page.headers["tokgate-event"]
    assert (request["client"], request["ban"], request["lasting"]) == ("127.0.0.1", "ban", "PT4H")
    assert (request["why"], request["state"]) == ("The press conference is only there: é", "pending")
    assert request["refusal"] == page.headers["tokgate-event"]
    state = json.loads(again.body)["exception"]
    assert (state["state"], state["request"], state["token"]) == ("pending", request["id"], None)
    (record,) = (each for each in lab.records.all if each["event"]["action"] == "exception-requested")
    assert record["event"]["id"] == request["id"]
    assert (record["tokgate"]["request"]["refusal"], record["source"]["ip"]) == (request["refusal"], "127.0.0.1")
    assert "verdict" not in record["tokgate"]
    assert folder.folder.stat().st_mode & 0o777 == 0o700
    assert (folder.folder / f"{request['id']}.json").stat().st_mode & 0o777 == 0o600


@OPENING
def test_plain_http_under_a_ban_that_refuses(lab: Lab, folder: RequestFolder) -> None:
    """Where requests are readable there is a page, and the form on it, whatever the ban's response."""
    origin = lab.web(tls=False)
    begin(lab, folder, asking(response="refuse"))
    with lab.reach(Way.REDIRECTED, origin.port) as client:
        page = client.get(BANNED)
        assert send(client, fields_of(page)).status == 202
    assert re.search(rf"mailto:desk@example.org\?subject=[^\"]*{page.headers['tokgate-event']}", page.body.decode())
    assert len(kept(folder)) == 1


@OPENING
def test_one_request_at_a_time(lab: Lab, folder: RequestFolder) -> None:
    """A form that is sent again, or one of another page, leads to the request that waits."""
    begin(lab, folder)
    with lab.reach(Way.REDIRECTED, 1) as client:
        client.tls(lab.trusting(), BANNED)
        pages = client.get(BANNED), client.get(BANNED)
        answers = [send(client, fields_of(page)) for page in (*pages, pages[0])]
    assert [answer.status for answer in answers] == [202] * 3
    (request,) = kept(folder)
    assert all(request["id"].encode() in answer.body for answer in answers)
    assert lab.records.actions.count("exception-requested") == 1


@OPENING
@pytest.mark.parametrize(
    ("spoilt", "headers"),
    [
        ({"token": ""}, {}),
        ({"token": "99999999999-" + 64 * "0"}, {}),
        ({"event": "01870000-0000-7000-8000-000000000000"}, {}),
        ({}, {"Origin": "https://evil.example"}),
        ({}, {"Origin": "null"}),
        ({}, {"Sec_Fetch_Site": "cross-site"}),
        ({}, {"Sec_Fetch_Site": "same-site"}),
        ({}, {"Sec_Fetch_Mode": "cors", "Sec_Fetch_Dest": "empty"}),
        ({}, {"host": "other.clips.example.org"}),
    ],
)
def test_nobody_asks_in_anothers_name(
    lab: Lab, folder: RequestFolder, spoilt: dict[str, str], headers: dict[str, Any]
) -> None:
    """Without the token, from another site or for another name the page is shown again, and nothing is kept."""
    begin(lab, folder)
    with lab.reach(Way.REDIRECTED, 1) as client:
        client.tls(lab.trusting(), BANNED)
        fields = fields_of(client.get(BANNED))
        assert send(client, fields | spoilt, **headers).status == 451
        assert client.get(BANNED, f"{PATH}?{urlencode(fields)}").status == 451
        assert kept(folder) == []
        assert send(client, fields, Origin=f"https://{BANNED}").status == 202  # the real one still works


@OPENING
@pytest.mark.parametrize("spoilt", [{"why": " \n"}, {"lasting": "P30D"}, {"lasting": ""}])
def test_what_is_incomplete(lab: Lab, folder: RequestFolder, spoilt: dict[str, str]) -> None:
    """Without a reason, or for as long as isn't offered: the page says so, and nothing is kept."""
    begin(lab, folder)
    with lab.reach(Way.REDIRECTED, 1) as client:
        client.tls(lab.trusting(), BANNED)
        answer = send(client, fields_of(client.get(BANNED)) | spoilt)
    assert (answer.status, b"say why you need the exception" in answer.body) == (451, True)
    assert kept(folder) == []


@OPENING
def test_limits(lab: Lab, folder: RequestFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many in an hour, also where each is answered at once; and so many that wait, of all clients."""
    monkeypatch.setattr(exception_requests, "PER_HOUR", 2)
    begin(lab, folder)
    with lab.reach(Way.REDIRECTED, 1) as client:
        client.tls(lab.trusting(), BANNED)
        fields = fields_of(client.get(BANNED))
        for _ in range(2):
            send(client, fields)
            (name,) = (each["id"] for each in kept(folder) if each["state"] == "pending")
            RequestFolder(folder.folder).answer(name, state="declined", answered="2023-04-01T12:00:00Z", reason="No")
        refused = send(client, fields)
        assert (refused.status, b"too many in the last hour" in refused.body) == (451, True)
        lab.clock.set("2023-04-01T13:00:00Z")
        monkeypatch.setattr(exception_requests, "MAX_PENDING", 0)
        refused = send(client, fields_of(client.get(BANNED)))
        assert (refused.status, b"too many wait for an answer" in refused.body) == (451, True)
        monkeypatch.undo()
        assert send(client, fields_of(client.get(BANNED))).status == 202
    assert len(kept(folder)) == 3


@OPENING
@pytest.mark.parametrize(
    "snapshot",
    [
        asking(OverrideLimits()),
        asking(overrides=Overrides.FORBIDDEN),
    ],
    ids=["off", "forbidden"],
)
def test_where_nobody_can_ask(lab: Lab, folder: RequestFolder, snapshot: Snapshot) -> None:
    """Without the setting, or where the ban forbids overrides, there is no form, and a form that is sent is refused."""
    begin(lab, folder, snapshot)
    with lab.reach(Way.REDIRECTED, 1) as client:
        client.tls(lab.trusting(), BANNED)
        page = client.get(BANNED)
        assert (b"<form" in page.body, "form-action 'none'" in page.headers["content-security-policy"]) == (False, True)
        assert send(client, {"token": "x", "event": "y", "lasting": "PT1H"}).status == 451
    assert kept(folder) == []


@OPENING
def test_a_declined_request_is_told_and_may_be_made_again(lab: Lab, folder: RequestFolder) -> None:
    """The page says that it was declined and why, as text, beside the form."""
    begin(lab, folder)
    with lab.reach(Way.REDIRECTED, 1) as client:
        client.tls(lab.trusting(), BANNED)
        send(client, fields_of(client.get(BANNED)))
        name = kept(folder)[0]["id"]
        folder.answer(name, state="declined", answered="2023-04-01T12:00:00Z", by="alice", reason="<b>No</b>")
        folder.all()
        page = client.get(BANNED)
        assert b"was declined" in page.body
        assert b"&lt;b&gt;No&lt;/b&gt;" in page.body
        assert fields_of(page)["token"]


@OPENING
def test_where_the_log_disguises_clients(lab: Lab, folder: RequestFolder) -> None:
    """The record is without why, in which people may name themselves."""
    begin(lab, folder, asking(log=LogSettings(clients=ClientsShown.PSEUDONYM)))
    with lab.reach(Way.REDIRECTED, 1) as client:
        client.tls(lab.trusting(), BANNED)
        assert send(client, fields_of(client.get(BANNED))).status == 202
    (record,) = (each for each in lab.records.all if each["event"]["action"] == "exception-requested")
    assert "press" not in json.dumps(record)
    assert kept(folder)[0]["why"].startswith("The press")


@OPENING
def test_a_full_disk(lab: Lab, folder: RequestFolder) -> None:
    """The page says that it is not kept, the log that it failed, and what is refused stays refused."""
    begin(lab, folder)
    folder.folder.write_text("no folder")
    with lab.reach(Way.REDIRECTED, 1) as client:
        client.tls(lab.trusting(), BANNED)
        answer = send(client, fields_of(client.get(BANNED)))
        assert (answer.status, b"could not be kept" in answer.body) == (451, True)
    assert "internal-error" in lab.records.actions
    assert "exception-requested" not in lab.records.actions
