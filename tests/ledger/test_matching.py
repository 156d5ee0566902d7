"""What `conclude` makes of a listing: pure, and held to a slower way of matching."""

import itertools

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rm_voucher.ledger import AttemptState, Mode
from rm_voucher.ledger.rules.commands import Found
from rm_voucher.ledger.rules.matching import Evidence, candidates, conclude
from rm_voucher.ledger.rules.records import IssueAttempt

AMBIGUOUS, NOT_ISSUED = AttemptState.AMBIGUOUS, AttemptState.NOT_ISSUED
DECIDED = (AttemptState.UNRESOLVED, AttemptState.WRITTEN_OFF)
SETTLE_S, SKEW_S = 10.0, 2.0
LATE_S = 2 * SETTLE_S


def attempt(name, sent_at, ended_at=None, state=AMBIGUOUS):
    return IssueAttempt(name, "B", None, "owner", state, sent_at, ended_at)


def evidence(attempts, orphans, *, ripe=None, **changes):
    """Return evidence in which all is ripe, complete and balanced, unless it says otherwise."""
    names = [one.id for one in attempts if one.state is AMBIGUOUS]
    fields = {
        "mode": Mode.EXCLUSIVE,
        "complete": True,
        "balanced": True,
        "settle_s": SETTLE_S,
        "skew_s": SKEW_S,
        "ripe": frozenset(names if ripe is None else ripe),
    }
    return Evidence(attempts=attempts, orphans=orphans, **{**fields, **changes})


def at(assigned_at, code=None):
    return Found(code=code or f"c{assigned_at}", assigned_at=assigned_at)


def untimed(*codes):
    return [Found(code=code) for code in codes]


def concluded(*args, **changes):
    return conclude("B", evidence(*args, **changes), 1000.0)


def adopted(settlement):
    return {name: found.code for name, found in settlement.adopt}


TIMES = st.integers(0, 60).map(float)
CALLS = st.lists(
    st.tuples(
        TIMES, st.integers(0, 30), st.sampled_from([AMBIGUOUS, AMBIGUOUS, NOT_ISSUED, *DECIDED])
    ),
    max_size=7,
).map(lambda rows: [attempt(f"a{n}", t, t + d, s) for n, (t, d, s) in enumerate(rows)])
ORPHANS = st.lists(st.one_of(TIMES, st.none()), max_size=7).map(
    lambda times: [Found(code=f"c{n}", assigned_at=time) for n, time in enumerate(times)]
)
TIMED = st.lists(TIMES, max_size=7).map(
    lambda times: [Found(code=f"c{n}", assigned_at=time) for n, time in enumerate(times)]
)


@st.composite
def situations(draw, /, orphans=ORPHANS, **fixed):
    attempts = draw(CALLS)
    ripe = [one.id for one in attempts if one.state is AMBIGUOUS and draw(st.booleans())]
    free = {
        "mode": st.sampled_from(Mode),
        "complete": st.booleans(),
        "balanced": st.booleans(),
    }
    chosen = {name: draw(values) for name, values in free.items() if name not in fixed}
    return evidence(attempts, draw(orphans), ripe=ripe, **chosen, **fixed)


def fits(one, found, after_s=SETTLE_S):
    return one.sent_at - SKEW_S <= found.assigned_at <= one.ended_at + after_s + SKEW_S


def most_pairs(attempts, orphans, after_s=SETTLE_S):
    """Return how many pairs the largest matching has, by augmenting paths."""
    mate: dict[str, Found] = {}

    def augment(found, seen):
        for one in attempts:
            if one.id not in seen and fits(one, found, after_s):
                seen.add(one.id)
                if one.id not in mate or augment(mate[one.id], seen):
                    mate[one.id] = found
                    return True
        return False

    return sum(augment(found, set()) for found in orphans)


