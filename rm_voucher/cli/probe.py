"""rm-voucher probe: says what it will cost, asks, runs the experiments, and writes the report."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import attrs
import typer

from rm_voucher import ConfigurationError, Credentials, Environment, Runtime
from rm_voucher.cli.asking import ask
from rm_voucher.cli.common import examples
from rm_voucher.cli.connect import credentials_and_environment, is_memory
from rm_voucher.cli.interrupts import INTERRUPTED, run_until_interrupted
from rm_voucher.cli.options import EnvironmentOption
from rm_voucher.cli.output import refuse_no_file
from rm_voucher.cli.screen import say, tell
from rm_voucher.emulator import Emulator
from rm_voucher.files import free_name, keep_older, replace_private
from rm_voucher.probe import Options, Probe, Report, Verdict
from rm_voucher.probe.experiment import Experiment
from rm_voucher.probe.probe import cost_of, experiments_of
from rm_voucher.settings import is_harmless
from rm_voucher.text import counted
from rm_voucher.wire.operations import build_issue

_ENDED_EARLY = 1
_CREDENTIALS_REFUSED = 3
_QUANTITY = 50


@examples(
    "rm-voucher probe BREAKFAST --environment memory",
    "rm-voucher probe TRIAL --output report.json --markdown report.md",
)
def probe(
    batch: Annotated[str, typer.Argument(help="The key of a batch that may be used up.")],
    output: Annotated[
        Path | None, typer.Option(help="Write the report to this file, as JSON.")
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Write the report to this file, as Markdown.")
    ] = None,
    measure_idle: Annotated[
        bool,
        typer.Option(
            "--measure-idle",
            help="Also wait, for five minutes at most, until the server closes an idle connection.",
        ),
    ] = False,
    measure_rate: Annotated[
        bool,
        typer.Option(
            "--measure-rate",
            help="Also send requests at a rising rate, up to 100 a second, until the first "
            "throttle.",
        ),
    ] = False,
    static_batch: Annotated[
        str, typer.Option(help="The key of a static batch; one voucher of it is issued.")
    ] = "",
    sold_out_batch: Annotated[str, typer.Option(help="The key of a batch with nothing left.")] = "",
    expired_batch: Annotated[str, typer.Option(help="The key of a batch that has ended.")] = "",
    uploaded_batch: Annotated[
        str,
        typer.Option(help="The key of a batch with uploaded codes; one voucher of it is redeemed."),
    ] = "",
    store_id: Annotated[str, typer.Option(help="A store at which vouchers may be voided.")] = "",
    pin: Annotated[
        bool,
        typer.Option("--pin", help="Ask for the PIN of a user of the portal, to reinstate with."),
    ] = False,
    member: Annotated[
        str,
        typer.Option(
            help="Country code and phone number of a loyalty member, such as 60-123456789; one of "
            "the member's vouchers of the batch is used."
        ),
    ] = "",
    production: Annotated[
        bool,
        typer.Option(
            "--production",
            help="Allow a server that is not the sandbox. The batch's label must be typed, too.",
        ),
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="Don't ask before the sandbox is used.")
    ] = False,
    environment: EnvironmentOption = None,
) -> None:
    """Find out what RM's server really does, with a batch of the sandbox that may be used up."""
    who = None if is_memory(environment) else _who_and_where(environment, production=production)
    build_issue(Environment.SANDBOX, batch)  # it refuses a key that can't be sent
    _refuse_unwritable(output, markdown)
    options = Options(
        production=production,
        static_batch=static_batch,
        sold_out_batch=sold_out_batch,
        expired_batch=expired_batch,
        uploaded_batch=uploaded_batch,
        store_id=store_id,
        member=_member(member),
        measure_rate=measure_rate,
        measure_idle=measure_idle,
        pin=ask("The PIN", hidden=True) if pin else "",
    )
    _state(options)
    if who is None:
        made = _in_memory(batch, options)
    else:
        credentials, where = who
        options = _confirmed(options, where, yes=yes)
        made = Probe(
            credentials, batch, environment=where, options=options, on_progress=_on_progress
        )
    report, code = _run(made)
    tell_report(report)
    _write(output, report.to_json(), report)
    _write(markdown, report.to_markdown().encode(), report)
    if report.stopped:
        say(f"The probe ended early: {report.stopped}.")
    raise typer.Exit(code)


def _who_and_where(named: str | None, *, production: bool) -> tuple[Credentials, Environment]:
    credentials, where = credentials_and_environment(named)
    if not (production or is_harmless(where)):
        raise ConfigurationError(
            "This server is not RM's sandbox, and a probe uses up vouchers: --production allows "
            "it, and asks for the batch's label."
        )
    return credentials, where


