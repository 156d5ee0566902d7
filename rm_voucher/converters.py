"""cattrs converters between the wire's JSON objects and `rm_voucher.models`. No I/O.

Reading is tolerant where the API is loose: unknown fields go to ``extra``, unknown enum values
stay as text, both documented spellings of a name are read, null and Go's zero time are None. It is
strict where a wrong value would cost money: amounts are whole, not negative and not text. Writing
gives the documented spelling and leaves out what is None.

`structure` reads a model with a function that is written for it here, in half the time of cattrs'
own. A misfit is read again by cattrs, which says what did not fit and where.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from types import NoneType
from typing import Any, TypeVar, get_args

import attrs
from cattrs import Converter
from cattrs.gen import make_dict_structure_fn, make_dict_unstructure_fn, override
from cattrs.v import transform_error

from rm_voucher import models
from rm_voucher.exceptions import DecodeError

__all__ = [
    "configure_converter",
    "format_time",
    "make_converter",
    "parse_time",
    "structure",
    "structure_all",
    "unstructure",
]

T = TypeVar("T")

# Every other name is the field's own in camelCase.
_WIRE_NAMES = {
    "amount_sen": "amount",
    "batch_key": "voucherBatchKey",
    "days": "day",
    "discount_rate_bp": "discountRate",
    "expires_at": "expiredAt",
    "expires_in_s": "expiresIn",
    "minimum_spend_sen": "minimumSpendAmount",
    "refresh_expires_in_s": "refreshTokenExpiresIn",
}
# What other pages call the same field.
_OTHER_SPELLINGS: dict[type, dict[str, str]] = {
    models.Expiry: {"expiryAt": "expiredAt"},  # the tables; every payload says expiredAt
    models.Voucher: {"voucherBathKey": "voucherBatchKey"},  # the page Void Voucher
}
_MODELS = (
    models.Expiry,
    models.IssuedVoucher,
    models.Voucher,
    models.VoucherBatch,
    models.Token,
    models.ErrorBody,
)

_RFC3339 = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?"
    r"(Z|[+-][0-9]{2}:[0-9]{2})"
)
_GO_ZERO_TIME = datetime.min.replace(tzinfo=UTC)


def parse_time(text: str) -> datetime | None:
    """Return the instant that an RFC 3339 text names, in UTC, cut to the microsecond.

    Go's zero time, 0001-01-01T00:00:00Z, means *not set* and gives None. Raises `ValueError` for
    anything but RFC 3339, also where `datetime.fromisoformat` would take it.
    """
    if not _RFC3339.fullmatch(text):
        text = text.upper()  # a small t or z is one too
        if not _RFC3339.fullmatch(text):
            raise ValueError("an RFC 3339 time")
    try:
        instant = datetime.fromisoformat(text)
        if instant.tzinfo is not UTC:
            instant = instant.astimezone(UTC)
    except (ValueError, OverflowError) as exc:
        raise ValueError("an RFC 3339 time that exists") from exc
    return None if instant.year == 1 and instant == _GO_ZERO_TIME else instant


def format_time(instant: datetime) -> str:
    """Return an aware datetime as RFC 3339 in UTC. Raises `ValueError` for a naive one."""
    if instant.tzinfo is None:
        raise ValueError("a datetime with a time zone")
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def make_converter(*, detailed_validation: bool = False) -> Converter:
    """Return a new converter for the models. `structure` and `unstructure` keep their own."""
    converter = Converter(detailed_validation=detailed_validation)
    configure_converter(converter)
    return converter


def configure_converter(converter: Converter) -> None:
    """Teach a converter of yours the models of this library. Its other hooks stay."""
    _configure(converter, _make_structure_fn_of_cattrs)


def _configure(converter: Converter, make_structure_fn: Callable[..., Any]) -> None:
    converter.register_structure_hook(models.OpenEnum, _structure_enum)
    converter.register_unstructure_hook(models.OpenEnum, lambda member: member.value)
    for model in _MODELS:
        read = _with_other_spellings(model, make_structure_fn(model, converter))
        converter.register_structure_hook(model, read)
        converter.register_unstructure_hook(model, _make_unstructure_hook(model, converter))


def structure(obj: object, cls: type[T], *, path: str = "$") -> T:
    """Return the model that a decoded JSON value stands for.

    Raises `DecodeError` with the path of each misfit, but never a value: it might be a code.
    """
    try:
        model: T = _reader(cls)(obj, cls)
    # Whatever the hooks raise: nothing is hidden, because all of it is read again, and explained.
    except Exception:  # noqa: BLE001 - hooks are any functions, also those of a later cattrs
        model = _structure_explaining(obj, cls, path)
    return model


def structure_all(
    items: Iterable[object], cls: type[T], *, path: str = "$", first: int = 0
) -> list[T]:
    """Return the models of a list's items, the first of which has the index ``first``."""
    read = _reader(cls)
    models: list[T] = []
    for index, item in enumerate(items, first):
        try:
            model = read(item, cls)
        except Exception:  # noqa: BLE001 - read again, and explained, as in `structure`
            model = _structure_explaining(item, cls, f"{path}[{index}]")
        models.append(model)
    return models


