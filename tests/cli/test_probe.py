"""``rm-voucher probe``: what it says before, what it asks, what it writes, and how it ends."""

from __future__ import annotations

import functools
import os
import signal

import orjson
import pytest
import typer

from rm_voucher import Runtime
from rm_voucher.cli import probe as command
from rm_voucher.emulator import Emulator
from rm_voucher.probe import Probe
from rm_voucher.probe.catalogue import EXPERIMENTS
from rm_voucher.profile import Profile


@pytest.fixture
def typed(monkeypatch):
    """A person at a terminal, and what they type."""
    answers: list[str] = []
    asked: list[str] = []

    def prompt(question, *, hide_input, err):
        asked.append(f"{question}{' (hidden)' if hide_input else ''}")
        return answers.pop(0)

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("typer.prompt", prompt)
    return answers, asked


@pytest.fixture
def no_waits(monkeypatch):
    """A probe over HTTP that does not wait."""
    clock = command._Ahead()
    runtime = Runtime(clock=clock.now, monotonic=clock.now, sleep=clock.sleep)
    monkeypatch.setattr(command, "Probe", functools.partial(Probe, runtime=runtime))


def test_in_memory(rm, tmp_path):
    """Without an account it says what it would cost, runs at once, and writes both reports."""
    json, markdown = tmp_path / "probe.json", tmp_path / "probe.md"
    ended = rm("probe", "TEA", "--environment", "memory", "--output", json, "--markdown", markdown)
    assert ended.code == 0
    assert "says nothing about RM" in ended.err
    assert "calls and 3 vouchers, repeats included." in ended.err
    assert "confirmed: listing_delay_s = 0.0" in ended.out
    left_out = "it was left out: give --measure-rate, in code Options.measure_rate"
    names = "fact:rate, throttle_code, throttle_status, throttle_retry_after_s"
    assert f"4 findings not decided: {left_out}\n    {names}\n" in ended.out
    assert ended.out.endswith("vouchers.\n")
    chosen = [one for one in EXPERIMENTS if not one.needs]
    for one in chosen:
        assert f"  {one.name} (" in ended.err
        assert f"{one.name} …\n" in ended.err
    assert Emulator.like(json).guesses.page_size == 100
    assert Profile.load(json) == Profile()
    assert markdown.read_text().startswith("# What the probe found out\n")
    assert json.stat().st_mode & 0o777 == 0o600
    assert f"The report is in {json}.\nThe report is in {markdown}.\n" in ended.err
    assert orjson.loads(json.read_bytes())["environment"] == "memory"


def test_all_options(rm):
    """Each option reaches the probe; keys that there are not leave open what they decide."""
    options = [
        "--measure-rate", "--static-batch", "S", "--sold-out-batch", "O", "--expired-batch", "E",
        "--uploaded-batch", "U", "--store-id", "one", "--member", "60-123456789",
    ]  # fmt: skip
    ended = rm("probe", "TEA", "--environment", "memory", *options)
    assert ended.code == 0
    assert "the static batch: VOUCHER_BATCH_NOT_FOUND (HTTP 404)" in ended.out
    assert "the member's vouchers: MEMBER_NOT_FOUND (HTTP 404)" in ended.out
    left_out = [line for line in ended.out.splitlines() if "left out" in line]
    assert {line.split()[-1] for line in left_out} == {"Options.pin", "Options.measure_idle"}
    assert "S" not in [line.strip() for line in ended.out.splitlines()]


def test_pin_is_typed_and_not_shown(rm, typed):
    answers, asked = typed
    answers.append("123456")
    ended = rm("probe", "TEA", "--environment", "memory", "--pin")
    assert ended.code == 0
    assert asked == ["The PIN (hidden)"]
    assert "confirmed: reinstate_to = 'REDEEMED'" in ended.out
    assert "123456" not in ended.out + ended.err


@pytest.mark.parametrize("member", ["60123456789", "60-", "-1", "+60-123"])
def test_a_member_is_written_in_two_parts(rm, member):
    ended = rm("probe", "TEA", "--environment", "memory", f"--member={member}")
    assert ended.code == 2
    assert "such as 60-123456789" in ended.err


