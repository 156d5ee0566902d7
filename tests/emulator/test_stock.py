"""How batches and vouchers of the emulator come to be, and how one is found."""

from __future__ import annotations

import inspect
import random
from typing import Any

import pytest
from support.doubles import FakeTime
from support.emulated_domain import DAY_S, Domain, dynamic, fixed
from support.files import PUBLIC_KEY_FILE

from rm_voucher.emulator import Emulator, Guesses
from rm_voucher.emulator.stock import BatchOptions, Stock
from rm_voucher.models import BatchStatus, VoucherType


@pytest.fixture
def domain(time: FakeTime) -> Domain:
    return Domain(time=time)


@pytest.mark.parametrize(
    ("options", "worth"),
    [
        (
            {"type": VoucherType.CASH, "amount_sen": 500, "minimum_spend_sen": 2000},
            ("CASH", 500, 0, 2000),
        ),
        (
            {"type": VoucherType.DISCOUNT, "discount_rate_bp": 1050, "minimum_spend_sen": 1},
            ("DISCOUNT", 0, 1050, 1),
        ),
        ({"type": VoucherType.GIFT}, ("GIFT", 0, 0, 0)),
        ({}, ("GIFT", 0, 0, 0)),
    ],
)
def test_worth(domain: Domain, options: dict[str, Any], worth: tuple[object, ...]) -> None:
    """A batch and each of its vouchers show what they are worth."""
    domain.add("K", 1, **options)
    names = ("type", "amount", "discountRate", "minimumSpendAmount")
    assert tuple(domain.batch("K")[name] for name in names) == worth
    wire = domain.wire(domain.issue("K"))
    assert tuple(wire[name] for name in names) == worth


def test_batch_by_default(domain: Domain) -> None:
    """A batch is complete, of RM's own codes, not static, of 30 days, with a key of its own."""
    domain.state.stock.add_batch("first", quantity=3)
    domain.time.now += 60
    domain.state.stock.add_batch("second", quantity=0)
    assert domain.batch_keys() == ["batch-000001", "batch-000002"]
    wire = domain.batch("batch-000001")
    assert (wire["label"], wire["id"], wire["status"]) == ("first", "1", "COMPLETED")
    assert (wire["origin"], wire["isStatic"]) == ("SYSTEM", False)
    assert (wire["expiry"]["type"], wire["expiry"]["day"]) == ("DYNAMIC", 30)
    assert wire["createdAt"] == wire["updatedAt"] == "2023-11-14T22:13:20Z"
    assert domain.batch("batch-000002")["createdAt"] == "2023-11-14T22:14:20Z"
    assert domain.quantities("batch-000001") == (3, 3, 0)


def test_uploaded_codes(domain: Domain) -> None:
    """Codes that the merchant uploaded are there from the start, and issued in their order; the
    batch is as many as they are."""
    domain.add("K", codes=iter(["rms@x", "B#2", "A"]))
    assert domain.quantities("K") == (3, 3, 0)
    assert [domain.status(code) for code in ("rms@x", "B#2", "A")] == ["VALID"] * 3
    assert [domain.issue("K") for _ in range(3)] == ["rms@x", "B#2", "A"]
    assert (domain.batch("K")["origin"], domain.wire("A")["origin"]) == ("SELF", "SELF")
    assert domain.state.issued("K") == ("rms@x", "B#2", "A")


def test_no_uploaded_codes(domain: Domain) -> None:
    """A batch of no uploaded codes is one, with nothing to issue."""
    domain.add("K", codes=[])
    assert domain.batch("K")["origin"] == "SELF"
    assert domain.refusal(lambda: domain.issue("K")) == "VOUCHER_BATCH_NOT_ENOUGH_QUANTITY"


def test_issue_passes_over_what_is_gone(domain: Domain) -> None:
    """What left the stock without an issue, or expired there, is not issued."""
    domain.add("K", codes=list("ABCDE"))
    member = domain.state.add_member("60", "1")
    domain.state.redeem(["A"])
    domain.state.collect("B", member)
    domain.state.share("D")
    domain.state.expire("C")
    assert domain.state.issued("K") == ("A", "B", "D")
    assert (domain.issue("K"), domain.quantities("K")) == ("E", (5, 1, 4))
    assert domain.refusal(lambda: domain.issue("K")) == "VOUCHER_BATCH_NOT_ENOUGH_QUANTITY"


