"""The stock: makes batches and vouchers, and finds them."""

from __future__ import annotations

import itertools
import random
import string
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypedDict

import attrs

from rm_voucher.emulator.guesses import Guesses
from rm_voucher.emulator.records import DATED, Batch, Record
from rm_voucher.exceptions import InvalidRequestError
from rm_voucher.models import (
    BatchStatus,
    Expiry,
    ExpiryType,
    Origin,
    VoucherStatus,
    VoucherType,
)
from rm_voucher.wire.requests import segment

_ALPHABET = string.ascii_letters + string.digits
_CODE_CHARS = 10
_MOST_TRIES = 1_000
_KEY_CHARS = frozenset(string.ascii_letters + string.digits + "-_=")
DEFAULT_EXPIRY = Expiry(type=ExpiryType.DYNAMIC, days=30)
_MAX_UP_FRONT = 10_000_000
_VALID = VoucherStatus.VALID
OPEN = (VoucherStatus.ISSUED, VoucherStatus.REDEEMED)


class RefusedError(Exception):
    """The server refuses a request, with an error code of RM's and perhaps a sentence."""

    def __init__(self, code: str, message: str | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.reason = message
        self.message: str = message or code.replace("_", " ").capitalize()
        self.beside: Mapping[str, Any] = {}
        """What the answer has beside the error."""


class BatchOptions(TypedDict, total=False):
    """The options of `Stock.add_batch` beside label and quantity."""

    key: str | None
    type: VoucherType
    amount_sen: int
    discount_rate_bp: int
    minimum_spend_sen: int
    expiry: Expiry
    codes: Iterable[str] | None
    static_code: str | None
    status: BatchStatus
    is_ours: bool


@attrs.define(eq=False, repr=False, kw_only=True)
class Stock:
    """Batches by key, vouchers by code. Codes are drawn from ``rng``: equal seeds, equal codes.

    ``others`` gives the stocks of other merchants of the same server.
    """

    _clock: Callable[[], float]
    _rng: random.Random
    _guesses: Guesses
    _others: Callable[[], Iterable[Stock]] = tuple
    _batches: dict[str, Batch] = attrs.field(factory=dict, init=False)
    _ours: list[Batch] = attrs.field(factory=list, init=False)
    _vouchers: dict[str, Record] = attrs.field(factory=dict, init=False)
    _static: dict[str, Batch] = attrs.field(factory=dict, init=False)

    def add_batch(
        self,
        label: str,
        *,
        quantity: int | None = None,
        key: str | None = None,
        type: VoucherType = VoucherType.GIFT,
        amount_sen: int = 0,
        discount_rate_bp: int = 0,
        minimum_spend_sen: int = 0,
        expiry: Expiry = DEFAULT_EXPIRY,
        codes: Iterable[str] | None = None,
        static_code: str | None = None,
        status: BatchStatus = BatchStatus.COMPLETED,
        is_ours: bool = True,
    ) -> Batch:
        """Make a batch.

        With ``codes`` its origin is SELF: the merchant uploaded them. With ``static_code``
        everybody gets the same code. A ``status`` other than COMPLETED means that it is still
        being made; ``is_ours=False`` makes it another merchant's. Raises `ValueError` for a key or
        a code that is taken, and for a missing or wrong quantity.
        """
        given = None if codes is None else list(codes)
        if quantity is None and given is not None:
            quantity = len(given)
        if not isinstance(quantity, int) or not 0 <= quantity < 2**63:
            raise ValueError(
                "quantity is a whole number, not negative, under 2**63; without codes it is needed"
            )
        number = len(self._batches) + 1
        if key is None:
            free = (f"batch-{n:06}" for n in itertools.count(number))
            key = next(each for each in free if each not in self._batches)
        _check_segment("key", key)
        if key in self._batches:
            raise ValueError(f"there is a batch with the key {key!r} already")
        if given is not None and (static_code is not None or len(given) != quantity):
            raise ValueError("codes are as many as the quantity, and none with a static code")
        if type not in (VoucherType.CASH, VoucherType.DISCOUNT, VoucherType.GIFT):
            raise ValueError("a batch is of type CASH, DISCOUNT or GIFT")
        if expiry.type not in (*DATED, ExpiryType.PERMANENT, ExpiryType.DYNAMIC):
            raise ValueError("an expiry is FIXED, FIX, DYNAMIC or PERMANENT")
        if expiry.type in DATED and expiry.expires_at is None:
            raise ValueError("a FIXED or FIX expiry has expires_at")
        if expiry.type is ExpiryType.DYNAMIC and expiry.days is None:
            raise ValueError("a DYNAMIC expiry has days")
        if min(amount_sen, discount_rate_bp, minimum_spend_sen) < 0:
            raise ValueError("an amount or a rate can't be negative")
        up_front = given or []
        if given is None and static_code is None and self._guesses.codes_up_front:
            if quantity > _MAX_UP_FRONT:
                raise ValueError(f"at most {_MAX_UP_FRONT:,} codes are made up front")
            up_front = self._new_codes(quantity)
        self._check_new([*up_front, *([] if static_code is None else [static_code])])
        now = self._clock()
        batch = Batch(
            id=str(number),
            key=key,
            label=label,
            status=BatchStatus(status),
            quantity=quantity,
            type=type,
            amount_sen=amount_sen,
            discount_rate_bp=discount_rate_bp,
            minimum_spend_sen=minimum_spend_sen,
            expiry=expiry,
            origin=Origin.SYSTEM if given is None else Origin.SELF,
            static_code=static_code,
            is_ours=is_ours,
            created_at=now,
            updated_at=now,
        )
        self._batches[key] = batch
        if is_ours:
            self._ours.append(batch)
        if static_code is not None:
            self._static[self.name(static_code)] = batch
        for code in up_front:
            record = Record(batch, code, _VALID, now, expires_at=batch.ends_at(None))
            self._vouchers[self.name(code)] = record
            batch.made.append(record)
        if self._guesses.lists_valid:
            batch.listed.extend(batch.made)
        return batch

    def all(self) -> Sequence[Batch]:
        """Return all batches, those of other merchants, too."""
        return list(self._batches.values())

    def rows(self, batch: Batch) -> Sequence[Record]:
        """Return a batch's vouchers as they are saved: those that were made up front come first."""
        return batch.made or batch.listed

    def put(self, batch: Batch, rows: Sequence[Record], made: int) -> None:
        """Put back a batch that was saved, and its vouchers."""
        self._batches[batch.key] = batch
        if batch.is_ours:
            self._ours.append(batch)
        if batch.static_code is not None:
            self._static[self.name(batch.static_code)] = batch
        else:
            self._vouchers.update((self.name(record.code), record) for record in rows)
        batch.listed.extend(rows)
        if made:
            batch.made.extend(rows)
        if made and not self._guesses.lists_valid:
            gone = (record for record in rows if record.kept is not _VALID)
            batch.listed[:] = sorted(gone, key=Record.left_stock_at)

    def name(self, code: str) -> str:
        """Return what all spellings of a code share."""
        return code.casefold() if self._guesses.codes_ignore_case else code

    def find(self, spelling: str, statuses: Collection[VoucherStatus] = OPEN) -> Record:
        """Return a voucher; with a static code, one in ``statuses`` if there is one."""
        code = self.name(spelling)
        batch = self._static.get(code)
        if batch is not None and batch.is_ours:
            return self._instance(batch, statuses)
        record = self._vouchers.get(code)
        if record is None and batch is None:
            is_elsewhere = any(other.has(spelling) for other in self._others())
            raise RefusedError("VOUCHER_NOT_MERCHANT" if is_elsewhere else "VOUCHER_NOT_FOUND")
        if record is None or not record.batch.is_ours:
            raise RefusedError("VOUCHER_NOT_MERCHANT")
        return record

    def has(self, code: str) -> bool:
        """Return whether there is a voucher with a code, whoever's it is."""
        return self._is_taken(self.name(code))

    def batch(self, key: str) -> Batch:
        """Return a batch of this merchant's."""
        batch = self._batches.get(key)
        if batch is not None and batch.is_ours:
            return batch
        known = _KEY_CHARS.issuperset(key)
        raise RefusedError("VOUCHER_BATCH_NOT_FOUND" if known else "VOUCHER_BATCH_KEY_INVALID")

    def ours(self) -> Sequence[Batch]:
        """Return this merchant's batches."""
        return self._ours

    def is_static(self, code: str) -> bool:
        """Return whether many vouchers share a code."""
        return self.name(code) in self._static

    def issuable(self, key: str) -> Batch:
        """Return a batch that has a voucher left to issue."""
        batch = self.batch(key)
        if batch.status is not BatchStatus.COMPLETED:
            raise RefusedError("DOES_NOT_ALLOW_MULTIPLE_BATCH_PROCESSING")
        ends_at = batch.ends_at(None)
        if ends_at is not None and self._clock() >= ends_at:
            raise RefusedError(self._guesses.expired_code)
        if batch.issued >= batch.quantity:
            raise RefusedError(self._guesses.sold_out_code)
        return batch

    def take(self, batch: Batch) -> Record:
        """Return the voucher to issue next; ``batch`` has one left."""
        now = self._clock()
        while batch.next_made < len(batch.made):
            record = batch.made[batch.next_made]
            batch.next_made += 1
            if record.status(now) is _VALID:
                return record
        if batch.made:  # the rest has expired
            raise RefusedError(self._guesses.sold_out_code)
        return self._new(batch)

    def _new(self, batch: Batch) -> Record:
        code = batch.static_code or self._new_codes(1)[0]
        record = Record(batch, code, _VALID, self._clock(), expires_at=batch.ends_at(None))
        if batch.static_code is None:
            self._vouchers[self.name(code)] = record
        return record

    def _instance(self, batch: Batch, statuses: Collection[VoucherStatus]) -> Record:
        """Return the oldest voucher of a static batch that is in one of the statuses.

        Without one, return the newest voucher, or a VALID one where none was issued.
        """
        now = self._clock()
        while (
            batch.first_open < len(batch.listed) and batch.listed[batch.first_open].kept not in OPEN
        ):
            batch.first_open += 1
        first = batch.first_open if VoucherStatus.VOID not in statuses else 0
        for index in range(first, len(batch.listed)):
            if batch.listed[index].status(now) in statuses:
                return batch.listed[index]
        if batch.listed and (_VALID not in statuses or batch.issued >= batch.quantity):
            return batch.listed[-1]
        return self._new(batch)

    def _check_new(self, codes: Sequence[str]) -> None:
        for code in codes:
            _check_segment("code", code)
        names = [self.name(code) for code in codes]
        if len(set(names)) < len(names) or any(map(self._is_taken, names)):
            raise ValueError("a code is there twice, or there already")

    def _new_codes(self, count: int) -> list[str]:
        codes: dict[str, str] = {}
        for _ in range(2 * count + _MOST_TRIES):
            if len(codes) == count:
                break
            code = "".join(self._rng.choices(_ALPHABET, k=_CODE_CHARS))
            if not self._is_taken(self.name(code)):
                codes[self.name(code)] = code
        if len(codes) < count:
            raise ValueError("chance gives no new codes")
        return list(codes.values())

    def _is_taken(self, name: str) -> bool:
        return name in self._vouchers or name in self._static


def _check_segment(name: str, text: str) -> None:
    """Refuse text that no client could send as a part of a path."""
    try:
        segment(name, text)
    except InvalidRequestError as exc:
        raise ValueError(exc.hint.rstrip(".")) from None