def test_a_script_is_not_asked(rm, served):
    """Without a terminal nothing is sent, unless --yes says so."""
    ended = rm("probe", "TEA")
    assert ended.code == 2
    assert "only a person at a terminal" in ended.err
    assert served.emulator.requests.total() == 0


@pytest.mark.parametrize("answer", ["no", "", "y"])
def test_a_person_may_say_no(rm, served, typed, answer):
    answers, asked = typed
    answers.append(answer)
    ended = rm("probe", "TEA")
    assert ended.code == 1
    assert asked == ["Type yes to go on"]
    assert "Nothing was sent." in ended.err
    assert served.emulator.requests.total() == 0


def test_over_http(rm, served, no_waits, tmp_path):
    """The same over a socket: the report says what the server is set to."""
    served.emulator.add_batch("Tea", key="B", quantity=9)
    for _ in range(3):
        served.emulator.state.issue("B")
    ended = rm("probe", "B", "--yes", "--output", tmp_path / "probe.json")
    assert ended.code == 0
    assert "refuted: page_size = 2" in ended.out
    assert "Guesses(\n    " in ended.out
    guesses = orjson.loads((tmp_path / "probe.json").read_bytes())["emulator"]["guesses"]
    assert guesses["page_size"] == 2
    for code in served.issued():
        assert code not in ended.out + ended.err


def test_no_such_batch(rm, served, no_waits):
    ended = rm("probe", "NONE", "--yes")
    assert ended.code == 1
    assert "The probe ended early: the batch can't be read: VOUCHER_BATCH_NOT_FOUND" in ended.err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "--production allows it, and asks for the batch's label"),
        (("--yes",), "--production allows it, and asks for the batch's label"),
        (("--production",), "only a person at a terminal can say that"),
        (("--production", "--yes"), "only a person at a terminal can say that"),
    ],
)
def test_production_takes_a_person(rm, served, options, words):
    """Neither flag nor --yes is enough: nothing is sent."""
    ended = rm("probe", "B", "--environment", "production", *options)
    assert ended.code == 2
    assert words in ended.err
    assert ("repeats included." in ended.err) == ("--production" in options)


def test_production_takes_the_label(rm, served, typed, monkeypatch):
    """What is typed is compared with the batch's label; here it is another one."""
    answers, asked = typed
    answers.append("Coffee")
    seen = []

    def make(credentials, batch, *, environment, options, on_progress):
        seen.append((environment.api_url, options.production, options.batch_label))
        return Probe(
            credentials,
            batch,
            environment=served.emulator.environment,
            options=options,
            transport=served.emulator.transport(),
        )

    served.emulator.add_batch("Tea", key="B", quantity=9)
    monkeypatch.setattr(command, "Probe", make)
    monkeypatch.setattr("rm_voucher.probe.probe.is_harmless", lambda environment: False)
    ended = rm("probe", "B", "--environment", "production", "--production")
    assert asked == ["To go on, type the batch's label, as in the portal"]
    assert seen == [("https://open.revenuemonster.my", True, "Coffee")]
    assert ended.code == 1
    assert "the batch's label is another one than was given" in ended.err
    assert served.issued() == []


@pytest.mark.parametrize("options", [(), ("--environment", "production", "--production")])
def test_the_cost_is_told_before_the_question(rm, served, monkeypatch, capsys, options):
    """A person knows the cost when asked; who breaks off there has sent nothing."""
    told = []

    def prompt(question, *, hide_input, err):
        told.append(capsys.readouterr().err)
        raise typer.Abort

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("typer.prompt", prompt)
    ended = rm("probe", "B", *options)
    assert len(told) == 1
    assert "calls and 3 vouchers, repeats included." in told[0]
    assert ended.code == 130
    assert "Nothing was sent." in ended.err
    assert served.emulator.requests.total() == 0