def test_codes_come_to_be_when_they_are_issued(domain: Domain) -> None:
    """RM's own codes are ten letters and digits, distinct, and listed in the order of issue."""
    domain.add("K", 500)
    codes = [domain.issue("K") for _ in range(500)]
    assert all(len(code) == 10 and code.isalnum() and code.isascii() for code in codes)
    assert len(set(codes)) == 500
    assert [wire["code"] for wire in domain.listing("K")] == codes
    assert domain.state.issued("K") == tuple(codes)
    assert domain.refusal(lambda: domain.issue("K")) == "VOUCHER_BATCH_NOT_ENOUGH_QUANTITY"


def test_codes_up_front(time: FakeTime) -> None:
    """Made up front, a batch's codes are VALID vouchers, and issued in the order of the listing."""
    domain = Domain(Guesses(codes_up_front=True), time)
    domain.add("K", 3)
    listed = [wire["code"] for wire in domain.listing("K")]
    assert len(set(listed)) == 3
    assert [domain.status(code) for code in listed] == ["VALID"] * 3
    assert (domain.batch("K")["origin"], domain.state.issued("K")) == ("SYSTEM", ())
    assert [domain.issue("K") for _ in range(3)] == listed


class Repeating(random.Random):
    """A source of chance that says everything twice."""

    def choices(self, population: Any, *args: Any, **options: Any) -> list[Any]:
        self.said = getattr(self, "said", 0) + 1
        return [population[(self.said - 1) // 2]] * options["k"]


@pytest.mark.parametrize("up_front", [True, False])
def test_codes_are_distinct_when_chance_repeats(time: FakeTime, up_front: bool) -> None:
    """A code that there is, in any batch, uploaded or static, is not made again."""
    domain = Domain(Guesses(codes_up_front=up_front), time)
    domain.state.stock._rng = Repeating()
    domain.add("self", codes=["bbbbbbbbbb"])
    domain.add("theirs", codes=["cccccccccc"], is_ours=False)
    domain.add("static", 1, static_code="dddddddddd")
    domain.add("K", 2)
    domain.add("L", 2)
    codes = [domain.issue(key) for key in "KKLL"]
    assert codes == ["aaaaaaaaaa", "eeeeeeeeee", "ffffffffff", "gggggggggg"]


@pytest.mark.parametrize("up_front", [True, False])
def test_same_seed_same_codes(up_front: bool) -> None:
    """The same seed gives the same codes in the same order, another one gives others."""
    series = []
    for seed in (1, 1, 2):
        domain = Domain(Guesses(codes_up_front=up_front), seed=seed)
        domain.add("K", 20)
        domain.add("L", 20)
        series.append([domain.issue(key) for _ in range(20) for key in "KL"])
    assert series[0] == series[1]
    assert not set(series[0]) & set(series[2])


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "quantity"),
    ({"quantity": -1}, "quantity"),
    ({"quantity": 2**63}, "quantity"),
    ({"quantity": 1, "key": "K"}, "already"),
    ({"quantity": 1, "key": ""}, "key"),
    ({"quantity": 1, "key": "a\nb"}, "key"),
    ({"codes": ["x", "y"], "quantity": 1}, "as many"),
    ({"codes": ["x"], "quantity": 2}, "as many"),
    ({"codes": ["x"], "static_code": "y"}, "static"),
    ({"codes": [], "static_code": "y"}, "static"),
    ({"quantity": 1, "type": VoucherType("OTHER")}, "CASH, DISCOUNT or GIFT"),
    ({"codes": ["x", "x"]}, "twice"),
    ({"codes": ["x", "U"]}, "there already"),
    ({"codes": ["S"]}, "there already"),
    ({"codes": ["theirs"]}, "there already"),
    ({"quantity": 1, "static_code": "U"}, "there already"),
    ({"quantity": 1, "static_code": "S"}, "there already"),
    ({"quantity": 1, "static_code": ""}, "code is empty"),
    ({"codes": ["x", ""]}, "code is empty"),
    ({"codes": ["x\0"]}, "U\\+0000 at position 2"),
]


@pytest.mark.parametrize(("options", "sentence"), REFUSED)
def test_batch_that_is_refused(domain: Domain, options: dict[str, Any], sentence: str) -> None:
    """A batch that can't be made is refused with a sentence, and leaves nothing behind."""
    domain.add("K", codes=["U"])
    domain.add("static", 1, static_code="S")
    domain.add("other", codes=["theirs"], is_ours=False)
    with pytest.raises(ValueError, match=sentence):
        domain.state.stock.add_batch("refused", **options)
    assert domain.batch_keys() == ["K", "static"]
    assert domain.state.stock.add_batch("next", codes=["x", "y"]).id == "4"


