"""The plan of faults and its chance, without a server: which request meets which fault."""

import math
import random

import pytest
from support.doubles import FakeTime

from rm_voucher import Timeout
from rm_voucher.emulator import Emulator, Fault, FaultPlan, Guesses, Window
from rm_voucher.emulator.faults import Faults, RateLimit

NOW = 1_700_000_000.0
KEEP_WAITING = {Fault.TIMEOUT_BEFORE_COMMIT, Fault.TIMEOUT_AFTER_COMMIT}
BY_NAME_ONLY = KEEP_WAITING | {Fault.TOKEN_REVOKED, Fault.CLOSED}


def begun(**options):
    """Return the faults of a plan that begins now."""
    faults = Faults()
    faults.set(FaultPlan(**options), now=NOW)
    return faults


def drawn(faults, operation, count, now=NOW):
    return [faults.draw(operation, now) for _ in range(count)]


def test_same_seed_same_faults():
    """The same seed gives the same faults, another seed others."""
    first, second, other = (drawn(begun(rate=0.3, seed=seed), "issue", 200) for seed in (1, 1, 2))
    assert first == second != other


def test_operations_do_not_disturb_each_other():
    """The n-th request of an operation meets the same, however operations interleave."""
    alone = {op: drawn(begun(rate=0.3, seed=7), op, 100) for op in ("issue", "get", "vouchers")}
    together = begun(rate=0.3, seed=7)
    met: dict[str, list[Fault | str | None]] = {op: [] for op in alone}
    turns = [op for op in alone for _ in range(100)]
    random.Random(5).shuffle(turns)
    for operation in turns:
        met[operation].append(together.draw(operation, NOW))
    assert met == alone
    assert alone["issue"] != alone["get"]


def test_a_stall_outlasts_every_wait_of_a_client():
    """Which of the two ends a stall is no race: the client's time-out is long over."""
    patience = Timeout()
    assert FaultPlan().stall_s >= 2 * max(patience.attempt_s, patience.change_s)


def test_a_plan_begins_from_its_seed():
    """A plan that is set again begins anew, whatever was drawn before."""
    faults = begun(rate=0.5, seed=3)
    before = drawn(faults, "issue", 50)
    faults.set(faults.plan, now=NOW + 1)
    assert drawn(faults, "issue", 50) == before


def test_lateness_does_not_move_later_faults():
    """How late work is comes of a chance of its own, so it moves no fault, and has a seed too."""
    plain, late, again = (begun(rate=0.3, seed=1, late_s=3) for _ in range(3))
    times = [late.late_s("issue") for _ in range(50)]
    assert drawn(plain, "issue", 100) == drawn(late, "issue", 100)
    assert times == [again.late_s("issue") for _ in range(50)]
    assert times != [again.late_s("void") for _ in range(50)]
    assert 0 <= min(times) < 0.5
    assert 2.5 < max(times) <= 3


@pytest.mark.parametrize(("rate", "met"), [(0, 0), (0.0, 0), (1, 500), (1.0, 500)])
def test_rate_at_its_ends(rate, met):
    """At 0 no request meets a fault, at 1 each does."""
    faults = drawn(begun(rate=rate), "issue", 500)
    assert sum(fault is not None for fault in faults) == met


@pytest.mark.parametrize("rate", [0.2, 0.5, 0.9])
def test_rate_is_kept(rate):
    """So many requests meet a fault as the rate says, and each kind as often as another."""
    faults = drawn(begun(rate=rate, seed=11), "vouchers", 20_000)
    met = [fault for fault in faults if fault is not None]
    assert len(met) / 20_000 == pytest.approx(rate, abs=0.01)
    kinds = set(Fault) - BY_NAME_ONLY
    assert set(met) == kinds
    for kind in kinds:
        assert met.count(kind) == pytest.approx(len(met) / len(kinds), rel=0.3)


