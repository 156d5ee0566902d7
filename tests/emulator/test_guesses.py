"""Each guess of the emulator's domain changes what it says, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from support.emulated_domain import Domain, fixed

from rm_voucher.emulator import Guesses
from rm_voucher.emulator.records import Record
from rm_voucher.emulator.stock import RefusedError
from rm_voucher.models import VoucherStatus

ME = ("60", "1")
STORE: dict[str, Any] = {"store_id": "any"}
# What the wire asks for; it is tested where the requests are.
OF_THE_WIRE = {
    "page_size", "last_page", "get_methods", "older_batch_path", "signature_debug", "signed_path",
    "unknown_path_code", "duplicate_code", "static_issue_code", "wrong_pin_code", "token_delay_s",
    "new_token_ends_earlier", "sends_date", "statuses", "throttle_code", "throttle_status",
    "throttle_retry_after_s", "rate_burst_s",
    "callback_statuses", "callback_signs_url", "callback_signs_again", "callback_timeout_s",
}  # fmt: skip


def ready(guesses: Guesses) -> Domain:
    """Return a domain with codes that RM makes, codes that were uploaded, and a static one."""
    domain = Domain(guesses)
    domain.add("made", 2)
    domain.add("self", codes=["A", "B"])
    domain.add("static", 2, static_code="S")
    domain.state.add_member(*ME)
    if guesses.unknown_store_code:
        domain.state.add_store("any")
    domain.time.now += 1000
    return domain


def issued(domain: Domain, key: str = "self", *, wait_s: float = 0.0) -> str:
    code = domain.issue(key)
    domain.time.now += wait_s
    return code


def redeem_in_bulk(domain: Domain) -> tuple[str, str]:
    return (domain.outcome(lambda: domain.state.redeem(["A", "none"])[0]), domain.status("A"))


def sold_out(domain: Domain, key: str) -> str:
    issued(domain, key)
    issued(domain, key)
    return domain.refusal(lambda: domain.issue(key))


def redeem_both(domain: Domain) -> list[str]:
    issued(domain)
    issued(domain)
    try:
        return [record.code for record in domain.state.redeem(["A", "B"])]
    except RefusedError as exc:
        return [exc.code]


def void_static(domain: Domain) -> tuple[str, list[str]]:
    issued(domain, "static")
    domain.state.collect("S", domain.state.member(*ME))
    issued(domain, "static")
    domain.time.now += 60
    domain.state.void("S", **STORE)
    return domain.outcome(lambda: domain.state.void("S", **STORE)), domain.statuses("static")


def void(domain: Domain, *, redeems: bool = False, **options: Any) -> str:
    issued(domain)
    if redeems:
        domain.state.redeem(["A"])
    return domain.outcome(lambda: domain.state.void("A", **options))


def member_redeem(domain: Domain) -> str:
    issued(domain)
    member = domain.state.member(*ME)
    domain.state.collect("A", member)
    return domain.outcome(lambda: domain.state.member_redeem(member, "A"))


def used(domain: Domain, *operations: Callable[[Domain], object]) -> tuple[int, int]:
    issued(domain)
    for operation in operations:
        operation(domain)
    return domain.quantities("self")[1:]


def share(domain: Domain) -> tuple[int, int]:
    domain.state.share("A")
    return domain.quantities("self")[1:]


def delayed(domain: Domain) -> dict[str, Any]:
    """Do all that can be done to a voucher, and return how the listing shows it at once."""
    before = domain.listing("self")[0] if domain.guesses.lists_valid else {}
    issued(domain)
    domain.state.collect("A", domain.state.member(*ME))
    domain.state.void("A", **STORE)
    after = domain.listing("self")[0]
    return {key: after[key] for key in after if before.get(key) != after[key]}


USED_AT = datetime(2023, 11, 1, 9, 30, 1, 987_654, UTC)


def void_redeemed(domain: Domain, code: str = "A", **options: Any) -> Record:
    domain.state.redeem([code])
    return domain.state.void(code, **{**STORE, **options})


def again(domain: Domain) -> str:
    void_redeemed(domain)
    return domain.outcome(lambda: domain.state.void("A", **STORE))


def reinstated(domain: Domain, *, redeems: bool) -> str:
    """Reinstate a voucher that never was redeemed where that is not needed."""
    issued(domain)
    if redeems or domain.guesses.void_needs_redeem:
        domain.state.redeem(["A"])
    domain.state.void("A", **STORE)
    return domain.outcome(lambda: domain.state.reinstate("A"))


def void_nowhere(domain: Domain) -> str:
    """Void at a store that was not made."""
    issued(domain)
    domain.state.redeem(["A"])
    return domain.outcome(lambda: domain.state.void("A", store_id="nowhere"))


def ended(domain: Domain) -> str:
    domain.add("ended", 1, expiry=fixed(domain.time.now - 1))
    return domain.refusal(lambda: domain.issue("ended"))


# What can be observed, and what it is by default.
Observation = Callable[[Domain], Any]
OBSERVED: dict[str, tuple[Observation, Any]] = {
    "new listing": (lambda d: d.statuses("made"), []),
    "new listing, uploaded": (lambda d: d.statuses("self"), ["VALID", "VALID"]),
    "new listing, static": (lambda d: d.statuses("static"), []),
    "listing at once": (lambda d: (issued(d, "made"), d.statuses("made"))[1], ["ISSUED"]),
    "listing at once, uploaded": (
        lambda d: (issued(d), d.statuses("self"))[1], ["ISSUED", "VALID"],
    ),
    "listing at once, static": (
        lambda d: (issued(d, "static"), d.statuses("static"))[1], ["ISSUED"],
    ),
    "listing a second before": (
        lambda d: (issued(d, "made", wait_s=59), d.statuses("made"))[1], ["ISSUED"],
    ),
    "listing a minute later": (
        lambda d: (issued(d, "made", wait_s=60), d.statuses("made"))[1], ["ISSUED"],
    ),
    "listing a minute later, uploaded": (
        lambda d: (issued(d, wait_s=60), d.statuses("self"))[1], ["ISSUED", "VALID"],
    ),
    "what a listing shows at once": (
        lambda d: sorted(set(delayed(d)) & {"status", "usedAt", "memberProfile", "updatedAt"}),
        ["memberProfile", "status", "updatedAt", "usedAt"],
    ),
    "codes that left": (lambda d: (issued(d), d.state.issued("self"))[1], ("A",)),
    "voucher at once": (lambda d: d.status(issued(d, "made")), "ISSUED"),
    "balance, issued": (lambda d: used(d), (1, 1)),
    "balance, redeemed": (lambda d: used(d, lambda d: d.state.redeem(["A"])), (1, 1)),
    "balance, void": (
        lambda d: used(
            d, lambda d: d.state.redeem(["A"]), lambda d: d.state.void("A", **STORE)
        ),
        (1, 1),
    ),
    "balance, reinstated": (
        lambda d: used(
            d,
            lambda d: d.state.redeem(["A"]),
            lambda d: d.state.void("A", **STORE),
            lambda d: d.state.reinstate("A"),
        ),
        (1, 1),
    ),
    "balance, shared": (share, (1, 1)),
    "issued at": (lambda d: d.wire(issued(d))["assignedAt"], "2023-11-14T22:30:00Z"),
    "issued at, listed": (
        lambda d: (issued(d, wait_s=60), d.listing("self")[0]["assignedAt"])[1],
        "2023-11-14T22:30:00Z",
    ),
    "sold out": (lambda d: sold_out(d, "made"), "VOUCHER_BATCH_NOT_ENOUGH_QUANTITY"),
    "sold out, static": (lambda d: sold_out(d, "static"), "VOUCHER_BATCH_NOT_ENOUGH_QUANTITY"),
    "all expired": (
        lambda d: (d.state.expire("A"), d.state.expire("B"), d.refusal(lambda: d.issue("self")))[2],
        "VOUCHER_BATCH_NOT_ENOUGH_QUANTITY",
    ),
    "redeem of an issued one": (
        lambda d: (issued(d), d.outcome(lambda: d.state.redeem(["A"])[0]))[1], "REDEEMED",
    ),
    "redeem of a valid one": (lambda d: d.outcome(lambda: d.state.redeem(["A"])[0]), "REDEEMED"),
    "redeem of a static one in stock": (
        lambda d: d.outcome(lambda: d.state.redeem(["S"])[0]), "REDEEMED",
    ),
    "collect of a valid one": (
        lambda d: d.outcome(lambda: d.state.collect("A", d.state.member(*ME))), "REDEEMED",
    ),
    "void of an issued one": (lambda d: void(d, **STORE), "VOID"),
    "void of a redeemed one": (lambda d: void(d, redeems=True, **STORE), "VOID"),
    "void without a store": (lambda d: void(d, redeems=True), "VOID"),
    "void of two static ones": (void_static, ("VOID", ["VOID", "VOID"])),
    "bulk redeem, one refused": (
        lambda d: (issued(d), redeem_in_bulk(d))[1], ("VOUCHER_NOT_FOUND", "ISSUED"),
    ),
    "bulk redeem of two": (redeem_both, ["A", "B"]),
    "member redeem": (member_redeem, "VOID"),
    "end before redeeming": (
        lambda d: d.wire(issued(d))["expiry"]["expiredAt"], "2050-12-31T23:59:59Z",
    ),
    "other case": (
        lambda d: (issued(d), d.outcome(lambda: d.state.get("a")))[1], "VOUCHER_NOT_FOUND",
    ),
    "other case, static": (
        lambda d: d.outcome(lambda: d.state.get("s")), "VOUCHER_NOT_FOUND",
    ),
    "void at no store": (void_nowhere, "VOID"),
    "void again": (lambda d: (issued(d), again(d))[1], "VOUCHER_NOT_ALLOW_VOID"),
    "used at": (
        lambda d: (issued(d), str(void_redeemed(d, used_at=USED_AT).used_at))[1], str(USED_AT),
    ),
    "reinstated, redeemed": (lambda d: reinstated(d, redeems=True), "REDEEMED"),
    "reinstated": (lambda d: reinstated(d, redeems=False), "REDEEMED"),
    "redeem again": (
        lambda d: (
            issued(d), d.state.redeem(["A"]), d.refusal(lambda: d.state.redeem(["A"]))
        )[2],
        "VOUCHER_REDEEMED",
    ),
    "issue of an ended one": (ended, "VOUCHER_BATCH_EXPIRED"),
}  # fmt: skip

NEVER = "0001-01-01T00:00:00Z"
# What each option changes. A row that says nothing of an observation says that it stays.
CHANGES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (
        {"codes_up_front": True},
        {
            "new listing": ["VALID", "VALID"],
            "listing at once": ["ISSUED", "VALID"],
            "listing a second before": ["ISSUED", "VALID"],
            "listing a minute later": ["ISSUED", "VALID"],
        },
    ),
    ({"codes_up_front": True, "lists_valid": False}, {
        "new listing, uploaded": [],
        "listing at once, uploaded": ["ISSUED"],
        "listing a minute later, uploaded": ["ISSUED"],
    }),
    ({"lists_valid": False}, {
        "new listing, uploaded": [],
        "listing at once, uploaded": ["ISSUED"],
        "listing a minute later, uploaded": ["ISSUED"],
    }),
    ({"listing_delay_s": 60.0}, {
        "listing at once": [],
        "listing at once, uploaded": ["VALID", "VALID"],
        "listing at once, static": [],
        "listing a second before": [],
        "what a listing shows at once": [],
    }),
    ({"used_from": VoucherStatus.REDEEMED}, {
        "balance, issued": (2, 0),
        "balance, shared": (2, 0),
    }),
    ({"used_from": VoucherStatus.VOID}, {
        "balance, issued": (2, 0),
        "balance, redeemed": (2, 0),
        "balance, reinstated": (2, 0),
        "balance, shared": (2, 0),
    }),
    ({"shows_assigned_at": False}, {"issued at": NEVER, "issued at, listed": NEVER}),
    ({"sold_out_code": "VOUCHER_SOLD_OUT"}, {
        "sold out": "VOUCHER_SOLD_OUT",
        "sold out, static": "VOUCHER_SOLD_OUT",
        "all expired": "VOUCHER_SOLD_OUT",
    }),
    ({"redeems_valid": False}, {
        "redeem of a valid one": "VOUCHER_REDEEMED_INVALID",
        "redeem of a static one in stock": "VOUCHER_REDEEMED_INVALID",
        "collect of a valid one": "VOUCHER_REDEEMED_INVALID",
    }),
    ({"void_needs_redeem": True}, {
        "void of an issued one": "VOUCHER_NOT_REDEEMED",
        "void of two static ones": ("VOUCHER_NOT_REDEEMED", ["VOID", "ISSUED"]),
    }),
    ({"void_needs_store": True}, {"void without a store": "STORE_NOT_SET"}),
    ({"redeem_is_atomic": False}, {
        "bulk redeem, one refused": ("VOUCHER_NOT_FOUND", "REDEEMED"),
    }),
    ({"max_redeem_codes": 1}, {
        "bulk redeem, one refused": ("INVALID_PARAMETER", "ISSUED"),
        "bulk redeem of two": ["INVALID_PARAMETER"],
    }),
    ({"lists_assigned_at": False}, {"issued at, listed": NEVER}),
    ({"undated_expiry": NEVER}, {"end before redeeming": NEVER}),
    ({"codes_ignore_case": True}, {"other case": "ISSUED", "other case, static": "VALID"}),
    ({"unknown_store_code": "STORE_ID_INVALID"}, {"void at no store": "STORE_ID_INVALID"}),
    ({"void_again_code": "VOUCHER_REDEEMED_INVALID"}, {"void again": "VOUCHER_REDEEMED_INVALID"}),
    ({"void_again_code": ""}, {"void again": "VOID"}),
    ({"keeps_used_at": False}, {"used at": "2023-11-14 22:30:00+00:00"}),
    ({"used_at_digits": 3}, {"used at": "2023-11-01 09:30:01.987000+00:00"}),
    ({"used_at_digits": 0}, {"used at": "2023-11-01 09:30:01+00:00"}),
    ({"reinstate_to": VoucherStatus.ISSUED}, {"reinstated": "ISSUED"}),
    ({"redeem_again_code": "QR_REDEEMED"}, {"redeem again": "QR_REDEEMED"}),
    ({"expired_code": "EXPIRY_INVALID"}, {"issue of an ended one": "EXPIRY_INVALID"}),
    ({"member_redeem_to": VoucherStatus.REDEEMED}, {"member redeem": "REDEEMED"}),
]  # fmt: skip


def observe(guesses: Guesses) -> dict[str, Any]:
    return {name: look(ready(guesses)) for name, (look, _) in OBSERVED.items()}


def test_by_default() -> None:
    """Without any option the domain does what RM's pages and examples say."""
    assert observe(Guesses()) == {name: value for name, (_, value) in OBSERVED.items()}