@pytest.mark.parametrize("options", [{}, {"static_code": "S"}])
def test_largest_batch(domain: Domain, options: dict[str, Any]) -> None:
    """The largest quantity is Go's largest integer."""
    domain.add("K", 2**63 - 1, **options)
    domain.issue("K")
    assert domain.quantities("K") == (2**63 - 1, 2**63 - 2, 1)


def test_too_many_codes_up_front(monkeypatch: pytest.MonkeyPatch) -> None:
    """Up front, only so many codes are made as fit into memory; static ones are not made."""
    monkeypatch.setattr("rm_voucher.emulator.stock._MAX_UP_FRONT", 3)
    domain = Domain(Guesses(codes_up_front=True))
    domain.add("K", 3)
    domain.add("static", 4, static_code="S")
    domain.add("self", codes="ABCD")
    with pytest.raises(ValueError, match="at most 3 codes"):
        domain.add("L", 4)


def test_static_batch(domain: Domain) -> None:
    """Everybody gets a static batch's one code; each issue is a voucher of its own."""
    domain.add("K", 3, static_code="S")
    assert domain.status("S") == "VALID"
    assert domain.statuses("K") == []
    assert [domain.issue("K") for _ in range(3)] == ["S"] * 3
    assert domain.state.issued("K") == ("S",) * 3
    assert domain.refusal(lambda: domain.issue("K")) == "VOUCHER_BATCH_NOT_ENOUGH_QUANTITY"
    wire = domain.batch("K")
    assert (wire["isStatic"], wire["staticCode"], wire["origin"]) == (True, "S", "SYSTEM")
    assert domain.quantities("K") == (3, 0, 3)


def test_static_code_means_the_oldest_that_fits(domain: Domain) -> None:
    """An operation on a static code is on its oldest voucher that it can be done to; if there is
    none, on the newest, which refuses it."""
    domain.add("K", 3, static_code="S")
    for _ in range(3):
        domain.issue("K")
    state, seen = domain.state, []
    for operation in ("void", "redeem", "void", "share", "reinstate", "reinstate", "expire"):
        state.redeem(["S"]) if operation == "redeem" else getattr(state, operation)("S")
        seen.append(" ".join(domain.statuses("K")))
    assert seen == [
        "VOID ISSUED ISSUED",
        "VOID REDEEMED ISSUED",
        "VOID VOID ISSUED",
        "VOID VOID MARKET_PLACE",
        "REDEEMED VOID MARKET_PLACE",
        "REDEEMED REDEEMED MARKET_PLACE",
        "EXPIRED REDEEMED MARKET_PLACE",
    ]
    assert domain.status("S") == "REDEEMED"
    state.void("S")
    assert domain.status("S") == "MARKET_PLACE"  # none can be used: it is the newest
    assert domain.refusal(lambda: state.redeem(["S"])) == "VOUCHER_REDEEMED_INVALID"
    assert domain.refusal(lambda: state.void("S")) == "VOUCHER_NOT_ALLOW_VOID"
    assert domain.refusal(lambda: state.share("S")) == "VOUCHER_REDEEMED_INVALID"
    state.reinstate("S")
    assert domain.status("S") == "REDEEMED"


@pytest.mark.parametrize("operation", ["redeem", "collect", "share"])
def test_static_code_that_nobody_was_issued(domain: Domain, operation: str) -> None:
    """A static code takes a voucher from the stock where none was issued, as long as there is
    one."""
    domain.add("K", 2, static_code="S")
    member, state = domain.state.add_member("60", "1"), domain.state

    def take() -> object:
        match operation:
            case "redeem":
                return state.redeem(["S"])
            case "collect":
                return state.collect("S", member)
            case _:
                return state.share("S")

    take()
    domain.issue("K")
    take()
    after = "MARKET_PLACE" if operation == "share" else "REDEEMED"
    assert domain.statuses("K") == [after, after]
    assert domain.quantities("K") == (2, 0, 2)
    refusal = "VOUCHER_REDEEMED_INVALID" if operation == "share" else "VOUCHER_REDEEMED"
    assert domain.refusal(take) == refusal
    assert len(member.vouchers) == (2 if operation == "collect" else 0)