def unstructure(model: object) -> dict[str, Any]:
    """Return the model as the JSON object that the API would send, without what is None."""
    wire: dict[str, Any] = _converter().unstructure(model)
    return wire


def _structure_explaining(obj: object, cls: type[T], path: str) -> T:
    try:
        return _explaining_converter().structure(obj, cls)
    except Exception as exc:  # noqa: BLE001 - cattrs raises groups and plain errors alike
        misfits = transform_error(exc, path, _describe)
        raise DecodeError("; ".join(misfits[:5])) from None  # the cause would carry values


def _describe(exc: BaseException, _type: type | None) -> str:
    if isinstance(exc, KeyError):
        return "missing"
    return f"expected {exc}" if isinstance(exc, _MisfitError) else "not as documented"


@functools.cache
def _converter() -> Converter:
    # Nobody else's: a written function would not ask a hook that came later.
    converter = Converter(detailed_validation=False)
    _configure(converter, _make_written_structure_fn)
    return converter


def _make_reader(cls: type) -> Callable[[Any, Any], Any]:
    return _converter().get_structure_hook(cls)


_reader: Callable[[type], Callable[[Any, Any], Any]] = functools.cache(_make_reader)


@functools.cache
def _explaining_converter() -> Converter:
    return make_converter(detailed_validation=True)


class _MisfitError(ValueError):
    """What was expected; never what was found."""


def _structure_int(value: object, _: object) -> int:
    # bool is an int to Python; RM's numbers are Go's unsigned ones.
    if type(value) is not int or value < 0:
        raise _MisfitError("a whole number, not negative")
    return value


def _structure_seconds(value: object, _: object) -> int:
    # Documented as a string, shown as a number.
    if isinstance(value, str) and re.fullmatch(r"[0-9]{1,12}", value):
        return int(value)
    return _structure_int(value, _)


def _structure_str(value: object, _: object) -> str:
    if not isinstance(value, str):
        raise _MisfitError("text")
    return value


def _structure_code(value: object, _: object) -> str:
    # A code that is empty is no voucher; taking it for one would hand out nothing.
    if not isinstance(value, str) or not value.strip():
        raise _MisfitError("a voucher code")
    return value


def _structure_qr_url(value: object, _: object) -> str | None:
    # Beside a code that was issued, nothing is worth losing the code for.
    return value if isinstance(value, str) else None


def _structure_bool(value: object, _: object) -> bool:
    if not isinstance(value, bool):
        raise _MisfitError("true or false")
    return value


def _structure_enum(value: object, cls: Any) -> Any:
    # Enum's own look-up does the same in six times the time.
    known = cls._value2member_map_.get(value) if type(value) is str else None
    return cls(_structure_str(value, cls)) if known is None else known


def _structure_time(value: object, _: object) -> datetime | None:
    if not isinstance(value, str):
        raise _MisfitError("text")
    try:
        return parse_time(value)
    except ValueError as exc:
        raise _MisfitError(str(exc)) from None


_FIELD_HOOKS: dict[object, Callable[[Any, Any], Any]] = {
    int | None: _structure_int,
    str | None: _structure_str,
    bool | None: _structure_bool,
    datetime | None: _structure_time,
    str: _structure_str,
}
_NAMED_FIELD_HOOKS: dict[tuple[type, str], Callable[[Any, Any], Any]] = {
    (models.IssuedVoucher, "code"): _structure_code,
    (models.IssuedVoucher, "qr_url"): _structure_qr_url,
    (models.Token, "expires_in_s"): _structure_seconds,
    (models.Token, "refresh_expires_in_s"): _structure_seconds,
}
# Instances of just this type pass the hook unchanged.
_PLAIN: dict[object, type] = {_structure_str: str, _structure_qr_url: str, _structure_bool: bool}


def _wire_name(field: str) -> str:
    head, *tail = field.split("_")
    return _WIRE_NAMES.get(field) or head + "".join(part.capitalize() for part in tail)


def _fields(model: Any) -> tuple[attrs.Attribute[Any], ...]:
    fields: tuple[attrs.Attribute[Any], ...] = attrs.fields(attrs.resolve_types(model))
    return fields


def _own_hook(model: type, field: attrs.Attribute[Any]) -> Callable[[Any, Any], Any] | None:
    return _NAMED_FIELD_HOOKS.get((model, field.name)) or _FIELD_HOOKS.get(field.type)


