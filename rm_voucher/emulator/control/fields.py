"""The fields of a body and a query, checked by what describes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from rm_voucher.emulator.schema import Field

_JSON_WORDS = {
    bool: "true or false",
    dict: "an object",
    float: "a number",
    int: "a whole number",
    list: "a list",
    str: "text",
}


def checked(wire: Mapping[str, Any], fields: Mapping[str, Field]) -> dict[str, Any]:
    """Return the fields. Raises `ValueError` that names one that is missing or not as it should."""
    unknown = wire.keys() - fields.keys()
    if unknown:
        raise ValueError(f"no such field: {', '.join(sorted(unknown))}")
    for name, value in wire.items():
        _check(name, value, fields[name])
    missing = [name for name, field in fields.items() if field.is_needed and name not in wire]
    if missing:
        raise ValueError(f"{' and '.join(missing)} must be given")
    return dict(wire)


def _check(name: str, value: Any, field: Field) -> None:
    words = _JSON_WORDS[field.kind]
    if not _is_a(value, field.kind):
        raise ValueError(f"{name} is {words}")
    least, most = field.range
    if least is not None and value < least:
        raise ValueError(f"{name} is {words}, {least} at least")
    if most is not None and value > most:
        raise ValueError(f"{name} is {words}, {most} at most")
    if field.more_than is not None and value <= field.more_than:
        raise ValueError(f"{name} is {words}, more than {field.more_than}")
    if field.words and value not in field.words:
        raise ValueError(f"{value!r} is no word for {name}; they are {', '.join(field.words)}")
    _check_inside(name, value, field)


def _is_a(value: object, kind: type) -> bool:
    kinds = (int, float) if kind is float else (kind,)
    return isinstance(value, kinds) and isinstance(value, bool) == (kind is bool)


def _check_inside(name: str, value: Any, field: Field) -> None:
    if field.fields is not None:
        try:
            checked(value, field.fields)
        except ValueError as exc:
            raise ValueError(f"{name}: {exc}") from None
    if field.items is not None:
        if len(value) < field.shape.get("minItems", 0):
            raise ValueError(f"{name} is a list of {field.shape['minItems']} at least")
        if len(value) > field.shape.get("maxItems", len(value)):
            raise ValueError(f"{name} is a list of {field.shape['maxItems']} at most")
        for number, item in enumerate(value):
            _check(f"{name}[{number}]", item, field.items)


def of_query(query: str, fields: Mapping[str, Field]) -> dict[str, Any]:
    """Return the fields of a URL's query. Raises `ValueError` for one that is not as it should."""
    wire: dict[str, Any] = {}
    for name, text in parse_qsl(query, keep_blank_values=True, max_num_fields=20):
        kind = fields[name].kind if name in fields else str
        if kind is bool and text in ("true", "false"):
            wire[name] = text == "true"
        elif kind is int and text.isascii() and text.isdecimal() and len(text) < 19:
            wire[name] = int(text)
        else:
            wire[name] = text
    return checked(wire, fields)
