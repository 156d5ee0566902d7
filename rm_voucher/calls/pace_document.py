"""A `Pace` as a document that processes share, on the clock of their store. Pure."""

from __future__ import annotations

import json
import math
from typing import Any

import attrs

from rm_voucher.calls.pace import Pace

# Each process has these from its own settings.
_OWN = {"_policy", "_random", "_tuning", "most_per_s"}
_OFF_S = 1.0  # by which a clock was set back: less is how far processes differ
_MOST = 1e12  # of whatever is counted or measured
_LONGEST_S = 86_400.0  # which no pause lasts


@attrs.define
class PaceDocument:
    """What the processes of an account know together.

    Attributes:
        pace: their pace.
        seen_at: when each process last asked, by its name.
        written_at: when it was written.
    """

    pace: Pace
    seen_at: dict[str, float] = attrs.field(factory=dict)
    written_at: float = -math.inf

    def dump(self, *, ahead_s: float) -> bytes:
        """Return it with its times on a clock that is so many seconds ahead of this process's."""
        return json.dumps(_kept(self, ahead_s)).encode()

    def load(self, content: bytes, *, ahead_s: float, now: float) -> None:
        """Take over what another process dumped. Raises `ValueError` if that is no document.

        If the store's clock was set back meanwhile, all times are.
        """
        try:
            kept = json.loads(content, parse_constant={"-Infinity": -math.inf}.__getitem__)
            if kept["written_at"] - ahead_s > now + _OFF_S:
                ahead_s = kept["written_at"] - now
            _restore(self, kept, ahead_s, now + _LONGEST_S)
            rate = self.pace.rate.per_s(now)
            if rate is not None and not 0 < rate <= _MOST:
                raise ValueError("no rate")
        except (
            LookupError, TypeError, AttributeError, ValueError, ArithmeticError, RecursionError,
        ) as exc:  # fmt: skip
            raise ValueError("no pace") from exc


def _kept(instance: Any, ahead_s: float) -> dict[str, Any]:
    """Return the attributes to keep, those of attributes among them."""
    kept = {}
    for field in attrs.fields(type(instance)):
        value = getattr(instance, field.name)
        if field.name in _OWN:
            continue
        if attrs.has(type(value)):
            value = _kept(value, ahead_s)
        elif isinstance(value, set):
            value = sorted(value)
        elif isinstance(value, dict):
            value = {name: at + ahead_s for name, at in value.items()}
        elif value is not None and _is_time(field):
            value += ahead_s
        kept[field.name] = value
    return kept


def _restore(instance: Any, kept: dict[str, Any], ahead_s: float, latest: float) -> None:
    """Set the attributes that were kept; one that is missing stays as it is.

    Raises `ValueError`, among others, for what no process writes: with it none would send again, or
    the next call would fail.
    """
    for field in attrs.fields(type(instance)):
        if field.name in _OWN or field.name not in kept:
            continue
        value, present = kept[field.name], getattr(instance, field.name)
        if attrs.has(type(present)):
            _restore(present, value, ahead_s, latest)
            continue
        if isinstance(present, set):
            value = {str(each) for each in value}
        elif isinstance(present, dict):
            value = {str(name): at - ahead_s for name, at in value.items()}
        elif value is not None or present is not None:
            is_time = _is_time(field)
            value -= ahead_s if is_time else 0  # which refuses what is no number
            if not (value <= latest if is_time else 0 <= value <= _MOST):
                raise ValueError(field.name)
        setattr(instance, field.name, value)


def _is_time(field: attrs.Attribute[Any]) -> bool:
    """Return whether a field is an instant: its name says so."""
    return field.name.endswith(("_at", "_until"))
