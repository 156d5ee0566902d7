"""The report: no secret in it, and what it is good for."""

from __future__ import annotations

import asyncio
import re

import attrs
import orjson
import pytest
from support.files import DOCS
from support.probe_runs import ALL, KEY, MEMBER, PIN, like, stage
from typer import Context
from typer.core import TyperGroup
from typer.main import get_command

from rm_voucher import ConfigurationError, FlowPolicy, Limits, VoucherClient
from rm_voucher.cli.app import app
from rm_voucher.emulator import Emulator, Guesses
from rm_voucher.probe import Cost, Report, Verdict
from rm_voucher.probe.catalogue import EXPERIMENTS, QUESTIONS, WITHOUT_EXPERIMENT
from rm_voucher.probe.findings import Finding
from rm_voucher.probe.options import option_in_words
from rm_voucher.probe.report import clean_text, without_secrets
from rm_voucher.profile import FORMAT, Profile, read_report

QUICK = attrs.evolve(ALL, measure_rate=False)


def texts(report: Report) -> str:
    return report.to_json().decode() + report.to_markdown() + repr(report)


def test_no_secret_is_in_a_report():
    """No code, key, token, PIN, phone number or name, though the server repeats what it is told."""
    there = stage()
    text = texts(there.run(ALL))
    bodies = [orjson.loads(answer.body) for answer in there.wire.answers]
    tokens = [
        body[name] for body in bodies if "accessToken" in body
        for name in ("accessToken", "refreshToken")
    ]  # fmt: skip
    codes = [
        record.code
        for batch in there.emulator.state.stock.ours()
        for record in [*batch.listed, *batch.made]
    ]
    assert len(codes) > 8
    assert len(tokens) == 6
    secrets = [
        *codes, *(code.swapcase() for code in codes), *tokens, there.emulator.client_id,
        there.emulator.client_secret, MEMBER[1], "Aminah", "STATIC-CODE-1", "UPLOADED-1", PIN,
        "PRIVATE KEY", "store-1",
    ]  # fmt: skip
    assert [secret for secret in secrets if secret in text] == []
    assert f'"{KEY}"' not in text


def test_a_server_that_answers_with_a_code_in_the_place_of_an_error_code():
    """What the server says is cleaned of all that the probe knows as secret."""
    finding = Finding(
        experiment="x", subject="x", verdict=Verdict.REFUTED, value=["A-CODE-1", {"A-CODE-1": 1}],
        why="refused with A-CODE-1\x1b[31m",
    )  # fmt: skip
    (cleaned,) = without_secrets([finding], {"A-CODE-1", "K"})
    assert cleaned.value == ["…", {"…": 1}]
    assert cleaned.why == r"refused with …\x1b[31m"
    assert clean_text("K", {"K"}) == "…"
    assert clean_text("KEY", {"K"}) == "KEY"  # a short one would cut everything up


def test_source_of_the_guesses_is_python():
    """What is written for the emulator makes the same guesses."""
    guesses = Guesses(page_size=3, get_methods=["GET"], used_at_digits=3, sends_date=False)
    report = stage(guesses).run(QUICK)
    assert eval(report.guesses_source, {"Guesses": Guesses}) == guesses
    assert report.guesses == guesses
    assert report.guesses_source in report.to_markdown()
    assert stage().run(QUICK).guesses_source == "Guesses()"


