"""A policy file as a whole, as a pydantic model for validation and for the JSON Schema; and the tests in it.

Scalars are given as the text that was written; the type of each key parses its text. Class docstrings and descriptions
are part of the JSON Schema.
"""

from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, WithJsonSchema

from tokgate.config.diagnostics import Code
from tokgate.config.format import parsers
from tokgate.config.format.bans import BanModel, ExemptionModel, LiftedModel
from tokgate.config.format.base import Model
from tokgate.config.format.field_types import (
    Identifier,
)
from tokgate.config.format.networks import NetworkModel
from tokgate.config.format.services import ServiceModel
from tokgate.config.format.settings import SettingsModel
from tokgate.config.format.test_model import TestModel


def _format_version(value: Any) -> int:
    if value != "1":
        raise parsers.wrong(
            Code.FORMAT_VERSION, "unknown version of the policy format; this program reads `version: 1`"
        )
    return 1


class PolicyFile(Model):
    """A tokgate policy file. A policy is all files of a folder together; any file may hold any section."""

    version: Annotated[Literal[1], PlainValidator(_format_version), WithJsonSchema({"const": 1})] = Field(
        default=1, description="Version of the format."
    )
    services: dict[Identifier, ServiceModel] = Field(
        default={},
        description="What can be banned, by name.",
        examples=[{"tiktok": {"title": "TikTok", "names": {"suffix": ["tiktok.com"]}}}],
    )
    networks: dict[Identifier, NetworkModel] = Field(
        default={},
        description="Who can be under a ban, by name.",
        examples=[{"offices": {"cidrs": ["10.32.0.0/14"], "timezone": "Europe/Brussels"}}],
    )
    bans: dict[Identifier, BanModel] = Field(
        default={},
        description="What is banned for whom and when, by name.",
        examples=[
            {
                "tiktok-2023": {
                    "title": "TikTok on work devices",
                    "services": ["tiktok"],
                    "networks": ["offices"],
                    "starts": "2023-03-10T00:00",
                    "duration": "P6M",
                }
            }
        ],
    )
    exemptions: dict[Identifier, ExemptionModel] = Field(
        default={},
        description="Time-limited exceptions to bans, by name.",
        examples=[
            {
                "press-office": {
                    "ban": "tiktok-2023",
                    "clients": ["10.32.9.0/28"],
                    "until": "2023-06-30T18:00",
                    "reason": "Monitoring of public statements",
                }
            }
        ],
    )
    lifted: LiftedModel | list[LiftedModel] = Field(
        default=[],
        description="Bans that were taken out before their end, on purpose: one, or a list. A ban in force that "
        "vanishes from the files without this is held back.",
        examples=[{"ban": "tiktok-2022", "reason": "Repealed by decision 14 of 2 May 2023"}],
    )
    settings: SettingsModel = Field(
        default_factory=SettingsModel,
        description="Settings of the whole policy; each key in one file only.",
        examples=[{"on_error": "block"}],
    )
    tests: list[TestModel] = Field(
        default=[],
        description="What the policy must decide, checked by `tokgate check`.",
        examples=[
            [{"client": "10.32.1.1", "host": "www.tiktok.com", "at": "2023-03-10T00:00+01:00", "expect": "block"}]
        ],
    )
