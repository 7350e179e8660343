"""The log's codes in words, for people; a code without a word is its own."""

from typing import Final

from tokgate.analytics.report.charts import WORDS as VERDICTS
from tokgate.analytics.report.wording import SIGNALS
from tokgate.blocklog.records.record import EventAction
from tokgate.policy.decision import Reason

ACTIONS: Final = {
    EventAction.TLS_HANDSHAKE_REFUSED: "TLS refused",
    EventAction.TLS_OPENED: "TLS opened for the page",
    EventAction.QUIC_REFUSED: "QUIC refused",
    EventAction.CONNECT_REFUSED: "tunnel refused",
    EventAction.HTTP_REQUEST_BLOCKED: "request refused",
    EventAction.HTTP_REQUEST_WARNED: "warned by a page",
    EventAction.WARNING_CONTINUED: "continued past the warning",
    EventAction.DNS_QUERY_BLOCKED: "DNS refused",
    EventAction.CONNECTION_REFUSED: "connection refused",
    EventAction.CONNECTION_WARNED: "passed with a warning",
    EventAction.CONNECTION_CUT: "cut off",
    EventAction.WOULD_BLOCK: "would be refused",
    EventAction.EXEMPTION_USED: "passed as exempt",
    EventAction.PASSED_ON_ERROR: "passed unjudged",
    EventAction.INTERNAL_ERROR: "internal error",
    EventAction.STARTED: "tokgate started",
    EventAction.STOPPED: "tokgate stopped",
    EventAction.POLICY_LOADED: "policy loaded",
    EventAction.POLICY_LOAD_FAILED: "policy rejected",
    EventAction.PHASE_CHANGED: "a ban's phase changed",
    EventAction.BAN_NEAR_EXPIRY: "a ban ends soon",
    EventAction.OVERRIDE_STARTED: "override began",
    EventAction.OVERRIDE_ENDED: "override ended",
    EventAction.COVERAGE_COUNTED: "coverage counted",
    EventAction.GATEWAY_DIFFERS: "the kernel's rules differ",
    EventAction.GATEWAY_RESTORED: "the kernel's rules restored",
    EventAction.CANARY_FAILED: "enforcement stopped",
    EventAction.CANARY_RECOVERED: "enforcement works again",
    EventAction.LOG_GAP: "records lost",
    EventAction.LOG_CONTINUED: "new file",
    EventAction.LOG_RECOVERED: "torn line repaired",
    EventAction.LOG_FOREIGN: "lines by others found",
    EventAction.LOG_CUT: "records gone",
    EventAction.CLOCK_SET_BACK: "clock set back",
    EventAction.CLOCK_SET_FORWARD: "clock set forward",
    EventAction.LOG_CHECKPOINT: "checkpoint",
    EventAction.LOG_DELETED: "old files deleted",
    EventAction.ACCESS_LOG_ROTATED: "the file of who looked was rotated",
}
REASONS: Final = {
    Reason.NO_SERVICE: "no service of the policy",
    Reason.NO_BAN: "no ban for this network",
    Reason.ANNOUNCED: "ban is announced only",
    Reason.OUTSIDE_WINDOW: "outside the ban's hours",
    Reason.EXPIRED: "ban has ended",
    Reason.EXEMPT: "exempt",
    Reason.STORE_FRONT: "store that is inspected",
    Reason.BAN_MONITOR: "ban that only watches",
    Reason.BAN_WARN: "ban that warns",
    Reason.BAN_BLOCK: "ban that blocks",
    Reason.BAN_OVERDUE: "ban held past its end",
    Reason.UNKNOWN_CLIENT: "client in no network",
    Reason.INVALID_CLIENT: "client address makes no sense",
    Reason.INVALID_HOST: "name makes no sense",
    Reason.MISSING_SNI: "no name (SNI)",
    Reason.NAME_CHANGED: "name changed on retry",
    Reason.UNREADABLE: "can't be read",
    Reason.ECH_OUTER: "encrypted name (ECH)",
    Reason.INTERNAL_ERROR: "deciding failed",
    Reason.INVALID_QUERY: "query makes no sense",
}
CODES: Final[dict[str, dict[str, str]]] = {
    "verdict": VERDICTS,
    "action": {str(code): word for code, word in ACTIONS.items()},
    "signal": {str(code): word for code, word in SIGNALS.items()},
    "reason": {str(code): word for code, word in REASONS.items()},
}
"""By facet, the words of its codes."""


def word(facet: str, code: str) -> str:
    """The words for a code of a facet; the code itself where there are none."""
    return CODES.get(facet, {}).get(code, code)