def test_profile_for_the_client(tmp_path, monkeypatch, credentials):
    """`from_env` begins with what was found out."""
    guesses = Guesses(
        get_methods=["GET"], older_batch_path=False, signed_path="escaped", max_redeem_codes=50,
        listing_delay_s=60.0,
    )  # fmt: skip
    report = stage(guesses, rate_limit=15.0).run(ALL)
    file = tmp_path / "probe.json"
    file.write_bytes(report.to_json())
    profile = Profile.load(file)
    assert profile == report.profile == Profile(
        get_method="GET", has_batch_path=False, escapes_paths=True, max_redeem_codes=50,
        settle_s=600.0, rate_per_s=10.0,
    )  # fmt: skip
    monkeypatch.setenv("RM_CLIENT_ID", credentials.client_id)
    monkeypatch.setenv("RM_CLIENT_SECRET", credentials.client_secret)
    monkeypatch.setenv("RM_PRIVATE_KEY", credentials.private_key_pem().decode())
    for given in (file, str(file), profile):
        client = VoucherClient.from_env(profile=given)
        assert client.caller.environment.escapes_paths
        assert client.flow.rate_per_s == 10.0
        assert client._max_redeem_codes == 50
        assert client._learnt.get_method == "GET"
        assert not client._learnt.has_batch_path
    assert not VoucherClient.from_env(profile=Profile()).caller.environment.escapes_paths
    own = VoucherClient.from_env(
        profile=profile, flow=FlowPolicy(rate_per_s=7.0), limits=Limits(max_redeem_codes=5)
    )
    assert own.flow.rate_per_s == 7.0
    assert own._max_redeem_codes == 5
    assert own._learnt.get_method == "GET"


def test_profile_spares_requests(tmp_path):
    """A client with the profile asks each thing once."""
    guesses = Guesses(get_methods=["GET"], older_batch_path=False)
    there = stage(guesses)
    report = there.run(QUICK)
    file = tmp_path / "probe.json"
    file.write_bytes(report.to_json())
    emulator = Emulator.like(file, batches={"K": 1})

    async def main() -> None:
        async with emulator.client() as client:
            client._learnt.get_method = Profile.load(file).get_method
            await client.get((await client.issue("K")).code)

    asyncio.run(main())
    assert emulator.requests["get"] == 1


FOUND = {"format": FORMAT, "findings": [{"verdict": "confirmed"}]}


def written(settings: dict[str, object], guesses: dict[str, object]) -> bytes:
    emulator: dict[str, object] = {"guesses": guesses, "disabled_checks": [], "rate_limit": None}
    return orjson.dumps({**FOUND, "settings": settings, "emulator": emulator})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "can't be read"),
        (b"", "is no report"),
        (b"[]", "is no report"),
        (b"{}", "is no report"),
        (b'{"format":"rm-voucher-probe/2"}', "is no report"),
        (b" " * (1024 * 1024) + b"{}", "is no report"),
        (b'{"format":"rm-voucher-probe/1"}', "decided nothing"),
        (b'{"format":"rm-voucher-probe/1","findings":1}', "decided nothing"),
        (b'{"format":"rm-voucher-probe/1","findings":[1,{}]}', "decided nothing"),
        (
            b'{"format":"rm-voucher-probe/1","findings":[{"verdict":"not decided"}]}',
            "decided nothing",
        ),
        (orjson.dumps(FOUND), "has no"),
        (orjson.dumps({**FOUND, "settings": [], "emulator": 1}), "has no"),
        (
            orjson.dumps({**FOUND, "settings": {"new": 1}, "emulator": {}}),
            "unknown settings|fits no emulator",
        ),
        (
            written({"get_method": "PUT"}, {"last_page": "?"}),
            "must be POST or GET|fits no emulator",
        ),
        (
            written({"has_batch_path": 1}, {"new": 1}),
            "must be true or false|fits no emulator",
        ),
    ],
)
def test_a_file_that_is_no_report(content, words, tmp_path):
    """It is refused with a sentence that names the file or the field."""
    file = tmp_path / "probe.json"
    if content is not None:
        file.write_bytes(content)
    for read in (Profile.load, Emulator.like):
        with pytest.raises(ConfigurationError, match=words):
            read(file)


def test_report_is_read_as_it_was_written(tmp_path):
    report = stage(Guesses(page_size=3)).run(QUICK)
    assert like(report, tmp_path / "r.json").emulator.guesses.page_size == 3
    read = read_report(tmp_path / "r.json")
    assert read["cost"]["used"] == attrs.asdict(report.used)
    assert [one["subject"] for one in read["findings"]] == [one.subject for one in report.findings]
    assert read == orjson.loads(report.to_json())
    with pytest.raises(KeyError):
        report.finding("nothing")


