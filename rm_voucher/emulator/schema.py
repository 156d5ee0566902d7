"""What JSON looks like: the fields that are taken, and the forms of answers, as JSON Schema."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

Schema = dict[str, Any]

# An endpoint that takes any number is one that takes all memory, or stands still for ever.
MOST = 1_000_000_000
_JSON_TYPES = {
    bool: "boolean",
    dict: "object",
    float: "number",
    int: "integer",
    list: "array",
    str: "string",
}


@attrs.frozen
class Field:
    """One field of a body or a query. `control.fields.checked` checks what it describes."""

    kind: type
    says: str = ""
    """What it means, with its unit."""
    least: float | None = attrs.field(default=None, kw_only=True)
    most: float | None = attrs.field(default=None, kw_only=True)
    more_than: float | None = attrs.field(default=None, kw_only=True)
    words: tuple[str, ...] = attrs.field(default=(), kw_only=True)
    """The texts that it may be, none for any."""
    items: Field | None = attrs.field(default=None, kw_only=True)
    """Of a list."""
    fields: Mapping[str, Field] | None = attrs.field(default=None, kw_only=True)
    """Of an object."""
    shape: Mapping[str, Any] = attrs.field(factory=dict, kw_only=True)
    """More of its schema, of what is checked where it is used."""
    is_needed: bool = attrs.field(default=False, kw_only=True)

    @property
    def range(self) -> tuple[float | None, float | None]:
        """The least and the most that it may be. Each number has a most."""
        if self.kind not in (int, float):
            return None, None
        most = MOST if self.most is None else self.most
        least = -most if self.least is None and self.more_than is None else self.least
        return least, most

    def schema(self) -> Schema:
        """Return it as a schema."""
        least, most = self.range
        found: Schema = {
            "type": _JSON_TYPES[self.kind],
            "description": self.says or None,
            "minimum": least,
            "maximum": most,
            "exclusiveMinimum": self.more_than,
            "enum": list(self.words) or None,
            "items": None if self.items is None else self.items.schema(),
            **({} if self.fields is None else object_of(self.fields)),
            **self.shape,
        }
        return {name: value for name, value in found.items() if value is not None}


def as_fields(given: Mapping[str, type | Field]) -> dict[str, Field]:
    """Return fields; of one without more to say it is enough to give the type."""
    return {name: one if isinstance(one, Field) else Field(one) for name, one in given.items()}


def object_of(fields: Mapping[str, Field], *, is_open: bool = False) -> Schema:
    """Return the schema of an object with these fields, and perhaps others."""
    needed = [name for name, field in fields.items() if field.is_needed]
    return {
        "type": "object",
        "properties": {name: field.schema() for name, field in fields.items()},
        **({"required": needed} if needed else {}),
        **({} if is_open else {"additionalProperties": False}),
    }


def ref(name: str) -> Schema:
    """Return a reference to a component."""
    return {"$ref": f"#/components/schemas/{name}"}


def text(says: str = "", *, words: tuple[str, ...] = ()) -> Schema:
    """Return the schema of a text."""
    return Field(str, says, words=words).schema()


def time(says: str = "") -> Schema:
    """Return the schema of a time in RFC 3339."""
    return {**text(says), "format": "date-time"}


def whole(says: str = "") -> Schema:
    """Return the schema of a whole number of any size."""
    return {"type": "integer", **({"description": says} if says else {})}


def number(says: str = "") -> Schema:
    """Return the schema of a number of any size."""
    return {"type": "number", **({"description": says} if says else {})}


def flag(says: str = "") -> Schema:
    """Return the schema of a yes or no."""
    return Field(bool, says).schema()


def listed(items: Schema) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "items": items}


def by_name(values: Schema) -> Schema:
    """Return the schema of an object with any names."""
    return {"type": "object", "additionalProperties": values}


def or_none(schema: Schema) -> Schema:
    """Return the schema of something or null."""
    if isinstance(kind := schema.get("type"), str) and "enum" not in schema:
        return {**schema, "type": [kind, "null"]}
    return {"oneOf": [schema, {"type": "null"}]}


def thing(fields: Mapping[str, Schema], *, optional: Mapping[str, Schema] | None = None) -> Schema:
    """Return the schema of an object that has all of some fields, and perhaps ``optional`` ones."""
    return {
        "type": "object",
        "properties": {**fields, **(optional or {})},
        "required": list(fields),
        "additionalProperties": False,
    }


NOTHING = thing({})
"""An empty object."""