@given(situations())
def test_conclusions_concern_what_is_in_doubt_each_once(what):
    """Each attempt and each code is named once at most, and only where it is in doubt."""
    done = conclude("B", what, 1000.0)
    names = [*(name for name, _ in done.adopt), *done.not_issued, *done.hold]
    assert len(set(names)) == len(names)
    assert set(names) <= {one.id for one in what.attempts}
    codes = [found.code for _, found in done.adopt] + [found.code for found in done.foreign]
    assert len(set(codes)) == len(codes)
    assert set(codes) <= {found.code for found in what.orphans}
    states = {one.id: one.state for one in what.attempts}
    assert all(states[name] is AMBIGUOUS for name in (*done.not_issued, *done.hold))
    assert (done.batch, done.at) == ("B", 1000.0)


@given(situations())
def test_nothing_is_adopted_outside_its_time(what):
    """A code with a time is adopted only for an attempt in whose time it was issued."""
    attempts = {one.id: one for one in what.attempts}
    for name, found in conclude("B", what, 0.0).adopt:
        one = attempts[name]
        if found.assigned_at is not None:
            assert fits(one, found, LATE_S)
        else:
            assert one.state is AMBIGUOUS


@given(situations(mode=Mode.SHARED))
def test_shared_batch_adopts_nothing(what):
    """In a shared batch no code is taken for ours, and nothing stops."""
    done = conclude("B", what, 0.0)
    assert (done.adopt, done.stop_reason) == ((), None)


@given(situations(mode=Mode.SHARED))
def test_shared_batch_calls_nothing_foreign_while_an_outcome_is_open(what):
    """A code that has no other explanation may be that attempt's."""
    done = conclude("B", what, 0.0)
    settled = {*done.hold, *done.not_issued}
    if any(one.state is AMBIGUOUS and one.id not in settled for one in what.attempts):
        assert done.foreign == ()
    fitting = [one for one in what.attempts if one.state is not NOT_ISSUED]
    for found in done.foreign:
        assert found.assigned_at is not None
    timed = [found for found in what.orphans if found.assigned_at is not None]
    if done.foreign:
        assert len(done.foreign) == len(timed) - most_pairs(fitting, timed, LATE_S)


@given(situations(mode=Mode.SHARED, complete=True, orphans=TIMED))
def test_shared_batch_takes_no_more_for_nothing_than_the_codes_allow(what):
    """Each code that fits no attempt speaks for one: it is held, if there is one left."""
    done = conclude("B", what, 0.0)
    fitting = [one for one in what.attempts if one.state is not NOT_ISSUED]
    unexplained = len(what.orphans) - most_pairs(fitting, what.orphans, LATE_S)
    without = [name for name in what.ripe if not candidates_of(what, name)]
    assert len(done.not_issued) == max(0, len(without) - unexplained)


def candidates_of(what, name):
    (one,) = (one for one in what.attempts if one.id == name)
    return candidates(one, what.orphans, what)


@given(situations())
def test_not_issued_needs_a_complete_listing_and_time_and_no_candidate(what):
    """What may still show up, or may be there, is not taken for nothing."""
    done = conclude("B", what, 0.0)
    assert what.complete or not done.not_issued
    assert set(done.not_issued) <= what.ripe
    taken = {found.code for _, found in done.adopt}
    left = [found for found in what.orphans if found.code not in taken]
    for one in what.attempts:
        if one.id in done.not_issued:
            assert candidates(one, left, what) == []


@given(situations(mode=Mode.SHARED))
def test_shared_batch_settles_all_that_is_ripe(what):
    """Ripe attempts are held if they have a candidate. In a complete listing others are settled."""
    done = conclude("B", what, 0.0)
    for one in what.attempts:
        if one.id in what.ripe:
            if candidates(one, what.orphans, what):
                assert one.id in done.hold
            else:
                assert (one.id in {*done.hold, *done.not_issued}) is what.complete
        else:
            assert one.id not in {*done.hold, *done.not_issued}


@given(situations(mode=Mode.EXCLUSIVE))
def test_foreign_codes_stop_adoption(what):
    """With an alarm nothing is adopted or taken for not issued, but all is held: if the clock was
    wrong, a foreign code may be any attempt's. It always comes with an alarm."""
    done = conclude("B", what, 0.0)
    if done.stop_reason is not None:
        assert (done.adopt, done.not_issued) == ((), ())
        assert set(done.hold) == {one.id for one in what.attempts if one.state is AMBIGUOUS}
    else:
        assert done.foreign == ()


