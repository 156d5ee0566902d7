"""The control API: what a test in any language does to the emulator, as JSON over HTTP.

Only for loopback, and not for a browser's pages: see `refuses`. It is no part of RM's API.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import orjson

from rm_voucher.converters import structure
from rm_voucher.emulator.faults import FaultPlan, Window
from rm_voucher.emulator.records import Batch, Record
from rm_voucher.emulator.stock import RefusedError
from rm_voucher.exceptions import DecodeError
from rm_voucher.models import Expiry, VoucherType
from rm_voucher.settings import is_loopback
from rm_voucher.transport.base import Response

if TYPE_CHECKING:
    from rm_voucher.emulator.app import Emulator

__all__ = ["PREFIX", "control", "refuses"]

PREFIX = "/_emulator"
_BATCH_FIELDS = {
    "amount_sen": int,
    "codes": list,
    "discount_rate_bp": int,
    "expiry": dict,
    "key": str,
    "label": str,
    "minimum_spend_sen": int,
    "quantity": int,
    "static_code": str,
    "type": str,
}
_PLAN_FIELDS = {
    "drip_s": float,
    "hold_s": float,
    "kinds": list,
    "lag_s": float,
    "late_s": float,
    "operations": list,
    "rate": float,
    "retry_after_s": int,
    "seed": int,
    "windows": list,
}
_WINDOW_FIELDS = {"fault": str, "start_s": float, "length_s": float}


def refuses(*, peer: str | None, host: str, origin: str | None) -> str | None:
    """Return why a request may not use the control API, or None.

    The peer must be on loopback; the Host header must be a name of it, or another site's name
    could be made to lead here; and what a page of another origin sends is refused.
    """
    if not is_loopback(peer or ""):
        return "the control API answers this machine only"
    try:
        named = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        named = ""
    if not is_loopback(named):
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
        return _problem(400, "the path or the body can't be read; the body is JSON")
    if not isinstance(wire, dict):
        return _problem(400, "the body is a JSON object")
    methods = _actions(emulator, path)
    if not methods:
        return _problem(404, "no such path of the control API; the documentation lists them")
    if method not in methods:
        return _problem(405, f"the method is {' or '.join(sorted(methods))}")
    try:
        return _json(200, methods[method](wire))
    except RefusedError as exc:
        return _problem(404 if exc.code.endswith("NOT_FOUND") else 409, exc.code)
    except (ValueError, DecodeError) as exc:
        return _problem(400, str(exc))


Action = Callable[[dict[str, Any]], object]


def _actions(emulator: Emulator, path: list[str]) -> Mapping[str, Action]:
    """Return what each method does at a path."""
    match path:
        case ["batches"]:
            return {
                "GET": lambda wire: [_batch(batch) for batch in emulator.state.stock.ours()],
                "POST": lambda wire: _add_batch(emulator, wire),
            }
        case ["faults"]:
            return {
                "GET": lambda wire: _faults(emulator),
                "PUT": lambda wire: _set_faults(emulator, wire),
            }
        case ["vouchers", code, "redeem"]:
            return {"POST": lambda wire: _redeem(emulator, code, wire)}
        case ["vouchers", code, "void"]:
            return {"POST": lambda wire: _voucher(emulator, emulator.state.void(code))}
        case ["vouchers", code, "expire"]:
            return {"POST": lambda wire: _voucher(emulator, emulator.state.expire(code))}
        case ["members"]:
            return {"POST": lambda wire: _add_member(emulator, wire)}
        case ["clock"]:
            return {"POST": lambda wire: _advance(emulator, wire)}
        case ["callbacks"]:
            return {
                "GET": lambda wire: _callbacks(emulator),
                "PUT": lambda wire: _set_callbacks(emulator, wire),
            }
        case ["reset"]:
            return {"POST": lambda wire: _reset(emulator)}
        case _:
            return {}


def _batch(batch: Batch) -> dict[str, Any]:
    return {
        "key": batch.key,
        "quantity": batch.quantity,
        "balance": batch.quantity - batch.issued,
        "issued": batch.issued,
        "redeemed": batch.redeemed,
        "void": batch.void,
    }


def _add_batch(emulator: Emulator, wire: dict[str, Any]) -> object:
    options = _checked(wire, _BATCH_FIELDS)
    if "type" in options:
        options["type"] = VoucherType(options["type"])
    if "expiry" in options:
        options["expiry"] = structure(options["expiry"], Expiry, path="$.expiry")
    if not all(isinstance(code, str) for code in options.get("codes", ())):
        raise ValueError("codes is a list of text")
    label = options.pop("label", options.get("key", ""))
    made = emulator.add_batch(label, **options)
    return _batch(emulator.state.stock.batch(made.key or ""))


def _redeem(emulator: Emulator, code: str, wire: dict[str, Any]) -> object:
    given = _checked(wire, {"country_code": str, "phone_number": str})
    if not given:
        (record,) = emulator.state.redeem([code])
        return _voucher(emulator, record)
    member = emulator.state.member(given.get("country_code", ""), given.get("phone_number", ""))
    return _voucher(emulator, emulator.state.collect(code, member))


def _voucher(emulator: Emulator, record: Record) -> object:
    return emulator.state.wire(record)


def _add_member(emulator: Emulator, wire: dict[str, Any]) -> object:
    given = _checked(wire, {"country_code": str, "phone_number": str, "name": str})
    member = emulator.add_member(
        given.get("country_code", ""), given.get("phone_number", ""), name=given.get("name", "")
    )
    return {"country_code": member.country_code, "phone_number": member.phone_number}


def _advance(emulator: Emulator, wire: dict[str, Any]) -> object:
    emulator.advance(_checked(wire, {"advance_s": float}).get("advance_s", 0.0))
    return {"now": emulator.timeline.now()}


def _set_faults(emulator: Emulator, wire: dict[str, Any]) -> object:
    given = _checked(wire, _PLAN_FIELDS)
    windows = given.pop("windows", ())
    if not all(isinstance(window, dict) for window in windows):
        raise ValueError("windows is a list of objects")
    given["windows"] = [_window(_checked(window, _WINDOW_FIELDS)) for window in windows]
    emulator.faults = FaultPlan(**given)
    return _faults(emulator)


def _window(given: dict[str, Any]) -> Window:
    missing = _WINDOW_FIELDS.keys() - given.keys()
    if missing:
        raise ValueError(f"a window has {', '.join(sorted(missing))}")
    return Window(**given)


def _faults(emulator: Emulator) -> object:
    met: dict[str, dict[str, int]] = {}
    for (operation, fault), times in emulator.faults_met.items():
        met.setdefault(operation, {})[str(fault)] = times
    return {
        "rate": emulator.faults.rate,
        "kinds": list(emulator.faults.kinds),
        "seed": emulator.faults.seed,
        "met": met,
        "undelivered": len(emulator.undelivered),
    }


def _set_callbacks(emulator: Emulator, wire: dict[str, Any]) -> object:
    given = _checked(wire, {"url": str, "interval_s": float})
    url = given.get("url", "")
    if url and urlsplit(url).scheme not in ("http", "https"):
        raise ValueError("url is http or https, or empty for none")
    emulator.callbacks.url = url or None
    emulator.callbacks.interval_s = given.get("interval_s", emulator.callbacks.interval_s)
    return _callbacks(emulator)


def _callbacks(emulator: Emulator) -> object:
    callbacks = emulator.callbacks
    return {
        "url": callbacks.url,
        "interval_s": callbacks.interval_s,
        "delivered": callbacks.delivered,
        "given_up": callbacks.given_up,
        "public_key": callbacks.public_key_pem.decode(),
    }


def _reset(emulator: Emulator) -> object:
    emulator.reset()
    return {}


def _checked(wire: dict[str, Any], fields: Mapping[str, type]) -> dict[str, Any]:
    """Return the fields, each of its type. Raises `ValueError` that names what is not."""
    unknown = wire.keys() - fields.keys()
    if unknown:
        raise ValueError(f"no such field: {', '.join(sorted(unknown))}")
    for name, value in wire.items():
        kinds = (int, float) if fields[name] is float else (fields[name],)
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise ValueError(f"{name} is of type {fields[name].__name__}")  # noqa: TRY004 - of JSON
    return dict(wire)


def _json(status: int, wire: object) -> Response:
    return Response(
        status=status, headers={"content-type": "application/json"}, body=orjson.dumps(wire)
    )


def _problem(status: int, sentence: str) -> Response:
    return _json(status, {"error": sentence})
