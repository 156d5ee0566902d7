"""Refuses an argument of a wrong type at the door, with a sentence."""

from __future__ import annotations

from collections.abc import Mapping

from rm_voucher.exceptions import ConfigurationError, VoucherError

_WORDS: dict[type, str] = {
    bool: "True or False",
    bytes: "bytes",
    float: "a number",
    int: "a whole number",
    str: "text",
    Mapping: "a mapping",
}


def check_type(
    name: str,
    value: object,
    *kinds: type,
    optional: bool = False,
    refused: type[VoucherError] = ConfigurationError,
) -> None:
    """Refuse a value of none of the types, and None unless it is ``optional``.

    The sentence shows no value, which may be a secret.
    """
    if value is None and optional:
        return
    # A whole number is a number too. A truth value is none, though Python has it so.
    if isinstance(value, (*kinds, int) if float in kinds else kinds) and (
        bool in kinds or not isinstance(value, bool)
    ):
        return
    words = " or ".join(_WORDS.get(kind, f"of type {kind.__name__}") for kind in kinds)
    raise refused(f"{name} must be {words}, not {_named(value)}.")


def check_callable(name: str, value: object, *, words: str = "a function") -> None:
    """Refuse what can't be called."""
    if not callable(value):
        raise ConfigurationError(f"{name} must be {words}, not {_named(value)}.")


def check_method(name: str, value: object, method: str) -> None:
    """Refuse an object without a method, and a class in the place of one."""
    if isinstance(value, type) or not callable(getattr(value, method, None)):
        raise ConfigurationError(f"{name} must have a method {method}; {_named(value)} has none.")


def _named(value: object) -> str:
    if value is None:
        return "None"
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
