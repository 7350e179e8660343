"""The base class of all models of policy files."""

from pydantic import BaseModel, ConfigDict


class Model(BaseModel):
    """Unknown keys are errors, and values are never converted by guessing their type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, arbitrary_types_allowed=True)
