"""The emulator's domain, rule by rule. The table is written from RM's pages and `docs/api.md`."""

from __future__ import annotations

import functools

import pytest
from support.doubles import FakeTime
from support.emulated_domain import Domain, at

from rm_voucher.emulator import Guesses
from rm_voucher.emulator.stock import RefusedError
from rm_voucher.models import BatchStatus, VoucherStatus

ME = ("60", "123456789")


@pytest.fixture
def domain(time: FakeTime) -> Domain:
    return Domain(time=time)


# How a voucher of a batch of one, with the uploaded code U, comes to where it stands.
WAYS = {
    "VALID": (),
    "ISSUED": ("issue",),
    "REDEEMED": ("issue", "redeem"),
    "REDEEMED, a member's": ("issue", "collect"),
    "VOID": ("issue", "void"),
    "VOID, a member's": ("issue", "collect", "void"),
    "EXPIRED, never issued": ("expire",),
    "EXPIRED, never redeemed": ("issue", "expire"),
    "EXPIRED, redeemed": ("issue", "redeem", "expire"),
    "EXPIRED, a member's": ("issue", "collect", "expire"),
    "MARKET_PLACE": ("issue", "share"),
}


def do(domain: Domain, operation: str) -> str:
    """Do one operation to the voucher U or, to issue it, to its batch."""
    state = domain.state
    match operation:
        case "issue":
            return domain.outcome(lambda: state.get(state.issue("K")[0]))
        case "redeem":
            return domain.outcome(lambda: state.redeem(["U"])[0])
        case "collect":
            return domain.outcome(lambda: state.collect("U", state.member(*ME)))
        case "member_redeem":
            return domain.outcome(lambda: state.member_redeem(state.member(*ME), "U"))
        case _:
            return domain.outcome(lambda: getattr(state, operation)("U"))


ALREADY = "VOUCHER_REDEEMED"
CANT = "VOUCHER_REDEEMED_INVALID"
NO_VOID = "VOUCHER_NOT_ALLOW_VOID"
NOT_YET = "VOUCHER_NOT_REDEEMED"
NOT_THEIRS = "VOUCHER_OWNER_INVALID"
NO_MORE = "VOUCHER_BATCH_NOT_ENOUGH_QUANTITY"
OPERATIONS = (
    "issue", "void", "redeem", "collect", "reinstate", "share", "expire", "member_redeem",
)  # fmt: skip
# Each operation's outcome: the status afterwards, or the code of the refusal.
TABLE = {
    "VALID": (
        "ISSUED", NO_VOID, "REDEEMED", "REDEEMED", NOT_YET, "MARKET_PLACE", "EXPIRED", NOT_THEIRS,
    ),
    "ISSUED": (
        NO_MORE, "VOID", "REDEEMED", "REDEEMED", NOT_YET, "MARKET_PLACE", "EXPIRED", NOT_THEIRS,
    ),
    "REDEEMED": (NO_MORE, "VOID", ALREADY, ALREADY, ALREADY, CANT, "EXPIRED", NOT_THEIRS),
    "REDEEMED, a member's": (NO_MORE, "VOID", ALREADY, ALREADY, ALREADY, CANT, "EXPIRED", "VOID"),
    "VOID": (NO_MORE, NO_VOID, ALREADY, ALREADY, "REDEEMED", CANT, CANT, NOT_THEIRS),
    "VOID, a member's": (NO_MORE, NO_VOID, ALREADY, ALREADY, "REDEEMED", CANT, CANT, CANT),
    "EXPIRED, never issued": (NO_MORE, NO_VOID, CANT, CANT, NOT_YET, CANT, CANT, NOT_THEIRS),
    "EXPIRED, never redeemed": (NO_MORE, NO_VOID, CANT, CANT, NOT_YET, CANT, CANT, NOT_THEIRS),
    "EXPIRED, redeemed": (NO_MORE, NO_VOID, CANT, CANT, ALREADY, CANT, CANT, NOT_THEIRS),
    "EXPIRED, a member's": (NO_MORE, NO_VOID, CANT, CANT, ALREADY, CANT, CANT, CANT),
    "MARKET_PLACE": (NO_MORE, NO_VOID, CANT, CANT, NOT_YET, CANT, CANT, NOT_THEIRS),
}  # fmt: skip
ROWS = [
    (before, operation, after)
    for before, outcomes in TABLE.items()
    for operation, after in zip(OPERATIONS, outcomes, strict=True)
]


