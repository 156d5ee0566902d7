"""The emulator's domain, driven at random against a second, simple one: see `tests/model.py`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    initialize,
    invariant,
    multiple,
    rule,
)
from support.emulated_domain import DAY_S, Domain, dynamic, fixed
from support.model_server import EXPIRED, LATER, VOID, Group, Model, RefusedByModelError

from rm_voucher.emulator import Guesses
from rm_voucher.emulator.stock import RefusedError
from rm_voucher.models import VoucherStatus

PHONES = ("1", "2")
UPLOADED = {"self": ["A", "B", "C", "D"], "self dated": ["X", "Y", "Z"]}
STATIC = {"static": "S", "static dated": "T"}
KEYS = ("made", "made dated", *UPLOADED, *STATIC)
GUESSES = st.builds(
    Guesses,
    lists_valid=st.booleans(),
    used_from=st.sampled_from([VoucherStatus.ISSUED, VoucherStatus.REDEEMED, VoucherStatus.VOID]),
    redeems_valid=st.booleans(),
    void_needs_redeem=st.booleans(),
    redeem_is_atomic=st.booleans(),
    max_redeem_codes=st.sampled_from([2, 100]),
    member_redeem_to=st.sampled_from([VoucherStatus.VOID, VoucherStatus.REDEEMED]),
)


class Reader:
    """Someone who reads a listing page by page, while it grows."""

    def __init__(self, key: str, size: int, before: list[str]) -> None:
        self.key = key
        self.size = size
        self.before = before
        self.read: list[str] = []


class VoucherMachine(RuleBasedStateMachine):
    """Does the same to the emulator's domain and to the model, and compares."""

    codes = Bundle("codes")
    readers = Bundle("readers")

    @initialize(guesses=GUESSES, target=codes)
    def begin(self, guesses: Guesses) -> Any:
        self.domain = Domain(guesses)
        start = self.domain.time.now
        self.model = Model(start, guesses)
        for key, quantity, days, date_days in (
            ("made", 5, 2, None), ("made dated", 3, None, 4), ("self", 4, 1, None),
            ("self dated", 3, None, 3), ("static", 4, 1, None), ("static dated", 3, None, 2),
        ):  # fmt: skip
            date = None if date_days is None else start + date_days * DAY_S
            options = {"codes": UPLOADED.get(key), "static_code": STATIC.get(key)}
            expiry = fixed(date) if date else dynamic(days or 0)
            self.domain.add(key, quantity, expiry=expiry, **options)
            group = Group(key, quantity, days, date, STATIC.get(key))
            self.model.add(group, UPLOADED.get(key, []))
        self.members = {phone: self.domain.state.add_member("60", phone) for phone in PHONES}
        self.void_before: Counter[str] = Counter()
        self.listed_before: dict[str, list[str]] = {}
        return multiple(*"ABCDXYZST", "none")

    def do(self, real: Callable[[], object], simple: Callable[[], object]) -> object:
        """Do the same to both; return what the emulator returned, or None if both refused."""
        before, expected = self.seen(), None
        told = len(self.domain.told)
        try:
            simple()
        except RefusedByModelError as exc:
            expected = str(exc)
        try:
            result = real()
        except RefusedError as exc:
            assert exc.code == expected
            # A bulk redeem that is not atomic is the one refusal that may change something.
            if len(self.domain.told) == told:
                assert self.seen() == before
            return None
        assert expected is None
        return result

    def seen(self) -> list[Any]:
        owned = [[self.domain.state.wire(one) for one in m.vouchers] for m in self.members.values()]
        return [self.domain.seen(), owned]

    @rule(key=st.sampled_from(KEYS), target=codes)
    def issue(self, key: str) -> Any:
        found: list[str | None] = []
        code = self.do(lambda: self.domain.issue(key), lambda: found.append(self.model.issue(key)))
        if code is None:
            return multiple()
        if found == [None]:  # the emulator made it up: it must be new
            taken = [one.code for group in self.model.groups.values() for one in group.vouchers]
            assert code not in taken
            self.model.groups[key].gone[-1].code = str(code)
            return code
        assert found == [code]
        return multiple()

    @rule(codes=st.lists(codes, max_size=4))
    def redeem(self, codes: list[str]) -> None:
        told = len(self.domain.told)
        expired = {code for code in codes if self.is_expired(code)}
        self.do(lambda: self.domain.state.redeem(codes), lambda: self.model.redeem(codes))
        now_redeemed = [code for code, _ in self.domain.told[told:]]
        assert not expired & set(now_redeemed)
        assert now_redeemed == codes[: len(now_redeemed)]
        if self.domain.guesses.redeem_is_atomic:
            assert len(now_redeemed) in (0, len(codes))

    def is_expired(self, code: str) -> bool:
        return code not in ("none", *STATIC.values()) and self.domain.status(code) == EXPIRED

    @rule(code=codes, phone=st.sampled_from(PHONES))
    def collect(self, code: str, phone: str) -> None:
        self.do(
            lambda: self.domain.state.collect(code, self.members[phone]),
            lambda: self.model.collect(code, phone),
        )

    @rule(code=codes, phone=st.sampled_from(PHONES))
    def member_redeem(self, code: str, phone: str) -> None:
        self.do(
            lambda: self.domain.state.member_redeem(self.members[phone], code),
            lambda: self.model.member_redeem(code, phone),
        )

    @rule(code=codes, phone=st.sampled_from(PHONES))
    def collect_and_use(self, code: str, phone: str) -> None:
        self.collect(code, phone)
        self.member_redeem(code, phone)

    @rule(code=codes)
    def void(self, code: str) -> None:
        self.do(lambda: self.domain.state.void(code), lambda: self.model.void(code))

    @rule(code=codes)
    def reinstate(self, code: str) -> None:
        done = self.do(
            lambda: self.domain.state.reinstate(code), lambda: self.model.reinstate(code)
        )
        if done:
            self.void_before[code] -= 1

    @rule(code=codes)
    def share(self, code: str) -> None:
        self.do(lambda: self.domain.state.share(code), lambda: self.model.share(code))

    @rule(code=codes)
    def expire(self, code: str) -> None:
        self.do(lambda: self.domain.state.expire(code), lambda: self.model.expire(code))

    @rule(seconds=st.sampled_from([0.5, 3600.0, DAY_S / 2, DAY_S - 0.5, DAY_S]))
    def advance(self, seconds: float) -> None:
        self.domain.time.now += seconds
        self.model.now += seconds

    @rule(key=st.sampled_from(KEYS), delay_s=st.sampled_from([0.25, 0.5, 3600.0, 3 * DAY_S]))
    def list_delayed(self, key: str, delay_s: float) -> None:
        listing = self.domain.listing(key, delay_s=delay_s)
        assert [(wire["code"], wire["status"]) for wire in listing] == self.model.listing(
            self.model.groups[key], delay_s
        )

    @rule(key=st.sampled_from(KEYS), size=st.integers(1, 3), target=readers)
    def begin_to_read(self, key: str, size: int) -> Reader:
        return Reader(key, size, self.listed(key))

    @rule(reader=readers)
    def read_on(self, reader: Reader) -> None:
        page = self.domain.state.page(reader.key, len(reader.read), size=reader.size)
        reader.read += [wire["code"] for wire in page]

    @rule(reader=consumes(readers))
    def read_to_the_end(self, reader: Reader) -> None:
        """All that was listed when the reading began is there once, in that order, first."""
        length = -1
        while length < len(reader.read):
            length = len(reader.read)
            self.read_on(reader)
        assert reader.read[: len(reader.before)] == reader.before
        assert reader.read == self.listed(reader.key)

    def listed(self, key: str) -> list[str]:
        return [wire["code"] for wire in self.domain.listing(key)]

    @invariant()
    def quantities_add_up(self) -> None:
        for key, group in self.model.groups.items():
            quantity, balance, used = self.domain.quantities(key)
            assert quantity == balance + used == group.quantity
            assert used == self.model.used(group)
            assert balance >= 0
            assert self.domain.state.stock.batch(key).issued == len(group.gone)

    @invariant()
    def listings_are_the_models(self) -> None:
        for key, group in self.model.groups.items():
            listing = [(wire["code"], wire["status"]) for wire in self.domain.listing(key)]
            assert listing == self.model.listing(group)
            listed = [code for code, _ in listing]
            before = self.listed_before.get(key, [])
            assert listed[: len(before)] == before
            self.listed_before[key] = listed

    @invariant()
    def vouchers_are_the_models(self) -> None:
        for group in self.model.groups.values():
            codes = {group.static} if group.static else {one.code for one in group.vouchers}
            for code in codes:
                shown = self.domain.status(code)
                assert shown == self.model.status(self.model.find(code, "ISSUED", "REDEEMED"))
        for phone, member in self.members.items():
            owned = self.model.owned.get(phone, [])
            assert [one.code for one in member.vouchers] == [one.code for one in owned]

    @invariant()
    def no_code_is_given_twice(self) -> None:
        given = Counter(code for key in KEYS for code in self.domain.state.issued(key))
        assert {code for code, count in given.items() if count > 1} <= set(STATIC.values())

    @invariant()
    def void_is_left_by_reinstating_only(self) -> None:
        void = Counter(
            wire["code"]
            for key in KEYS
            for wire in self.domain.listing(key)
            if wire["status"] == VOID
        )
        assert all(void[code] >= count for code, count in self.void_before.items())
        self.void_before = void


VoucherMachine.TestCase.settings = settings(
    max_examples=int(os.environ.get("MACHINE_EXAMPLES", "25")),
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestVoucherMachine = VoucherMachine.TestCase
TestVoucherMachine.__doc__ = (
    """Whatever is done in whatever order, the emulator does as the model."""
)


def test_the_batches_are_the_models() -> None:
    """The model knows which batches make their vouchers when they are issued."""
    assert set(KEYS) - set(UPLOADED) == LATER
