"""The rule: what an amount is does not depend on the application's decimal context."""

from __future__ import annotations

import decimal
from decimal import Decimal

import pytest

from rm_voucher import Voucher, VoucherBatch

STRICT = decimal.Context(prec=3, Emin=-1, Emax=1, traps=list(decimal.Context().flags))


@pytest.mark.parametrize("kind", [Voucher, VoucherBatch])
@pytest.mark.parametrize("context", [STRICT, decimal.Context(prec=1), decimal.Context(prec=2)])
@pytest.mark.parametrize(
    ("sen", "ringgit"),
    [(0, "0.00"), (1, "0.01"), (500, "5.00"), (123_456, "1234.56"), (10**15 + 1, f"{10**13}.01")],
)
def test_amounts_are_exact(kind, context, sen, ringgit):
    worth = kind(amount_sen=sen, discount_rate_bp=sen, minimum_spend_sen=sen)
    with decimal.localcontext(context):
        shown = [worth.amount_rm, worth.discount_percent, worth.minimum_spend_rm]
    assert [str(amount) for amount in shown] == [ringgit] * 3
    assert shown == [Decimal(ringgit)] * 3
