"""The fields of a body: their types, and how much of each."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import Any
from urllib.parse import parse_qsl

# An endpoint that takes any number is one that takes all memory, or stands still for ever.
_MOST = 1_000_000_000
_MOST_OF = {"quantity": 1_000_000, "discount_rate_bp": 10_000, "seed": 2**63}
_JSON_WORDS = {
    bool: "true or false",
    dict: "an object",
    float: "a number",
    int: "a whole number",
    list: "a list",
}


def checked(wire: dict[str, Any], fields: Mapping[str, type]) -> dict[str, Any]:
    """Return the fields. Raises `ValueError` that names one of another type or size."""
    unknown = wire.keys() - fields.keys()
    if unknown:
        raise ValueError(f"no such field: {', '.join(sorted(unknown))}")
    for name, value in wire.items():
        kinds = (int, float) if fields[name] is float else (fields[name],)
        if not isinstance(value, kinds) or isinstance(value, bool) != (fields[name] is bool):
            raise ValueError(f"{name} is {_JSON_WORDS.get(fields[name], 'text')}")
        if (
            kinds != (bool,)
            and isinstance(value, int | float)
            and abs(value) > (most := _MOST_OF.get(name, _MOST))
        ):
            raise ValueError(f"{name} is {_JSON_WORDS[fields[name]]}, {most} at most")
    return dict(wire)


def of_query(query: str, fields: Mapping[str, type]) -> dict[str, Any]:
    """Return the fields of a URL's query. Raises `ValueError` for one that is not as it should."""
    wire: dict[str, Any] = {}
    for name, text in parse_qsl(query, keep_blank_values=True, max_num_fields=20):
        kind = fields.get(name, str)
        if kind is bool and text in ("true", "false"):
            wire[name] = text == "true"
        elif kind is int and text.isascii() and text.isdecimal() and len(text) < 19:
            wire[name] = int(text)
        else:
            wire[name] = text
    return checked(wire, fields)


def require(given: Mapping[str, Any], names: AbstractSet[str], what: str) -> None:
    """Raise `ValueError` with the names of the fields that are missing."""
    missing = names - given.keys()
    if missing:
        raise ValueError(f"{what} has {', '.join(sorted(missing))}")
