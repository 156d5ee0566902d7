"""Objects as dicts and JSON under our own names of the fields: for logs, files, frames and forms.

A masked dict has, under ``masked``, the names of the fields whose values it hides: all that the
object's repr hides. A model is not read from one, so that no hint of a code ever passes for a code.
"""

from __future__ import annotations

import enum
import functools
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import NoneType
from typing import Any, NamedTuple, Self, TypeVar, get_args, get_origin, get_type_hints

import attrs

from rm_voucher.decode_error import DecodeError, VoucherError
from rm_voucher.redaction import hide_locals

__all__ = ["Shown", "Travels"]

T = TypeVar("T")

MASKED = "masked"
_HIDDEN_END = "…"  # of every hint


class Shown:
    """What can be shown as a dict or as JSON. No I/O."""

    __slots__ = ()

    def to_dict(self, *, reveal: bool = False) -> dict[str, Any]:
        """Return the fields by their names: text, numbers, true and false, None, lists and dicts.

        A time is ISO 8601 in UTC, an enum its text, an error its class and message. Without
        ``reveal``, what the repr hides is a hint (``"AB…"``) or None, and ``masked`` lists it:
        codes, QR URLs, keys, profiles, ``extra``. With it, the dict has all, and is worth what the
        voucher is worth. Raises `ValueError` for a time without a zone.
        """
        shown: dict[str, Any] = {}
        masked = []
        model: Any = type(self)
        for field in attrs.fields(model):
            value = getattr(self, field.name)
            if reveal or field.repr is True or not value or isinstance(value, Shown):
                shown[field.name] = _plain(value, reveal=reveal)
            else:
                shown[field.name] = _hint(field, value)
                masked.append(field.name)
        return shown if reveal else {**shown, MASKED: masked}

    def to_json(self, *, reveal: bool = False) -> str:
        """Return `to_dict` as JSON, in ASCII.

        Raises `ValueError` for a number that JSON has not, and `TypeError` for a value of yours
        that it has not, such as a bulk result's recipient.
        """
        return json.dumps(self.to_dict(reveal=reveal), allow_nan=False)


