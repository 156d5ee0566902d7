"""JSON as bytes: the one place that reads and writes it, with msgspec.

Stricter than the standard library: no ``NaN``, no number that is infinite as a float64, no half of
a surrogate pair, no bytes that are not UTF-8, no byte order mark, and one value from end to end. Of
a key that comes twice the last value counts. An integer of more than 64 bits is read as a float.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import Enum
from typing import Any
from uuid import UUID

import msgspec

# The shortest integer of more than 64 bits, 2**63, has 19 digits. RM's keys have as many, in text.
_LONG = b":" + b"0" * 19
_SHAPE = bytes.maketrans(b"123456789,[- \t\r\n", b"000000000" + b":" * 7)
_BEFORE_NUMBERS = (b"", b":", b"[", b",")
_SPACES = 64  # between those and a number; where there are more, it may be one
_MOST_LABELS = 1_000  # are looked at: it costs less to look for such numbers than to look further
_LEAST, _END = -(2**63), 2**64


def read_json(text: bytes | bytearray | str) -> Any:
    """Return the value of a JSON text.

    Raises `ValueError`, whose words tell nothing of the text, where it is no JSON or is nested too
    deep for the interpreter, hundreds of levels.
    """
    data = text.encode() if isinstance(text, str) else text
    try:
        value = _DECODER.decode(data)
        shape = b":" + data.translate(_SHAPE)
        return _with_floats(value) if _LONG in shape and _may_have_long(data, shape) else value
    except (msgspec.MsgspecError, OverflowError, RecursionError):
        raise ValueError("no JSON") from None


def _may_have_long(data: bytes | bytearray, shape: bytes | bytearray) -> bool:
    """Return whether a text may have an integer of more than 64 bits, and not only such a label."""
    at = -1
    for _ in range(_MOST_LABELS):
        at = shape.find(_LONG, at + 1)
        if at < 0:
            return False
        if data[max(0, at - _SPACES) : at].rstrip(b"- \t\r\n")[-1:] in _BEFORE_NUMBERS:
            return True
    return True


def write_json(value: Any, *, sort_keys: bool = False) -> bytes:
    """Return a value as JSON in UTF-8, without white space.

    Keys are text, and sorted at each depth if ``sort_keys``. A float that is no number becomes
    ``null``. Raises `TypeError`, whose words tell nothing of the value, for what is not JSON.
    """
    try:
        return (_SORTED if sort_keys else _ENCODER).encode(value)
    except (UnicodeEncodeError, RecursionError) as exc:
        raise TypeError(_REASONS[type(exc)]) from None


def write_strictly(value: object, *, number: Callable[[float], str] | None = None) -> bytes:
    """Return a value as JSON with sorted keys, as `write_json` does, and refuse more.

    ``number`` writes each float, where somebody else does it otherwise. Raises `TypeError` for what
    would be text or a list by somebody's convention alone, such as a time, bytes, a decimal or a
    set, and for an integer of more than 64 bits.
    """
    try:
        has_floats = _check(value)
    except RecursionError:
        raise TypeError(_REASONS[RecursionError]) from None
    if has_floats and number is not None:
        value = with_numbers(value, number)
    return write_json(value, sort_keys=True)


def _check(value: object) -> bool:
    """Refuse what can't be written strictly; return whether there is a float in the rest."""
    has_floats = False
    if isinstance(value, dict):
        if not all(type(name) is str for name in value):
            raise TypeError("Dict key must be str")
        for inner in value.values():
            if type(inner) is not str and _check(inner):
                has_floats = True
    elif isinstance(value, list) or type(value) is tuple:
        for inner in value:
            if type(inner) is not str and _check(inner):
                has_floats = True
    elif isinstance(value, Enum):
        _check(value.value)
    elif isinstance(value, int):
        if not _LEAST <= value < _END:
            raise TypeError("Integer exceeds 64-bit range")
    elif type(value) is float:
        has_floats = True
    elif not (value is None or isinstance(value, (str, UUID))):
        raise TypeError(f"Type is not JSON serializable: {_name(type(value))}")
    return has_floats


def with_numbers(value: object, number: Callable[[float], str]) -> object:
    """Return a value in which each float is written as ``number`` writes it."""
    if isinstance(value, dict):
        return {name: with_numbers(inner, number) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [with_numbers(inner, number) for inner in value]
    if isinstance(value, float) and math.isfinite(value):
        return msgspec.Raw(number(value).encode())
    return value


def _name(kind: type) -> str:
    module = kind.__module__
    return kind.__name__ if module in ("builtins", "__main__") else f"{module}.{kind.__name__}"


def indented(text: bytes) -> bytes:
    """Return JSON with each value on a line of its own."""
    return msgspec.json.format(text, indent=2)


_REASONS: dict[type[Exception], str] = {
    UnicodeEncodeError: "str is not valid UTF-8: surrogates not allowed",
    RecursionError: "nested too deep",
}


def _plain(value: object) -> object:
    """Return what a value of a subclass is: text that is marked as safe, a member of an enum."""
    for kind in (str, int):
        if isinstance(value, kind):
            return kind(value)
    raise TypeError(f"Type is not JSON serializable: {_name(type(value))}")


def _with_floats(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _with_floats(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_with_floats(inner) for inner in value]
    is_long = isinstance(value, int) and not _LEAST <= value < _END
    return float(value) if is_long else value


_DECODER = msgspec.json.Decoder()
_ENCODER = msgspec.json.Encoder(enc_hook=_plain)
_SORTED = msgspec.json.Encoder(enc_hook=_plain, order="sorted")