@pytest.mark.parametrize(("options", "changes"), CHANGES, ids=lambda value: str(list(value)))
def test_an_option_changes_what_it_says(options: dict[str, Any], changes: dict[str, Any]) -> None:
    """An option changes what the table says, to that, and nothing else."""
    assert changes.keys() <= OBSERVED.keys()
    by_default = {name: value for name, (_, value) in OBSERVED.items()}
    assert observe(Guesses(**options)) == {**by_default, **changes}


def test_every_guess_is_tested() -> None:
    """Each guess is in the table above or one of the wire's."""
    tested = {name for options, _ in CHANGES for name in options}
    assert tested | OF_THE_WIRE == {field.name for field in attrs.fields(Guesses)}
    assert not tested & OF_THE_WIRE


def test_a_code_twice_in_a_bulk_redeem() -> None:
    """It is refused as one that is redeemed already, and nothing is redeemed."""
    domain = ready(Guesses(redeem_again_code="QR_REDEEMED"))
    issued(domain)
    assert domain.refusal(lambda: domain.state.redeem(["A", "A"])) == "QR_REDEEMED"
    assert domain.status("A") == "ISSUED"


def test_a_static_batch_that_issues_nothing() -> None:
    """An issue from it is refused; its code can be redeemed all the same."""
    domain = ready(Guesses(static_issue_code="VOUCHER_BATCH_KEY_INVALID"))
    assert domain.refusal(lambda: domain.issue("static")) == "VOUCHER_BATCH_KEY_INVALID"
    assert domain.outcome(lambda: domain.state.redeem(["S"])[0]) == "REDEEMED"