def test_order_of_kinds_is_irrelevant():
    """The same kinds give the same faults, in any order, repeated, as text or not."""
    kinds = [Fault.THROTTLE, Fault.SLOW_BODY, Fault.TRUNCATED, Fault.HTML_PAGE]
    several = (kinds, kinds[::-1], [*kinds, *kinds], [str(kind) for kind in kinds], set(kinds))
    series = [drawn(begun(rate=0.5, kinds=each), "issue", 100) for each in several]
    assert all(each == series[0] for each in series)
    assert set(series[0]) == {*kinds, None}


def test_kinds_that_are_asked_for():
    """By default no request is kept waiting, no token is taken away, and nothing closes."""
    assert set(FaultPlan().kinds) == set(Fault) - BY_NAME_ONLY


def test_tokens_are_exempt_by_default():
    """A plan leaves tokens alone unless it names them, and what it does not name."""
    assert set(drawn(begun(rate=1), "token", 100)) == {None}
    named = begun(rate=1, operations=["token", "void"])
    assert None not in drawn(named, "token", 100) + drawn(named, "void", 100)
    assert set(drawn(named, "issue", 100)) == {None}
    assert set(drawn(begun(rate=1, operations=()), "issue", 100)) == {None}


def test_only_listings_are_delayed():
    """Chance delays a batch's listing only; where there is no other kind, nothing else fails."""
    faults = begun(rate=1, kinds=[Fault.LISTING_DELAY])
    assert set(drawn(faults, "vouchers", 20)) == {Fault.LISTING_DELAY}
    assert set(drawn(faults, "issue", 20) + drawn(faults, "batches", 20)) == {None}
    mixed = begun(rate=1, kinds=[Fault.LISTING_DELAY, Fault.THROTTLE])
    assert set(drawn(mixed, "issue", 50)) == {Fault.THROTTLE}
    assert set(drawn(mixed, "vouchers", 50)) == {Fault.THROTTLE, Fault.LISTING_DELAY}


def test_what_was_met_is_counted():
    """Each fault that was met is counted by operation; what met nothing is not."""
    faults = begun()
    faults.fail_next("issue", Fault.THROTTLE, times=2)
    faults.fail_next("void", "STORE_NOT_FOUND")
    drawn(faults, "issue", 5)
    drawn(faults, "void", 5)
    assert faults.met == {("issue", Fault.THROTTLE): 2, ("void", "STORE_NOT_FOUND"): 1}


def test_fail_next_keeps_its_order():
    """What is asked for comes in its order, as often as asked, for its operation only, then no
    more; before what chance would give."""
    faults = begun(rate=1, kinds=[Fault.HTML_PAGE])
    faults.fail_next("issue", Fault.THROTTLE, times=2)
    faults.fail_next("issue", "slow-body")
    faults.fail_next("issue", "InvalidGrant")
    assert drawn(faults, "get", 1) == [Fault.HTML_PAGE]
    assert drawn(faults, "issue", 5) == [
        Fault.THROTTLE,
        Fault.THROTTLE,
        Fault.SLOW_BODY,
        "InvalidGrant",
        Fault.HTML_PAGE,
    ]


def test_fail_next_outlives_a_plan_and_precedes_a_window():
    """What was asked for by name is met whichever plan is set, and in a window too."""
    faults = begun()
    faults.fail_next("issue", Fault.TRUNCATED)
    window = Window(fault=Fault.THROTTLE, start_s=0, length_s=1)
    faults.set(FaultPlan(windows=[window]), now=NOW)
    assert drawn(faults, "issue", 2) == [Fault.TRUNCATED, Fault.THROTTLE]


