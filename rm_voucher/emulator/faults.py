"""Faults: what goes wrong on the way to the server, in it, and on the way back.

This file decides which request meets which fault. `engine` turns a fault into an answer, and
`server` into the end of a connection. Equal seeds give equal faults, operation by operation: the
n-th issue of one run meets the same as the n-th issue of another.
"""

from __future__ import annotations

import enum
import random
from collections import Counter, deque
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NoReturn

import attrs

from rm_voucher.wire.error_codes import CODE_PATTERN


class Fault(enum.StrEnum):
    """What can go wrong. COMMIT is the moment of the work: before it nothing is done."""

    @classmethod
    def _missing_(cls, value: object) -> NoReturn:
        raise ValueError(f"{value!r} is no fault; they are {', '.join(cls)}")

    DROP_BEFORE_COMMIT = "drop-before-commit"
    """The connection is reset, and nothing was done."""
    DROP_AFTER_COMMIT = "drop-after-commit"
    """The connection is reset after the work was done."""
    LATE_COMMIT = "late-commit"
    """The connection is reset, and the work is done later, within `FaultPlan.late_s`."""
    TIMEOUT_BEFORE_COMMIT = "timeout-before-commit"
    """No answer comes, and nothing was done."""
    TIMEOUT_AFTER_COMMIT = "timeout-after-commit"
    """No answer comes, though the work was done."""
    SLOW_BODY = "slow-body"
    """The answer's body comes in pieces, over `FaultPlan.slow_body_s`."""
    THROTTLE = "throttle"
    """429 with RM's error and Retry-After. Nothing was done."""
    THROTTLE_NO_RETRY_AFTER = "throttle-no-retry-after"
    """429 with RM's error only."""
    THROTTLE_NO_BODY = "throttle-no-body"
    """429 with Retry-After only."""
    THROTTLE_BARE = "throttle-bare"
    """429 with neither."""
    ERROR_BEFORE_COMMIT = "error-before-commit"
    """500 with RM's INTERNAL_ERROR, and nothing was done."""
    ERROR_AFTER_COMMIT = "error-after-commit"
    """500 with RM's INTERNAL_ERROR, though the work was done."""
    HTML_PAGE = "html-page"
    """502 with a gateway's page. Nothing was done."""
    TRUNCATED = "truncated"
    """The connection ends in the middle of the answer."""
    MALFORMED_JSON = "malformed-json"
    """200, the work done, and half of the JSON."""
    WRONG_TYPES = "wrong-types"
    """200, the work done, and lists in the place of objects, and the other way round."""
    RESENT = "resent"
    """The answer is lost on its way to a proxy, which sends the very same bytes again. So the work
    was done, and the answer is that of the repetition: the nonce is refused."""
    TOKEN_REVOKED = "token-revoked"  # noqa: S105 - a fault's name
    """The request's token is revoked before it is checked."""
    LISTING_DELAY = "listing-delay"
    """A batch's listing is `FaultPlan.listing_delay_s` behind."""
    CLOSED = "closed"
    """Nothing listens. It takes a `Window`."""


# These keep a client waiting, or take the token from all its calls at once: only for tests that
# name them.
_BY_NAME_ONLY = (
    Fault.TIMEOUT_BEFORE_COMMIT,
    Fault.TIMEOUT_AFTER_COMMIT,
    Fault.TOKEN_REVOKED,
    Fault.CLOSED,
)
_DEFAULT_KINDS = tuple(fault for fault in Fault if fault not in _BY_NAME_ONLY)
_LISTING = "vouchers"


@attrs.frozen(kw_only=True)
class Window:
    """A time in which every request meets one fault, in seconds after the plan was set."""

    fault: Fault = attrs.field(converter=Fault)
    start_s: float = attrs.field(validator=attrs.validators.ge(0))
    length_s: float = attrs.field(validator=attrs.validators.gt(0))

    def turns(self, since: float) -> tuple[float, float]:
        """Return the begin and the end in unix seconds, of a plan that was set at ``since``."""
        begins = since + self.start_s
        return begins, begins + self.length_s

    def covers(self, now: float, *, since: float) -> bool:
        """Return whether a time lies in it."""
        # With the exact numbers that `turns` gives. A difference would round otherwise, and the
        # server, which waits for a turn, would wake up a moment too early for it.
        begins, ends = self.turns(since)
        return begins <= now < ends