def test_early_end_is_in_the_report():
    report = Report(
        findings=(), environment="sandbox", stated=Cost(), used=Cost(), stopped="it rained"
    )
    assert "**It ended early:** it rained." in report.to_markdown()


def open_finding(subject: str, why: str) -> Finding:
    return Finding(experiment="x", subject=subject, verdict=Verdict.NOT_DECIDED, why=why)


def test_a_reason_is_told_once():
    """Findings that are open for one reason are one line; that of an early end is the last."""
    rained = "the probe ended early: it rained"
    findings = [open_finding("a", rained), open_finding("b", "no store"), open_finding("c", rained)]
    report = Report(
        findings=tuple(findings), environment="sandbox", stated=Cost(calls=1), used=Cost(),
        stopped="it rained",
    )  # fmt: skip
    assert list(report.not_decided.items()) == [("no store", ["b"]), (rained, ["a", "c"])]
    lines = report.to_markdown().splitlines()
    assert not [line for line in lines if line.startswith("|")]
    at = lines.index("- 1 finding not decided: no store: `b`")
    assert lines[at + 1] == f"- 2 findings not decided: {rained}: `a`, `c`"
    assert (
        "Used: 0 calls and 0 vouchers. At most, as was stated: 1 call and 0 vouchers." in lines[2]
    )


def test_report_of_an_emulator_in_memory_says_so():
    assert stage().run(QUICK).environment == "memory"


def test_what_was_left_out_names_the_option():
    """As it is given on the command line, and in code."""
    why = stage().run(attrs.evolve(QUICK, sold_out_batch="")).finding("sold_out_code").why
    assert why == "it was left out: give --sold-out-batch, in code Options.sold_out_batch"


def test_options_have_the_names_of_the_commands():
    """The rule by which a report names them."""
    group = get_command(app)
    assert isinstance(group, TyperGroup)
    command = group.get_command(Context(group), "probe")
    assert command is not None
    parameters = command.params
    named = {each.name: f"--{each.name.replace('_', '-')}" for each in parameters}
    for each in ["store_id", *filter(None, (one.needs for one in EXPERIMENTS))]:
        assert option_in_words(each) == f"{named[each]}, in code Options.{each}"
        assert hasattr(ALL, each)
        assert named[each] in next(one.opts for one in parameters if one.name == each)


# The catalogue.


def test_every_guess_has_an_experiment_or_a_reason():
    """No option of `Guesses` is forgotten, and none has both."""
    decided = [
        one.subject for each in EXPERIMENTS for one in each.decides if ":" not in one.subject
    ]
    assert len(decided) == len(set(decided))
    assert not set(decided) & set(WITHOUT_EXPERIMENT)
    assert {*decided, *WITHOUT_EXPERIMENT} == {field.name for field in attrs.fields(Guesses)}
    assert all(why.endswith(".") for why in WITHOUT_EXPERIMENT.values())


def unknown_in_the_docs() -> list[str]:
    """Return the first cells of the table of guesses in docs/api.md."""
    table = (DOCS / "api.md").read_text().partition("## Guesses\n")[2]
    return [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("|")][2:]


def test_every_question_has_an_experiment_or_a_reason():
    """What docs/api.md calls unknown is asked, or it is said why not."""
    names = {each.name for each in EXPERIMENTS}
    page = " ".join((DOCS / "api.md").read_text().split())
    marked = {"its value before redeeming is", "Which status goes with a code is"}
    assert page.count("**?**") == 1 + len(marked)  # the first says what the sign means
    for words in marked:
        assert f"{words} **?**" in page
    assert set(QUESTIONS) == {*unknown_in_the_docs(), *marked}
    for answer in QUESTIONS.values():
        assert answer in names or (" " in answer and answer.endswith("."))


def test_names_and_sentences():
    names = [each.name for each in EXPERIMENTS]
    assert len(names) == len(set(names))
    for each in EXPERIMENTS:
        assert re.fullmatch("[a-z-]+", each.name)
        assert each.asks[-1] in "?."
        assert not each.undoes or each.undoes.endswith(".")
        assert not each.needs or hasattr(ALL, each.needs)