@pytest.mark.parametrize(
    ("operation", "fault", "times", "sentence"),
    [
        ("isue", Fault.THROTTLE, 1, r"'isue' is no operation; they are issue, get, .*token"),
        ("issue", "throtle", 1, "'throtle' is no fault, and no error code"),
        ("issue", "voucher_not_found", 1, "no fault, and no error code"),
        ("issue", "VOUCHER NOT FOUND", 1, "no fault, and no error code"),
        ("issue", "", 1, "no fault, and no error code"),
        ("issue", "DROP_BEFORE_COMMIT", 1, "is written 'drop-before-commit'"),
        ("issue", "closed", 1, "a plan with a Window"),
        ("issue", Fault.CLOSED, 1, "a plan with a Window"),
        ("issue", Fault.THROTTLE, 0, "times is a whole number, 1 or more"),
        ("issue", Fault.THROTTLE, -1, "times is a whole number, 1 or more"),
    ],
)
def test_fail_next_refuses_a_slip(operation, fault, times, sentence):
    """A slip is a `ValueError` that says what is meant, and nothing is queued."""
    emulator = Emulator(clock=FakeTime().clock)
    with pytest.raises(ValueError, match=sentence):
        emulator.fail_next(operation, fault, times=times)
    assert emulator._engine.faults.draw("issue", NOW) is None


def test_plan_refuses_an_operation_that_is_none():
    """A plan for an operation that is none is refused when it is set, and the old one stays."""
    emulator = Emulator(clock=FakeTime().clock)
    before = emulator.faults
    with pytest.raises(ValueError, match="'isue' is no operation"):
        emulator.faults = FaultPlan(rate=1, operations=["isue"])
    assert emulator.faults is before


@pytest.mark.parametrize(
    "options",
    [
        {"rate": -0.01},
        {"rate": 1.01},
        {"rate": math.nan},
        {"kinds": []},
        {"kinds": [Fault.CLOSED]},
        {"kinds": [Fault.THROTTLE, "closed"]},
        {"kinds": ["throtle"]},
        {"retry_after_s": -1},
        {"late_s": -1},
        {"late_s": math.nan},
        {"slow_body_s": -1},
        {"stall_s": -1},
        {"listing_delay_s": -1},
    ],
)
def test_plan_refuses(options):
    """A rate is 0 to 1, times are not negative, kinds are faults of single requests."""
    with pytest.raises(ValueError):
        FaultPlan(**options)


@pytest.mark.parametrize(
    "options",
    [
        {"start_s": -1},
        {"length_s": 0},
        {"length_s": -1},
        {"length_s": math.nan},
        {"fault": "throtle"},
    ],
)
def test_window_refuses(options):
    """A window begins with its plan or later, takes some time, and is of a fault."""
    with pytest.raises(ValueError):
        Window(**{"fault": Fault.THROTTLE, "start_s": 0, "length_s": 1, **options})


@pytest.mark.parametrize(
    ("at_s", "covered"), [(0, False), (1.999, False), (2, True), (4.999, True), (5, False)]
)
def test_window_bounds(at_s, covered):
    """A window has its first moment and not its last one; in it all requests meet its fault,
    tokens too, whatever the plan's operations are."""
    window = Window(fault="throttle", start_s=2, length_s=3)
    faults = begun(windows=[window], operations=["void"])
    for operation in ("issue", "token", "void"):
        met = faults.draw(operation, NOW + at_s)
        assert met is (Fault.THROTTLE if covered else None)
    assert faults.is_closed(NOW + at_s) is False


def test_first_window_wins():
    """Where two windows meet, the one that is named first is met."""
    windows = [
        Window(fault=Fault.HTML_PAGE, start_s=1, length_s=1),
        Window(fault=Fault.THROTTLE, start_s=0, length_s=3),
    ]
    faults = begun(windows=windows)
    met = [faults.draw("get", NOW + at) for at in (0, 1, 2, 3)]
    assert met == [Fault.THROTTLE, Fault.HTML_PAGE, Fault.THROTTLE, None]


@pytest.mark.parametrize("fault", [Fault.CLOSED, "closed"])
def test_turns_of_the_listener(fault):
    """The listener closes and opens exactly at its turns, also where those are fractions."""
    windows = [
        Window(fault=fault, start_s=0.1, length_s=0.2),
        Window(fault=Fault.THROTTLE, start_s=0.15, length_s=9),
        Window(fault=fault, start_s=0.7, length_s=0.1),
    ]
    faults = begun(windows=windows)
    now, seen = NOW, []
    while (turn := faults.next_turn(now)) is not None:
        assert turn > now
        seen.append((round(turn - NOW, 3), faults.is_closed(turn)))
        assert faults.is_closed(math.nextafter(turn, 0)) is not faults.is_closed(turn)
        now = turn
    assert seen == [(0.1, True), (0.3, False), (0.7, True), (0.8, False)]