@given(situations(orphans=TIMED, mode=Mode.EXCLUSIVE))
def test_matching_is_the_largest(what):
    """No other way to match codes in time with open attempts has more pairs, and late codes are
    matched as well as can be with what is left; only what then is left over is foreign."""
    ambiguous = [one for one in what.attempts if one.state is AMBIGUOUS]
    decided = [one for one in what.attempts if one.state in DECIDED]
    done = conclude("B", what, 0.0)
    most = most_pairs(ambiguous, what.orphans)
    if done.stop_reason is None:
        pairs = [name for name, _ in done.adopt if name in {one.id for one in ambiguous}]
        assert len(pairs) >= most
        adopted = {found.code for _, found in done.adopt}
        left = [found for found in what.orphans if found.code not in adopted]
        assert most_pairs(decided, left, LATE_S) == len(left)
    else:
        assert 0 < len(done.foreign) <= len(what.orphans) - most


@given(st.lists(TIMES, min_size=1, max_size=6))
def test_codes_of_one_attempt_each_are_all_adopted(times):
    """When each code is an attempt's own, there is no alarm however they overlap."""
    attempts = [attempt(f"a{n}", time, time + 1) for n, time in enumerate(times)]
    orphans = [at(time + 1, f"c{n}") for n, time in enumerate(times)]
    done = concluded(attempts, orphans)
    assert len(done.adopt) == len(times)
    assert (done.stop_reason, done.not_issued, done.hold) == (None, (), ())


@pytest.mark.parametrize(
    ("assigned_at", "is_mine"),
    [(97.9, False), (98.0, True), (105.0, True), (127.0, True), (127.1, False)],
)
def test_window_of_an_attempt(assigned_at, is_mine):
    """Its time begins before it was sent, by the skew, and ends after its end by twice the settle
    time, because a code may be late, and the skew."""
    done = concluded([attempt("a", 100.0, 105.0)], [at(assigned_at)])
    assert bool(done.adopt) is is_mine
    assert bool(done.foreign) is not is_mine


def test_window_of_an_attempt_without_an_end():
    """One whose end nobody noted counts as ended when it was sent."""
    assert concluded([attempt("a", 100.0)], [at(122.0)]).adopt
    assert concluded([attempt("a", 100.0)], [at(122.1)]).foreign


def test_late_code_of_a_settled_attempt():
    """A code may show up long after its attempt was taken for nothing; later it is foreign."""
    settled = attempt("a", 100.0, 100.0, NOT_ISSUED)
    assert adopted(concluded([settled], [at(100.0 + LATE_S, "c")])) == {"a": "c"}
    assert concluded([settled], [at(103.0 + LATE_S)]).stop_reason


def test_open_attempt_comes_before_a_settled_one():
    """A code that could be either's is the open one's."""
    attempts = [attempt("old", 100.0, 101.0, NOT_ISSUED), attempt("new", 100.0, 101.0)]
    assert adopted(concluded(attempts, [at(101.0, "c")])) == {"new": "c"}


def test_unripe_attempt_is_adopted_but_never_given_up():
    """A code that is there proves its attempt at once; that none is there proves nothing yet."""
    attempts = [attempt("a", 100.0, 101.0), attempt("b", 200.0, 201.0)]
    done = concluded(attempts, [at(100.5, "c")], ripe=[])
    assert adopted(done) == {"a": "c"}
    assert (done.not_issued, done.hold) == ((), ())


def test_incomplete_listing_gives_nothing_up():
    """What is not in a listing that lacks something may exist."""
    done = concluded([attempt("a", 100.0, 101.0)], [], complete=False, balanced=False)
    assert (done.adopt, done.not_issued, done.hold, done.stop_reason) == ((), (), (), None)


