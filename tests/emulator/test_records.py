"""The emulator writes vouchers and batches as RM's examples do, and the client reads them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from support.answers import payload
from support.emulated_domain import DAY_S, Domain, at, dynamic, fixed

from rm_voucher.converters import structure, unstructure
from rm_voucher.emulator import Emulator
from rm_voucher.models import (
    Expiry,
    ExpiryType,
    Origin,
    Voucher,
    VoucherBatch,
    VoucherStatus,
    VoucherType,
)

ZERO = "0001-01-01T00:00:00Z"


def examples(*names: str) -> list[dict[str, Any]]:
    """Return the objects that some of RM's example payloads are about."""
    found: list[dict[str, Any]] = []
    for name in names:
        body = payload(name)
        value = body.get("items") or body["item"]
        found += value if isinstance(value, list) else [value]
    return found


VOUCHERS = examples(
    "get-voucher", "void-voucher", "reinstate-voucher", "redeem-vouchers",
    "list-batch-vouchers", "member-voucher", "member-vouchers", "member-redeem",
)  # fmt: skip
BATCHES = examples("list-batches")
# What the examples show and the emulator has nothing to say of.
NOT_KEPT = {"source", "sourceType", "sourcePrefix"}


def types(values: Iterable[Mapping[str, Any]]) -> dict[str, set[type]]:
    """Return the JSON types that each key has."""
    found: dict[str, set[type]] = {}
    for value in values:
        for key, one in value.items():
            json_type = str if isinstance(one, str) else type(one)
            found.setdefault(key, set()).add(json_type)
    return found


def lives() -> Domain:
    """Return a domain with vouchers in all stages and batches of all kinds."""
    domain = Domain()
    member = domain.state.add_member("60", "123456789", name="Example Member")
    domain.add("cash", codes=list("ABCDEF"), type=VoucherType.CASH, amount_sen=500,
               minimum_spend_sen=2000, expiry=dynamic(5))  # fmt: skip
    domain.add("discount", 2, type=VoucherType.DISCOUNT, discount_rate_bp=1050,
               expiry=fixed(domain.time.now + DAY_S / 7))  # fmt: skip
    domain.add("static", 3, static_code="S", type=VoucherType.GIFT)
    for _ in range(5):
        domain.issue("cash")
    domain.state.redeem(["B"])
    domain.state.void("C", used_at=at(1_600_000_000.123456))
    domain.state.collect("D", member)
    domain.state.member_redeem(member, "D")
    domain.state.share("E")
    domain.issue("discount")
    domain.issue("static")
    domain.time.now += DAY_S
    return domain


def wires(domain: Domain) -> list[dict[str, Any]]:
    """Return all vouchers as RM would write them."""
    return [wire for key in domain.batch_keys() for wire in domain.listing(key)]


def test_voucher_has_the_keys_and_types_of_the_examples() -> None:
    """A voucher has every key that an example shows, no other, and no type that none shows."""
    shown, written = types(VOUCHERS), types(wires(lives()))
    assert written.keys() == shown.keys()
    assert [key for key, found in written.items() if found - shown[key]] == []


def test_member_profile_has_the_keys_and_types_of_the_example() -> None:
    """A member's profile has keys and types of the example's."""
    (shown,) = [voucher["memberProfile"] for voucher in VOUCHERS if voucher["memberProfile"]]
    profiles = [wire["memberProfile"] for wire in wires(lives()) if wire["memberProfile"]]
    assert len(profiles) == 1
    for key, found in types(profiles).items():
        assert found == {type(shown[key])}


def test_batch_has_the_keys_and_types_of_the_examples() -> None:
    """A batch has every key that an example shows, but for where its codes come from."""
    domain = lives()
    shown, written = types(BATCHES), types([domain.batch(key) for key in domain.batch_keys()])
    assert written.keys() == shown.keys() - NOT_KEPT
    for key, found in written.items():
        assert found == shown[key], key
    assert [domain.batch(key)["staticCode"] for key in ("cash", "static")] == ["", "S"]