def test_no_turn_without_a_window():
    """Where nothing closes there is no turn to wait for."""
    assert begun().next_turn(NOW) is None
    assert Faults().next_turn(NOW) is None


def taken(limit, now, tries=100):
    return sum(limit.takes(now) for _ in range(tries))


@pytest.mark.parametrize(
    ("per_s", "burst_s", "at_once"),
    [(10, 1, 10), (10, 0.1, 1), (10, 0, 1), (0.5, 1, 1), (30, 2, 60)],
)
def test_rate_limit_burst(per_s, burst_s, at_once):
    """At once come as many as fit into the burst, but one always does."""
    assert taken(RateLimit(per_s, burst_s=burst_s, now=NOW), NOW) == at_once


def test_rate_limit_refills():
    """What was taken comes back with time, and never more than the burst."""
    limit = RateLimit(8, burst_s=0.5, now=NOW)
    assert taken(limit, NOW) == 4
    assert taken(limit, NOW + 0.0625) == 0
    assert taken(limit, NOW + 0.125) == 1
    assert taken(limit, NOW + 0.375) == 2
    assert taken(limit, NOW + 100) == 4


def test_rate_limit_over_time():
    """In the long run no more get through than the rate, and no fewer."""
    limit = RateLimit(16, burst_s=0.25, now=NOW)
    assert sum(limit.takes(NOW + step / 64) for step in range(64 * 10)) == 16 * 10 + 4 - 1


def test_rate_limit_when_the_clock_goes_back():
    """A clock that is set back gives nothing and takes nothing, and time counts on from there."""
    limit = RateLimit(4, burst_s=0.5, now=NOW)
    assert taken(limit, NOW) == 2
    assert taken(limit, NOW - 1000) == 0
    assert taken(limit, NOW - 999.75) == 1


@pytest.mark.parametrize("per_s", [0, -1, math.nan])
def test_rate_limit_refuses(per_s):
    """A limit is more than nothing; one that is not leaves the former one alone."""
    emulator = Emulator(clock=FakeTime().clock, rate_limit=5)
    with pytest.raises(ValueError, match="more than 0"):
        emulator.rate_limit = per_s
    assert emulator.rate_limit == 5


def test_rate_limit_changes_while_running():
    """A limit can be raised, lowered and lifted; it counts from then on, with a new burst."""
    clock = FakeTime()
    emulator = Emulator(clock=clock.clock, guesses=Guesses(rate_burst_s=1))

    def throttled(count):
        limit = emulator._engine.limit
        return None if limit is None else count - taken(limit, clock.now, count)

    assert throttled(20) is None
    for per_s, refused in ((5, 15), (10, 10), (2, 18)):
        emulator.rate_limit = per_s
        assert throttled(20) == refused
        assert throttled(20) == 20
        clock.now += 1
        assert throttled(20) == refused
    emulator.rate_limit = None
    assert throttled(20) is None


def test_other_causes_shift_no_chance() -> None:
    """The n-th request meets what the seed says, whatever decided on earlier ones."""
    window = Window(fault=Fault.HTML_PAGE, start_s=0, length_s=3)
    runs = []
    for windows, queued in (((), 0), ((window,), 0), ((), 3)):
        faults = Faults()
        faults.set(FaultPlan(rate=0.5, windows=windows), now=0)
        if queued:
            faults.fail_next("issue", Fault.HTML_PAGE, times=queued)
        runs.append([faults.draw("issue", now) for now in range(100)])
    plain, *others = runs
    assert [run[3:] for run in others] == [plain[3:]] * 2
    assert {run[0] for run in others} == {Fault.HTML_PAGE}
