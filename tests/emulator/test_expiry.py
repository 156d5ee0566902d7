"""When vouchers and batches of the emulator expire: to the instant, by a date or by days."""

from __future__ import annotations

import attrs
import pytest
from support.doubles import FakeTime
from support.emulated_domain import DAY_S, Domain, dynamic, fixed

from rm_voucher.models import Expiry, ExpiryType


@pytest.fixture
def domain(time: FakeTime) -> Domain:
    return Domain(time=time)


def come_to(domain: Domain, status: str) -> None:
    """Bring the voucher U of the batch K to a status."""
    if status != "VALID":
        domain.issue("K")
    if status == "REDEEMED":
        domain.state.redeem(["U"])
    if status == "VOID":
        domain.state.void("U")
    if status == "MARKET_PLACE":
        domain.state.share("U")


AROUND = [(-DAY_S, False), (-0.001, False), (0.0, True), (DAY_S, True)]


@pytest.mark.parametrize(("after_s", "is_expired"), AROUND)
@pytest.mark.parametrize("way", ["VALID", "ISSUED", "REDEEMED", "VOID", "MARKET_PLACE"])
def test_fixed_expiry(domain: Domain, way: str, after_s: float, is_expired: bool) -> None:
    """What is VALID, ISSUED or REDEEMED expires at a FIXED date, to the instant, and its
    `updatedAt` is that; what is used up or gone does not."""
    start = domain.time.now
    domain.add("K", codes=["U"], expiry=fixed(start + 5 * DAY_S))
    come_to(domain, way)
    domain.time.now = start + 5 * DAY_S + after_s
    expires = is_expired and way not in ("VOID", "MARKET_PLACE")
    assert domain.status("U") == ("EXPIRED" if expires else way)
    assert domain.statuses("K") == [domain.status("U")]
    wire = domain.wire("U")
    assert wire["expiry"] == {"type": "FIXED", "expiredAt": "2023-11-19T22:13:20Z"}
    assert wire["updatedAt"] == ("2023-11-19T22:13:20Z" if expires else "2023-11-14T22:13:20Z")


@pytest.mark.parametrize(("after_s", "is_expired"), AROUND)
@pytest.mark.parametrize("key", ["uploaded", "made later"])
def test_fixed_expiry_of_the_batch(
    domain: Domain, key: str, after_s: float, is_expired: bool
) -> None:
    """From its FIXED date on a batch issues nothing."""
    start = domain.time.now
    domain.add("uploaded", codes=["U"], expiry=fixed(start + 5 * DAY_S))
    domain.add("made later", 1, expiry=fixed(start + 5 * DAY_S))
    domain.time.now = start + 5 * DAY_S + after_s
    if is_expired:
        assert domain.refusal(lambda: domain.issue(key)) == "VOUCHER_BATCH_EXPIRED"
    else:
        assert domain.status(domain.issue(key)) == "ISSUED"


@pytest.mark.parametrize(("after_s", "is_expired"), AROUND)
@pytest.mark.parametrize("operation", ["redeem", "collect"])
def test_dynamic_expiry(domain: Domain, operation: str, after_s: float, is_expired: bool) -> None:
    """A DYNAMIC voucher lives its days from the redemption on, to the instant."""
    domain.add("K", codes=["U"], expiry=dynamic(5))
    domain.issue("K")
    domain.time.now += 100 * DAY_S
    assert domain.wire("U")["expiry"] == {
        "type": "DYNAMIC", "day": 5, "expiredAt": "2050-12-31T23:59:59Z",
    }  # fmt: skip
    if operation == "redeem":
        domain.state.redeem(["U"])
    else:
        domain.state.collect("U", domain.state.add_member("60", "1"))
    redeemed_at = domain.time.now
    domain.time.now = redeemed_at + 5 * DAY_S + after_s
    assert domain.status("U") == ("EXPIRED" if is_expired else "REDEEMED")
    wire = domain.wire("U")
    assert wire["redeemedAt"] == "2024-02-22T22:13:20Z"
    assert wire["expiry"]["expiredAt"] == "2024-02-27T22:13:20Z"
    assert wire["updatedAt"] == (wire["expiry"]["expiredAt"] if is_expired else wire["redeemedAt"])