def test_codes_without_time_are_adopted_by_count_and_balance():
    """Without a time, a code is adopted if there is an open attempt for each, and the balance says
    that all are listed; else those that are ripe are held."""
    attempts = [attempt(name, 100.0, 101.0) for name in ("a", "b", "c")]
    done = concluded(attempts, untimed("x", "y"), ripe=["a", "b", "c"])
    assert len(done.adopt) == 2
    assert len(done.not_issued) == 1
    done = concluded(attempts, untimed("x", "y"), ripe=["a", "b"], balanced=False)
    assert (done.adopt, done.not_issued, done.hold) == ((), (), ("a", "b"))
    done = concluded(attempts, untimed("w", "x", "y", "z"))
    assert done.adopt == done.foreign == done.not_issued == ()
    assert done.hold == ("a", "b", "c")
    assert "4 code(s)" in done.stop_reason


@pytest.mark.parametrize("state", DECIDED)
def test_codes_of_what_a_person_decides_are_left_alone(state):
    """The code of an attempt that is held, or was written off, is neither adopted nor foreign."""
    decided = attempt("a", 100.0, 101.0, state)
    for orphans in ([at(101.0)], untimed("x")):
        for balanced in (True, False):
            done = concluded([decided], orphans, balanced=balanced)
            assert (done.adopt, done.foreign, done.stop_reason) == ((), (), None)
    assert concluded([decided], [at(101.0, "c"), at(101.0, "d")]).stop_reason
    assert concluded([decided], untimed("x", "y")).stop_reason
    assert concluded([decided], [at(101.0), *untimed("x")]).stop_reason


def test_open_attempt_comes_before_what_a_person_decides():
    """Codes are alike: who waits gets one, and the rest is left for the held attempt."""
    attempts = [attempt("held", 100.0, 101.0, DECIDED[0]), attempt("open", 100.0, 101.0)]
    assert adopted(concluded(attempts, [at(101.0, "c")])) == {"open": "c"}
    assert adopted(concluded(attempts, untimed("x"))) == {"open": "x"}
    assert adopted(concluded(attempts, untimed("x", "y"))) == {"open": "x"}
    assert concluded(attempts, untimed("x", "y"), balanced=False).hold == ("open",)


@pytest.mark.parametrize("mode", Mode)
@pytest.mark.parametrize("step_s", [-3600.0, 3600.0])
def test_clock_that_was_set_during_an_attempt(mode, step_s):
    """An attempt's code is found whichever way the clock was set between its times."""
    done = concluded([attempt("a", 10_000.0, 10_005.0 + step_s)], [at(10_001.0)], mode=mode)
    assert (done.not_issued, done.stop_reason) == ((), None)
    assert len(done.adopt) == (mode is Mode.EXCLUSIVE)
    assert len(done.hold) == (mode is Mode.SHARED)


def test_codes_with_a_time_come_first():
    """What time proves is taken before what is counted."""
    attempts = [attempt("a", 100.0, 101.0), attempt("b", 300.0, 301.0)]
    done = concluded(attempts, [*untimed("x"), at(300.0, "y")])
    assert adopted(done) == {"a": "x", "b": "y"}


def test_evidence_and_settlement_show_no_code():
    """What is concluded can be logged."""
    what = evidence([attempt("a", 100.0, 101.0)], [at(100.0, "CANARY")])
    assert "CANARY" not in repr((what, conclude("B", what, 0.0)))
    assert "CANARY" not in repr(conclude("B", attrs.evolve(what, attempts=()), 0.0))


def test_brute_force_agrees_with_itself():
    """The matching that others are held to finds what trying all orders finds."""
    attempts = [attempt(f"a{n}", s, e) for n, (s, e) in enumerate([(0, 5), (3, 20), (18, 40)])]
    orphans = [at(time, f"c{time}") for time in (4.0, 16.0, 31.0)]
    best = max(
        sum(fits(one, found) for one, found in zip(order, orphans, strict=True))
        for order in itertools.permutations(attempts)
    )
    assert most_pairs(attempts, orphans) == best == 3