def _windows(windows: Iterable[Window]) -> tuple[Window, ...]:
    return tuple(windows)


def _kinds(kinds: Collection[Fault | str]) -> tuple[Fault, ...]:
    # In the enum's order, so that the order in which they are given makes no difference.
    chosen = {Fault(kind) for kind in kinds}
    return tuple(fault for fault in Fault if fault in chosen)


@attrs.frozen(kw_only=True)
class FaultPlan:
    """The plan of faults.

    A share of the requests, ``rate`` (0 to 1), meets one of ``kinds``: by default any kind that
    neither keeps a client waiting nor takes its token. ``operations`` limits the plan to some
    operations, by default to all but ``token``. In a window all requests meet its fault. Raises
    `ValueError`.
    """

    rate: float = attrs.field(
        default=0.0, validator=[attrs.validators.ge(0), attrs.validators.le(1)]
    )
    kinds: tuple[Fault, ...] = attrs.field(default=_DEFAULT_KINDS, converter=_kinds)
    seed: int | None = None
    """None for the emulator's own."""
    operations: Collection[str] | None = None
    windows: tuple[Window, ...] = attrs.field(
        default=(),
        converter=_windows,
        validator=attrs.validators.deep_iterable(attrs.validators.instance_of(Window)),
    )
    retry_after_s: int = attrs.field(default=1, validator=attrs.validators.ge(0))
    """The number in Retry-After."""
    late_s: float = attrs.field(default=2.0, validator=attrs.validators.ge(0))
    """The longest delay of late work."""
    slow_body_s: float = attrs.field(default=1.0, validator=attrs.validators.ge(0))
    """The time that a slow body takes."""
    stall_s: float = attrs.field(default=120.0, validator=attrs.validators.ge(0))
    """The length of a stall, before the connection is reset. By default it is twice as long as a
    client waits for a change (`Timeout`), so that the client gives up first."""
    listing_delay_s: float = attrs.field(default=5.0, validator=attrs.validators.ge(0))
    """The time by which a delayed listing is behind."""

    def __attrs_post_init__(self) -> None:
        if not self.kinds or Fault.CLOSED in self.kinds:
            raise ValueError("kinds names faults of single requests, at least one; CLOSED is none")


class RateLimit:
    """A token bucket: requests a second, and ``burst_s`` seconds of them at once."""

    def __init__(self, per_s: float, *, burst_s: float, now: float) -> None:
        if not per_s > 0:
            raise ValueError("a rate limit is more than 0 a second")
        self._per_s = per_s
        self._most = max(1.0, per_s * burst_s)
        self._left = self._most
        self._at = now

    def takes(self, now: float) -> bool:
        """Return whether one more fits."""
        self._left = min(self._most, self._left + max(0.0, now - self._at) * self._per_s)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


