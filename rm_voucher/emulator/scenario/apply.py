"""Makes an emulator of a scenario."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from typing import Any, Unpack

import attrs

from rm_voucher.emulator.app import Emulator, EmulatorOptions
from rm_voucher.emulator.faults import FaultPlan, Window
from rm_voucher.emulator.guesses import guesses_of
from rm_voucher.emulator.merchant import Merchant
from rm_voucher.emulator.scenario.model import (
    BatchTable,
    ExpiryTable,
    MerchantTable,
    RateTable,
    Scenario,
)
from rm_voucher.emulator.scenario.read import load_scenario
from rm_voucher.emulator.stock import DEFAULT_EXPIRY, RefusedError
from rm_voucher.exceptions import ConfigurationError
from rm_voucher.models import Expiry

_log = logging.getLogger("rm_voucher.emulator")


def emulator_of(
    scenario: Scenario | str | os.PathLike[str], **options: Unpack[EmulatorOptions]
) -> Emulator:
    """Return an emulator that begins as a scenario says, now and after each reset.

    ``scenario`` is one that was loaded, a TOML file, or the name of one in the package. ``options``
    are those of `Emulator` and win, but for what a scenario says of batches, faults, rate limits
    and callbacks. What can't be done later is logged. Raises `ConfigurationError`.
    """
    told = scenario if isinstance(scenario, Scenario) else load_scenario(scenario)
    try:
        emulator = Emulator(
            **{
                **_options(told),
                "seed": told.seed,
                "token_lifetime_s": told.token_lifetime_s,
                "guesses": guesses_of(told.guesses),
                "disabled_checks": told.disabled_checks,
                **options,
            }
        )
        _begin(emulator, told)
        for name, table in told.merchants.items():
            _begin(emulator.merchant(name, **_options(table)), table)
    except (TypeError, ValueError, RefusedError) as exc:
        raise ConfigurationError(f"The scenario can't be played: {exc}.") from exc
    return emulator


def _options(table: MerchantTable) -> dict[str, Any]:
    given = {"client_id": table.client_id, "client_secret": table.client_secret}
    return {
        "merchant_pin": table.merchant_pin,
        **{name: value for name, value in given.items() if value is not None},
    }


def _begin(merchant: Merchant, table: MerchantTable) -> None:
    """Let a merchant begin as its table says, now and whenever it begins anew."""
    merchant.script = _Script(table)
    merchant.begin()


@attrs.frozen(eq=False)
class _Script:
    """Plays a merchant's part of a scenario."""

    _table: MerchantTable

    def begin(self, merchant: Merchant) -> None:
        """Let there be what there is at the start, and come what comes later."""
        table = self._table
        for store in table.stores:
            merchant.state.add_store(store.id, is_authorised=store.is_authorised)
        for at_s, action in self._events(merchant):
            if not at_s:
                action()
        for member in table.members:
            made = merchant.add_member(member.country_code, member.phone_number, name=member.name)
            for key, count in member.vouchers.items():
                for _ in range(count):
                    merchant.state.collect(merchant.state.issue(key)[0], made)
        plan = attrs.asdict(table.faults, recurse=False)
        plan = {name: value for name, value in plan.items() if value is not None}
        windows = [Window(**attrs.asdict(window)) for window in plan.pop("windows", ())]
        merchant.faults = FaultPlan(windows=windows, **plan)
        callbacks = table.callbacks
        if callbacks.url is not None:
            merchant.callbacks.url = callbacks.url
        merchant.callbacks.interval_s = callbacks.interval_s
        merchant.callbacks.signs_url = callbacks.signs_url
        self.go_on(merchant, merchant.begun_at)

    def go_on(self, merchant: Merchant, after: float) -> None:
        """Let come what comes after a time, be it over by now."""
        for at_s, action in self._events(merchant):
            due = merchant.begun_at + at_s
            if due > after:
                merchant.virtual_clock.call_at(due, _or_say(merchant, action), owner=merchant.name)

    def _events(self, merchant: Merchant) -> Iterator[tuple[float, Callable[[], None]]]:
        """Yield what happens, with the seconds after the start."""
        for batch in self._table.batches:
            yield batch.at_s, _adding(merchant, batch)
        for rate in self._table.rate_limits:
            yield rate.at_s, _limiting(merchant, rate)


def _or_say(merchant: Merchant, action: Callable[[], None]) -> Callable[[], None]:
    """Return an action that what it meets can't stop the server with: it is logged."""

    def act() -> None:
        merchant.site.changes += 1
        try:
            action()
        except (RefusedError, ValueError) as exc:
            _log.warning("what the scenario wants now can't be done: %s", exc)

    return act


def _limiting(merchant: Merchant, table: RateTable) -> Callable[[], None]:
    def limit() -> None:
        merchant.rate_limit = table.per_s or None

    return limit


def _adding(merchant: Merchant, table: BatchTable) -> Callable[[], None]:
    def add() -> None:
        merchant.add_batch(
            table.label or table.key,
            key=table.key,
            quantity=table.quantity,
            type=table.type,
            amount_sen=table.amount_sen,
            discount_rate_bp=table.discount_rate_bp,
            minimum_spend_sen=table.minimum_spend_sen,
            codes=table.codes,
            static_code=table.static_code,
            expiry=DEFAULT_EXPIRY if table.expiry is None else _expiry(table.expiry),
        )
        state = merchant.books
        codes = [state.issue(table.key)[0] for _ in range(table.issued)]
        for code in codes[: table.redeemed]:
            state.redeem([code])
        for code in codes[table.redeemed : table.redeemed + table.used]:
            state.void(code, any_store=True)

    return add


def _expiry(table: ExpiryTable) -> Expiry:
    return Expiry(type=table.type, days=table.days, expires_at=table.expires_at)
