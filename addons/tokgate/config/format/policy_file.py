"""A policy file as a whole: a pydantic model for validation, and the JSON Schema made of it.

The schema is for editors and for programs that write policies. Scalars are given as the text that was written; the
type of each key parses its text. Class docstrings and descriptions are part of the schema.
"""

import re
from typing import Annotated, Any, Final, Literal

from pydantic import Field, PlainValidator, WithJsonSchema

from tokgate.config.diagnostics import Code
from tokgate.config.format.bans import BanModel, ExemptionModel, LiftedModel
from tokgate.config.format.networks import NetworkModel
from tokgate.config.format.services import ServiceModel
from tokgate.config.format.settings import SettingsModel
from tokgate.config.format.test_model import TestModel
from tokgate.config.format.values import Identifier, Model, wrong

SCHEMA_URI: Final = "https://json-schema.org/draft/2020-12/schema"
NAMES: Final = "A name: letters, digits, `-`, `_` and `.`, at most 64, a letter or digit first."
_NULL: Final = {"type": "null"}
_CAPITAL: Final = re.compile(r"(?<=[a-z])(?=[A-Z])")


def _format_version(value: Any) -> int:
    if value != "1":
        raise wrong(Code.FORMAT_VERSION, "unknown version of the policy format; this program reads `version: 1`")
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


def policy_schema() -> dict[str, Any]:
    """The schema; schema/policy.schema.json is its committed copy."""
    schema: dict[str, Any] = _tidied(PolicyFile.model_json_schema(by_alias=True))
    for section in schema["properties"].values():
        if "type" in section:  # a section whose entries are all commented out is empty
            section["type"] = [section["type"], "null"]
    schema = _named(schema)
    return {"$schema": SCHEMA_URI, "title": "tokgate policy file", **schema}


def _named(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with words for the names of classes, which editors show: `proxy-auth` for `ProxyAuthModel`."""
    words = {name: _CAPITAL.sub("-", name.removesuffix("Model")).lower() for name in schema["$defs"]}

    def renamed(node: Any) -> Any:
        if isinstance(node, list):
            return [renamed(item) for item in node]
        if not isinstance(node, dict):
            return node
        return {
            key: f"#/$defs/{words[value.removeprefix('#/$defs/')]}" if key == "$ref" else renamed(value)
            for key, value in node.items()
        }

    definitions = {
        words[name]: {"title": words[name].replace("-", " "), **renamed(each)} for name, each in schema["$defs"].items()
    }
    return {**renamed({key: value for key, value in schema.items() if key != "$defs"}), "$defs": definitions}


def _tidied(node: Any) -> Any:
    """The schema without pydantic's titles and nulls, and with descriptions that editors render as Markdown."""
    if isinstance(node, list):
        return [_tidied(item) for item in node]
    if not isinstance(node, dict):
        return node
    tidy: dict[str, Any] = {}
    for key, value in node.items():
        if key in ("properties", "$defs"):
            tidy[key] = {name: _tidied(each) for name, each in value.items()}
        elif key == "patternProperties":
            ((pattern, entry),) = value.items()
            names = {"pattern": pattern, "patternErrorMessage": NAMES}
            tidy |= {"propertyNames": names, "additionalProperties": _tidied(entry)}
        elif key == "anyOf" and _NULL in value:
            stated = [option for option in value if option != _NULL]
            tidy |= _tidied(stated[0] if len(stated) == 1 else {"anyOf": stated})
        elif key == "description":
            tidy[key] = tidy["markdownDescription"] = " ".join(value.split())
        elif key in ("examples", "enum", "const"):
            tidy[key] = value
        elif not (key in ("title", "propertyNames") or (key == "default" and not isinstance(value, str | bool | int))):
            tidy[key] = _tidied(value)
    return tidy
