"""The probe's truth: against an emulator that is set so, it names exactly what it is set to."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest
from support.probe_runs import ALL, like, stage

from rm_voucher.emulator import Guesses
from rm_voucher.probe import Options, Report, Verdict
from rm_voucher.probe.catalogue import EXPERIMENTS, WITHOUT_EXPERIMENT
from rm_voucher.probe.findings import plain

VALUES: dict[str, list[Any]] = {
    "codes_up_front": [False, True],
    "used_from": ["ISSUED", "REDEEMED", "VOID"],
    "sold_out_code": ["VOUCHER_BATCH_NOT_ENOUGH_QUANTITY", "VOUCHER_SOLD_OUT"],
    "expired_code": ["VOUCHER_BATCH_EXPIRED", "EXPIRY_INVALID"],
    "static_issue_code": ["", "VOUCHER_BATCH_KEY_INVALID"],
    "lists_valid": [True, False],
    "listing_delay_s": [0.0, 1.0, 5.0, 30.0, 60.0],
    "lists_assigned_at": [True, False],
    "page_size": [100, 3, 5],
    "last_page": ["no-cursor", "null", "empty-text", "empty-page"],
    "shows_assigned_at": [True, False],
    "undated_expiry": ["2050-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "2099-01-01T00:00:00Z"],
    "codes_ignore_case": [False, True],
    "void_needs_redeem": [False, True],
    "void_needs_store": [False, True],
    "unknown_store_code": ["", "STORE_NOT_FOUND", "STORE_ID_INVALID"],
    "void_again_code": ["VOUCHER_NOT_ALLOW_VOID", "VOUCHER_REDEEMED_INVALID", ""],
    "keeps_used_at": [True, False],
    "used_at_digits": [6, 0, 1, 2, 3, 4, 5],
    "wrong_pin_code": ["USER_PIN_CODE_INVALID", "PIN_INVALID"],
    "reinstate_to": ["REDEEMED", "ISSUED"],
    "redeems_valid": [True, False],
    "redeem_again_code": ["VOUCHER_REDEEMED", "VOUCHER_REDEEMED_INVALID"],
    "redeem_is_atomic": [True, False],
    "max_redeem_codes": [100, 2, 50, 101, 500, 999, 1000, 1],
    "member_redeem_to": ["VOID", "REDEEMED"],
    "get_methods": [["POST", "GET"], ["GET"], ["POST"]],
    "older_batch_path": [True, False],
    "unknown_path_code": ["API_ENDPOINT_NOT_FOUND", "PAGE_NOT_FOUND"],
    "signed_path": ["as-sent", "raw", "escaped"],
    "signature_debug": [True, False],
    "duplicate_code": ["DUPLICATE_REQUEST", "REQUEST_REPEATED", "INVALID_REQUEST"],
    "token_delay_s": [0.0, 1.0, 2.0, 5.0, 30.0],
    "new_token_ends_earlier": [False, True],
    "sends_date": [True, False],
    "statuses": [
        {},
        {"VOUCHER_NOT_FOUND": 400},
        {"USER_PIN_CODE_INVALID": 403, "VOUCHER_REDEEMED": 409},
    ],
    "throttle_code": ["TOO_MANY_REQUEST_PER_SECOND", "TOO_MANY_REQUEST"],
    "throttle_status": [429, 503],
    "throttle_retry_after_s": [None, 2],
}
CHECKS = ["signature", "nonce", "timestamp", "rotation", "pin"]
# Between two of the probe's steps, and what it says then.
RATES: dict[float | None, tuple[int, int | None]] = {
    None: (100, None), 7.0: (5, 10), 15.0: (10, 20), 70.0: (50, 100),
}  # fmt: skip

Setting = dict[str, Any]
# What a combination hides, and why: docs/probe.md lists the same.
HIDDEN: dict[str, Callable[[Setting], bool]] = {
    "codes_up_front": lambda s: not s["lists_valid"],
    "redeems_valid": lambda s: not s["lists_valid"],
    "lists_assigned_at": lambda s: not s["shows_assigned_at"],
    "page_size": lambda s: s["page_size"] == 100,
    "used_at_digits": lambda s: not s["keeps_used_at"],
    "reinstate_to": lambda s: s["void_needs_redeem"],
    "redeem_is_atomic": lambda s: s["max_redeem_codes"] == 1,
    "max_redeem_codes": lambda s: s["max_redeem_codes"] >= 1000,
    "signature_debug": lambda s: "signature" in s["disabled"],
    "signed_path": lambda s: "signature" in s["disabled"],
    "duplicate_code": lambda s: "nonce" in s["disabled"],
    "wrong_pin_code": lambda s: "pin" in s["disabled"],
    "throttle_code": lambda s: s["rate"] is None,
    "throttle_status": lambda s: s["rate"] is None,
    "throttle_retry_after_s": lambda s: s["rate"] is None,
    "fact:rate": lambda s: not s["measure_rate"],
    "idle_life_s": lambda s: True,
}


def default() -> Setting:
    return {
        **{name: values[0] for name, values in VALUES.items()},
        "disabled": [],
        "rate": None,
        "measure_rate": False,
    }


def one_by_one() -> Iterator[Setting]:
    """Yield each value of each option, with all else as it is by default."""
    yield default()
    for name, values in VALUES.items():
        for value in values[1:]:
            setting = {**default(), name: value}
            if name.startswith("throttle"):
                setting |= {"rate": 15.0, "measure_rate": True}
            yield setting
    for check in CHECKS:
        yield {**default(), "disabled": [check]}
    for rate in RATES:
        yield {**default(), "rate": rate, "measure_rate": True}


def by_chance(seed: int) -> Setting:
    chance = random.Random(seed)
    rate = chance.choice([*RATES, None, None])
    return {
        **{name: chance.choice(values) for name, values in VALUES.items()},
        "disabled": [check for check in CHECKS if chance.random() < 0.15],
        "rate": rate,
        "measure_rate": rate is not None,  # it takes most of the requests
    }


def guesses_of(setting: Setting) -> Guesses:
    return Guesses(**{name: setting[name] for name in VALUES})


def options_of(setting: Setting) -> Options:
    return attrs.evolve(ALL, measure_rate=setting["measure_rate"])


def run(setting: Setting) -> Report:
    there = stage(
        guesses_of(setting), disabled_checks=setting["disabled"], rate_limit=setting["rate"]
    )
    report = there.run(options_of(setting))
    assert report.stopped == ""
    assert there.used <= report.used.vouchers <= report.stated.vouchers
    assert report.used.calls <= report.stated.calls
    return report


def wrong(setting: Setting, report: Report) -> list[str]:
    """Return what the report says wrong, or leaves open though the setting shows it."""
    expected = {name: plain(setting[name]) for name in VALUES}
    # Without the check its clock is compared with nobody's, and the emulator tells no time.
    expected["sends_date"] = setting["sends_date"] and "timestamp" not in setting["disabled"]
    expected["statuses"] = None  # below: of the codes that came
    for check in CHECKS:
        expected[f"check:{check}"] = check not in setting["disabled"]
    taken, throttled = RATES[setting["rate"]]
    expected["fact:rate"] = {"taken_per_s": taken, "throttled_per_s": throttled}
    found = []
    for finding in report.findings:
        name = finding.subject
        if name == "statuses":
            good = finding.value.items() <= setting["statuses"].items()
        elif HIDDEN.get(name, lambda _: False)(setting):
            good = finding.verdict is Verdict.NOT_DECIDED and finding.why != ""
        else:
            good = finding.verdict is not Verdict.NOT_DECIDED
            good = good and finding.value == expected.get(name, finding.assumed)
        if not good:
            found.append(f"{name}: {finding} (set to {expected.get(name)})")
    return found


def same(report: Report, again: Report) -> bool:
    """Return whether all that a report decides is the same in another one."""
    return report.decided.items() <= again.decided.items() and report.headers == again.headers


def check(setting: Setting, tmp_path: Any) -> None:
    report = run(setting)
    assert wrong(setting, report) == [], setting
    # `Emulator.like` does the same: the probe of it gives the same report.
    again = like(report, tmp_path / "probe.json").run(options_of(setting))
    assert same(report, again), setting


def test_every_option_is_set():
    """The table above has all options that an experiment decides, and the default is first."""
    decided = {
        one.subject for each in EXPERIMENTS for one in each.decides if ":" not in one.subject
    }
    assert decided == {*VALUES, "idle_life_s"}  # that takes a socket: test_idle.py
    assert not decided & set(WITHOUT_EXPERIMENT)
    assert guesses_of(default()) == Guesses(get_methods=["POST", "GET"])


SINGLE = list(one_by_one())
# 200 with `nox -s probe`.
COMBINATIONS = int(os.environ.get("PROBE_COMBINATIONS", "24"))


@pytest.mark.parametrize("part", range(6))
@pytest.mark.long
def test_each_value_is_named(part):
    """Each value of each option is named exactly."""
    for setting in SINGLE[part::6]:
        assert wrong(setting, run(setting)) == [], setting


def test_what_decides_otherwise_than_by_default():
    """Each of these is named by a rule that no default takes."""
    common = {"codes_up_front": True, "shows_assigned_at": False, "max_redeem_codes": 1}
    settings: list[Setting] = [
        {**default(), **common, "redeems_valid": False, "keeps_used_at": False},
        {**default(), "disabled": ["signature", "nonce", "rotation"]},
    ]
    for setting in settings:
        assert wrong(setting, run(setting)) == []


@pytest.mark.parametrize("seed", range(3))
def test_some_combinations(seed, tmp_path):
    """As below, a few."""
    check(by_chance(seed), tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("part", range(4))
def test_combinations(part, tmp_path):
    """Nothing is named wrong, and left open is only what the combination hides."""
    for seed in range(1000 + part, 1000 + COMBINATIONS, 4):
        check(by_chance(seed), tmp_path)


def test_nothing_named_leaves_little_open():
    """Without any option the default run decides what needs no more than the batch."""
    report = stage(guesses_of({**default(), "page_size": 3})).run(type(ALL)())
    open_ = {one.subject for one in report.findings if one.verdict is Verdict.NOT_DECIDED}
    assert open_ == {
        "static_issue_code", "sold_out_code", "expired_code", "member_redeem_to", "reinstate_to",
        "lists_valid", "codes_up_front", "redeems_valid", "fact:rate", "throttle_code",
        "throttle_status", "throttle_retry_after_s", "idle_life_s",
    }  # fmt: skip
    assert report.used.vouchers == 2