class Travels(Shown):
    """What can be read again from what it was shown as."""

    __slots__ = ()

    @classmethod
    @hide_locals
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Return the object that ``to_dict(reveal=True)`` wrote. What it lacks has its default.

        Raises `DecodeError` for a masked dict, an unknown field, and a value that does not fit:
        with the path of the field, never with a value.
        """
        return read(cls, data)

    @classmethod
    @hide_locals
    def from_json(cls, text: str | bytes) -> Self:
        """Return the object that ``to_json(reveal=True)`` wrote. Raises `DecodeError`."""
        try:
            data = json.loads(text)
        except (ValueError, RecursionError):
            raise DecodeError("expected JSON @ $", is_final=True) from None
        return read(cls, data)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        """Let pydantic take the class: read by `from_dict`, written by `to_dict`.

        It is written masked, but for the context ``{"reveal": True}``. `DecodeError` passes through
        pydantic: its own error would show the values.
        """
        from pydantic_core import core_schema  # of those who have it

        def read(value: Any) -> Any:
            return value if isinstance(value, cls) else cls.from_dict(value)

        def write(value: Any, info: Any) -> dict[str, Any]:
            shown: Shown = value
            return shown.to_dict(reveal=(info.context or {}).get("reveal") is True)

        return core_schema.no_info_plain_validator_function(
            read,
            serialization=core_schema.plain_serializer_function_ser_schema(write, info_arg=True),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> Any:
        """Let pydantic describe the fields, as FastAPI does in its OpenAPI document."""
        from pydantic_core import core_schema  # of those who have it

        return handler(_form(cls, core_schema))


def _plain(value: Any, *, reveal: bool) -> Any:
    if isinstance(value, Shown):
        return value.to_dict(reveal=reveal)
    if isinstance(value, tuple):
        return [_plain(item, reveal=reveal) for item in value]
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ValueError("a datetime with a time zone")
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, VoucherError):
        return {"type": type(value).__name__, "message": str(value)}
    return value


def _hint(field: attrs.Attribute[Any], value: Any) -> Any:
    if callable(field.repr) and isinstance(value, str):
        return field.repr(value).strip("'")
    return {} if field.name == "extra" else None


class _Field(NamedTuple):
    kind: Any
    is_optional: bool
    is_required: bool
    is_masked: bool


@functools.cache
def _fields_of(model: Any) -> dict[str, _Field]:
    hints = get_type_hints(model)
    fields = {}
    for field in attrs.fields(model):
        hint = hints[field.name]
        kinds = [kind for kind in get_args(hint) if kind is not NoneType]
        is_optional = hint is Any or NoneType in get_args(hint)
        kind = get_origin(hint) if get_origin(hint) in {Mapping, tuple} else hint
        fields[field.name] = _Field(
            kinds[0] if is_optional and kinds else kind,
            is_optional,
            field.default is attrs.NOTHING,
            callable(field.repr),
        )
    return fields


def read(model: Callable[..., T], data: object, path: str = "$", *, item: Any = None) -> T:
    """Return the model that a dict stands for, a tuple in which has items of a class."""
    if not isinstance(data, Mapping):
        raise DecodeError(f"expected an object @ {path}", is_final=True)
    if data.get(MASKED):
        raise DecodeError(
            f"masked @ {path}: only to_dict(reveal=True) writes what can be read", is_final=True
        )
    fields = _fields_of(model)
    if not data.keys() <= {*fields, MASKED}:  # its name might be a code
        raise DecodeError(f"an unknown field @ {path}", is_final=True)
    values = {}
    for name, field in fields.items():
        if name in data and field.kind is tuple and isinstance(data[name], list):
            found = enumerate(data[name])
            values[name] = tuple(read(item, one, f"{path}.{name}[{n}]") for n, one in found)
        elif name in data:
            values[name] = _value(field, data[name], f"{path}.{name}")
        elif field.is_required:
            raise DecodeError(f"missing @ {path}.{name}", is_final=True)
    return model(**values)


def _value(field: _Field, value: Any, path: str) -> Any:
    kind = field.kind
    if kind is Any or (value is None and field.is_optional):
        return value
    if issubclass(kind, Travels):
        return read(kind, value, path)
    if kind is Mapping:
        if isinstance(value, dict):
            return dict(value)
    elif kind is int or kind is bool:
        if type(value) is kind:
            return value
    elif isinstance(value, str) and kind is not tuple:
        if field.is_masked and value.endswith(_HIDDEN_END):
            raise DecodeError(f"masked @ {path}", is_final=True)
        try:
            return _of_text(kind, value)
        except (ValueError, OverflowError):
            pass
    raise DecodeError(f"expected {_EXPECTED.get(kind, 'another value')} @ {path}", is_final=True)


_EXPECTED = {
    int: "a whole number",
    bool: "true or false",
    str: "text",
    Mapping: "an object",
    tuple: "a list",
    datetime: "a time with its zone, in ISO 8601",
}


def _of_text(kind: Any, text: str) -> Any:
    if kind is not datetime:
        return kind(text)
    instant = datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError
    return instant.astimezone(UTC)


def _form(model: Any, core_schema: Any) -> Any:
    """Return the form of a dict, as pydantic describes it."""
    plain = {int: core_schema.int_schema(), bool: core_schema.bool_schema()}
    opaque = core_schema.any_schema()
    fields = {}
    for name, field in _fields_of(model).items():
        kind = field.kind
        if kind is Any or kind is Mapping:
            form = opaque
        elif issubclass(kind, Travels):
            form = _form(kind, core_schema)
        else:
            form = plain.get(kind) or core_schema.str_schema()
        if field.is_optional:
            form = core_schema.nullable_schema(form)
        fields[name] = core_schema.typed_dict_field(form, required=field.is_required)
    names = core_schema.list_schema(core_schema.str_schema())
    fields[MASKED] = core_schema.typed_dict_field(names, required=False)
    return core_schema.typed_dict_schema(fields)
