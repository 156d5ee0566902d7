"""The forms of RM's answers, as `records`, `routes` and `reply` write them."""

from __future__ import annotations

from rm_voucher.emulator.schema import (
    Schema,
    by_name,
    flag,
    listed,
    or_none,
    ref,
    text,
    thing,
    time,
    whole,
)
from rm_voucher.models import BatchStatus, ExpiryType, Origin, VoucherStatus, VoucherType

_ZERO = "0001-01-01T00:00:00Z while there is none"
_WORTH = {
    "type": text("What kind of worth it is.", words=tuple(VoucherType)),
    "amount": whole("In sen, of a CASH voucher."),
    "discountRate": whole("In hundredths of a percent, of a DISCOUNT voucher."),
    "minimumSpendAmount": whole("In sen."),
}
_TIMES = {"createdAt": time(), "updatedAt": time()}
_NOTHING_YET = {"type": "null"}


def _page(items: str) -> Schema:
    meta = thing(
        {"count": whole("The number of items on this page.")},
        optional={"cursor": or_none(text("Of the next page; without one this is the last."))},
    )
    return thing({"items": listed(ref(items)), "meta": meta, "code": _SUCCESS})


def _one(item: Schema) -> Schema:
    return thing({"item": item, "code": _SUCCESS})


_SUCCESS = text(words=("SUCCESS",))

WIRE_FORMS: dict[str, Schema] = {
    "Expiry": thing(
        {
            "type": text(words=tuple(ExpiryType)),
            "expiredAt": time("The end; a date far off where none is settled."),
        },
        optional={"day": whole("Days from its redemption on, of a DYNAMIC one.")},
    ),
    "Member": thing(
        {
            "id": text(),
            "name": text(),
            "countryCode": text("Digits."),
            "phoneNumber": text("Digits."),
            "status": text(),
        }
    ),
    "Voucher": thing(
        {
            "key": text(),
            "label": text(),
            "redemptionRuleKey": _NOTHING_YET,
            "voucherBatchKey": text(),
            **_WORTH,
            "origin": text(words=tuple(Origin)),
            "imageUrl": text(),
            "memberProfile": or_none(ref("Member")),
            "redemptionRule": _NOTHING_YET,
            "assignedAt": time(f"When it was issued; {_ZERO}."),
            "payload": _NOTHING_YET,
            "qrUrl": text("What a customer scans."),
            "code": text("What is worth something: keep it secret."),
            "isShipping": flag(),
            "address": _NOTHING_YET,
            "expiry": ref("Expiry"),
            "usedAt": time(f"When it was voided; {_ZERO}."),
            "redeemedAt": time(f"{_ZERO[:20]} while there is none."),
            "isDeviceRedeem": flag(),
            "status": text(words=tuple(VoucherStatus)),
            "voucherComboKey": _NOTHING_YET,
            "isMarketPlace": flag(),
            **_TIMES,
        }
    ),
    "VoucherBatch": thing(
        {
            "id": text(),
            "key": text(),
            "label": text(),
            **_WORTH,
            "imageUrl": text(),
            "quantity": whole(),
            "balanceQuantity": whole("What is left of it."),
            "usedQuantity": whole(),
            "status": text("COMPLETED, or it is still being made.", words=tuple(BatchStatus)),
            "expiry": ref("Expiry"),
            "origin": text(words=tuple(Origin)),
            "isShipping": flag(),
            "reason": text(),
            "isStatic": flag("Whether all its vouchers have one code."),
            "staticCode": text(),
            "isDeviceRedeem": flag(),
            "isMarketPlace": flag(),
            **_TIMES,
        }
    ),
    "Issued": _one(thing({"code": text(), "qrUrl": text()})),
    "OneVoucher": _one(ref("Voucher")),
    "OneBatch": _one(ref("VoucherBatch")),
    "Vouchers": _one(listed(ref("Voucher"))),
    "VoucherPage": _page("Voucher"),
    "BatchPage": _page("VoucherBatch"),
    "Token": thing(
        {
            "accessToken": text(),
            "tokenType": text(words=("Bearer",)),
            "expiresIn": whole("Seconds."),
            "refreshToken": text("Works once."),
            "refreshTokenExpiresIn": whole("Seconds."),
        }
    ),
    "Error": thing(
        {"error": thing({"code": text("What it is."), "message": text("For a person.")})},
        optional={"debug": by_name({})},
    ),
}
"""The components of the voucher API, by name."""
