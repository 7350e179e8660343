"""The closed sets of words in the policy format, each with the meaning that editors show beside a word."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Final

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import core_schema

from tokgate.config.diagnostics import Code
from tokgate.config.format import parsers
from tokgate.config.service_lists.entries import ListFormat
from tokgate.config.yaml.suggestions import listed, near
from tokgate.policy.bans import Action, OnExpiry, Overrides
from tokgate.policy.decision import Response, Verdict
from tokgate.policy.settings import (
    ClientsShown,
    EchKeys,
    EchOuter,
    EncryptedDns,
    MissingSni,
    OnError,
    Passage,
    StructuredErrors,
    UnknownClients,
)


class Choice[E: StrEnum]:
    """In `Annotated`: the value is one of these words, and nothing else."""

    def __init__(self, meanings: Mapping[E, str]) -> None:
        """`meanings`: the words that are allowed here, each with its meaning in a sentence."""
        self._words: Final = {member.value: member for member in meanings}
        self._meanings: Final = [*meanings.values()]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """How pydantic validates."""
        return core_schema.no_info_plain_validator_function(self._choose)

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The JSON Schema, with `enumDescriptions`, which editors read."""
        return {
            "type": "string",
            "enum": [*self._words],
            "enumDescriptions": self._meanings,
            "markdownEnumDescriptions": self._meanings,
        }

    def _choose(self, value: Any) -> E:
        written = parsers.text(value)
        if written not in self._words:
            meant = near(written, self._words)
            hint = f"did you mean `{meant}`? Allowed" if meant else "allowed"
            raise parsers.wrong(Code.BAD_VALUE, f"`{written}` is not known here; {hint}: {listed(self._words)}")
        return self._words[written]


ExpiryChoice = Annotated[
    OnExpiry,
    Choice(
        {
            OnExpiry.LAPSE: "The ban ends.",
            OnExpiry.HOLD: "The ban stays in force and is reported as overdue.",
        }
    ),
]
ActionChoice = Annotated[
    Action,
    Choice(
        {
            Action.BLOCK: "Refused.",
            Action.WARN: "People are warned and may go on.",
            Action.MONITOR: "Only logged.",
        }
    ),
]
ResponseChoice = Annotated[
    Response,
    Choice(
        {
            Response.REFUSE: "The connection is refused; nothing is decrypted.",
            Response.PAGE: "The banned name only is decrypted, to show a page: why (451; 403 without legal mandate), "
            "or a warning.",
        }
    ),
]
UnknownClientsChoice = Annotated[
    UnknownClients,
    Choice(
        {
            UnknownClients.ALLOW: "All its traffic passes.",
            UnknownClients.BLOCK: "All its traffic is refused.",
        }
    ),
]
OnStopChoice = Annotated[
    Passage,
    Choice(
        {
            Passage.OPEN: "The rules are taken out: everybody passes.",
            Passage.CLOSED: "The rules stay: they are refused.",
        }
    ),
]
OnCrashChoice = Annotated[
    Passage,
    Choice(
        {
            Passage.OPEN: "They pass, unfiltered.",
            Passage.CLOSED: "They are refused.",
        }
    ),
]
OverridesChoice = Annotated[
    Overrides,
    Choice(
        {
            Overrides.ALLOWED: "Exceptions may be made.",
            Overrides.FORBIDDEN: "No exceptions: `tokgate override` refuses.",
        }
    ),
]
OnErrorChoice = Annotated[
    OnError,
    Choice(
        {
            OnError.BLOCK: "Names of banned services are refused.",
            OnError.ALLOW: "Everything passes.",
        }
    ),
]
MissingSniChoice = Annotated[
    MissingSni,
    Choice(
        {
            MissingSni.ALLOW: "It passes.",
            MissingSni.CHECK_ADDRESS: "The address that it goes to decides.",
            MissingSni.CHECK_CERTIFICATE: "The certificate that the server shows decides.",
            MissingSni.BLOCK: "It is refused.",
        }
    ),
]
ClientsShownChoice = Annotated[
    ClientsShown,
    Choice(
        {
            ClientsShown.PLAIN: "By address.",
            ClientsShown.PSEUDONYM: "By a keyed pseudonym that changes with time.",
            ClientsShown.PREFIX: "By the network around them.",
        }
    ),
]
EchOuterChoice = Annotated[
    EchOuter,
    Choice(
        {
            EchOuter.ALLOW: "It passes.",
            EchOuter.BLOCK: "It is refused.",
            EchOuter.INSPECT: "It is decrypted to see the name.",
        }
    ),
]
EncryptedDnsChoice = Annotated[
    EncryptedDns,
    Choice(
        {
            EncryptedDns.DISCOURAGE: "Clients under a ban are told that there is none.",
            EncryptedDns.ALLOW: "Nothing is done about it.",
        }
    ),
]
EchKeysChoice = Annotated[
    EchKeys,
    Choice(
        {
            EchKeys.WITHHOLD: "They are taken out of answers.",
            EchKeys.ALLOW: "They pass.",
        }
    ),
]
StructuredErrorsChoice = Annotated[
    StructuredErrors,
    Choice(
        {
            StructuredErrors.ON_REQUEST: "Clients that ask for it.",
            StructuredErrors.ALWAYS: "All clients that speak EDNS.",
        }
    ),
]
ListFormatChoice = Annotated[
    ListFormat,
    Choice(
        {
            ListFormat.DOMAIN_LIST: "Lists of v2fly/domain-list-community.",
            ListFormat.HOSTS: "hosts(5), or names one a line.",
            ListFormat.ADBLOCK: "Rules of ad blockers and of AdGuard's DNS filter.",
            ListFormat.ADGUARD: "AdGuard's blocked services.",
        }
    ),
]
VerdictChoice = Annotated[
    Verdict,
    Choice(
        {
            Verdict.ALLOW: "It passes.",
            Verdict.MONITOR: "It passes and is logged.",
            Verdict.WARN: "People are warned.",
            Verdict.BLOCK: "It is refused.",
        }
    ),
]
