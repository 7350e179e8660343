"""Models of the policy format in general: their base, how a value is parsed and described, and values of all kinds.

Parsers take what stands in the file as text, a list or a mapping, and raise PydanticCustomError with a `Code` as its
type. Errors say what is allowed.
"""

import re
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Final
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import PydanticCustomError, core_schema

from tokgate.config.diagnostics import Code, listed, near
from tokgate.policy.values import Language, Word

_SHOWN: Final = 60
"""Letters of a value that a message repeats."""
_LONGEST_LINE: Final = 1000
_JOINERS: Final = dict.fromkeys((0xA0, 0x202F, 0x200C, 0x200D))
"""No-break spaces and joiners, which languages need although Python counts them as unprintable."""
IDENTIFIER: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
"""Names of services, networks, bans and exemptions."""


class Model(BaseModel):
    """Unknown keys are errors, and values are never converted by guessing their type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True)
    makes: ClassVar[Callable[..., Any]] = dict
    """The dataclass of `policy/` that has fields of these names."""

    def values(self) -> dict[str, Any]:
        """The fields as `policy/` has them."""
        return {name: built(value) for name, value in self}

    def built(self) -> Any:
        """What the model makes."""
        return self.makes(**self.values())


def built(value: Any) -> Any:
    """A value as `policy/` has it: models as what they make, lists as tuples without repeats."""
    if isinstance(value, Model):
        return value.built()
    return tuple(dict.fromkeys(map(built, value))) if isinstance(value, list) else value


class Parsed:
    """In `Annotated`: how a value is parsed, and how the JSON Schema describes it."""

    def __init__(self, parse: Callable[[Any], Any], shape: str = "", pattern: str = "", **schema: Any) -> None:
        """Text of this `pattern` unless `schema` says otherwise; `shape` is what editors say where it doesn't match."""
        described = {"patternErrorMessage": shape, "pattern": pattern}
        text_schema = {"type": "string", "minLength": 1, **{key: value for key, value in described.items() if value}}
        self.parse: Final = parse
        self.schema: Final[dict[str, Any]] = schema if "type" in schema or "anyOf" in schema else text_schema | schema

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        """How pydantic validates."""
        return core_schema.no_info_plain_validator_function(self.parse)

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        """The JSON Schema; pydantic changes what it gets."""
        return dict(self.schema)


class OneOf(Parsed):
    """In `Annotated`: the value is one of these words, and nothing else."""

    def __init__(self, *words: Word) -> None:
        """The schema has the meaning of each word, which editors show."""
        allowed, meanings = {word.value: word for word in words}, [word.meaning for word in words]

        def choose(value: Any) -> Word:
            written = text(value)
            if written not in allowed:
                meant = near(written, allowed)
                hint = f"did you mean `{meant}`? Allowed" if meant else "allowed"
                raise wrong(Code.BAD_VALUE, f"`{written}` is not known here; {hint}: {listed(allowed)}")
            return allowed[written]

        super().__init__(
            choose,
            type="string",
            enum=[*allowed],
            enumDescriptions=meanings,
            markdownEnumDescriptions=meanings,
        )


class Number(Parsed):
    """In `Annotated`: a whole number from `first` to `last`, in decimal digits."""

    def __init__(self, what: str, first: int, last: int) -> None:
        """`what` they count, for the message."""

        def count(value: Any) -> int:
            written = text(value)
            if not re.fullmatch("0|[1-9][0-9]{0,8}", written) or not first <= int(written) <= last:
                raise wrong(Code.BAD_VALUE, f"must be a number of {what} from {first} to {last}, not {shown(written)}")
            return int(written)

        super().__init__(count, type="integer", minimum=first, maximum=last)


def wrong(code: Code, message: str) -> PydanticCustomError:
    """An error for pydantic to raise; `message` is not a template."""
    return PydanticCustomError(code.value, "{message}", {"message": message})


def shown(value: Any) -> str:
    if isinstance(value, str):
        return f"`{value if len(value) <= _SHOWN else value[: _SHOWN - 3] + '...'}`"
    return "nothing" if value is None else "a list" if isinstance(value, list) else "a mapping"


def text(value: Any) -> str:
    """Text that holds more than white space, unchanged."""
    if not isinstance(value, str):
        kind = "nothing" if value is None else "a list" if isinstance(value, list) else "a mapping"
        raise wrong(Code.WRONG_TYPE, f"must be text, not {kind}")
    if not value.strip():
        raise wrong(Code.BAD_VALUE, "must not be empty")
    return value


