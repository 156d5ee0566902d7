"""The control API: tests in any language steer the emulator with JSON over HTTP.

Only for loopback, and not for a browser's pages: see `refuses`. It is no part of RM's API.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any
from urllib.parse import unquote

import attrs
import orjson

from rm_voucher.converters import structure
from rm_voucher.emulator.app import Emulator
from rm_voucher.emulator.faults import FaultPlan, Window
from rm_voucher.emulator.records import Batch
from rm_voucher.emulator.reply import json_response
from rm_voucher.emulator.state import VoucherState
from rm_voucher.emulator.stock import RefusedError
from rm_voucher.exceptions import ConfigurationError, DecodeError
from rm_voucher.models import Expiry, VoucherStatus, VoucherType
from rm_voucher.settings import is_loopback
from rm_voucher.transport.base import Response

HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?")
"""The form of a Host header: a name or an address, and a port."""
PREFIX = "/_emulator"
_BATCH_FIELDS = {
    **dict.fromkeys(("amount_sen", "discount_rate_bp", "minimum_spend_sen", "quantity"), int),
    **dict.fromkeys(("key", "label", "static_code", "type"), str),
    "codes": list,
    "expiry": dict,
}
_PLAN_FIELDS = {
    **dict.fromkeys(("late_s", "listing_delay_s", "rate", "slow_body_s", "stall_s"), float),
    **dict.fromkeys(("retry_after_s", "seed"), int),
    **dict.fromkeys(("kinds", "operations", "windows"), list),
}
_FAILURE_FIELDS = {"fault": str, "operation": str, "times": int}
_NUMBER_FIELDS = {"country_code": str, "phone_number": str}
_MEMBER_FIELDS = {**_NUMBER_FIELDS, "name": str}
_CALLBACK_FIELDS = {"interval_s": float, "signs_url": bool, "url": str}
_WINDOW_FIELDS = {"fault": str, "start_s": float, "length_s": float}
# An endpoint that takes any number is one that takes all memory, or stands still for ever.
_MOST = 1_000_000_000
_MOST_OF = {"quantity": 1_000_000, "discount_rate_bp": 10_000, "seed": 2**63}
_MOST_WINDOWS = 100
_JSON_WORDS = {
    bool: "true or false",
    dict: "an object",
    float: "a number",
    int: "a whole number",
    list: "a list",
}


def refuses(*, peer: str | None, host: str, origin: str | None) -> str | None:
    """Return the reason to refuse a request to the control API, or None.

    The peer must be on loopback. The Host header must be a name of loopback, because another
    site's name could be made to lead here. A request of another site's page is refused.
    """
    if not is_loopback(peer or ""):
        return "the control API answers this machine only"
    named = HOST.fullmatch(host)
    if named is None or not is_loopback(named[1].strip("[]").lower()):
        return "the Host header is no name of this machine"
    if origin is not None and origin != f"http://{host}":
        return "the request comes from another site's page"
    return None


def control(emulator: Emulator, method: str, raw_path: str, body: bytes) -> Response:
    """Answer a request to the control API."""
    try:
        path = [unquote(part, errors="strict") for part in raw_path.split("/")[2:]]
        wire = orjson.loads(body) if body else {}
    except (UnicodeDecodeError, orjson.JSONDecodeError):
        return problem_response(400, "the path or the body can't be read; the body is JSON")
    if not isinstance(wire, dict):
        return problem_response(400, "the body is a JSON object")
    methods = _actions(emulator, path)
    if not methods:
        return problem_response(
            404, "no such path of the control API; the documentation lists them"
        )
    if method not in methods:
        return problem_response(405, f"the method is {' or '.join(sorted(methods))}")
    try:
        return json_response(200, methods[method].do(_checked(wire, methods[method].fields)))
    except RefusedError as exc:
        return problem_response(404 if exc.code.endswith("NOT_FOUND") else 409, exc.code)
    except (ValueError, DecodeError, ConfigurationError) as exc:
        return problem_response(400, str(exc))


@attrs.frozen
class _Action:
    """A function of a body's fields, and the fields with their types."""

    do: Callable[[dict[str, Any]], object]
    fields: Mapping[str, type] = attrs.field(factory=dict)


def _actions(emulator: Emulator, path: list[str]) -> Mapping[str, _Action]:
    """Return the action of each method at a path."""
    state = emulator.state
    match path:
        case ["batches"]:
            return {
                "GET": _Action(lambda given: [_batch(batch) for batch in state.stock.ours()]),
                "POST": _Action(lambda given: _add_batch(emulator, given), _BATCH_FIELDS),
            }
        case ["faults"]:
            return {
                "GET": _Action(lambda given: _faults(emulator)),
                "PUT": _Action(lambda given: _set_faults(emulator, given), _PLAN_FIELDS),
            }
        case ["fail-next"]:
            return {"POST": _Action(lambda given: _fail_next(emulator, given), _FAILURE_FIELDS)}
        case ["requests"]:
            return {"GET": _Action(lambda given: emulator.requests)}
        case ["vouchers", code, "redeem"]:
            return {"POST": _Action(lambda given: _redeem(state, code, given), _NUMBER_FIELDS)}
        case ["vouchers", code, "void"]:
            return {"POST": _Action(lambda given: state.wire(state.void(code)))}
        case ["vouchers", code, "expire"]:
            return {"POST": _Action(lambda given: state.wire(state.expire(code)))}
        case ["members"]:
            return {"POST": _Action(lambda given: _add_member(state, given), _MEMBER_FIELDS)}
        case ["clock"]:
            return {"POST": _Action(lambda given: _advance(emulator, given), {"advance_s": float})}
        case ["callbacks"]:
            return {
                "GET": _Action(lambda given: _callbacks(emulator)),
                "PUT": _Action(lambda given: _set_callbacks(emulator, given), _CALLBACK_FIELDS),
            }
        case ["rate-limit"]:
            return {"PUT": _Action(lambda given: _set_limit(emulator, given), {"per_s": float})}
        case ["reset"]:
            return {"POST": _Action(lambda given: _reset(emulator))}
        case _:
            return {}