def _confirmed(options: Options, where: Environment, *, yes: bool) -> Options:
    """Ask a person whether to go on, after the cost was told and before anything is sent."""
    if not is_harmless(where):
        say("This server has real vouchers, and the probe uses some up.")
        label = ask("To go on, type the batch's label, as in the portal")
        return attrs.evolve(options, batch_label=label)
    if not yes:
        script = "In a script, --yes goes on with the sandbox."
        if ask("Type yes to go on", script=script) != "yes":
            say("Nothing was sent.")
            raise typer.Exit(_ENDED_EARLY)
    return options


def _run(made: Probe) -> tuple[Report, int]:
    """Run it to its end, or until it is interrupted, and return the report and the exit code."""

    async def run() -> None:
        async with made:
            await made.run()

    try:
        run_until_interrupted(run(), say_once="Interrupted: the report has what was found so far.")
    except (KeyboardInterrupt, asyncio.CancelledError):
        return made.report(), INTERRUPTED
    report = made.report()
    if report.refuses_credentials:
        return report, _CREDENTIALS_REFUSED
    return report, _ENDED_EARLY if report.stopped else 0


def _in_memory(batch: str, options: Options) -> Probe:
    """Return a probe of an embedded emulator, where nothing takes time."""
    say("The environment is 'memory', an embedded emulator: this says nothing about RM.")
    clock = _Ahead()
    emulator = Emulator(batches={batch: _QUANTITY}, clock=clock.now)
    return Probe(
        emulator.credentials,
        batch,
        environment=emulator.environment,
        options=options,
        transport=emulator.transport(),
        runtime=Runtime(clock=clock.now, monotonic=clock.now, sleep=clock.sleep),
        on_progress=_on_progress,
    )


class _Ahead:
    """A clock that waiting sets ahead."""

    def __init__(self) -> None:
        self._ahead_s = 0.0

    def now(self) -> float:
        """Return the time."""
        return time.time() + self._ahead_s

    async def sleep(self, seconds: float) -> None:
        """Set the clock ahead, and let other tasks have a turn."""
        self._ahead_s += seconds
        await asyncio.sleep(0)


def _member(text: str) -> tuple[str, str] | None:
    if not text:
        return None
    country_code, dash, phone_number = text.partition("-")
    if not dash or not (country_code.isdecimal() and phone_number.isdecimal()):
        raise ConfigurationError(
            "--member is the country code, a dash and the phone number, such as 60-123456789."
        )
    return country_code, phone_number


def _state(options: Options) -> None:
    """Say what the probe does, and what it costs, before it does."""
    experiments = experiments_of(options)
    say(f"{counted(len(experiments), 'experiment')}:")
    for one in experiments:
        cost = counted(one.cost.calls, "call") if one.cost.calls else "no call"
        cost += f", {counted(one.cost.vouchers, 'voucher')}" if one.cost.vouchers else ""
        say(f"  {one.name} ({cost} at most): {one.asks}{one.undoes and ' '}{one.undoes}")
    say(f"At most {cost_of(experiments)}, repeats included.")


def _on_progress(experiment: Experiment) -> None:
    say(f"{experiment.name} …")


def tell_report(report: Report) -> None:
    """Write the report for a person."""
    for one in report.findings:
        if one.verdict is not Verdict.NOT_DECIDED:
            tell(f"{one.verdict}: {one.subject} = {one.value!r}")
            if one.setting:
                tell(f"    {one.setting}")
    for why, subjects in report.not_decided.items():
        tell(f"{counted(len(subjects), 'finding')} not decided: {why}")
        tell(f"    {', '.join(subjects)}")
    for line in report.guesses_source.splitlines():
        tell(line)
    tell(f"Used: {report.used}.")


def _refuse_unwritable(*paths: Path | None) -> None:
    """Raise `ConfigurationError` before anything is used, unless the reports can be written."""
    named = [path for path in paths if path is not None]
    if len({path.resolve() for path in named}) < len(named):
        raise ConfigurationError(f"--output and --markdown are both {named[0]}: name two files.")
    for path in named:
        with _as_mistake(path):
            refuse_no_file(path)
            tempfile.TemporaryFile(prefix=path.name, dir=path.parent).close()


def _write(path: Path | None, content: bytes, report: Report) -> None:
    """Write a report to its file.

    One that was there before is kept under another name; if the probe ended early, it is the new
    one that has another name.
    """
    if path is None:
        return
    with _as_mistake(path):
        if not path.exists():
            replace_private(path, content)
            say(f"The report is in {path}.")
        elif report.stopped:
            beside = free_name(path)
            replace_private(beside, content)
            say(f"The report is in {beside}; {path} is as it was.")
        else:
            kept = keep_older(path)
            replace_private(path, content)
            say(f"The report is in {path}, and the one that was there before in {kept}.")


@contextlib.contextmanager
def _as_mistake(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        raise ConfigurationError(f"{path} can't be written: {exc.strerror}.") from exc