class Faults:
    """Draws a fault for each request, and counts. ``seed`` is for plans without one."""

    def __init__(self, *, seed: int = 0) -> None:
        self._own_seed = seed
        self.met: Counter[tuple[str, Fault | str]] = Counter()
        """The number of times that an operation met a fault or, from `fail_next`, an error code."""
        # Each with the number of times that it is still to be met.
        self._queued: dict[str, deque[tuple[Fault | str, int]]] = {}
        self.set(FaultPlan(), now=0.0)

    def set(self, plan: FaultPlan, *, now: float) -> None:
        """Begin a plan, from its seed on."""
        self.plan = plan
        self.since = now
        self._seed = self._own_seed if plan.seed is None else plan.seed
        self._sources: dict[str, random.Random] = {}
        self._closed = [window for window in plan.windows if window.fault is Fault.CLOSED]
        self._kinds_elsewhere = [kind for kind in plan.kinds if kind is not Fault.LISTING_DELAY]

    def dump(self) -> dict[str, Any]:
        """Return the plan, since when it holds, and what is queued, as it is saved."""
        return {
            "plan": {**attrs.asdict(self.plan), "seed": _text(self.plan.seed)},
            "since": self.since,
            "seed": str(self._own_seed),
            "met": [[operation, fault, times] for (operation, fault), times in self.met.items()],
            "queued": {name: list(queued) for name, queued in self._queued.items()},
        }

    def load(self, saved: Mapping[str, Any]) -> None:
        """Put back what was saved. Chance begins anew, from its seed on."""
        plan = dict(saved["plan"])
        windows = [Window(**window) for window in plan.pop("windows")]
        plan["seed"] = plan["seed"] and int(plan["seed"])
        self._own_seed = int(saved["seed"])
        self.set(FaultPlan(windows=windows, **plan), now=saved["since"])
        for operation, fault, times in saved["met"]:
            self.met[operation, _fault(fault)] = times
        for operation, queued in saved["queued"].items():
            self._queued[operation] = deque((_fault(fault), times) for fault, times in queued)

    def fail_next(self, operation: str, fault: Fault | str, *, times: int = 1) -> None:
        """Let the next requests of an operation meet a fault, or be refused with an error code."""
        wanted: Fault | str
        try:
            wanted = Fault(fault)
        except ValueError:
            wanted = fault
            if fault in Fault.__members__:
                raise ValueError(f"{fault!r} is written {Fault[fault].value!r}") from None
            if not (CODE_PATTERN.fullmatch(fault) and fault[0].isupper()):
                raise ValueError(f"{fault!r} is no fault, and no error code") from None
        if wanted is Fault.CLOSED:
            raise ValueError("nothing listens for a time: give a plan with a Window")
        if type(times) is not int or times < 1:
            raise ValueError("times is a whole number, 1 or more")
        self._queued.setdefault(operation, deque()).append((wanted, times))

    def is_closed(self, now: float) -> bool:
        """Return whether nothing listens."""
        return any(window.covers(now, since=self.since) for window in self._closed)

    def next_turn(self, now: float) -> float | None:
        """Return the time at which the listener closes or opens next."""
        turns = (turn for window in self._closed for turn in window.turns(self.since))
        return min((turn for turn in turns if turn > now), default=None)

    def draw(self, operation: str, now: float) -> Fault | str | None:
        """Return the fate of a request: a fault, an error code, or None."""
        # Drawn for every request, so that a queued fault or a window shifts no later one.
        fault: Fault | str | None = self._by_chance(operation)
        queued = self._queued.get(operation)
        if queued:
            fault, times = queued.popleft()
            if times > 1:
                queued.appendleft((fault, times - 1))
        else:
            covering = (one for one in self.plan.windows if one.covers(now, since=self.since))
            fault = next((window.fault for window in covering), fault)
        if fault is not None:
            self.met[operation, fault] += 1
        return fault

    def late_s(self, operation: str) -> float:
        """Return the delay for the work of a request that met LATE_COMMIT."""
        # From a source of its own: a late request that is refused must not shift later faults.
        return self._source(f"late {operation}").uniform(0, self.plan.late_s)

    def _source(self, name: str) -> random.Random:
        if name not in self._sources:
            self._sources[name] = random.Random(f"{self._seed} {name}")  # noqa: S311 - chance for tests
        return self._sources[name]

    def _by_chance(self, operation: str) -> Fault | None:
        plan = self.plan
        named = operation != "token" if plan.operations is None else operation in plan.operations
        if not plan.rate or not named:
            return None
        kinds = plan.kinds if operation == _LISTING else self._kinds_elsewhere
        chance = self._source(operation)
        return chance.choice(kinds) if chance.random() < plan.rate and kinds else None


def _fault(text: str) -> Fault | str:
    """Return the fault of a name, or the text, which is an error code."""
    return Fault(text) if text in {each.value for each in Fault} else text


def _text(number: int | None) -> str | None:
    """Return a whole number of any size as JSON can hold it."""
    return None if number is None else str(number)
