"""A second, simple voucher server, to hold the emulator's against: lists, and no index."""

from __future__ import annotations

import attrs

from rm_voucher.emulator import Guesses
from rm_voucher.models import VoucherStatus

VALID, ISSUED, REDEEMED, VOID, EXPIRED, SHARED = (
    "VALID", "ISSUED", "REDEEMED", "VOID", "EXPIRED", "MARKET_PLACE",
)  # fmt: skip
DAY_S = 86_400.0


class RefusedByModelError(Exception):
    """The model refuses, with the code that the emulator should give."""


@attrs.define(eq=False)
class Group:
    """A batch: DYNAMIC with days, FIXED with a date."""

    key: str
    quantity: int
    days: int | None = None
    date: float | None = None
    static: str | None = None
    vouchers: list[Coupon] = attrs.field(factory=list)
    """All that there are, in the order of being made."""
    gone: list[Coupon] = attrs.field(factory=list)
    """Those that left the stock, in that order."""


@attrs.define(eq=False)
class Coupon:
    """A voucher."""

    group: Group
    code: str
    state: str = VALID
    ends: float | None = None
    left_at: float | None = None
    owner: str | None = None


@attrs.define
class Model:
    """What the emulator should do."""

    now: float
    guesses: Guesses
    groups: dict[str, Group] = attrs.field(factory=dict)
    owned: dict[str, list[Coupon]] = attrs.field(factory=dict)

    def add(self, group: Group, codes: list[str]) -> None:
        group.vouchers = [Coupon(group, code, ends=group.date) for code in codes]
        self.groups[group.key] = group

    def status(self, coupon: Coupon) -> str:
        over = coupon.ends is not None and self.now >= coupon.ends
        return EXPIRED if over and coupon.state in (VALID, ISSUED, REDEEMED) else coupon.state

    def has_stock(self, group: Group) -> None:
        if group.date is not None and self.now >= group.date:
            raise RefusedByModelError("VOUCHER_BATCH_EXPIRED")
        if len(group.gone) >= group.quantity:
            raise RefusedByModelError("VOUCHER_BATCH_NOT_ENOUGH_QUANTITY")

    def find(self, code: str, *wanted: str) -> Coupon:
        """Return the voucher of a code; of a static one the oldest that is as wanted."""
        for group in self.groups.values():
            if group.static == code:
                fits = [one for one in group.gone if self.status(one) in wanted]
                if fits:
                    return fits[0]
                is_empty = len(group.gone) >= group.quantity
                if group.gone and (is_empty or VALID not in wanted):
                    return group.gone[-1]
                return Coupon(group, code, ends=group.date)
            for one in group.vouchers:
                if one.code == code and group.static is None:
                    return one
        raise RefusedByModelError("VOUCHER_NOT_FOUND")

    def leave(self, coupon: Coupon) -> None:
        if coupon not in coupon.group.gone:
            coupon.group.gone.append(coupon)
            coupon.left_at = self.now
        if coupon not in coupon.group.vouchers:
            coupon.group.vouchers.append(coupon)

    def issue(self, key: str) -> str | None:
        """Issue a voucher; return its code, or None where the emulator makes one up."""
        group = self.groups[key]
        self.has_stock(group)
        made_later = all(one in group.gone for one in group.vouchers) and key in LATER
        stock = [one for one in group.vouchers if self.status(one) == VALID]
        if not stock and not made_later:
            raise RefusedByModelError("VOUCHER_BATCH_NOT_ENOUGH_QUANTITY")
        coupon = stock[0] if stock else Coupon(group, group.static or "", ends=group.date)
        coupon.state = ISSUED
        self.leave(coupon)
        return coupon.code or None

    def redeemable(self, code: str) -> Coupon:
        wanted = (ISSUED, VALID) if self.guesses.redeems_valid else (ISSUED,)
        coupon = self.find(code, *wanted)
        status = self.status(coupon)
        if status in (REDEEMED, VOID):
            raise RefusedByModelError("VOUCHER_REDEEMED")
        if status not in wanted:
            raise RefusedByModelError("VOUCHER_REDEEMED_INVALID")
        if status == VALID:
            self.has_stock(coupon.group)
        return coupon

    def to_redeemed(self, coupon: Coupon) -> None:
        self.leave(coupon)
        coupon.state = REDEEMED
        if coupon.group.days is not None:
            coupon.ends = self.now + coupon.group.days * DAY_S

    def redeem(self, codes: list[str]) -> None:
        if not codes or len(codes) > self.guesses.max_redeem_codes:
            raise RefusedByModelError("INVALID_PARAMETER")
        if self.guesses.redeem_is_atomic:
            for index, code in enumerate(codes):
                self.redeemable(code)
                if code in codes[:index]:
                    raise RefusedByModelError("VOUCHER_REDEEMED")
        for code in codes:
            self.to_redeemed(self.redeemable(code))

    def collect(self, code: str, phone: str) -> None:
        coupon = self.redeemable(code)
        self.to_redeemed(coupon)
        coupon.owner = phone
        self.owned.setdefault(phone, []).append(coupon)

    def void(self, code: str) -> None:
        coupon = self.find(code, ISSUED, REDEEMED)
        status = self.status(coupon)
        if self.guesses.void_needs_redeem and status == ISSUED:
            raise RefusedByModelError("VOUCHER_NOT_REDEEMED")
        if status not in (ISSUED, REDEEMED):
            raise RefusedByModelError("VOUCHER_NOT_ALLOW_VOID")
        coupon.state = VOID

    def reinstate(self, code: str) -> None:
        coupon = self.find(code, VOID)
        if coupon.state != VOID:
            redeemed = coupon.state == REDEEMED
            raise RefusedByModelError("VOUCHER_REDEEMED" if redeemed else "VOUCHER_NOT_REDEEMED")
        coupon.state = REDEEMED

    def share(self, code: str) -> None:
        coupon = self.find(code, ISSUED, VALID)
        if self.status(coupon) not in (ISSUED, VALID):
            raise RefusedByModelError("VOUCHER_REDEEMED_INVALID")
        if coupon.state == VALID:
            self.has_stock(coupon.group)
        self.leave(coupon)
        coupon.state = SHARED

    def expire(self, code: str) -> None:
        coupon = self.find(code, ISSUED, REDEEMED)
        can = self.status(coupon) in (VALID, ISSUED, REDEEMED)
        if not can or coupon not in coupon.group.vouchers:
            raise RefusedByModelError("VOUCHER_REDEEMED_INVALID")
        coupon.ends = self.now

    def member_redeem(self, code: str, phone: str) -> None:
        coupon = self.find(code, ISSUED, REDEEMED)
        if coupon.group.static is not None:
            mine = [one for one in self.owned.get(phone, []) if one.code == code]
            usable = [one for one in mine if self.status(one) == REDEEMED]
            coupon = (usable or mine or [coupon])[0]
        if coupon.owner != phone:
            raise RefusedByModelError("VOUCHER_OWNER_INVALID")
        if self.status(coupon) != REDEEMED:
            raise RefusedByModelError("VOUCHER_REDEEMED_INVALID")
        if self.guesses.member_redeem_to is VoucherStatus.VOID:
            coupon.state = VOID

    def used(self, group: Group) -> int:
        """Return how many vouchers of a batch count as used."""
        match self.guesses.used_from:
            case VoucherStatus.VOID:
                return sum(one.state == VOID for one in group.gone)
            case VoucherStatus.REDEEMED:
                return sum(one.state in (VOID, REDEEMED) for one in group.gone)
            case _:
                return len(group.gone)

    def listing(self, group: Group, delay_s: float = 0.0) -> list[tuple[str, str]]:
        """Return codes and statuses as a listing shows them that lags."""
        up_front = group.key not in LATER
        shown = group.vouchers if up_front and self.guesses.lists_valid else group.gone
        found = []
        for one in shown:
            if one.left_at is None or one.left_at <= self.now - delay_s:
                found.append((one.code, self.status(one)))
            elif shown is group.vouchers:
                over = group.date is not None and self.now >= group.date
                found.append((one.code, EXPIRED if over else VALID))
        return found


LATER = {"made", "made dated", "static", "static dated"}
"""The batches whose vouchers come to be when they are issued."""
