"""What the control API does: a table of methods and paths, and a function for each."""

from __future__ import annotations

from typing import Any

import attrs

from rm_voucher._version import __version__
from rm_voucher.converters import structure
from rm_voucher.emulator.callbacks import Delivery
from rm_voucher.emulator.control.endpoint import Asked, Endpoint
from rm_voucher.emulator.control.fields import checked
from rm_voucher.emulator.control.forms import (
    ADVANCE_FIELDS,
    BATCH_FIELDS,
    CALLBACK_FIELDS,
    FAILURE_FIELDS,
    LIMIT_FIELDS,
    MEMBER_FIELDS,
    MERCHANT_FIELDS,
    MOST,
    NUMBER_FIELDS,
    PLAN_FIELDS,
    REVEAL,
    STORE_FIELDS,
)
from rm_voucher.emulator.control.openapi import describe
from rm_voucher.emulator.faults import Fault, FaultPlan, Window
from rm_voucher.emulator.masking import masked
from rm_voucher.emulator.merchant import Merchant
from rm_voucher.emulator.records import Batch
from rm_voucher.emulator.routes import OPERATIONS
from rm_voucher.emulator.schema import (
    NOTHING,
    Field,
    by_name,
    flag,
    listed,
    number,
    ref,
    text,
    thing,
)
from rm_voucher.emulator.stock import RefusedError
from rm_voucher.emulator.view import books, exchanges
from rm_voucher.emulator.view.events import overview
from rm_voucher.models import Expiry, VoucherStatus, VoucherType

_MOST_SHOWN = 500
_MOST_EXPORTED = 200_000


def _summary(asked: Asked) -> object:
    shown = books.summary(asked.merchant, reveals=asked.reveals)
    return {**shown, "faults": _faults(asked)}


def _vouchers(asked: Asked) -> object:
    given = asked.given
    return books.vouchers(
        asked.merchant,
        asked.names["key"],
        search=given.get("search", ""),
        status=given.get("status", ""),
        start=given.get("start", 0),
        size=given.get("size", 50),
        reveals=asked.reveals,
    )


def _voucher(asked: Asked) -> object:
    place, journal = _number(asked.names["place"], none=-1), asked.emulator.journal
    return books.voucher(asked.merchant, asked.names["key"], place, journal, reveals=asked.reveals)


