"""What ``rm-voucher issue`` says before it issues, and what ends it there."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
import typer
from support.answers import ok, rm_error
from support.files import DOCS

from rm_voucher import BatchStatus, Environment, Expiry, ExpiryType, VoucherBatch, VoucherType
from rm_voucher.cli import plan as command
from rm_voucher.cli.plan import IssuePlan, in_minutes
from rm_voucher.cli.screen import SCREEN
from rm_voucher.emulator.reply import Reply

NOW = datetime(2126, 11, 30, tzinfo=UTC)


def a_plan(**changes: Any) -> IssuePlan:
    plan = IssuePlan(
        environment=Environment.PRODUCTION,
        profile=None,
        client_id="client-id",
        batch_key="B",
        batch=VoucherBatch(label="Breakfast", balance_quantity=5),
        recipients=3,
        ledger=None,
        served=0,
        held=0,
        rate_per_s=None,
        is_rate_given=False,
    )
    return attrs.evolve(plan, **changes)


def said(err: str) -> dict[str, str]:
    """Return the lines of a plan by their names."""
    return dict(line.split(": ", 1) for line in err.splitlines() if ": " in line)


@pytest.fixture(autouse=True)
def not_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the last command was told."""
    monkeypatch.setattr(SCREEN, "quiet", False)


