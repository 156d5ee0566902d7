"""The forms of the control API: the fields that it takes, and its answers."""

from __future__ import annotations

from rm_voucher.emulator.faults import Fault
from rm_voucher.emulator.paths import OPERATIONS
from rm_voucher.emulator.schema import (
    Field,
    Schema,
    by_name,
    flag,
    listed,
    number,
    object_of,
    or_none,
    ref,
    text,
    thing,
    whole,
)
from rm_voucher.models import ExpiryType, VoucherStatus, VoucherType

_MOST_WINDOWS = 100
_AT = "Unix seconds on the emulator's clock."
_MASKED = "Masked, unless `reveal` is true."
_TYPES = (VoucherType.CASH, VoucherType.DISCOUNT, VoucherType.GIFT)
_EXPIRIES = (ExpiryType.DYNAMIC, ExpiryType.FIXED, ExpiryType.FIX, ExpiryType.PERMANENT)

_EXPIRY: Schema = {
    "properties": {
        "type": text(words=_EXPIRIES),
        "day": {"type": "integer", "description": "Days after it is redeemed, of DYNAMIC."},
        "expiryAt": text("RFC 3339, of FIXED and FIX."),
    },
    "required": ["type"],
}
BATCH_FIELDS = {
    "key": Field(str, "By default one is made up."),
    "label": Field(str, "What people call it; by default the key."),
    "quantity": Field(int, "Needed unless `codes` are given.", least=0, most=1_000_000),
    "type": Field(str, "By default GIFT.", words=_TYPES),
    "amount_sen": Field(int, "What a CASH voucher is worth.", least=0),
    "discount_rate_bp": Field(int, "Hundredths of a percent.", least=0, most=10_000),
    "minimum_spend_sen": Field(int, least=0),
    "expiry": Field(dict, "As RM writes it; by default 30 days.", shape=_EXPIRY),
    "codes": Field(list, "Codes of the merchant's own.", items=Field(str)),
    "static_code": Field(str, "One code for all vouchers."),
}
_WINDOW_FIELDS = {
    "fault": Field(str, words=tuple(Fault), is_needed=True),
    "start_s": Field(float, "After the plan was set.", least=0, is_needed=True),
    "length_s": Field(float, more_than=0, is_needed=True),
}
PLAN_FIELDS = {
    "rate": Field(float, "The share of requests that meet a fault.", least=0, most=1),
    "kinds": Field(
        list,
        "By default all but those that keep a client waiting or take its token.",
        items=Field(str, words=tuple(fault for fault in Fault if fault is not Fault.CLOSED)),
        shape={"minItems": 1},
    ),
    "seed": Field(int, "Equal seeds, equal faults.", most=2**63),
    "operations": Field(
        list, "By default all but `token`.", items=Field(str, words=tuple(OPERATIONS))
    ),
    "windows": Field(
        list,
        f"Times in which every request meets one fault, {_MOST_WINDOWS} at most.",
        items=Field(dict, fields=_WINDOW_FIELDS),
        shape={"maxItems": _MOST_WINDOWS},
    ),
    "retry_after_s": Field(int, "What `Retry-After` says.", least=0),
    "late_s": Field(float, "The longest delay of late work.", least=0),
    "slow_body_s": Field(float, "How long a slow body takes.", least=0),
    "stall_s": Field(float, "How long silence lasts before the reset.", least=0),
    "listing_delay_s": Field(float, "How far a delayed listing is behind.", least=0),
}
FAILURE_FIELDS = {
    "operation": Field(str, words=tuple(OPERATIONS), is_needed=True),
    "fault": Field(str, "A fault, or one of RM's error codes.", is_needed=True),
    "times": Field(int, "By default 1.", least=1),
}
NUMBER_FIELDS = {
    "country_code": Field(str, "Digits, such as 60."),
    "phone_number": Field(str, "Digits, without the country code."),
}
MEMBER_FIELDS = {
    **{name: Field(str, each.says, is_needed=True) for name, each in NUMBER_FIELDS.items()},
    "name": Field(str),
}
CALLBACK_FIELDS = {
    "url": Field(str, "Where they go; empty for nowhere."),
    "interval_s": Field(float, "Until one is repeated.", more_than=0),
    "signs_url": Field(bool, "Whether the signature is of the URL, too."),
}
STORE_FIELDS = {
    "id": Field(str, is_needed=True),
    "is_authorised": Field(bool, "Whether the application may use it; by default true."),
}
MERCHANT_FIELDS = {
    "name": Field(str, "Letters, digits, - and _, 63 at most.", is_needed=True),
    "batches": Field(
        dict,
        "Quantities by key.",
        shape={"additionalProperties": {"type": "integer", "minimum": 0, "maximum": 1_000_000}},
    ),
    "callback_url": Field(str),
    "client_id": Field(str),
    "client_secret": Field(str),
    "public_key": Field(str, "PEM of a client that keeps its private key."),
    "rate_limit": Field(float, "Requests a second.", more_than=0),
    "seed": Field(int, "Equal seeds, equal codes.", most=2**63),
}
ADVANCE_FIELDS = {"advance_s": Field(float, "By default 0.", least=0)}
LIMIT_FIELDS = {"per_s": Field(float, "0 or left out for any number.", least=0)}

REVEAL = Field(bool, "Show codes, phone numbers and signed texts.")
MOST = Field(int, "How many, 500 at most; by default 100.", least=0)