def test_production_flag_does_not_answer_for_the_sandbox(rm, served):
    """Where there are no real vouchers the question is the same with it as without."""
    ended = rm("probe", "TEA", "--production")
    assert ended.code == 2
    assert "Type yes to go on: only a person" in ended.err
    assert served.emulator.requests.total() == 0


@pytest.fixture
def files(tmp_path):
    """Two good reports of an earlier run."""
    files = tmp_path / "probe.json", tmp_path / "probe.md"
    for file in files:
        file.write_text(f"the good {file.name}")
    return files


def test_an_early_end_takes_no_good_reports_name(rm, served, no_waits, files, monkeypatch):
    """A wrong secret leaves both files as they were, and ends with 3, its reason at the end."""
    monkeypatch.setenv("RM_CLIENT_SECRET", "another-secret-word")
    ended = rm("probe", "B", "--yes", "--output", files[0], "--markdown", files[1])
    assert ended.code == 3
    for file in files:
        assert file.read_text() == f"the good {file.name}"
        beside = file.with_name(f"{file.name}.1")
        assert f"The report is in {beside}; {file} is as it was." in ended.err
        assert "INVALID_CLIENT" in beside.read_text()
    last = ended.err.splitlines()[-1]
    assert last.startswith("The probe ended early: no token: INVALID_CLIENT (HTTP 401)")
    assert not last.endswith("..")
    assert ended.out.count("INVALID_CLIENT") == 1
    assert "Used: 1 call and 0 vouchers." in ended.out


def test_a_wrong_batch_takes_no_good_reports_name(rm, served, no_waits, files):
    """What was decided before the batch is no reason."""
    assert rm("probe", "NONE", "--yes", "--output", files[0]).code == 1
    assert files[0].read_text() == "the good probe.json"


def test_a_new_report_keeps_the_old_one(rm, files):
    """Under the next free number, as the results of an issue are kept."""
    options = "--environment", "memory", "--output", files[0], "--markdown", files[1]
    assert rm("probe", "TEA", *options).code == 0
    ended = rm("probe", "TEA", *options)
    assert ended.code == 0
    for file in files:
        kept = file.with_name(f"{file.name}.2")
        assert f"in {file}, and the one that was there before in {kept}." in ended.err
        assert file.with_name(f"{file.name}.1").read_text() == f"the good {file.name}"
        assert "rm-voucher" in file.read_text()


def test_one_file_for_both_reports(rm, tmp_path):
    options = "--output", tmp_path / "x", "--markdown", f"{tmp_path}/./x"
    ended = rm("probe", "TEA", "--environment", "memory", *options)
    assert ended.code == 2
    assert "name two files" in ended.err


def test_a_pipe_is_no_file(rm, tmp_path):
    """A report takes a file's name, which would be the end of a pipe or a device."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    ended = rm("probe", "TEA", "--environment", "memory", "--output", pipe)
    assert ended.code == 2
    assert f"{pipe} is no plain file: name a file." in ended.err
    assert pipe.is_fifo()


def test_interrupted(rm, served, no_waits, tmp_path):
    """Ctrl-C in an issue: it says so, counts the voucher, and writes the report."""
    served.emulator.add_batch("Tea", key="B", quantity=9)

    def on_issue(issue):
        answer = issue()
        os.kill(os.getpid(), signal.SIGINT)
        return answer

    served.on_issue = on_issue
    ended = rm("probe", "B", "--yes", "--output", tmp_path / "probe.json")
    assert ended.code == 130
    assert "Interrupted: the report has what was found so far." in ended.err
    report = orjson.loads((tmp_path / "probe.json").read_bytes())
    assert report["stopped"] == "it was interrupted"
    assert report["cost"]["used"]["vouchers"] == 1
    assert "and 1 voucher." in ended.out


def test_a_report_that_can_not_be_written(rm, tmp_path):
    ended = rm("probe", "TEA", "--environment", "memory", "--output", tmp_path / "none" / "x")
    assert ended.code == 2
    assert "can't be written: No such file or directory." in ended.err