def everything_in(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_plan_on_the_page_is_what_is_said(rm, embedded) -> None:
    """docs/plan.md shows the plan of the command above it."""
    page = (DOCS / "plan.md").read_text()
    typed, shown = re.findall(r"```(?:sh|text)\n(.*?)```", page, re.S)[:2]
    program, *arguments = typed.split()
    assert program == "rm-voucher"
    assert rm(*arguments).err == shown


def test_fields_on_the_page_are_those_of_the_plan() -> None:
    """docs/plan.md names each, and no other."""
    page = (DOCS / "plan.md").read_text().partition("## The plan as JSON")[2]
    rows = re.findall(r"^\| (`.+?`) \|", page, re.M)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(
        a_plan().as_object()
    )


@pytest.mark.parametrize("has_ledger", [False, True])
def test_dry_run_changes_nothing(rm, served, tmp_path: Path, has_ledger: bool) -> None:
    """No voucher, no file, no ledger, and no change to those there are; exit code 0."""
    served.emulator.add_batch("Breakfast", key="B", quantity=10)
    output, database = tmp_path / "out.csv", tmp_path / "ledger.db"
    arguments = ["issue", "B", "--output", output, "--again"]
    if has_ledger:
        arguments += ["--ledger", f"sqlite:///{database}"]
    before = everything_in(tmp_path)
    assert rm(*arguments, "--count", 4, "--dry-run").code == 0
    assert (everything_in(tmp_path), served.issued()) == (before, [])
    assert rm(*arguments, "--count", 2).code == 0
    before = everything_in(tmp_path)
    ended = rm(*arguments, "--count", 4, "--dry-run")
    assert (ended.code, ended.out) == (0, "")
    assert (everything_in(tmp_path), len(served.issued())) == (before, 2)
    expected = "4, of whom 2 have a voucher in the ledger; 2 to issue" if has_ledger else "4"
    assert said(ended.err)["Recipients"] == expected


def test_dry_run_for_a_program(rm, served, tmp_path: Path) -> None:
    """One line of JSON has all of the plan."""
    served.emulator.add_batch(
        "Breakfast",
        key="B",
        quantity=9,
        type=VoucherType.CASH,
        amount_sen=500,
        expiry=Expiry(type=ExpiryType.FIXED, expires_at=NOW + timedelta(days=1)),
    )
    ended = rm("issue", "B", "--count", 3, "--rate", "0.5", "--dry-run", "--json")
    assert ended.json == [
        {
            "environment": f"an emulator at {served.url}",
            "is_real": False,
            "url": served.url,
            "profile": None,
            "client_id": "client-id",
            "batch": "B",
            "label": "Breakfast",
            "status": "COMPLETED",
            "type": "CASH",
            "amount_sen": 500,
            "discount_rate_bp": 0,
            "minimum_spend_sen": 0,
            "expires_at": "2126-12-01T00:00:00Z",
            "expires_days": None,
            "quantity": 9,
            "balance": 9,
            "is_static": False,
            "recipients": 3,
            "served": 0,
            "held": 0,
            "given_up": 0,
            "elsewhere": 0,
            "others": 0,
            "to_issue": 3,
            "ledger": None,
            "ledger_unseen": None,
            "stopped": None,
            "rate_per_s": 0.5,
            "expected_s": 6.0,
        }
    ]


def test_plan_of_one_is_not_shown(rm, embedded) -> None:
    """Unless it is asked for."""
    assert "Recipients: " not in rm("issue", "B").err
    assert "Recipients: 1\n" in rm("issue", "B", "--dry-run").err


def test_quiet(rm, embedded) -> None:
    """Then no plan is said."""
    assert "Recipients: " not in rm("issue", "B", "--count", 2, "--quiet").err


@pytest.mark.parametrize("has_ledger", [False, True])
def test_fewer_than_wanted(rm, served, tmp_path: Path, has_ledger: bool) -> None:
    """A batch that has too few left is left alone, unless a part will do."""
    served.emulator.add_batch("Breakfast", key="B", quantity=4)
    output = tmp_path / "out.csv"
    ledger = ["--ledger", f"sqlite:///{tmp_path}/a.db"] if has_ledger else []
    arguments = ("issue", "B", "--concurrency", 1, "--output", output, *ledger)
    ended = rm(*arguments, "--count", 5)
    assert (ended.code, ended.out, served.issued()) == (2, "", [])
    assert ended.err.endswith(
        "Error: The batch has 4 left, and 5 are to be issued. Nothing was issued. --partial issues "
        "as many as there are.\n"
    )
    assert list(tmp_path.iterdir()) == []
    assert rm(*arguments, "--count", 5, "--dry-run").code == 2
    assert rm(*arguments, "--count", 5, "--partial").code == 1
    assert len(served.issued()) == 4
    if has_ledger:  # those who have theirs need none, and one who was refused does
        assert rm(*arguments, "--count", 4).code == 0
        assert "5, of whom 4 have a voucher in the ledger; 1 to issue" in (
            rm(*arguments, "--count", 5).err
        )


@pytest.mark.parametrize("balance", [None, "many", -1, 5.5])
def test_balance_that_is_not_known(rm, served, balance: object) -> None:
    """A server that does not say how many are left hinders nobody."""
    served.emulator.add_batch("Breakfast", key="B", quantity=4)
    reply = served.emulator.reply

    def answer(request):
        if request.operation != "batch" and not request.url.path.endswith("/B"):
            return reply(request)
        item = {"key": "B", "label": "Breakfast", "balanceQuantity": balance}
        return Reply(ok({"item": item, "code": "SUCCESS"}))

    served.emulator.reply = answer
    ended = rm("issue", "B", "--count", 3)
    assert (ended.code, len(served.issued())) == (0, 3), ended
    assert "how many are left is not known" in ended.err


def test_batch_that_can_not_be_read(rm, served) -> None:
    """It is said, and the run goes on: to issue, the key is enough."""
    served.emulator.add_batch("Breakfast", key="B", quantity=4)
    reply = served.emulator.reply

    def answer(request):
        if request.url.path.endswith("/B"):
            return Reply(ok({"item": {"key": 5}, "code": "SUCCESS"}))
        return reply(request)

    served.emulator.reply = answer
    ended = rm("issue", "B", "--count", 3)
    assert (ended.code, len(served.issued())) == (0, 3), ended
    assert "What the server says of the batch can't be read: " in ended.err
    assert said(ended.err)["Batch"].startswith("B; ")


def test_server_that_fails(rm, served, monkeypatch) -> None:
    """Nothing is issued, and there is one sentence."""
    served.emulator.add_batch("Breakfast", key="B", quantity=4)
    reply = served.emulator.reply
    served.emulator.reply = lambda request: (
        Reply(rm_error("INTERNAL_SERVER_ERROR", 400))
        if request.url.path.endswith("/B")
        else reply(request)
    )
    ended = rm("issue", "B", "--count", 3)
    assert (ended.code, ended.out, served.issued()) == (1, "", [])
    assert ended.err.count("\n") == 1


def test_ledger_of_recipients(rm, served, tmp_path: Path) -> None:
    """Who is in the ledger under another spelling, or of another batch, is told from the rest."""
    served.emulator.add_batch("Breakfast", key="B", quantity=9)
    served.emulator.add_batch("Lunch", key="C", quantity=9)
    people, ledger = tmp_path / "people.csv", ("--ledger", f"sqlite:///{tmp_path}/a.db")
    people.write_text("recipient\nJos\u00e9\nAh Kow\n")
    assert rm("issue", "B", "--recipients", people, *ledger).code == 0
    people.write_text("recipient\nJose\u0301\nAh Kow\nSiti\n")
    ended = rm("issue", "B", "--recipients", people, *ledger, "--dry-run")
    assert said(ended.err)["Recipients"] == (
        "3, of whom 2 have a voucher in the ledger; 1 to issue"
    )
    ended = rm("issue", "C", "--recipients", people, *ledger, "--dry-run")
    assert said(ended.err)["Recipients"] == (
        "3, of whom 0 have a voucher in the ledger, 2 stand in it for another batch and will fail "
        "(give each campaign a ledger of its own); 1 to issue"
    )


def test_batch_that_has_ended(capsys) -> None:
    """It is said."""
    ended = Expiry(type=ExpiryType.FIXED, expires_at=datetime(2020, 1, 1, tzinfo=UTC))
    a_plan(batch=VoucherBatch(expiry=ended)).show()
    assert "; expired at 2020-01-01T00:00:00Z; " in capsys.readouterr().err


def test_ledger_in_postgresql(rm, served, postgres_url: str) -> None:
    """One that is not made yet is no hindrance; then it is looked into."""
    served.emulator.add_batch("Breakfast", key="B", quantity=9)
    arguments = ("issue", "B", "--ledger", postgres_url)
    ended = rm(*arguments, "--count", 2, "--dry-run")
    assert ended.code == 0
    assert "(not looked into: There is no ledger in this database.)" in ended.err
    assert rm(*arguments, "--count", 2).code == 0
    ended = rm(*arguments, "--count", 3)
    assert (ended.code, len(served.issued())) == (0, 3)
    assert said(ended.err)["Recipients"] == (
        "3, of whom 2 have a voucher in the ledger; 1 to issue"
    )


def test_held_recipients(rm, served, tmp_path: Path) -> None:
    """Who waits for a person, or for the proof of an outcome, is counted by itself."""
    served.emulator.add_batch("Breakfast", key="B", quantity=9)
    ledger = ("--ledger", f"sqlite:///{tmp_path}/a.db", "--settle", "0")
    served.on_issue = lambda issue: (issue(), ok({}, 500))[1]
    assert rm("issue", "B", "--count", 1, *ledger).code == 4
    served.on_issue = lambda issue: issue()
    ended = rm("issue", "B", "--count", 3, *ledger, "--dry-run")
    assert said(ended.err)["Recipients"] == (
        "3, of whom 0 have a voucher in the ledger, 1 wait for a person or for the proof of an "
        "outcome; 2 to issue"
    )


def test_ledger_in_a_variable(rm, served, tmp_path: Path, monkeypatch) -> None:
    """Its URL is not shown."""
    served.emulator.add_batch("Breakfast", key="B", quantity=9)
    monkeypatch.setenv("CAMPAIGN", f"sqlite:///{tmp_path}/a.db")
    ended = rm("issue", "B", "--count", 2, "--ledger", "env:CAMPAIGN", "--dry-run")
    assert said(ended.err)["Ledger"] == "env:CAMPAIGN"


def test_interrupted(rm, served, monkeypatch) -> None:
    """Ctrl-C while the plan is made is 130, and leaves nothing behind."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("rm_voucher.cli.issue.make_plan", interrupted)
    assert rm("issue", "B", "--count", 2).code == 130


@pytest.mark.parametrize(
    ("batch", "words"),
    [
        (
            VoucherBatch(),
            "type not known; when it expires is not known; how many are left is not known",
        ),
        (
            VoucherBatch(
                type=VoucherType.CASH,
                amount_sen=123_456,
                minimum_spend_sen=2_000,
                expiry=Expiry(type=ExpiryType.FIXED, expires_at=NOW),
                balance_quantity=5_000,
            ),
            (
                "CASH, RM 1,234.56 from a spend of RM 20.00; expires at 2126-11-30T00:00:00Z; "
                "5,000 left"
            ),
        ),
        (
            VoucherBatch(
                type=VoucherType.DISCOUNT,
                discount_rate_bp=1_250,
                expiry=Expiry(type=ExpiryType.PERMANENT),
                quantity=7,
                balance_quantity=0,
            ),
            "DISCOUNT, 12.5 %; never expires; 0 of 7 left",
        ),
        (
            VoucherBatch(
                type=VoucherType.GIFT,
                expiry=Expiry(type=ExpiryType.DYNAMIC, days=30, expires_at=NOW),
                is_static=True,
                static_code="A-STATIC-CODE",
                status=BatchStatus("CREATING"),
            ),
            (
                "GIFT; expires 30 days after redemption; static: one code for everybody; its "
                "status is CREATING"
            ),
        ),
    ],
)
def test_batch_in_words(
    capsys: pytest.CaptureFixture[str], batch: VoucherBatch, words: str
) -> None:
    """What is known of it, and what is not and should be. A static code is a code."""
    a_plan(batch=batch).show()
    assert said(capsys.readouterr().err)["Batch"] == f"B; {words}"


def test_static_batch_is_never_short() -> None:
    """Its one code is for everybody."""
    a_plan(batch=VoucherBatch(is_static=True, balance_quantity=0)).refuse_shortage()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "not known: the server's rate is learned on the way. --rate sets one"),
        (
            {"rate_per_s": 0.5, "is_rate_given": True},
            "about 6 s at 0.5 calls a second (--rate), more if answers are slow",
        ),
        (
            {"rate_per_s": 12.3456, "recipients": 100_000},
            (
                "about 2 h 16 min at 12.35 calls a second (shared by its processes), more if "
                "answers are slow"
            ),
        ),
    ],
)
def test_duration(capsys, changes: dict[str, Any], words: str) -> None:
    """It says what it takes for granted."""
    a_plan(**changes).show()
    assert said(capsys.readouterr().err)["Duration"] == words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "about 1 s"),
        (59.1, "about 60 s"),
        (60, "about 1 min"),
        (61, "about 2 min"),
        (3_600, "about 1 h 0 min"),
        (36_000, "about 10 h 0 min"),
    ],
)
def test_in_minutes(seconds: float, words: str) -> None:
    """Rounded up, so that nobody waits longer than was said."""
    assert in_minutes(seconds) == words


@pytest.mark.parametrize(("recipients", "has_hint"), [(100, False), (101, True)])
def test_hint_at_a_ledger(capsys, recipients: int, has_hint: bool) -> None:
    """A large run without one deserves a word."""
    a_plan(recipients=recipients).show()
    assert ("--ledger" in said(capsys.readouterr().err)["Ledger"]) is has_hint


@pytest.mark.parametrize("environment", [Environment.PRODUCTION, Environment.SANDBOX])
def test_colours(capsys, monkeypatch, environment: Environment) -> None:
    """Real vouchers are on red, the others on green; without colours the words say it."""
    plain: list[str] = []
    coloured: list[str] = []
    for colours, lines in ((False, plain), (True, coloured)):
        monkeypatch.setattr(command, "can_draw", lambda colours=colours: colours)
        a_plan(environment=environment).show()
        lines.append(capsys.readouterr().err.splitlines()[0])
    is_real = environment is Environment.PRODUCTION
    assert plain == [
        "Environment: PRODUCTION: real vouchers"
        if is_real
        else "Environment: the sandbox: no real vouchers"
    ]
    assert ("\x1b[37m\x1b[41m" in coloured[0]) is is_real
    assert ("\x1b[30m\x1b[42m" in coloured[0]) is not is_real


def test_nobody_reads_it(monkeypatch) -> None:
    """A terminal that is gone stops no plan."""

    def fail(_: str) -> None:
        raise OSError(5, os.strerror(5))

    monkeypatch.setattr(command, "write_err", fail)
    a_plan().show()


def test_profile_is_named(capsys) -> None:
    """Beside the client id."""
    a_plan(profile="acme").show()
    assert said(capsys.readouterr().err)["Merchant"] == "client id client-id, profile 'acme'"


def test_hostile_label(capsys) -> None:
    """A terminal obeys no label."""
    a_plan(batch=VoucherBatch(label="A\x1b[2J\nB")).show()
    err = capsys.readouterr().err
    assert "Batch: A[2J B (key B); " in err


@pytest.mark.parametrize(
    ("label", "typed"),
    [
        ("Breakfast\u00a0set", "Breakfast set"),
        ("  Breakfast \u3000 set\u200b", "Breakfast set"),
        ("\uff22reakfast set", "Breakfast set"),
        ("\u200b", "B"),
        (" \u00a0\n", "B"),
        ("\u3164\u00ad", "B"),
        ("早餐", "早餐"),
    ],
)
def test_label_is_asked_for_as_it_can_be_typed(monkeypatch, capsys, label, typed) -> None:
    """What a keyboard has not is not asked for; a label that shows nothing is the key."""
    answers: list[str] = []

    def ask(question: str, **_: object) -> str:
        return str(answers.pop())

    monkeypatch.setattr("rm_voucher.cli.asking.ask", ask)
    made = a_plan(batch=VoucherBatch(label=label), environment=Environment.PRODUCTION)
    assert made.label == typed
    for answer in (typed, label if typed != "B" else "B"):
        answers.append(answer)
        made.confirm(yes=False)
    for answer in ("", "\u200b", "\u00a0", f"{typed}s"):
        answers.append(answer)
        with pytest.raises(typer.Exit):
            made.confirm(yes=False)


def test_plan_of_a_batch_that_is_stopped() -> None:
    """Nothing would be issued, and the plan says why; who was given up waits for nothing."""
    plan = a_plan(ledger="sqlite:///a.db", stop_reason="others issue", given_up=1, recipients=3)
    assert command._of_ledger(plan).endswith(
        "; the batch is STOPPED in it, nothing is issued: others issue"
    )
    assert plan.to_issue == 2
    assert command._of_recipients(plan) == (
        "3, of whom 0 have a voucher in the ledger, 1 were given up by a person; 2 to issue"
    )


def test_dry_run_in_quiet(rm, served) -> None:
    """Whoever asks for the plan alone gets it."""
    served.emulator.add_batch("Breakfast", key="B", quantity=10)
    ended = rm("issue", "B", "--count", 2, "--dry-run", "-q")
    assert said(ended.err)["Recipients"] == "2"
