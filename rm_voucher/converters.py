"""cattrs converters between the wire's JSON objects and `rm_voucher.models`. No I/O.

Reading is tolerant where the API is loose: unknown fields go to ``extra``, unknown enum values
stay as text, both documented spellings of a name are read, null, the empty time and Go's zero time
are None. No value is guessed: one that does not fit its field (an amount is whole, not negative and
not text) leaves it unset, and is kept in ``extra``, marked. It spoils the whole object only in a
field that the caller decides by, which it names as ``strict``. Writing gives the documented
spelling, and a misfit as it came, and leaves out what is None.

`structure` reads a model with a function that is written for it here, in half the time of cattrs'
own.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Iterable
from datetime import UTC, datetime, timedelta
from types import NoneType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast, get_args

import attrs

from rm_voucher import models
from rm_voucher.exceptions import DecodeError

if TYPE_CHECKING:  # and where the first converter is made: see `prepare`
    from cattrs import Converter

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
_GO_ZERO_TIME = "0001-01-01T00:00:00Z"
_SECOND = timedelta(seconds=1)


def parse_time(text: str) -> datetime | None:
    """Return the instant that an RFC 3339 text names, in UTC, cut to the microsecond.

    Go's zero time means *not set*, however it is written: any instant before year 2, in UTC or by
    its own offset, gives None. A leap second is the second after it. Raises `ValueError` for
    anything but RFC 3339, also where `datetime.fromisoformat` would take it.
    """
    if text == _GO_ZERO_TIME:
        return None
    if not _RFC3339.fullmatch(text):
        text = text.upper()  # a small t or z is one too
        if not _RFC3339.fullmatch(text):
            raise ValueError("an RFC 3339 time")
    try:
        if text.startswith("000"):
            return _parse_early_time(text)
        is_leap = text[17:19] == "60"
        instant = datetime.fromisoformat(f"{text[:17]}59{text[19:]}" if is_leap else text)
        if instant.tzinfo is not UTC:
            instant = instant.astimezone(UTC)
        if is_leap:
            if (instant.hour, instant.minute) != (23, 59):
                raise ValueError
            instant += _SECOND
    except (ValueError, OverflowError) as exc:
        raise ValueError("an RFC 3339 time that exists") from exc
    return instant


def _parse_early_time(text: str) -> datetime | None:
    """Read one of the first ten years. `datetime` begins with year 1, in UTC too."""
    local = datetime.fromisoformat(f"2{text[1:]}")  # two millennia on, the calendar is the same
    instant = local.astimezone(UTC)
    if min(local.year, instant.year) <= 2001:
        return None
    return instant.replace(year=instant.year - 2000)


def format_time(instant: datetime) -> str:
    """Return an aware datetime as RFC 3339 in UTC. Raises `ValueError` for a naive one."""
    if instant.tzinfo is None:
        raise ValueError("a datetime with a time zone")
    return instant.astimezone(UTC).isoformat().replace("+00:00", "Z")


def prepare() -> None:
    """Load cattrs and write the functions that read models, so that no call has to wait for it.

    A client does so when it is made. To import the package stays quick.
    """
    for model in _MODELS:
        _fields_read(model)
        _reader(model)


def make_converter(*, detailed_validation: bool = False) -> Converter:
    """Return a new converter for the models. `structure` and `unstructure` keep their own."""
    from cattrs import Converter

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


def structure(obj: object, cls: type[T], *, path: str = "$", strict: Collection[str] = ()) -> T:
    """Return the model that a decoded JSON value stands for.

    ``strict`` names fields in which a misfit is not kept. Raises `DecodeError` for one, for what a
    model can't be without, and for what is no object: with the path, but never a value, which might
    be a code.
    """
    try:
        model = _reader(cls)(obj, cls)
    except _MisfitError:
        raise _refusal(obj, cls, path, strict) from None
    if strict and not model.misfits.keys().isdisjoint(strict):
        raise _refusal(obj, cls, path, strict)
    return cast("T", model)


def structure_all(
    items: Iterable[object], cls: type[T], *, path: str = "$", first: int = 0
) -> list[T]:
    """Return the models of a list's items, the first of which has the index ``first``.

    An item that is no object is not left out: it is a model whose only content is that misfit,
    unless it can't be without a field. Then, as for such a field, this raises `DecodeError`.
    """
    read = _reader(cls)
    found: list[T] = []
    for index, item in enumerate(items, first):
        try:
            model = read(item, cls)
        except _MisfitError:
            if isinstance(item, dict) or any(field.is_required for field in _fields_read(cls)):
                raise _refusal(item, cls, f"{path}[{index}]") from None
            blank: Callable[..., T] = cls
            model = blank(extra={models.ALL_OF_IT: {models.MISFIT: item}})
        found.append(model)
    return found


def unstructure(model: object) -> dict[str, Any]:
    """Return the model as the JSON object that the API would send, without what is None."""
    wire: dict[str, Any] = _converter().unstructure(model)
    return wire


def _refusal(obj: object, cls: type, path: str, strict: Collection[str] = ()) -> DecodeError:
    if not isinstance(obj, dict):
        return DecodeError(f"expected an object @ {path}")
    misfits = []
    for field in _fields_read(cls):
        if field.is_required and field.wire_name not in obj:
            misfits.append(f"missing @ {path}.{field.name}")
            continue
        value = obj.get(field.wire_name)
        if field.is_required or (field.name in strict and value is not None):
            try:
                field.hook(value, field.type)
            except _MisfitError as exc:
                misfits.append(f"expected {exc} @ {path}.{field.name}")
    return DecodeError("; ".join(misfits))


@functools.cache
def _converter() -> Converter:
    from cattrs import Converter

    # Nobody else's: a written function would not ask a hook that came later.
    converter = Converter(detailed_validation=False)
    _configure(converter, _make_written_structure_fn)
    return converter


def _make_reader(cls: type) -> Callable[[Any, Any], Any]:
    return _converter().get_structure_hook(cls)


_reader: Callable[[type], Callable[[Any, Any], Any]] = functools.cache(_make_reader)


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
    if isinstance(value, float) and value.is_integer():
        value = int(value)
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
    if not value:  # not set
        return None
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
    (models.Token, "expires_in_s"): _structure_seconds,
    (models.Token, "refresh_expires_in_s"): _structure_seconds,
}
# Instances of just this type pass the hook unchanged.
_PLAIN: dict[object, type] = {_structure_str: str, _structure_bool: bool}


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


class Field(NamedTuple):
    """How a written function reads one field.

    ``hook`` gets the value and its type. It is not asked for a null where the field is not
    required, which gives its default, nor for an instance of just ``plain``, which is good as it
    is.
    """

    name: str
    wire_name: str
    type: Any
    hook: Callable[[Any, Any], Any]
    plain: type | None
    is_required: bool
    default: str | None = None


def _fields_of(model: type, converter: Converter) -> list[Field]:
    fields = []
    for field in _fields(model):
        if field.name == "extra":
            continue
        hook, inner = _own_hook(model, field), field.type
        if hook is None:
            inner = next((arg for arg in get_args(field.type) if arg is not NoneType), field.type)
            hook = converter.get_structure_hook(inner)
        wire_name = models.wire_name(field.name)
        is_required = field.default is attrs.NOTHING
        default = None if is_required else field.default
        plain = _PLAIN.get(hook)
        fields.append(Field(field.name, wire_name, inner, hook, plain, is_required, default))
    return fields


def _make_fields_read(model: type) -> list[Field]:
    return _fields_of(model, _converter())


_fields_read: Callable[[type], list[Field]] = functools.cache(_make_fields_read)


def _make_written_structure_fn(model: type[T], converter: Converter) -> Callable[[Any, Any], T]:
    return write_structure_fn(model, _fields_of(model, converter))


def write_structure_fn(model: type[T], fields: Iterable[Field]) -> Callable[[Any, Any], T]:
    """Return a function of a JSON object that returns the model. Raises what the hooks raise.

    What no field reads goes to the model's ``extra``, and so does a value that a hook finds to be a
    misfit, unless the field is required. The model is slotted and its ``__init__`` does nothing but
    set the fields: they are set here, which also passes by its being frozen.
    """
    fields = tuple(fields)
    names: dict[str, Any] = {
        "new": object.__new__,
        "model": model,
        "known": {field.wire_name for field in fields},
        "set_extra": vars(model)["extra"].__set__,
        "Misfit": _MisfitError,
        "mark": models.MISFIT,
    }
    lines = [
        "def structure(wire, _):",
        "    if not isinstance(wire, dict):",
        "        raise Misfit('an object')",
        "    get, result, misfits = wire.get, new(model), None",
    ]
    for number, field in enumerate(fields):
        names[f"set{number}"] = vars(model)[field.name].__set__  # of its slot
        names |= {f"hook{number}": field.hook, f"type{number}": field.type}
        conditions = [] if field.is_required else ["value is not None"]
        if field.plain is not None:
            conditions.append(f"value.__class__ is not {field.plain.__name__}")
        lines += [
            f"    value = get({field.wire_name!r})",
            f"    if {' and '.join(conditions) or True}:",
        ]
        call = f"value = hook{number}(value, type{number})"
        if field.is_required:
            lines.append(f"        {call}")
        else:
            lines += [
                "        try:",
                f"            {call}",
                "        except Misfit:",
                "            misfits = misfits or {}",
                f"            misfits[{field.wire_name!r}] = {{mark: value}}",
                "            value = None",
            ]
        if field.default is not None:
            lines += ["    if value is None:", f"        value = {field.default!r}"]
        lines.append(f"    set{number}(result, value)")
    lines += [
        "    is_all = wire.keys() <= known",
        "    extra = {} if is_all else {k: wire[k] for k in wire if k not in known}",
        "    if misfits:",
        "        extra |= misfits",
        "    set_extra(result, extra)",
        "    return result",
    ]
    exec("\n".join(lines), names)  # noqa: S102 - of names in this package
    structure: Callable[[Any, Any], T] = names["structure"]
    return structure


class _Misfit(NamedTuple):
    """Stands in a field for a value that does not fit, until the model is read."""

    value: object


def _make_structure_fn_of_cattrs(model: type[T], converter: Converter) -> Callable[[Any, Any], T]:
    """Return cattrs' own function, which asks the converter's hooks, whenever they come."""
    from cattrs.gen import make_dict_structure_fn, override

    overrides: dict[str, Any] = {"extra": override(omit=True)}
    for field in _fields(model):
        if field.name != "extra":
            hook = _own_hook(model, field)
            if field.default is not attrs.NOTHING:
                hook = _keeping_misfits(hook or converter.structure, field.type, field.default)
            wire_name = models.wire_name(field.name)
            overrides[field.name] = override(rename=wire_name, struct_hook=hook)
    known = {one.rename: name for name, one in overrides.items() if one.rename}
    defaults = {field.name: field.default for field in _fields(model)}
    read = make_dict_structure_fn(model, converter, **overrides)

    def structure_model(wire: Any, cls: Any) -> T:
        if not isinstance(wire, dict):
            raise _MisfitError("an object")
        result = read(wire, cls)
        extra = {key: wire[key] for key in wire if key not in known}
        # Frozen, but nobody else has seen it yet; evolving it would build it twice.
        for wire_name, name in known.items():
            value = getattr(result, name)
            if type(value) is _Misfit:
                object.__setattr__(result, name, defaults[name])
                extra[wire_name] = {models.MISFIT: value.value}
        object.__setattr__(result, "extra", extra)
        return result

    return structure_model


def _keeping_misfits(
    hook: Callable[[Any, Any], Any], type_: Any, default: Any
) -> Callable[[Any, Any], Any]:
    inner = next((arg for arg in get_args(type_) if arg is not NoneType), type_)

    def structure_field(value: Any, _: Any) -> Any:
        if value is None:
            return default
        try:
            return hook(value, inner)
        except _MisfitError:
            return _Misfit(value)

    return structure_field


def _make_unstructure_hook(
    model: type[Any], converter: Converter
) -> Callable[[Any], dict[str, Any]]:
    from cattrs.gen import make_dict_unstructure_fn, override

    overrides: dict[str, Any] = {}
    for field in _fields(model):
        if field.name == "extra":
            overrides["extra"] = override(omit=True)
        else:
            overrides[field.name] = override(
                rename=models.wire_name(field.name),
                omit_if_default=True,
                unstruct_hook=format_time if field.type == datetime | None else None,
            )
    write = make_dict_unstructure_fn(model, converter, **overrides)

    def unstructure_model(value: Any) -> dict[str, Any]:
        misfits = {
            models.wire_name(name): raw
            for name, raw in value.misfits.items()
            if name != models.ALL_OF_IT  # of which there is no object to write it into
        }
        return {**write(value), **value.extra, **misfits}

    return unstructure_model