def test_codes_that_differ_by_case_only() -> None:
    """Where case does not count they are one code, and can't both be made."""
    domain = ready(Guesses(codes_ignore_case=True))
    for codes in (["X", "x"], ["a"], ["s"]):
        with pytest.raises(ValueError, match="twice, or there already"):
            domain.add("more", codes=codes)


@pytest.mark.parametrize(
    "wrong",
    [{"used_at_digits": 7}, {"used_at_digits": -1}, {"last_page": "none"}, {"signed_path": "odd"}],
)
def test_an_option_that_can_not_be(wrong: dict[str, Any]) -> None:
    """It is refused when the options are made."""
    with pytest.raises(ValueError, match=r"whole number|no mark of|no spelling of"):
        Guesses(**wrong)


def test_lags_add_up() -> None:
    """The delay of one listing is added to the option's."""
    domain = ready(Guesses(listing_delay_s=60.0))
    issued(domain, "made", wait_s=90)
    assert domain.statuses("made") == ["ISSUED"]
    assert domain.statuses("made", delay_s=30) == ["ISSUED"]
    assert domain.statuses("made", delay_s=31) == []


@pytest.mark.parametrize("leave", ["issue", "redeem", "share"])
@pytest.mark.parametrize("lists_valid", [True, False])
def test_lag_of_whatever_leaves_the_stock(leave: str, lists_valid: bool) -> None:
    """A listing lags by when a voucher left the stock, whatever became of it since."""
    domain = ready(Guesses(lists_valid=lists_valid))
    if leave == "issue":
        domain.issue("self")
    elif leave == "redeem":
        domain.state.redeem(["A"])
    else:
        domain.state.share("A")
    domain.time.now += 60
    if leave == "issue":
        domain.state.redeem(["A"])
    if leave != "share":
        domain.state.void("A")
    now = "MARKET_PLACE" if leave == "share" else "VOID"
    stock = ["VALID"] if lists_valid else []
    assert domain.statuses("self", delay_s=60) == [now, *stock]
    assert domain.statuses("self", delay_s=60.5) == stock * 2


def test_voucher_in_a_delayed_listing_looks_untouched() -> None:
    """What a delayed listing shows as VALID shows nothing of what became of it."""
    domain = ready(Guesses())
    before = domain.listing("self")
    assert delayed(domain)
    assert domain.listing("self", delay_s=1) == before


def test_stock_in_a_delayed_listing_expires() -> None:
    """The delay of a listing is of what left the stock: whatever expires there is shown at once."""
    domain = Domain()
    domain.add("self", codes=["A", "B"])
    domain.add("dated", codes=["C", "D"], expiry=fixed(domain.time.now + 10))
    domain.state.expire("A")
    domain.issue("dated")
    assert domain.statuses("self", delay_s=60) == ["EXPIRED", "VALID"]
    assert domain.statuses("dated", delay_s=60) == ["VALID", "VALID"]
    domain.time.now += 10
    assert domain.statuses("dated", delay_s=60) == ["EXPIRED", "EXPIRED"]
