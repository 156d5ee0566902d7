"""The emulator's time: what falls due happens in its order, as of its own time."""

from __future__ import annotations

import math
import threading

import pytest
from support.doubles import FakeTime

from rm_voucher.emulator.virtual_clock import VirtualClock

YEAR_9000 = 221_845_392_000.0


class Diary:
    """A virtual clock on a clock, and the work that it did, with its times."""

    def __init__(self, time: FakeTime) -> None:
        self.time = time
        self.start = time.now
        self.clock = VirtualClock(time.clock)
        self.entries: list[tuple[str, float]] = []
        self.changes = 0
        self.clock.watchers.append(self._changed)

    def _changed(self) -> None:
        self.changes += 1

    def note(self, name: str) -> None:
        self.entries.append((name, self.clock.now() - self.start))

    def plan(self, name: str, in_s: float) -> None:
        self.clock.call_at(self.start + in_s, lambda: self.note(name))


@pytest.fixture
def diary(time: FakeTime) -> Diary:
    return Diary(time)


def test_time_is_the_clocks_and_what_it_was_set_ahead(diary: Diary) -> None:
    """The time is the clock's, plus all that it was set ahead."""
    assert diary.clock.now() == diary.start
    diary.clock.advance(5)
    diary.time.now += 2
    diary.clock.advance(0.5)
    assert diary.clock.now() == diary.start + 7.5


@pytest.mark.parametrize("ahead", [True, False], ids=["set ahead", "the clock's own"])
def test_what_falls_due_happens_in_order(diary: Diary, ahead: bool) -> None:
    """What is due happens by its time, then in the order of planning, as of its own time, however
    the time passed; the rest waits."""
    for name, in_s in (("c", 30), ("a", 10), ("b", 20), ("a again", 10), ("later", 30.5)):
        diary.plan(name, in_s)
    assert diary.clock.next_due() == diary.start + 10
    if ahead:
        diary.clock.advance(30)
    else:
        diary.time.now += 30
        diary.clock.run_due()
    assert diary.entries == [("a", 10), ("a again", 10), ("b", 20), ("c", 30)]
    assert diary.clock.now() == diary.start + 30
    assert diary.clock.next_due() == diary.start + 30.5


def test_nothing_happens_before_it_is_run(diary: Diary) -> None:
    """What is due at once, or was long ago, waits for the next run; it happens once."""
    diary.plan("now", 0)
    diary.plan("before", -5)
    assert diary.entries == []
    diary.clock.run_due()
    diary.clock.run_due()
    assert diary.entries == [("before", -5), ("now", 0)]
    assert diary.clock.next_due() is None


def test_what_follows_in_the_same_run(diary: Diary) -> None:
    """What an action plans happens in the same run if it is due by then, at its own time."""

    def action() -> None:
        diary.note("first")
        at = diary.clock.now()
        diary.clock.call_at(at + 5, lambda: diary.note("soon"))
        diary.clock.call_at(at + 11, lambda: diary.note("too late"))

    diary.clock.call_at(diary.start + 10, action)
    diary.plan("between", 12)
    diary.clock.advance(20)
    assert diary.entries == [("first", 10), ("between", 12), ("soon", 15)]
    diary.clock.advance(1)
    assert diary.entries[3:] == [("too late", 21)]


def test_a_run_within_a_run_does_nothing(diary: Diary) -> None:
    """An action that looks at the state lets nothing else happen under its feet."""

    def action() -> None:
        diary.clock.run_due()
        diary.note("outer")

    diary.clock.call_at(diary.start + 1, action)
    diary.plan("at the same time", 1)
    diary.plan("next", 2)
    diary.clock.advance(5)
    assert diary.entries == [("outer", 1), ("at the same time", 1), ("next", 2)]


def test_an_action_may_set_the_clock_ahead(diary: Diary) -> None:
    """What then falls due happens at the next run."""
    diary.clock.call_at(diary.start + 1, lambda: diary.clock.advance(100))
    diary.plan("after", 50)
    diary.clock.advance(5)
    assert diary.entries == []
    assert diary.clock.now() == diary.start + 105
    diary.clock.run_due()
    assert diary.entries == [("after", 50)]