@pytest.mark.parametrize(
    ("options", "refusal"),
    [
        ({"quantity": 0}, "VOUCHER_BATCH_NOT_ENOUGH_QUANTITY"),
        (
            {"quantity": 1, "status": BatchStatus("PROCESSING")},
            "DOES_NOT_ALLOW_MULTIPLE_BATCH_PROCESSING",
        ),
    ],
)
def test_static_code_without_stock(domain: Domain, options: dict[str, Any], refusal: str) -> None:
    """Nothing is taken from a static batch that has nothing, or is still being made."""
    domain.add("K", static_code="S", **options)
    member, state = domain.state.add_member("60", "1"), domain.state
    for call in (
        lambda: domain.issue("K"),
        lambda: state.redeem(["S"]),
        lambda: state.collect("S", member),
        lambda: state.share("S"),
    ):
        assert domain.refusal(call) == refusal


@pytest.mark.parametrize(
    ("operation", "refusal"),
    [
        ("void", "VOUCHER_NOT_ALLOW_VOID"),
        ("reinstate", "VOUCHER_NOT_REDEEMED"),
        ("expire", "VOUCHER_REDEEMED_INVALID"),
    ],
)
def test_static_code_of_no_voucher(domain: Domain, operation: str, refusal: str) -> None:
    """What takes no voucher from the stock is refused where none was issued."""
    domain.add("K", 1, static_code="S")
    assert domain.refusal(lambda: getattr(domain.state, operation)("S")) == refusal
    assert domain.status("S") == "VALID"


def test_static_code_at_its_date(domain: Domain) -> None:
    """A static batch's vouchers expire at its date, and so does what is left of it."""
    domain.add("K", 2, static_code="S", expiry=fixed(domain.time.now + DAY_S))
    domain.time.now += DAY_S
    assert domain.status("S") == "EXPIRED"
    assert domain.refusal(lambda: domain.state.redeem(["S"])) == "VOUCHER_REDEEMED_INVALID"
    assert domain.refusal(lambda: domain.state.share("S")) == "VOUCHER_REDEEMED_INVALID"


def test_static_code_passes_over_the_expired(domain: Domain) -> None:
    """An expired voucher of a static batch does not stand in the way of the next."""
    domain.add("K", 2, static_code="S", expiry=dynamic(1))
    domain.state.redeem(["S"])
    domain.time.now += DAY_S
    assert domain.status("S") == "EXPIRED"
    domain.issue("K")
    assert domain.status("S") == "ISSUED"
    domain.state.void("S")
    assert domain.statuses("K") == ["EXPIRED", "VOID"]


def test_member_has_their_own_of_a_static_code(domain: Domain) -> None:
    """Of vouchers with a static code a member has their own, before all one that can be used."""
    domain.add("K", 4, static_code="S")
    ann, ben, cai = (domain.state.add_member("60", number) for number in "123")
    anns = [domain.state.collect("S", ann), domain.state.collect("S", ann)]
    bens = domain.state.collect("S", ben)
    state = domain.state
    assert state.member_voucher(ann, "S") is anns[0]
    assert state.member_redeem(ben, "S") is bens
    assert state.member_redeem(ann, "S") is anns[0]
    assert state.member_voucher(ann, "S") is anns[1]
    assert state.member_redeem(ann, "S") is anns[1]
    assert domain.statuses("K") == ["VOID"] * 3
    assert state.member_voucher(ann, "S") is anns[0]
    assert domain.refusal(lambda: state.member_redeem(ann, "S")) == "VOUCHER_REDEEMED_INVALID"
    assert domain.refusal(lambda: state.member_voucher(cai, "S")) == "VOUCHER_OWNER_INVALID"


@pytest.mark.parametrize("size", [1, 2, 3, 10])
def test_pages(domain: Domain, size: int) -> None:
    """A listing is read in pages from any place on; beyond its end there is nothing."""
    domain.add("K", 5)
    codes = [domain.issue("K") for _ in range(5)]
    for start in range(7):
        page = domain.state.page("K", start, size=size)
        assert [wire["code"] for wire in page] == codes[start : start + size]


def test_options_have_their_types() -> None:
    """What `Emulator.add_batch` passes on is typed whole."""
    taken = inspect.signature(Stock.add_batch).parameters.keys()
    assert taken - {"self", "label", "quantity"} == BatchOptions.__annotations__.keys()


def test_negative_amounts_are_refused():
    emulator = Emulator(public_key=PUBLIC_KEY_FILE.read_bytes())
    with pytest.raises(ValueError, match="negative"):
        emulator.add_batch("x", quantity=1, amount_sen=-1)
