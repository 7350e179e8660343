"""Refusals that a gate writes itself: the status says whether there is a mandate."""

from dataclasses import replace
from http import HTTPStatus

import pytest

from labs.builders import CLIPS, OFFICE, at, ban, snapshot
from labs.samples import judged, seen, stamp
from tokgate.policy.decision import Decision, Reason, Verdict
from tokgate.policy.observation import Stage
from tokgate.traffic.enforcer import Ruling
from tokgate.traffic.refusal_texts import BAD_REQUEST, UNAVAILABLE, UNREACHABLE, explanation, refusal, status_of


@pytest.mark.parametrize(
    ("mandate", "status"),
    [({}, b"403 Forbidden"), ({"authority": "Council"}, b"451 "), ({"basis": "Circular 1"}, b"451 ")],
)
def test_the_status_of_a_refusal(mandate: dict[str, str], status: bytes) -> None:
    """Without a page as with one: RFC 7725 is for what an authority or a legal basis demands."""
    policy = snapshot(ban(**mandate), networks=(OFFICE,), services=(CLIPS,))
    judgement = judged(seen(Stage.CONNECT), policy=policy)
    ruling = Ruling(judgement.decision, judgement.sighting, judgement.mismatch, policy, at("2023-03-10T11:00:00Z"))
    assert ruling.ban is not None
    said = refusal(ruling, "clips.example.org", stamp())
    assert said.startswith(b"HTTP/1.1 " + status)
    assert b"\r\nTokgate-Ban: ban\r\n" in said
    assert b"\r\nContent-Type: text/plain; charset=utf-8\r\n" in said
    assert status_of(ruling.ban, Reason.BAN_WARN, warns=True) == HTTPStatus.FORBIDDEN, "a warning is no 451"
    assert status_of(ruling.ban, Reason.UNREADABLE, warns=False).value == int(status[:3]), "a ban's refusal stays one"
    assert status_of(None, Reason.UNREADABLE, warns=False) == HTTPStatus.BAD_REQUEST
    assert status_of(None, Reason.MISSING_SNI, warns=False) == HTTPStatus.FORBIDDEN
    unread = replace(ruling, decision=Decision(Verdict.BLOCK, Reason.UNREADABLE, network="office"))
    assert explanation(unread) == "Refused under no ban: it can't be read where this leads"
    assert b"clips.example.org is blocked: " + ", ".join(["The ban", *mandate.values()]).encode() in said


@pytest.mark.parametrize("answer", [BAD_REQUEST, UNREACHABLE, UNAVAILABLE])
def test_no_answer_is_empty(answer: bytes) -> None:
    """Whoever looks at what a proxy answered to CONNECT finds who it was, and why."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert f"Content-Length: {len(body)}".encode() in head
    assert body.startswith(b"tokgate: ")