def test_an_action_that_fails(diary: Diary) -> None:
    """An action's error reaches whoever ran it; the time goes on, and the rest still happens."""

    def action() -> None:
        raise RuntimeError("no")

    diary.clock.call_at(diary.start + 1, action)
    diary.plan("rest", 2)
    with pytest.raises(RuntimeError, match="no"):
        diary.clock.advance(5)
    assert diary.clock.now() == diary.start + 5
    diary.clock.run_due()
    assert diary.entries == [("rest", 2)]


@pytest.mark.parametrize("seconds", [-0.001, -math.inf, math.inf, math.nan])
def test_time_goes_forward_only(diary: Diary, seconds: float) -> None:
    """The clock is not set back, nor to no time at all."""
    diary.plan("due", 0)
    with pytest.raises(ValueError, match="forward"):
        diary.clock.advance(seconds)
    assert (diary.clock.now(), diary.entries, diary.changes) == (diary.start, [], 1)


def test_time_has_an_end(diary: Diary) -> None:
    """The clock is set to before the year 9000 at most, in one step or in many."""
    to_the_end = YEAR_9000 - diary.start
    with pytest.raises(ValueError, match="9000"):
        diary.clock.advance(to_the_end)
    diary.clock.advance(to_the_end - 1)
    with pytest.raises(ValueError, match="9000"):
        diary.clock.advance(1)
    assert diary.clock.now() == YEAR_9000 - 1


def test_whoever_waits_is_told(diary: Diary) -> None:
    """Planning something and setting the clock ahead are told of, after they are done."""
    heard: list[tuple[float, float | None]] = []
    diary.clock.watchers.append(
        lambda: heard.append((diary.clock.now() - diary.start, diary.clock.next_due()))
    )
    diary.plan("a", 5)
    diary.clock.advance(10)
    diary.clock.advance(0)
    assert heard == [(0, diary.start + 5), (10, None), (10, None)]
    assert diary.entries == [("a", 5)]


def test_reset(diary: Diary) -> None:
    """A reset forgets what was to happen, and goes back to the clock's own time."""
    diary.plan("never", 50)
    diary.clock.advance(20)
    diary.time.now += 1
    diary.clock.reset()
    assert (diary.clock.now(), diary.clock.next_due()) == (diary.start + 1, None)
    diary.clock.advance(100)
    assert diary.entries == []


def test_reset_within_a_run(diary: Diary) -> None:
    """An action may reset: nothing else happens in that run."""
    diary.clock.call_at(diary.start + 1, diary.clock.reset)
    diary.plan("never", 2)
    diary.clock.advance(5)
    assert (diary.entries, diary.clock.now()) == ([], diary.start)


def test_nobody_need_listen(time: FakeTime) -> None:
    """Without anybody to tell, things happen all the same."""
    virtual_clock = VirtualClock(time.clock)
    happened: list[float] = []
    virtual_clock.call_at(time.now + 1, lambda: happened.append(virtual_clock.now()))
    virtual_clock.advance(2)
    assert happened == [time.now + 1]


def test_another_thread_waits_for_what_happens(diary: Diary) -> None:
    """While something happens as of its own time, no other thread is told that time."""
    told: list[float] = []
    other = threading.Thread(target=lambda: told.append(diary.clock.now()))

    def look_on() -> None:
        other.start()
        other.join(0.05)

    diary.clock.call_at(diary.start + 1, look_on)
    diary.time.now += 5
    diary.clock.run_due()
    other.join()
    assert told == [diary.start + 5]


def test_a_moment_has_one_time(diary: Diary) -> None:
    """What is due at a moment has happened before it; what falls due in it happens after it."""
    diary.plan("before", 1)
    diary.plan("during", 3)
    diary.time.now += 2
    with diary.clock.frozen():
        diary.time.now += 2
        diary.clock.run_due()
        diary.note("moment")
    diary.clock.run_due()
    assert diary.entries == [("before", 1), ("moment", 2), ("during", 3)]