def _batch(batch: Batch) -> dict[str, Any]:
    return {
        "key": batch.key,
        "quantity": batch.quantity,
        "balance": batch.quantity - batch.issued,
        "issued": batch.issued,
        "redeemed": batch.counts[VoucherStatus.REDEEMED],
        "void": batch.counts[VoucherStatus.VOID],
    }


def _add_batch(emulator: Emulator, options: dict[str, Any]) -> object:
    if "type" in options:
        options["type"] = VoucherType(options["type"])
    if "expiry" in options:
        strict = ("type", "days", "expires_at")
        expiry = structure(options["expiry"], Expiry, path="$.expiry", strict=strict)
        if expiry.extra:
            raise ValueError(f"no such field of expiry: {', '.join(sorted(expiry.extra))}")
        options["expiry"] = expiry
    if not all(isinstance(code, str) for code in options.get("codes", ())):
        raise ValueError("codes is a list of text")
    label = options.pop("label", options.get("key", ""))
    made = emulator.add_batch(label, **options)
    return _batch(emulator.state.stock.batch(made.key or ""))


def _redeem(state: VoucherState, code: str, given: dict[str, Any]) -> object:
    if not given:
        (record,) = state.redeem([code])
        return state.wire(record)
    member = state.member(given.get("country_code", ""), given.get("phone_number", ""))
    return state.wire(state.collect(code, member))


def _add_member(state: VoucherState, given: dict[str, Any]) -> object:
    if not (given.get("country_code") and given.get("phone_number")):
        raise ValueError("a member has country_code and phone_number")
    member = state.add_member(**given)
    return {"country_code": member.country_code, "phone_number": member.phone_number}


def _advance(emulator: Emulator, given: dict[str, Any]) -> object:
    emulator.advance(given.get("advance_s", 0.0))
    return {"now": emulator.virtual_clock.now()}


def _set_faults(emulator: Emulator, given: dict[str, Any]) -> object:
    wires = given.pop("windows", ())
    if len(wires) > _MOST_WINDOWS:
        raise ValueError(f"windows is a list of {_MOST_WINDOWS} at most")
    windows = [_window(wire) for wire in wires]
    emulator.faults = FaultPlan(windows=windows, **given)
    return _faults(emulator)


def _fail_next(emulator: Emulator, given: dict[str, Any]) -> object:
    _require(given, {"fault", "operation"}, "a failure")
    emulator.fail_next(**given)
    return {}


def _window(wire: object) -> Window:
    if not isinstance(wire, dict):
        raise ValueError("windows is a list of objects")  # noqa: TRY004 - of JSON
    given = _checked(wire, _WINDOW_FIELDS)
    _require(given, _WINDOW_FIELDS.keys(), "a window")
    return Window(**given)


def _faults(emulator: Emulator) -> object:
    met: dict[str, dict[str, int]] = {}
    for (operation, fault), times in emulator.faults_met.items():
        met.setdefault(operation, {})[str(fault)] = times
    return {
        "rate": emulator.faults.rate,
        "kinds": list(emulator.faults.kinds),
        "seed": emulator.faults.seed,
        "operations": emulator.faults.operations and list(emulator.faults.operations),
        "windows": [attrs.asdict(window) for window in emulator.faults.windows],
        "met": met,
        "undelivered": len(emulator.undelivered),
    }


def _set_callbacks(emulator: Emulator, given: dict[str, Any]) -> object:
    interval_s = given.get("interval_s", emulator.callbacks.interval_s)
    if interval_s <= 0:
        raise ValueError("interval_s is more than 0")
    if "url" in given:
        emulator.callbacks.url = given["url"] or None
    emulator.callbacks.interval_s = interval_s
    emulator.callbacks.signs_url = given.get("signs_url", emulator.callbacks.signs_url)
    return _callbacks(emulator)


def _callbacks(emulator: Emulator) -> object:
    callbacks = emulator.callbacks
    return {
        "url": callbacks.url,
        "interval_s": callbacks.interval_s,
        "signs_url": callbacks.signs_url,
        "delivered": callbacks.delivered,
        "given_up": callbacks.given_up,
        "public_key": callbacks.public_key_pem.decode(),
    }


def _set_limit(emulator: Emulator, given: dict[str, Any]) -> object:
    emulator.rate_limit = given.get("per_s", 0.0) or None
    return {"per_s": emulator.rate_limit or 0.0}


def _reset(emulator: Emulator) -> object:
    emulator.reset()
    return {}


def _checked(wire: dict[str, Any], fields: Mapping[str, type]) -> dict[str, Any]:
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


def _require(given: Mapping[str, Any], names: AbstractSet[str], what: str) -> None:
    """Raise `ValueError` with the names of the fields that are missing."""
    missing = names - given.keys()
    if missing:
        raise ValueError(f"{what} has {', '.join(sorted(missing))}")


def problem_response(status: int, sentence: str) -> Response:
    """Return the control API's answer to a mistake."""
    return json_response(status, {"error": sentence})