def _number(text: str, none: int = 0) -> int:
    """Return the number of a path's part, ``none`` for another text."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else none


def _use(asked: Asked) -> object:
    """Redeem, void or expire a voucher that is named by its place, so that no code is needed."""
    use = _USES.get(asked.names["action"])
    if use is None:
        raise ValueError(f"the action is one of {', '.join(_USES)}")
    place = _number(asked.names["place"], none=-1)
    record = books.find(asked.merchant, asked.names["key"], place)
    use(attrs.evolve(asked, names={**asked.names, "code": record.code}))
    return _voucher(asked)


def _exchanges(asked: Asked) -> object:
    given = asked.given
    return exchanges.newest(
        (each for each in asked.emulator.journal if each.merchant == asked.merchant.name),
        most=min(given.get("most", 100), _MOST_SHOWN),
        reveals=asked.reveals,
        operation=given.get("operation", ""),
        only_failures=given.get("failed", False),
    )


def _exchange(asked: Asked) -> object:
    number = asked.names["number"]
    found = asked.emulator.journal.find(_number(number))
    if found is None or found.merchant != asked.merchant.name:
        raise RefusedError("REQUEST_NOT_FOUND", "it is none of the last that are kept")
    return exchanges.whole(found, asked.merchant, reveals=asked.reveals)


def _deliveries(asked: Asked) -> object:
    most = min(asked.given.get("most", 100), _MOST_SHOWN)
    newest = asked.merchant.callbacks.newest()[:most]
    return [_delivery(delivery, reveals=asked.reveals) for delivery in newest]


def _delivery(delivery: Delivery, *, reveals: bool) -> dict[str, Any]:
    return {
        "number": delivery.number,
        "code": delivery.code if reveals else masked(delivery.code),
        "status": delivery.status,
        "next_at": delivery.due,
        "attempts": [attrs.asdict(attempt) for attempt in delivery.attempts],
    }


def _resend(asked: Asked) -> object:
    number = asked.names["number"]
    try:
        delivery = asked.merchant.callbacks.resend(_number(number))
    except KeyError:
        raise RefusedError("CALLBACK_NOT_FOUND") from None
    return _delivery(delivery, reveals=False)


def _add_store(asked: Asked) -> object:
    asked.merchant.state.add_store(
        asked.given["id"], is_authorised=asked.given.get("is_authorised", True)
    )
    return asked.merchant.state.stores()


def _revoke(asked: Asked) -> object:
    asked.merchant.revoke_tokens()
    return {}


def _health(asked: Asked) -> object:
    return {"status": "ok", "version": __version__, **overview(asked.emulator)}


def _export(asked: Asked) -> object:
    stocks = [merchant.books.stock for merchant in asked.emulator.merchants]
    count = sum(len(stock.rows(batch)) for stock in stocks for batch in stock.all())
    if count > _MOST_EXPORTED:
        raise ValueError(f"an export has {_MOST_EXPORTED:,} vouchers at most; there are {count:,}")
    return asked.emulator.export()


def _import(asked: Asked) -> object:
    asked.emulator.restore(asked.given)
    return overview(asked.emulator)


def _overview(asked: Asked) -> object:
    return {**overview(asked.emulator), "operations": OPERATIONS, "faults": list(Fault)}


def _batch(batch: Batch) -> dict[str, Any]:
    return {
        "key": batch.key,
        "quantity": batch.quantity,
        "balance": batch.quantity - batch.issued,
        "issued": batch.issued,
        "redeemed": batch.counts[VoucherStatus.REDEEMED],
        "void": batch.counts[VoucherStatus.VOID],
    }


def _add_batch(asked: Asked) -> object:
    options = asked.given
    if "type" in options:
        options["type"] = VoucherType(options["type"])
    if "expiry" in options:
        strict = ("type", "days", "expires_at")
        expiry = structure(options["expiry"], Expiry, path="$.expiry", strict=strict)
        if expiry.extra:
            raise ValueError(f"no such field of expiry: {', '.join(sorted(expiry.extra))}")
        options["expiry"] = expiry
    label = options.pop("label", options.get("key", ""))
    made = asked.merchant.add_batch(label, **options)
    return _batch(asked.merchant.state.stock.batch(made.key or ""))


def _redeem(asked: Asked) -> object:
    state, given = asked.merchant.state, asked.given
    if not given:
        (record,) = state.redeem([asked.code])
        return state.wire(record)
    member = state.member(given.get("country_code", ""), given.get("phone_number", ""))
    return state.wire(state.collect(asked.code, member))


def _void(asked: Asked) -> object:
    state = asked.merchant.state
    return state.wire(state.void(asked.code))


def _expire(asked: Asked) -> object:
    state = asked.merchant.state
    return state.wire(state.expire(asked.code))


def _add_member(asked: Asked) -> object:
    given = asked.given
    member = asked.merchant.add_member(**given)
    return {"country_code": member.country_code, "phone_number": member.phone_number}


def _advance(asked: Asked) -> object:
    asked.emulator.advance(asked.given.get("advance_s", 0.0))
    return {"now": asked.emulator.virtual_clock.now()}


def _set_faults(asked: Asked) -> object:
    given = asked.given
    windows = [Window(**window) for window in given.pop("windows", ())]
    asked.merchant.faults = FaultPlan(windows=windows, **given)
    return _faults(asked)


def _fail_next(asked: Asked) -> object:
    asked.merchant.fail_next(**asked.given)
    return {}


def _faults(asked: Asked) -> object:
    merchant = asked.merchant
    met: dict[str, dict[str, int]] = {}
    for (operation, fault), times in merchant.faults_met.items():
        met.setdefault(operation, {})[str(fault)] = times
    return {
        "rate": merchant.faults.rate,
        "kinds": list(merchant.faults.kinds),
        "seed": merchant.faults.seed,
        "operations": merchant.faults.operations and list(merchant.faults.operations),
        "windows": [attrs.asdict(window) for window in merchant.faults.windows],
        "met": met,
        "undelivered": len(merchant.undelivered),
    }


def _set_callbacks(asked: Asked) -> object:
    given, callbacks = asked.given, asked.merchant.callbacks
    if "url" in given:
        callbacks.url = given["url"] or None
    callbacks.interval_s = given.get("interval_s", callbacks.interval_s)
    callbacks.signs_url = given.get("signs_url", callbacks.signs_url)
    return _callbacks(asked)


def _callbacks(asked: Asked) -> object:
    callbacks = asked.merchant.callbacks
    return {
        "url": callbacks.url,
        "interval_s": callbacks.interval_s,
        "signs_url": callbacks.signs_url,
        "delivered": callbacks.delivered,
        "given_up": callbacks.given_up,
        "public_key": callbacks.public_key_pem.decode(),
    }


def _set_limit(asked: Asked) -> object:
    asked.merchant.rate_limit = asked.given.get("per_s", 0.0) or None
    return {"per_s": asked.merchant.rate_limit or 0.0}


def _reset(asked: Asked) -> object:
    if asked.is_one:
        asked.merchant.begin()
    else:
        asked.emulator.reset()
    return {}


def _merchants(asked: Asked) -> object:
    return [_merchant_line(merchant) for merchant in asked.emulator.merchants]


def _merchant_line(merchant: Merchant) -> dict[str, Any]:
    return {"name": merchant.name, "number": merchant.number, "client_id": merchant.client_id}


def _merchant(asked: Asked) -> object:
    merchant = asked.emulator.find_merchant(asked.names["name"])
    if merchant is None:
        raise RefusedError("MERCHANT_NOT_FOUND")
    return {**_merchant_line(merchant), "variables": merchant.variables}


def _add_merchant(asked: Asked) -> object:
    options = asked.given
    name = options.pop("name")
    if asked.emulator.find_merchant(name) is not None:
        raise ValueError(f"there is a merchant {name!r} already")
    if "public_key" in options:
        options["public_key"] = options["public_key"].encode()
    if "batches" in options:
        quantities = options["batches"]
        options["batches"] = {
            key: checked({"quantity": quantity}, {"quantity": BATCH_FIELDS["quantity"]})["quantity"]
            for key, quantity in quantities.items()
        }
    asked.emulator.merchant(name, **options)
    return _merchant(attrs.evolve(asked, names={"name": name}))


def _drop_merchant(asked: Asked) -> object:
    _merchant(asked)
    asked.emulator.drop_merchant(asked.names["name"])
    return {}


def _batches(asked: Asked) -> object:
    return [_batch(batch) for batch in asked.merchant.state.stock.ours()]


_USES = {"redeem": _redeem, "void": _void, "expire": _expire}

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(
        "GET",
        "/health",
        "Say that the emulator serves.",
        _health,
        is_shared=True,
        answer=ref("Health"),
    ),
    Endpoint(
        "GET",
        "/export",
        "Export everything, credentials included.",
        _export,
        is_shared=True,
        answer=by_name({}),
    ),
    Endpoint(
        "POST",
        "/import",
        "Be what was exported, and nothing else.",
        _import,
        fields=None,
        is_shared=True,
        answer=ref("Now"),
    ),
    Endpoint(
        "GET",
        "/overview",
        "Show the time, and which merchants there are.",
        _overview,
        is_shared=True,
        answer=ref("Overview"),
    ),
    Endpoint(
        "GET",
        "/summary",
        "Show batches, members, stores, tokens, faults and counts.",
        _summary,
        query={"reveal": REVEAL},
        answer=ref("Summary"),
    ),
    Endpoint(
        "GET",
        "/batches/{key}/vouchers",
        "List a batch's vouchers, the newest first.",
        _vouchers,
        query={
            "search": str,
            "status": str,
            "start": Field(int, "`next` of the page before.", least=0),
            "size": Field(int, "200 at most; by default 50.", least=0),
            "reveal": REVEAL,
        },
        answer=ref("VoucherLines"),
    ),
    Endpoint(
        "GET",
        "/batches/{key}/vouchers/{place}",
        "Show a voucher by its place in the batch, with its history.",
        _voucher,
        query={"reveal": REVEAL},
        answer=ref("VoucherHistory"),
    ),
    Endpoint(
        "POST",
        "/batches/{key}/vouchers/{place}/{action}",
        "Redeem, void or expire a voucher by its place.",
        _use,
        fields=NUMBER_FIELDS,
        answer=ref("VoucherHistory"),
        can_conflict=True,
    ),
    Endpoint(
        "GET",
        "/exchanges",
        "List the last requests and what became of them, the newest first.",
        _exchanges,
        query={"most": MOST, "operation": str, "failed": bool, "reveal": REVEAL},
        answer=listed(ref("ExchangeLine")),
    ),
    Endpoint(
        "GET",
        "/exchanges/{number}",
        "Show a request and its answer whole.",
        _exchange,
        query={"reveal": REVEAL},
        answer=ref("Exchange"),
    ),
    Endpoint(
        "GET",
        "/deliveries",
        "List the last callbacks with their attempts, the newest first.",
        _deliveries,
        query={"most": MOST, "reveal": REVEAL},
        answer=listed(ref("Delivery")),
    ),
    Endpoint(
        "POST",
        "/deliveries/{number}/resend",
        "Send a callback again.",
        _resend,
        answer=ref("Delivery"),
    ),
    Endpoint(
        "POST",
        "/stores",
        "Make a store; from then on a void must name one, or none.",
        _add_store,
        fields=STORE_FIELDS,
        answer=by_name(flag("Whether the application may use it.")),
    ),
    Endpoint(
        "POST",
        "/tokens/revoke",
        "Stop accepting all access tokens.",
        _revoke,
        answer=NOTHING,
    ),
    Endpoint(
        "GET",
        "/batches",
        "List the batches.",
        _batches,
        answer=listed(ref("BatchCounts")),
    ),
    Endpoint(
        "POST",
        "/batches",
        "Make a batch.",
        _add_batch,
        fields=BATCH_FIELDS,
        answer=ref("BatchCounts"),
    ),
    Endpoint(
        "GET",
        "/faults",
        "Show the plan of faults, and those that were met.",
        _faults,
        answer=ref("Faults"),
    ),
    Endpoint(
        "PUT",
        "/faults",
        "Set the plan of faults.",
        _set_faults,
        fields=PLAN_FIELDS,
        answer=ref("Faults"),
    ),
    Endpoint(
        "POST",
        "/fail-next",
        "Let the next requests of an operation fail.",
        _fail_next,
        fields=FAILURE_FIELDS,
        answer=NOTHING,
    ),
    Endpoint(
        "GET",
        "/requests",
        "Count the requests of each operation.",
        lambda asked: asked.merchant.requests,
        answer=by_name({"type": "integer"}),
    ),
    Endpoint(
        "POST",
        "/vouchers/{code}/redeem",
        "Redeem a voucher, or let a member scan it.",
        _redeem,
        fields=NUMBER_FIELDS,
        answer=ref("Voucher"),
        can_conflict=True,
    ),
    Endpoint(
        "POST",
        "/vouchers/{code}/void",
        "Use a voucher up.",
        _void,
        answer=ref("Voucher"),
        can_conflict=True,
    ),
    Endpoint(
        "POST",
        "/vouchers/{code}/expire",
        "Let a voucher expire now.",
        _expire,
        answer=ref("Voucher"),
        can_conflict=True,
    ),
    Endpoint(
        "POST",
        "/members",
        "Make a member.",
        _add_member,
        fields=MEMBER_FIELDS,
        answer=thing({"country_code": text(), "phone_number": text()}),
    ),
    Endpoint(
        "POST",
        "/clock",
        "Set the clock ahead.",
        _advance,
        fields=ADVANCE_FIELDS,
        is_shared=True,
        answer=thing({"now": number("Unix seconds.")}),
    ),
    Endpoint(
        "GET",
        "/callbacks",
        "Show where callbacks go, and how many came.",
        _callbacks,
        answer=ref("Callbacks"),
    ),
    Endpoint(
        "PUT",
        "/callbacks",
        "Set where callbacks go, and how.",
        _set_callbacks,
        fields=CALLBACK_FIELDS,
        answer=ref("Callbacks"),
    ),
    Endpoint(
        "PUT",
        "/rate-limit",
        "Set the number of requests a second that are not throttled.",
        _set_limit,
        fields=LIMIT_FIELDS,
        answer=thing({"per_s": number()}),
    ),
    Endpoint(
        "POST",
        "/reset",
        "Begin anew: all merchants, or one.",
        _reset,
        answer=NOTHING,
    ),
    Endpoint(
        "GET",
        "/merchants",
        "List the merchants.",
        _merchants,
        is_shared=True,
        answer=listed(ref("MerchantLine")),
    ),
    Endpoint(
        "POST",
        "/merchants",
        "Make a merchant, and show the variables of its client.",
        _add_merchant,
        fields=MERCHANT_FIELDS,
        is_shared=True,
        answer=ref("MerchantOfClients"),
    ),
    Endpoint(
        "GET",
        "/merchants/{name}",
        "Show a merchant, with the variables of its client.",
        _merchant,
        is_shared=True,
        answer=ref("MerchantOfClients"),
    ),
    Endpoint(
        "DELETE",
        "/merchants/{name}",
        "Forget a merchant with all that it has.",
        _drop_merchant,
        is_shared=True,
        answer=NOTHING,
    ),
    Endpoint(
        "GET",
        "/openapi.json",
        "Show this description, in OpenAPI 3.1.",
        lambda asked: describe(ENDPOINTS, asked.merchant.guesses),
        answer=by_name({}),
        is_shared=True,
    ),
)
"""The control API, in the order in which it is documented."""