def _with_other_spellings(model: type[T], read: Callable[[Any, Any], T]) -> Callable[[Any, Any], T]:
    spellings = _OTHER_SPELLINGS.get(model)
    if spellings is None:
        return read

    def structure_model(wire: Any, cls: Any) -> T:
        for other, name in spellings.items():
            if isinstance(wire, dict) and wire.get(name) is None and wire.get(other) is not None:
                wire = {**wire, name: wire[other]}
                del wire[other]
        return read(wire, cls)

    return structure_model


@attrs.frozen
class Field:
    """How a written function reads one field.

    ``hook`` gets the value and its type. It is not asked for a null where the field is not
    required, which gives None, nor for an instance of just ``plain``, which is good as it is.
    """

    name: str
    wire_name: str
    type: Any
    hook: Callable[[Any, Any], Any]
    plain: type | None
    is_required: bool


def _make_written_structure_fn(model: type[T], converter: Converter) -> Callable[[Any, Any], T]:
    fields = []
    for field in _fields(model):
        if field.name == "extra":
            continue
        hook, inner = _own_hook(model, field), field.type
        if hook is None:
            inner = next((arg for arg in get_args(field.type) if arg is not NoneType), field.type)
            hook = converter.get_structure_hook(inner)
        is_required = field.default is attrs.NOTHING
        plain = _PLAIN.get(hook)
        fields.append(Field(field.name, _wire_name(field.name), inner, hook, plain, is_required))
    return write_structure_fn(model, fields)


def write_structure_fn(model: type[T], fields: Iterable[Field]) -> Callable[[Any, Any], T]:
    """Return a function of a JSON object that returns the model. Raises what the hooks raise.

    What no field reads goes to the model's ``extra``. The model is slotted and its ``__init__``
    does nothing but set the fields: they are set here, which also passes by its being frozen.
    """
    fields = tuple(fields)
    names: dict[str, Any] = {
        "new": object.__new__,
        "model": model,
        "known": {field.wire_name for field in fields},
        "set_extra": vars(model)["extra"].__set__,
    }
    lines = ["def structure(wire, _):", "    get, result = wire.get, new(model)"]
    for number, field in enumerate(fields):
        names[f"set{number}"] = vars(model)[field.name].__set__  # of its slot
        names |= {f"hook{number}": field.hook, f"type{number}": field.type}
        lines.append(f"    value = get({field.wire_name!r})")
        conditions = [] if field.is_required else ["value is not None"]
        if field.plain is not None:
            conditions.append(f"value.__class__ is not {field.plain.__name__}")
        lines += [
            f"    if {' and '.join(conditions) or True}:",
            f"        value = hook{number}(value, type{number})",
            f"    set{number}(result, value)",
        ]
    lines += [
        "    is_all = wire.keys() <= known",
        "    set_extra(result, {} if is_all else {k: wire[k] for k in wire if k not in known})",
        "    return result",
    ]
    exec("\n".join(lines), names)  # noqa: S102 - of names in this package
    structure: Callable[[Any, Any], T] = names["structure"]
    return structure


def _make_structure_fn_of_cattrs(model: type[T], converter: Converter) -> Callable[[Any, Any], T]:
    """Return cattrs' own function, which asks the converter's hooks, whenever they come."""
    overrides: dict[str, Any] = {"extra": override(omit=True)}
    for field in _fields(model):
        if field.name != "extra":
            hook = _own_hook(model, field)
            if hook is not None and field.default is not attrs.NOTHING:
                hook = _nullable(hook)
            overrides[field.name] = override(rename=_wire_name(field.name), struct_hook=hook)
    known = {one.rename for one in overrides.values() if one.rename}
    read = make_dict_structure_fn(model, converter, **overrides)

    def structure_model(wire: Any, cls: Any) -> T:
        if not isinstance(wire, dict):
            raise _MisfitError("an object")
        result = read(wire, cls)
        # Frozen, but nobody else has seen it yet; evolving it would build it twice.
        object.__setattr__(result, "extra", {key: wire[key] for key in wire if key not in known})
        return result

    return structure_model


def _nullable(hook: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda value, cls: None if value is None else hook(value, cls)


def _make_unstructure_hook(
    model: type[Any], converter: Converter
) -> Callable[[Any], dict[str, Any]]:
    overrides: dict[str, Any] = {}
    for field in _fields(model):
        if field.name == "extra":
            overrides["extra"] = override(omit=True)
        else:
            overrides[field.name] = override(
                rename=_wire_name(field.name),
                omit_if_default=True,
                unstruct_hook=format_time if field.type == datetime | None else None,
            )
    write = make_dict_unstructure_fn(model, converter, **overrides)

    def unstructure_model(value: Any) -> dict[str, Any]:
        extra: Mapping[str, Any] = value.extra
        return {**write(value), **extra}

    return unstructure_model
