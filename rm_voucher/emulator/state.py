"""The domain of RM's voucher server: changes of a voucher, and readings.

Pure: the clock and the random source are passed in, and a refusal is raised as `RefusedError` with
RM's code. `Guesses` has options for what RM does not document. A voucher goes VALID → ISSUED →
REDEEMED → VOID, where redeeming is optional, and VOID → REDEEMED by reinstating only. It is EXPIRED
some days after its redemption (DYNAMIC), at a date (FIXED or FIX) or never (PERMANENT).
"""

from __future__ import annotations

import bisect
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from rm_voucher.emulator.guesses import Guesses
from rm_voucher.emulator.records import (
    ZERO_TIME,
    Batch,
    Member,
    Record,
    Saved,
    batch_wire,
    load_batch,
    load_record,
    save_batch,
    voucher_wire,
)
from rm_voucher.emulator.stock import OPEN, RefusedError, Stock
from rm_voucher.models import VoucherStatus

_VALID, _ISSUED = VoucherStatus.VALID, VoucherStatus.ISSUED
_REDEEMED, _VOID = VoucherStatus.REDEEMED, VoucherStatus.VOID


class VoucherState:
    """The server's knowledge: batches, vouchers, members and stores.

    ``on_change`` is called with each voucher whose status a method here changed. Expiry only shows
    when a voucher is read, and causes no call. ``cause`` gives the number of the request that is
    worked for, or 0. ``others`` gives the knowledge about the other merchants.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float],
        rng: random.Random,
        qr_base: Callable[[], str],
        guesses: Guesses,
        on_change: Callable[[Record], None] = lambda record: None,
        cause: Callable[[], int] = lambda: 0,
        others: Callable[[], Iterable[VoucherState]] = tuple,
    ) -> None:
        self.stock: Stock = Stock(
            clock=clock,
            rng=rng,
            guesses=guesses,
            others=lambda: (other.stock for other in others()),
        )
        self._others = others
        self._clock = clock
        self._qr_base = qr_base
        self._guesses = guesses
        self._on_change = on_change
        self._cause = cause
        self.on_touch: Callable[[Record], object] = lambda record: None
        """Called with each voucher that must be saved anew."""
        self._rng = rng
        self._members: dict[tuple[str, str], Member] = {}
        self._stores: dict[str, bool] = {}

    def add_member(
        self, country_code: str, phone_number: str, *, name: str = "", is_ours: bool = True
    ) -> Member:
        """Make a loyalty member, of this merchant or (not ``is_ours``) of another one.

        Country code and phone number are digits, as the client sends them. Raises `ValueError`.
        """
        if not (country_code + phone_number).isdecimal() or "" in (country_code, phone_number):
            raise ValueError("country_code and phone_number are digits, without a plus sign")
        return self.enrol(Member(country_code, phone_number, name, is_ours))

    def enrol(self, member: Member) -> Member:
        """Take in a loyalty member, in the place of one with the same phone number."""
        self._members[member.country_code, member.phone_number] = member
        return member

    def add_store(self, store_id: str, *, is_authorised: bool = True) -> None:
        """Make a store. From the first one on, a void must name an authorised store, or none."""
        self._stores[store_id] = is_authorised

    def members(self) -> Sequence[Member]:
        """Return this merchant's members."""
        return [member for member in self._members.values() if member.is_ours]

    def has_member(self, country_code: str, phone_number: str) -> bool:
        """Return whether there is a member with a number, whoever's it is."""
        return (country_code, phone_number) in self._members

    def stores(self) -> Mapping[str, bool]:
        """Return each store's id, and whether it is authorised."""
        return self._stores

    def dump(self) -> dict[str, Any]:
        """Return all but the vouchers, as it is saved."""
        version, numbers, gauss = self._rng.getstate()
        return {
            "members": [
                [one.country_code, one.phone_number, one.name, one.is_ours]
                for one in self._members.values()
            ],
            "stores": self._stores,
            "random": [version, numbers, gauss],
            "batches": [save_batch(batch) for batch in self.stock.all()],
        }

    def load(self, saved: Mapping[str, Any], vouchers: Mapping[str, Sequence[Saved]]) -> None:
        """Put back what was saved into books that are empty; ``vouchers`` are by their batch.

        Raises `ValueError`, `TypeError` or `KeyError` for what was not saved by `dump`.
        """
        for country_code, phone_number, name, is_ours in saved["members"]:
            self.add_member(country_code, phone_number, name=name, is_ours=is_ours)
        for store_id, is_authorised in saved["stores"].items():
            self.add_store(store_id, is_authorised=is_authorised)
        version, numbers, gauss = saved["random"]
        self._rng.setstate((version, tuple(numbers), gauss))
        for each in saved["batches"]:
            batch = load_batch(each)
            found = vouchers.get(batch.key, ())
            rows = [load_record(one, batch, self._members) for one in found]
            if len(rows) != (each["made"] or batch.issued):
                raise ValueError("a batch has other vouchers than were saved with it")
            self.stock.put(batch, rows, each["made"])

    # At a shop, and not through the API.

    def collect(self, code: str, member: Member) -> Record:
        """Let a member scan a voucher into their account: it is REDEEMED, and theirs."""
        record = self._redeemable(code)
        record.member = member
        member.vouchers.append(record)
        self._redeem(record)
        return record

    def share(self, code: str) -> Record:
        """Send a voucher that is VALID or ISSUED to the marketplace."""
        record = self.stock.find(code, (_ISSUED, _VALID))
        status = record.status(self._clock())
        if status not in (_VALID, _ISSUED):
            raise RefusedError("VOUCHER_REDEEMED_INVALID")
        if status is _VALID:
            self.stock.issuable(record.batch.key)
        self._leave_stock(record)
        self._come_to(VoucherStatus.MARKET_PLACE, record)
        return record

    def expire(self, code: str) -> Record:
        """Let a voucher that can expire do so now."""
        record = self.stock.find(code)
        now = self._clock()
        # A VALID voucher of a static batch is kept nowhere.
        can_expire = OPEN if self.stock.is_static(code) else (_VALID, *OPEN)
        if record.status(now) not in can_expire:
            raise RefusedError("VOUCHER_REDEEMED_INVALID")
        record.expires_at = now
        self.on_touch(record)
        return record

    # Through the API.

    def issue(self, batch_key: str) -> tuple[str, str]:
        """Issue a voucher; return its code and QR URL."""
        batch = self.stock.issuable(batch_key)
        if batch.static_code is not None and self._guesses.static_issue_code:
            raise RefusedError(self._guesses.static_issue_code)
        record = self.stock.take(batch)
        record.assigned_at = self._clock()
        self._leave_stock(record)
        self._come_to(_ISSUED, record)
        return record.code, self.qr_url(record.code)

    def void(
        self,
        code: str,
        *,
        store_id: str | None = None,
        used_at: datetime | None = None,
        any_store: bool = False,
    ) -> Record:
        """Use a voucher up. Redeeming it first is optional; ``any_store`` takes unknown stores."""
        record = self.usable(code, store_id=store_id, any_store=any_store)
        if record.kept is not _VOID:
            self._use(record, used_at)
        return record

    def usable(self, code: str, *, store_id: str | None = None, any_store: bool = False) -> Record:
        """Return the voucher that `void` would take. Refuses what `void` refuses."""
        if store_id is None or not any_store:
            self._check_store(store_id)
        record = self.stock.find(code)
        status = record.status(self._clock())
        if status is _ISSUED and self._guesses.void_needs_redeem:
            raise RefusedError("VOUCHER_NOT_REDEEMED")
        if status is _VOID:
            if self._guesses.void_again_code:
                raise RefusedError(self._guesses.void_again_code)
            return record
        if status not in OPEN:
            raise RefusedError("VOUCHER_NOT_ALLOW_VOID")
        return record

    def redeem(self, codes: Sequence[str]) -> list[Record]:
        """Redeem vouchers, all of them or none unless `Guesses.redeem_is_atomic` says otherwise."""
        if not codes or len(codes) > self._guesses.max_redeem_codes:
            raise RefusedError("INVALID_PARAMETER")
        if self._guesses.redeem_is_atomic:
            before = set()
            for code in codes:
                self._redeemable(code)
                if self.stock.name(code) in before:
                    raise RefusedError(self._guesses.redeem_again_code)
                before.add(self.stock.name(code))
        redeemed = []
        for code in codes:
            record = self._redeemable(code)
            self._redeem(record)
            redeemed.append(record)
        return redeemed

    def reinstate(self, code: str) -> Record:
        """Make a VOID voucher usable again. ``usedAt`` stays, as in RM's example."""
        record = self.stock.find(code, (_VOID,))
        if record.kept is not _VOID:
            is_redeemed = record.kept is _REDEEMED
            raise RefusedError("VOUCHER_REDEEMED" if is_redeemed else "VOUCHER_NOT_REDEEMED")
        record.batch.first_open = 0
        was_redeemed = record.redeemed_at is not None
        self._come_to(_REDEEMED if was_redeemed else self._guesses.reinstate_to, record)
        return record

    def member(self, country_code: str, phone_number: str) -> Member:
        """Return a member of this merchant's."""
        member = self._members.get((country_code, phone_number))
        if member is None:
            others = (other.has_member(country_code, phone_number) for other in self._others())
            raise RefusedError("MEMBER_NOT_MERCHANT" if any(others) else "MEMBER_NOT_FOUND")
        if not member.is_ours:
            raise RefusedError("MEMBER_NOT_MERCHANT")
        return member

    def member_voucher(self, member: Member, code: str) -> Record:
        """Return a member's voucher; with a static code, a usable one if there is one."""
        record = self.stock.find(code)
        if self.stock.is_static(code):
            now = self._clock()
            mine = [
                one for one in member.vouchers if self.stock.name(one.code) == self.stock.name(code)
            ]
            mine.sort(key=lambda one: one.status(now) is not _REDEEMED)
            record = mine[0] if mine else record
        if record.member is not member:
            raise RefusedError("VOUCHER_OWNER_INVALID")
        return record

    def member_redeem(self, member: Member, code: str) -> Record:
        """Let a member use a voucher of theirs."""
        record = self.member_voucher(member, code)
        if record.status(self._clock()) is not _REDEEMED:
            raise RefusedError("VOUCHER_REDEEMED_INVALID")
        if self._guesses.member_redeem_to is _VOID:
            self._use(record, None)
        else:
            self._come_to(_REDEEMED, record)
        return record

    # What can be read.

    def get(self, code: str) -> Record:
        """Return a voucher."""
        return self.stock.find(code)

    def issued(self, batch_key: str) -> Sequence[str]:
        """Return the codes that left a batch's stock, in the order of the batch's listing."""
        listed = self.stock.batch(batch_key).listed
        return tuple(record.code for record in listed if record.kept is not _VALID)

    def page(
        self, key: str, start: int, *, size: int, delay_s: float = 0.0
    ) -> list[dict[str, Any]]:
        """Return at most ``size`` vouchers of a batch as RM writes them, from a place on.

        ``delay_s`` is added to the delay of `Guesses`. The place of a voucher never changes, and
        finding one takes the same time in a batch of any size.
        """
        batch = self.stock.batch(key)
        delay_s += self._guesses.listing_delay_s
        until = self._clock() - delay_s if delay_s else float("inf")
        end = len(batch.listed)
        if delay_s and not self._lists_stock(batch):
            end = bisect.bisect_right(batch.listed, until, key=Record.left_stock_at)
        shown = [
            self.wire(record.in_stock() if record.left_stock_at() > until else record)
            for record in batch.listed[start : min(start + size, end)]
        ]
        if not self._guesses.lists_assigned_at:
            shown = [{**wire, "assignedAt": ZERO_TIME} for wire in shown]
        return shown

    def wire(self, record: Record) -> dict[str, Any]:
        """Return a voucher as RM writes it."""
        return voucher_wire(
            record,
            self._clock(),
            qr_url=self.qr_url(record.code),
            shows_assigned_at=self._guesses.shows_assigned_at,
            undated=self._guesses.undated_expiry,
        )

    def batch_wire(self, batch: Batch) -> dict[str, Any]:
        """Return a batch as RM writes it."""
        return batch_wire(batch, self._guesses.used_from, undated=self._guesses.undated_expiry)

    def qr_url(self, code: str) -> str:
        """Return the URL that a customer scans."""
        return f"{self._qr_base()}/voucher/{code}"

    def _lists_stock(self, batch: Batch) -> bool:
        return bool(batch.made) and self._guesses.lists_valid

    def _leave_stock(self, record: Record) -> None:
        batch = record.batch
        if record.kept is _VALID:
            batch.issued += 1
            batch.updated_at = self._clock()
            if not self._lists_stock(batch):
                batch.listed.append(record)

    def _come_to(self, status: VoucherStatus, record: Record) -> None:
        record.batch.counts[record.kept] -= 1
        record.kept = status
        record.batch.counts[status] += 1
        record.updated_at = self._clock()
        record.history += (record.updated_at, status, self._cause())
        self.on_touch(record)
        self._on_change(record)

    def _use(self, record: Record, used_at: datetime | None) -> None:
        if used_at is None or not self._guesses.keeps_used_at:
            used_at = datetime.fromtimestamp(self._clock(), UTC)
        step = 10 ** (6 - self._guesses.used_at_digits)
        record.used_at = used_at.replace(microsecond=used_at.microsecond // step * step)
        self._come_to(_VOID, record)

    def _redeemable(self, code: str) -> Record:
        wanted = (_ISSUED, _VALID) if self._guesses.redeems_valid else (_ISSUED,)
        record = self.stock.find(code, wanted)
        status = record.status(self._clock())
        if status in (_REDEEMED, _VOID):
            raise RefusedError(self._guesses.redeem_again_code)
        if status not in wanted:
            raise RefusedError("VOUCHER_REDEEMED_INVALID")
        if status is _VALID:
            self.stock.issuable(record.batch.key)
        return record

    def _redeem(self, record: Record) -> None:
        record.redeemed_at = self._clock()
        record.expires_at = record.batch.ends_at(record.redeemed_at) or record.expires_at
        self._leave_stock(record)
        self._come_to(_REDEEMED, record)

    def _check_store(self, store_id: str | None) -> None:
        if store_id is None:
            if self._guesses.void_needs_store:
                raise RefusedError("STORE_NOT_SET")
        elif not store_id.strip():
            raise RefusedError("STORE_ID_INVALID")
        elif store_id not in self._stores and (self._stores or self._guesses.unknown_store_code):
            raise RefusedError(self._guesses.unknown_store_code or "STORE_NOT_FOUND")
        elif not self._stores.get(store_id, True):
            raise RefusedError("CLIENT_NOT_AUTHORIZE_STORE")