def test_dynamic_vouchers_wait_for_ever(domain: Domain) -> None:
    """A DYNAMIC voucher that is not redeemed does not expire, and its batch does not."""
    domain.add("K", 2, expiry=dynamic(1))
    code = domain.issue("K")
    domain.time.now += 1_000 * DAY_S
    assert [domain.status(code), domain.status(domain.issue("K"))] == ["ISSUED", "ISSUED"]


FIX = attrs.evolve(fixed(0.0), type=ExpiryType("FIX"))


@pytest.mark.parametrize(
    "expiry", [fixed(0.0), FIX, dynamic(1)], ids=lambda expiry: str(expiry.type)
)
def test_expiry_without_a_figure(domain: Domain, expiry: Expiry) -> None:
    """An expiry at a date has one, a DYNAMIC one has days; no type is there but RM's."""
    with pytest.raises(ValueError, match="expiry has"):
        domain.add("K", 1, expiry=attrs.evolve(expiry, days=None, expires_at=None))
    with pytest.raises(ValueError, match="FIXED, FIX, DYNAMIC or PERMANENT"):
        domain.add("K", 1, expiry=attrs.evolve(expiry, type=ExpiryType("NEVER")))


def test_fix_is_fixed_by_another_name(domain: Domain) -> None:
    """A FIX expiry ends at its date, and is written as it was given."""
    ends_at = domain.time.now + DAY_S
    domain.add("K", 1, expiry=attrs.evolve(fixed(ends_at), type=ExpiryType("FIX")))
    code = domain.issue("K")
    assert domain.wire(code)["expiry"] == {"type": "FIX", "expiredAt": "2023-11-15T22:13:20Z"}
    domain.time.now = ends_at
    assert domain.status(code) == "EXPIRED"


@pytest.mark.parametrize("days", [None, 1])
def test_permanent_never_ends(domain: Domain, days: int | None) -> None:
    """A PERMANENT voucher stays as it is, redeemed or not, and so does its batch."""
    domain.add("K", 2, expiry=Expiry(type=ExpiryType("PERMANENT"), days=days))
    code = domain.issue("K")
    domain.state.redeem([code])
    domain.time.now += 100_000 * DAY_S
    assert (domain.status(code), domain.status(domain.issue("K"))) == ("REDEEMED", "ISSUED")
    assert domain.wire(code)["expiry"]["type"] == "PERMANENT"
    assert domain.wire(code)["expiry"]["expiredAt"] == "2050-12-31T23:59:59Z"


def test_expiry_beyond_the_calendar(domain: Domain) -> None:
    """An expiry that no date can name is shown as the last one there is."""
    domain.add("K", codes=["U"], expiry=dynamic(10**9))
    domain.state.redeem(["U"])
    assert domain.wire("U")["expiry"]["expiredAt"] == "9999-12-31T23:59:59Z"


def test_reinstated_too_late(domain: Domain) -> None:
    """A voucher whose days are over when it is reinstated has expired."""
    domain.add("K", codes=["U"], expiry=dynamic(1))
    domain.state.redeem(["U"])
    domain.state.void("U")
    domain.time.now += DAY_S
    assert domain.status("U") == "VOID"
    assert domain.outcome(lambda: domain.state.reinstate("U")) == "EXPIRED"
    assert domain.refusal(lambda: domain.state.void("U")) == "VOUCHER_NOT_ALLOW_VOID"


def test_expire_is_now(domain: Domain) -> None:
    """Letting a voucher expire sets its expiry to now, and touches no other."""
    domain.add("K", codes=["A", "B"])
    domain.time.now += 60
    domain.state.expire("A")
    assert domain.wire("A")["expiry"]["expiredAt"] == "2023-11-14T22:14:20Z"
    assert (domain.status("B"), domain.status(domain.issue("K"))) == ("VALID", "ISSUED")
    assert domain.quantities("K") == (2, 1, 1)
    assert domain.state.issued("K") == ("B",)


def test_reinstated_after_its_end(domain: Domain) -> None:
    """A voucher that is reinstated after its end has expired at once, and was changed when it was
    reinstated, not at its end."""
    domain.add("K", codes=["U"], expiry=fixed(domain.time.now + DAY_S))
    come_to(domain, "VOID")
    before = domain.wire("U")["updatedAt"]
    domain.time.now += 2 * DAY_S
    domain.state.reinstate("U")
    wire = domain.wire("U")
    assert wire["status"] == "EXPIRED"
    assert wire["updatedAt"] > wire["expiry"]["expiredAt"] > before