@pytest.mark.parametrize("key", ["cash", "discount", "static"])
def test_expiry_has_the_keys_of_the_examples(key: str) -> None:
    """An expiry has type and date, and days where it is DYNAMIC."""
    domain = lives()
    expected = {"type", "expiredAt"} if key == "discount" else {"type", "day", "expiredAt"}
    assert domain.batch(key)["expiry"].keys() == expected
    assert domain.listing(key)[0]["expiry"].keys() == expected


def shown(wire: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out what says nothing: null and Go's zero time."""
    return {key: value for key, value in wire.items() if value not in (None, ZERO)}


def test_vouchers_survive_the_converters() -> None:
    """What the emulator writes the client reads, and writes again: nothing is lost but nothings."""
    for wire in wires(lives()):
        voucher = structure(wire, Voucher)
        assert shown(unstructure(voucher)) == shown(wire)
        assert voucher.extra == {
            "voucherComboKey": None,
            "isMarketPlace": wire["status"] == "MARKET_PLACE",
        }


def test_batches_survive_the_converters() -> None:
    """The same of batches."""
    domain = lives()
    for key in domain.batch_keys():
        batch = structure(domain.batch(key), VoucherBatch)
        assert unstructure(batch) == domain.batch(key)
        assert batch.extra == {"isMarketPlace": False}


def test_facade_gives_models(credentials: Any) -> None:
    """The emulator's own methods give the models that the client gives."""
    emulator = Emulator(credentials=credentials, clock=lambda: 1_700_000_000.0)
    expiry = Expiry(type=ExpiryType.DYNAMIC, days=3)
    made = emulator.add_batch(
        "Raya", codes=["U"], type=VoucherType.CASH, amount_sen=500, minimum_spend_sen=2000,
        discount_rate_bp=10, expiry=expiry,
    )  # fmt: skip
    assert (made.label, made.key, made.id, made.type) == ("Raya", "batch-000001", "1", "CASH")
    assert (made.amount_sen, made.minimum_spend_sen, made.discount_rate_bp) == (500, 2000, 10)
    assert (made.origin, made.is_static) == (Origin.SELF, False)
    assert made.expiry is not None
    assert made.expiry.days == 3
    assert made.key
    emulator.state.issue(made.key)
    emulator.advance(60)
    emulator.state.redeem(["U"])
    emulator.advance(60)
    voucher = emulator.voucher("U")
    assert (voucher.label, voucher.batch_key, voucher.origin) == ("Raya", made.key, "SELF")
    assert (voucher.type, voucher.amount_sen, voucher.minimum_spend_sen) == ("CASH", 500, 2000)
    assert (voucher.discount_rate_bp, voucher.status) == (10, VoucherStatus.REDEEMED)
    assert voucher.created_at == at(1_700_000_000)
    assert voucher.assigned_at == at(1_700_000_000)
    assert voucher.redeemed_at == at(1_700_000_060)
    assert voucher.used_at is None
    assert voucher.expiry is not None
    assert voucher.expiry.expires_at == at(1_700_000_060 + 3 * DAY_S)
    batch = emulator.batch(made.key)
    assert (batch.quantity, batch.balance_quantity, batch.used_quantity) == (1, 0, 1)
    emulator.advance(3 * DAY_S)
    assert emulator.voucher("U").status == "EXPIRED"


def test_keys_are_distinct() -> None:
    """Each voucher and each batch has an opaque key and id of its own, of URL-safe base64."""
    domain = lives()
    keys = {wire["code"]: wire["key"] for wire in wires(domain)}
    assert len(set(keys.values())) == len(keys)
    assert all(key.replace("-", "").replace("_", "").isalnum() for key in keys.values())
    assert [domain.batch(key)["id"] for key in domain.batch_keys()] == ["1", "2", "3"]


def test_repr_shows_no_code_and_no_voucher() -> None:
    """Neither a voucher's code nor a batch's vouchers stand in a repr."""
    domain = Domain()
    batch = domain.add("K", codes=["secret-code"])
    member = domain.state.add_member("60", "1")
    record = domain.state.collect("secret-code", member)
    assert not any("secret-code" in repr(one) for one in (batch, member, record))
