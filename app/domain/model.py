"""The base of every data class here: strict, immutable, unknown fields refused."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic_core import CoreSchema

Name = Annotated[
    str,
    Field(
        pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$",
        description="Lower-case letters, digits and inner hyphens; 1 to 40 characters.",
        examples=["web-a"],
    ),
]
"""A resource's name; also its host name on its networks (RFC 1123 label)."""


class Model(BaseModel):
    """Immutable data with no unknown fields; field docstrings become schema descriptions."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        validate_default=True,
        validate_by_name=True,
        validate_by_alias=True,
        serialize_by_alias=True,
    )


class ShortForm(Model):
    """What a validator takes in the place of an object (`"8081:80"`), said in the JSON Schema of
    what may be sent; answers never have it."""

    short_forms: ClassVar[list[dict[str, Any]]]

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        found = handler(core_schema)
        if handler.mode == "validation":
            definition = handler.resolve_ref_schema(found)
            whole = dict(definition)
            definition.clear()
            definition["anyOf"] = [whole, *cls.short_forms]
        return found