_COUNTS = {name: whole() for name in ("quantity", "balance", "issued", "redeemed", "void")}
_FAULTS: dict[str, Schema] = {
    "rate": number(),
    "kinds": listed(text(words=tuple(Fault))),
    "seed": or_none(whole()),
    "operations": or_none(listed(text())),
    "windows": listed(object_of(_WINDOW_FIELDS)),
    "met": by_name(by_name(whole())),
    "undelivered": whole("How many codes were issued and did not get out."),
}
_LINE: dict[str, Schema] = {
    "number": whole(),
    "at": number(_AT),
    "merchant": text(),
    "operation": text("Empty for a path that there is not."),
    "method": text(),
    "path": text(_MASKED),
    "status": or_none(whole()),
    "ending": text(),
    "code": or_none(text("RM's code, of a refusal.")),
    "reason": or_none(text("Why it was refused.")),
    "fault": or_none(text("The fault that it met.")),
}
_NOW: dict[str, Schema] = {
    "now": number(_AT),
    "ahead_s": number("How far the clock was set ahead."),
    "requests": whole("How many came so far."),
    "merchants": listed(text()),
}
_SPANS = listed(listed(whole()))
_MERCHANT: dict[str, Schema] = {"name": text(), "number": whole(), "client_id": text()}

FORMS: dict[str, Schema] = {
    "Problem": thing({"error": text("What is wrong, for a person.")}),
    "BatchCounts": thing({"key": text(), **_COUNTS}),
    "Faults": thing(_FAULTS),
    "Callbacks": thing(
        {
            "url": or_none(text()),
            "interval_s": number(),
            "signs_url": flag(),
            "delivered": whole(),
            "given_up": whole(),
            "public_key": text("PEM of the key that callbacks are signed with."),
        }
    ),
    "Now": thing(_NOW),
    "Health": thing({"status": text(words=("ok",)), "version": text(), **_NOW}),
    "Overview": thing(
        {
            **_NOW,
            "operations": listed(text(words=tuple(OPERATIONS))),
            "faults": listed(text(words=tuple(Fault))),
        }
    ),
    "Summary": thing(
        {
            **_MERCHANT,
            "batches": listed(ref("BatchLine")),
            "members": listed(
                thing(
                    {
                        "country_code": text(),
                        "phone_number": text(_MASKED),
                        "name": text(),
                        "vouchers": whole(),
                    }
                )
            ),
            "stores": listed(thing({"id": text(), "is_authorised": flag()})),
            "tokens": listed(
                thing({"token": text("Masked."), "ends_at": or_none(number()), "is_good": flag()})
            ),
            "requests": by_name(whole()),
            "undelivered": whole(),
            "rate_limit": or_none(number()),
            "callbacks": thing(
                {
                    "url": or_none(text()),
                    "delivered": whole(),
                    "given_up": whole(),
                    "waiting": whole(),
                }
            ),
            "faults": ref("Faults"),
        }
    ),
    "BatchLine": thing(
        {
            "key": text(),
            "label": text(),
            "type": text(),
            "amount_sen": whole(),
            "discount_rate_bp": whole(),
            "minimum_spend_sen": whole(),
            "expiry": ref("Expiry"),
            "is_static": flag(),
            **_COUNTS,
        }
    ),
    "VoucherLines": thing(
        {
            "vouchers": listed(
                thing(
                    {
                        "place": whole("In the batch, from 0 on."),
                        "code": text(_MASKED),
                        "status": text(words=tuple(VoucherStatus)),
                        "changed_at": number(_AT),
                        "member": or_none(text()),
                    }
                )
            ),
            "next": or_none(whole("`start` of the next page.")),
        }
    ),
    "VoucherHistory": thing(
        {
            "place": whole(),
            "batch": text(),
            "code": text(_MASKED),
            "qr_url": or_none(text()),
            "status": text(words=tuple(VoucherStatus)),
            "label": text(),
            "expires_at": or_none(number(_AT)),
            "history": listed(
                thing(
                    {
                        "at": number(_AT),
                        "status": text(words=tuple(VoucherStatus)),
                        "request": or_none(whole("The number of the request that caused it.")),
                        "operation": or_none(text()),
                    }
                )
            ),
        }
    ),
    "ExchangeLine": thing(_LINE),
    "Exchange": thing(
        {
            **_LINE,
            "query": {},
            "headers": {},
            "body": {},
            "answer_headers": {},
            "answer": {},
            "signature": or_none(
                thing(
                    {"by_this_key": flag(), "mistakes": listed(text())},
                    optional={
                        "expected": text(),
                        "signed": or_none(text()),
                        "expected_differs": _SPANS,
                        "signed_differs": _SPANS,
                    },
                )
            ),
        }
    ),
    "Delivery": thing(
        {
            "number": whole(),
            "code": text(_MASKED),
            "status": text(words=tuple(VoucherStatus)),
            "next_at": or_none(number(_AT)),
            "attempts": listed(
                thing({"at": number(_AT), "status": or_none(whole()), "failure": text()})
            ),
        }
    ),
    "MerchantLine": thing(_MERCHANT),
    "MerchantOfClients": thing(
        {**_MERCHANT, "variables": by_name(text("The settings of a client of it."))}
    ),
}
"""The components of the control API, by name."""