def one_line(value: Any) -> str:
    """Text without line breaks, since it is shown in tables and headers."""
    line = text(value).strip()
    if not line.translate(_JOINERS).isprintable():
        raise wrong(Code.BAD_VALUE, "must be one line of printable text")
    if len(line) > _LONGEST_LINE:
        raise wrong(Code.BAD_VALUE, f"must be at most {_LONGEST_LINE} characters")
    return line


def link(value: Any) -> str:
    """An http or https URL, which the block page may link to."""
    line = one_line(value)
    try:
        has_host = bool(urlsplit(line).hostname)
    except ValueError:  # such as an unclosed bracket
        has_host = False
    if not has_host or not re.match(r"https?://[^\s/]", line) or " " in line:
        raise wrong(Code.BAD_VALUE, f"`{line}` is no web address: `https://…`")
    return line


def server(written: str, *schemes: str) -> tuple[str, int | None] | None:
    """Host and port of a URL that has one of these schemes, a host, and nothing else but a port; None for any other."""
    try:
        url = urlsplit(written)
        whole = written == f"{url.scheme}://{url.netloc}" and "@" not in url.netloc and url.port != 0
    except ValueError:
        return None
    return (url.hostname, url.port) if url.scheme in schemes and url.hostname and whole else None


def flag(value: Any) -> bool:
    """`true` or `false`, as in YAML 1.2."""
    if value in ("true", "True", "TRUE"):
        return True
    if value in ("false", "False", "FALSE"):
        return False
    raise wrong(Code.BAD_VALUE, f"must be `true` or `false`, not {shown(value)}")


def whole_path(value: Any) -> str:
    """An absolute path, so that the working directory makes no difference."""
    written = one_line(value)
    if not written.startswith("/"):
        raise wrong(Code.BAD_VALUE, f"`{written}` must be a whole path: `/etc/tokgate/…`")
    return written


def as_list(value: Any) -> Any:
    """A list of one item for a single value, for keys that take one or a list."""
    return value if isinstance(value, list) else [value]


def one_or_list(**item: Any) -> WithJsonSchema:
    """The JSON Schema of a list, or of one item alone."""
    item = {"type": "string", **item}
    return WithJsonSchema({"anyOf": [item, {"type": "array", "minItems": 1, "items": item}]})


def worded(parsed: Parsed) -> Parsed:
    """A text, or one for each of several languages of the block page."""

    def parse(value: Any) -> str | dict[Language, str]:
        if not isinstance(value, dict):
            return str(parsed.parse(value))
        unknown = next((key for key in value if key not in list(Language)), None)
        if unknown is not None or not value:
            found = "none" if unknown is None else f"`{unknown}`"
            raise wrong(Code.BAD_VALUE, f"{found} is no language of the block page; allowed: {listed(list(Language))}")
        return {Language(key): str(parsed.parse(each)) for key, each in value.items()}

    languages = {word.value: parsed.schema | {"description": word.meaning} for word in Language}
    by_language = {"type": "object", "properties": languages, "additionalProperties": False, "minProperties": 1}
    return Parsed(parse, anyOf=[parsed.schema, by_language])


Text = Annotated[str, Parsed(text)]
Line = Annotated[str, Parsed(one_line, "One line of text.", r"^[^\n]*$")]
Link = Annotated[str, Parsed(link, "A web address: `https://…`", "^https?://", format="uri")]
Flag = Annotated[bool, Parsed(flag, type="boolean")]
WordedText = Annotated[str | dict[Language, str], worded(Parsed(text))]
WordedLine = Annotated[str | dict[Language, str], worded(Parsed(one_line, "One line of text.", r"^[^\n]*$"))]
_NAME: Final = Parsed(text, "Letters, digits, `-`, `_` and `.`, at most 64, a letter or digit first.", IDENTIFIER)
Identifier = Annotated[str, _NAME]
IDENTIFIER_SCHEMA: Final = _NAME.schema
WholePath = Annotated[str, Parsed(whole_path, "A whole path: `/…`", "^/")]
Names = Annotated[list[Line], Field(min_length=1), BeforeValidator(as_list), one_or_list(minLength=1)]