@pytest.mark.parametrize(("before", "operation", "after"), ROWS)
def test_what_may_happen(domain: Domain, before: str, operation: str, after: str) -> None:
    """Each operation on a voucher in each status ends in the table's status or refusal; whoever is
    told of changes is told of this one, once; a refusal changes nothing."""
    domain.add("K", codes=["U"])
    member = domain.state.add_member(*ME)
    for step in WAYS[before]:
        do(domain, step)
    assert domain.status("U") == before.split(",")[0]
    domain.time.now += 60
    domain.told.clear()
    seen, theirs = domain.seen("U"), list(member.vouchers)
    assert do(domain, operation) == after
    if after in VoucherStatus.__members__:
        assert domain.status("U") == after
        assert domain.told == ([] if after == "EXPIRED" else [("U", after)])
        assert domain.wire("U")["updatedAt"] == "2023-11-14T22:14:20Z"
    else:
        assert domain.seen("U") == seen
        assert member.vouchers == theirs


def test_times_of_a_life(domain: Domain) -> None:
    """Each change sets its own time and `updatedAt`, and no other; what did not happen shows Go's
    zero time. `createdAt` is the batch's."""
    zero = "0001-01-01T00:00:00Z"
    domain.add("K", codes=["U"])
    times = ("createdAt", "assignedAt", "redeemedAt", "usedAt", "updatedAt")
    lives = []
    for step in (None, "issue", "redeem", "void", "reinstate", "void"):
        if step:
            domain.time.now += 1
            do(domain, step)
        lives.append(tuple(domain.wire("U")[name] for name in times))
    made, issued, redeemed, used, back, again = (f"2023-11-14T22:13:2{n}Z" for n in range(6))
    assert lives == [
        (made, zero, zero, zero, made),
        (made, issued, zero, zero, issued),
        (made, issued, redeemed, zero, redeemed),
        (made, issued, redeemed, used, used),
        (made, issued, redeemed, used, back),  # reinstating keeps usedAt, as in RM's example
        (made, issued, redeemed, again, again),
    ]
    assert domain.batch("K")["createdAt"] == made
    assert domain.batch("K")["updatedAt"] == issued


def test_used_at_that_is_given(domain: Domain) -> None:
    """A void's own `usedAt` is kept, to the microsecond; `updatedAt` is the server's time."""
    domain.add("K", codes=["U"])
    domain.issue("K")
    domain.state.void("U", used_at=at(1_600_000_000.25))
    wire = domain.wire("U")
    assert wire["usedAt"] == "2020-09-13T12:26:40.250000Z"
    assert wire["updatedAt"] == "2023-11-14T22:13:20Z"


@pytest.mark.parametrize(
    ("has_stores", "store_id", "after"),
    [
        (True, None, "VOID"),
        (True, "mine", "VOID"),
        (True, "other", "CLIENT_NOT_AUTHORIZE_STORE"),
        (True, "none", "STORE_NOT_FOUND"),
        (True, "", "STORE_ID_INVALID"),
        (True, " ", "STORE_ID_INVALID"),
        (False, "any", "VOID"),
        (False, "", "STORE_ID_INVALID"),
    ],
)
def test_store_of_a_void(
    domain: Domain, has_stores: bool, store_id: str | None, after: str
) -> None:
    """A void's store is a known and authorised one; where none is known, it is any text."""
    domain.add("K", codes=["U"])
    domain.issue("K")
    if has_stores:
        domain.state.add_store("mine")
        domain.state.add_store("other", is_authorised=False)
    assert domain.outcome(lambda: domain.state.void("U", store_id=store_id)) == after
    assert domain.status("U") == ("VOID" if after == "VOID" else "ISSUED")


def test_store_is_checked_first(domain: Domain) -> None:
    """A store that is refused says nothing of whether there is such a voucher."""
    assert domain.outcome(lambda: domain.state.void("none", store_id="")) == "STORE_ID_INVALID"


