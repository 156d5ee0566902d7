"""Reads a scenario's file, and says every mistake in it, each with its place."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator
from datetime import UTC, datetime
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any

import attrs
import cattrs
from cattrs.errors import ForbiddenExtraKeysError

from rm_voucher.emulator.scenario.model import Scenario
from rm_voucher.exceptions import ConfigurationError

_MAX_BYTES = 10_000_000
_PACKAGED = files("rm_voucher.emulator.scenarios")


def scenario_names() -> list[str]:
    """Return the names of the scenarios in the package."""
    return sorted(
        file.name.removesuffix(".toml")
        for file in _PACKAGED.iterdir()
        if file.name.endswith(".toml")
    )


def load_scenario(name: str | os.PathLike[str]) -> Scenario:
    """Read a scenario: a TOML file, or the name of one in the package.

    Raises `ConfigurationError` with a sentence for each mistake.
    """
    text = _text_of(name)
    try:
        return scenario_of(tomllib.loads(text))
    except tomllib.TOMLDecodeError as exc:
        raise ConfigurationError(f"{name} is no TOML: {exc}.") from None
    except ValueError as exc:
        raise ConfigurationError(f"{name}: {exc}") from None


def _text_of(name: str | os.PathLike[str]) -> str:
    if isinstance(name, str) and name in scenario_names():
        return (_PACKAGED / f"{name}.toml").read_text(encoding="utf-8")
    try:
        with Path(name).open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        if len(content) > _MAX_BYTES:
            raise ConfigurationError(f"{name} is over {_MAX_BYTES // 1_000_000} MB.")
        return content.decode()
    except OSError as exc:
        raise ConfigurationError(
            f"The scenario {name} can't be read: {exc.strerror}. Those in the package are "
            f"{', '.join(scenario_names())}."
        ) from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{name} is not UTF-8.") from None


def scenario_of(tables: dict[str, Any]) -> Scenario:
    """Return the scenario of a file's tables. Raises `ValueError` with all mistakes."""
    try:
        return _CONVERTER.structure(tables, Scenario)
    except cattrs.ClassValidationError as exc:
        raise ValueError("; ".join(_sentences(exc, ""))) from None


def _exactly(kind: type, words: str) -> Any:
    def hook(value: object, _: object) -> object:
        if not isinstance(value, kind) or isinstance(value, bool) != (kind is bool):
            raise ValueError(f"is {words}")
        return value

    return hook


def _number(value: object, _: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("is a number")  # noqa: TRY004 - of TOML
    return float(value)


def _time(value: object, _: object) -> datetime:
    if not isinstance(value, datetime):
        raise ValueError("is a time, like 2026-12-31T23:59:59Z")  # noqa: TRY004 - of TOML
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def _converter() -> cattrs.Converter:
    converter = cattrs.Converter(forbid_extra_keys=True)
    converter.register_structure_hook(int, _exactly(int, "a whole number"))
    converter.register_structure_hook(str, _exactly(str, "text, in quotes"))
    converter.register_structure_hook(bool, _exactly(bool, "true or false"))
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(datetime, _time)
    return converter


_CONVERTER = _converter()


def _sentences(exc: BaseException, path: str) -> Iterator[str]:
    """Yield a sentence for each mistake, with its place in the file."""
    if isinstance(exc, cattrs.ClassValidationError):
        for inner, field in exc.group_exceptions()[0]:
            yield from _sentences(inner, f"{path}.{field.name}".lstrip("."))
        for inner in exc.group_exceptions()[1]:
            yield from _sentences(inner, path)
    elif isinstance(exc, cattrs.IterableValidationError):
        for inner, item in exc.group_exceptions()[0]:
            place = f"[{item.index}]" if isinstance(item.index, int) else f".{item.index}"
            yield from _sentences(inner, f"{path}{place}")
    elif isinstance(exc, ForbiddenExtraKeysError):
        known = [field.name for field in attrs.fields(exc.cl)]
        for name in sorted(exc.extra_fields):
            near = get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}"
            yield f"{path or 'the file'} has no {name}: {hint}"
    elif isinstance(exc, KeyError):
        yield f"{path} is missing"
    elif isinstance(exc, TypeError | AttributeError):
        yield f"{path} is a table or a list, as the documentation shows"
    else:
        words = str(exc).replace("'", "")
        yield f"{path} {words}" if path else words
