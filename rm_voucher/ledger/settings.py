"""The settings of a ledger."""

from __future__ import annotations

import math
from typing import Literal, TypedDict

import attrs

from rm_voucher.exceptions import ConfigurationError
from rm_voucher.ledger.rules.records import Mode


class LedgerOptions(TypedDict, total=False):
    """The settings, as a caller gives them. `Ledger` says what each means."""

    mode: Literal["shared", "exclusive"]
    settle_s: float
    skew_s: float
    check_balance: bool
    sweeps: bool


def _to_mode(mode: str) -> Mode:
    if mode not in tuple(Mode):
        raise ConfigurationError('mode is "shared" or "exclusive".')
    return Mode(mode)


@attrs.frozen(kw_only=True)
class LedgerSettings:
    """The settings, with their defaults. Raises `ConfigurationError`."""

    mode: Mode = attrs.field(default=Mode.SHARED, converter=_to_mode)
    settle_s: float = 300.0
    skew_s: float = 10.0
    check_balance: bool = True
    sweeps: bool = False

    def __attrs_post_init__(self) -> None:
        if not (0 <= self.settle_s < math.inf and 0 <= self.skew_s < math.inf):
            raise ConfigurationError("settle_s and skew_s are seconds, 0 or more, and finite.")