def bulk(domain: Domain) -> None:
    domain.add("K", codes=["A", "B", "C"])
    domain.issue("K")
    domain.issue("K")


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        (["A", "none", "B"], "VOUCHER_NOT_FOUND"),
        (["A", "B", "A"], "VOUCHER_REDEEMED"),
        (["C", "B", "B"], "VOUCHER_REDEEMED"),
        (["A", "theirs"], "VOUCHER_NOT_MERCHANT"),
        ([], "INVALID_PARAMETER"),
        (["A"] + ["x"] * 100, "INVALID_PARAMETER"),
    ],
)
def test_bulk_redeem_of_all_or_none(domain: Domain, codes: list[str], code: str) -> None:
    """A bulk redeem that is refused for one code, or for their number, has redeemed none."""
    bulk(domain)
    domain.add("other", codes=["theirs"], is_ours=False)
    assert domain.refusal(lambda: domain.state.redeem(codes)) == code


def test_bulk_redeem(domain: Domain) -> None:
    """A bulk redeem answers in the order of its codes, and takes as many as allowed."""
    domain.add("K", codes=[f"c{number}" for number in range(101)])
    codes = [f"c{number}" for number in range(100, 0, -1)]
    records = domain.state.redeem(codes)
    assert [record.code for record in records] == codes
    assert [domain.status(code) for code in (*codes, "c0")] == ["REDEEMED"] * 100 + ["VALID"]


@pytest.mark.parametrize(
    ("codes", "code", "redeemed"),
    [
        (["A", "none", "B"], "VOUCHER_NOT_FOUND", "A"),
        (["B", "C", "B", "A"], "VOUCHER_REDEEMED", "BC"),
        (["none", "A"], "VOUCHER_NOT_FOUND", ""),
    ],
)
def test_bulk_redeem_in_part(time: FakeTime, codes: list[str], code: str, redeemed: str) -> None:
    """Where a bulk redeem is not atomic, the codes before the one that is refused are redeemed."""
    domain = Domain(Guesses(redeem_is_atomic=False), time)
    bulk(domain)
    with pytest.raises(RefusedError, match=f"^{code}$"):
        domain.state.redeem(codes)
    assert "".join(one for one in "ABC" if domain.status(one) == "REDEEMED") == redeemed


def test_refusal_has_a_sentence() -> None:
    """A refusal has a sentence: the one given, else one made of its code."""
    assert RefusedError("PIN_INVALID").message == "Pin invalid"
    assert RefusedError("PIN_INVALID", "It is wrong").message == "It is wrong"


@pytest.mark.parametrize(
    "operation", ["get", "void", "reinstate", "share", "expire", "redeem", "collect", "member"]
)
@pytest.mark.parametrize(
    ("code", "refusal"),
    [
        ("none", "VOUCHER_NOT_FOUND"),
        ("", "VOUCHER_NOT_FOUND"),
        ("theirs", "VOUCHER_NOT_MERCHANT"),
        ("their static", "VOUCHER_NOT_MERCHANT"),
    ],
)
def test_vouchers_that_are_not_ours(
    domain: Domain, operation: str, code: str, refusal: str
) -> None:
    """No operation touches a voucher that does not exist, or is another merchant's."""
    domain.add("other", codes=["theirs"], is_ours=False)
    domain.add("other static", 1, static_code="their static", is_ours=False)
    member, state = domain.state.add_member(*ME), domain.state
    call = {
        "redeem": lambda: state.redeem([code]),
        "collect": lambda: state.collect(code, member),
        "member": lambda: state.member_redeem(member, code),
    }.get(operation, lambda: getattr(state, operation)(code))
    assert domain.refusal(call) == refusal
    assert member.vouchers == []


@pytest.mark.parametrize(
    ("key", "refusal"),
    [
        ("none", "VOUCHER_BATCH_NOT_FOUND"),
        ("-_=", "VOUCHER_BATCH_NOT_FOUND"),
        ("theirs", "VOUCHER_BATCH_NOT_FOUND"),
        ("a/b", "VOUCHER_BATCH_KEY_INVALID"),
        ("é", "VOUCHER_BATCH_KEY_INVALID"),
    ],
)
def test_batches_that_are_not_ours(domain: Domain, key: str, refusal: str) -> None:
    """A batch that does not exist and another merchant's look the same; a key that is not base64
    is told apart."""
    domain.add("theirs", 1, is_ours=False)
    for call in (
        lambda: domain.issue(key),
        lambda: domain.listing(key),
        lambda: domain.batch(key),
        lambda: domain.state.issued(key),
    ):
        assert domain.refusal(call) == refusal
    assert domain.batch_keys() == []


def test_batch_with_any_key_is_found(domain: Domain) -> None:
    """A key that was given to a batch is good whatever its letters."""
    domain.add("Raya 2024", 1)
    assert domain.status(domain.issue("Raya 2024")) == "ISSUED"


def test_members(domain: Domain) -> None:
    """A member is known by country code and number, and is this merchant's."""
    mine = domain.state.add_member(*ME, name="M")
    domain.state.add_member("60", "2", is_ours=False)
    assert domain.state.member(*ME) is mine
    assert domain.refusal(lambda: domain.state.member("65", ME[1])) == "MEMBER_NOT_FOUND"
    assert domain.refusal(lambda: domain.state.member("60", "2")) == "MEMBER_NOT_MERCHANT"


def test_member_has_what_they_collected(domain: Domain) -> None:
    """A collected voucher shows its member, who alone can use it; it stays theirs."""
    domain.add("K", codes=["A", "B"])
    ann, ben = (domain.state.add_member("60", number, name=number) for number in "12")
    domain.state.collect("B", ann)
    domain.state.collect("A", ann)
    assert [record.code for record in ann.vouchers] == ["B", "A"]
    profile = domain.wire("A")["memberProfile"]
    assert (profile["name"], profile["countryCode"], profile["phoneNumber"]) == ("1", "60", "1")
    assert domain.state.member_voucher(ann, "A").code == "A"
    for call in (domain.state.member_voucher, domain.state.member_redeem):
        assert domain.refusal(functools.partial(call, ben, "A")) == NOT_THEIRS
    domain.time.now += 60
    domain.state.member_redeem(ann, "A")
    assert domain.wire("A")["usedAt"] == "2023-11-14T22:14:20Z"
    domain.state.reinstate("A")
    assert domain.state.member_voucher(ann, "A").member is ann


def test_batch_still_being_made(domain: Domain) -> None:
    """Nothing leaves the stock of a batch that is still being made."""
    domain.add("K", codes=["U"], status=BatchStatus("PROCESSING"))
    member = domain.state.add_member(*ME)
    for call in (
        lambda: domain.issue("K"),
        lambda: domain.state.redeem(["U"]),
        lambda: domain.state.collect("U", member),
        lambda: domain.state.share("U"),
    ):
        assert domain.refusal(call) == "DOES_NOT_ALLOW_MULTIPLE_BATCH_PROCESSING"
    assert (domain.batch("K")["status"], domain.status("U")) == ("PROCESSING", "VALID")


def test_shared_vouchers(domain: Domain) -> None:
    """A shared voucher has left the stock, at the marketplace, and says so."""
    domain.add("K", codes=["A", "B"])
    assert domain.wire("A")["isMarketPlace"] is False
    domain.state.share("A")
    wire = domain.wire("A")
    assert (wire["isMarketPlace"], wire["assignedAt"]) == (True, "0001-01-01T00:00:00Z")
    assert (domain.quantities("K"), domain.issue("K")) == ((2, 1, 1), "B")


def test_qr_url(domain: Domain) -> None:
    """The answer to an issue and the voucher itself show the same QR URL."""
    domain.add("K", codes=["U"])
    assert domain.state.issue("K") == ("U", "https://qr.invalid/1/voucher/U")
    assert domain.wire("U")["qrUrl"] == "https://qr.invalid/1/voucher/U"


@pytest.mark.parametrize(
    "number", [("+60", "1"), ("60", ""), ("", "1"), ("60", "abc"), ("6 0", "1")]
)
def test_member_whom_no_client_could_name(domain: Domain, number: tuple[str, str]) -> None:
    """A member has a country code and a phone number of digits."""
    with pytest.raises(ValueError, match="digits"):
        domain.state.add_member(*number)
